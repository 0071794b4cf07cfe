//! Every case through the library on the host.

use lb_tests::engine::{Host, SIZES};
use std::collections::BTreeSet;

use lb_common::counters::Reason;
use lb_tests::cases::{self, Case};
use lb_tests::random;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

#[test]
fn every_case_holds_on_the_host() {
    let failures: Vec<String> = cases::all()
        .iter()
        .filter_map(|case| case.run(&mut Host::new(case.sizes, case.fixture.features)).err())
        .collect();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// Reasons no frame leads to: a program that is being replaced, a driver without headroom.
const UNREACHED: [Reason; 2] = [Reason::DroppedNoStage, Reason::DroppedNoRoom];

fn reached(reasons: &BTreeSet<&str>) {
    let expected: BTreeSet<&str> =
        Reason::ALL.iter().filter(|reason| !UNREACHED.contains(reason)).map(|reason| reason.name()).collect();
    let missing: Vec<_> = expected.difference(reasons).collect();
    assert!(missing.is_empty(), "nothing ends as {missing:?}");
}

#[test]
fn every_reason_has_a_case() {
    reached(&cases::all().iter().flat_map(Case::reasons).map(Reason::name).collect());
}

#[test]
fn random_lives_lead_everywhere() {
    let mut runner = TestRunner::deterministic();
    let mut reasons = BTreeSet::new();
    let fixture = random::everything();
    for _ in 0..300 {
        let life = random::life().new_tree(&mut runner).expect("every life can be made").current();
        let mut engine = Host::new(SIZES, fixture.features);
        fixture.write(&engine, None);
        let outputs = life.iter().filter_map(|event| random::apply(&mut engine, event));
        reasons.extend(outputs.map(|output| output.reason.name()));
    }
    reached(&reasons);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_counted_once_and_keeps_the_books(life in random::life()) {
        let fixture = random::everything();
        let mut engine = Host::new(SIZES, fixture.features);
        fixture.write(&engine, None);
        let outputs: Vec<_> = life.iter().filter_map(|event| random::apply(&mut engine, event)).collect();
        random::check(&engine, &life, &outputs)?;
    }
}
