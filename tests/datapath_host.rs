//! Every case through the library on the host.

use lb_tests::engine::{Engine, Fixture, Host, Plan, SIZES, dr, tcp};
use lb_tests::packet::{DIRECTOR_MAC, ROUTER_MAC, eth};
use std::collections::BTreeSet;

use lb_common::counters::Reason;
use lb_ebpf::frame::Buffer;
use lb_tests::cases::{self, Case};
use lb_tests::fuzz::{Target, path};
use lb_tests::random::{self, Event};
use lb_tests::state::State;
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

/// Some drivers leave hardly more than headers in the first buffer.
#[test]
fn an_answer_is_made_of_what_the_first_buffer_holds_or_not_at_all() {
    let fixture = Fixture::new().service(tcp("192.0.2.1", 80).plan(Plan::cycle(&[1]))).server(dr("10.0.1.1"));
    let packet = |ttl| eth().ipv4("203.0.113.1", "192.0.2.1").ttl(ttl).tcp(40001, 80).syn().payload_len(3000);
    let mut engine = Host::new(SIZES, fixture.features);
    fixture.write(&engine, None);
    let output = engine.run_in(Buffer::split(&packet(64).build(), 14 + 548 - 1));
    assert_eq!(output.reason, Reason::DroppedNoRoom);
    for first in [14 + 548, 2000] {
        let output = engine.run_in(Buffer::split(&packet(64).build(), first));
        assert_eq!(output.reason, Reason::RepliedTooBig);
        let id = u32::from(u16::from_be_bytes([output.bytes[18], output.bytes[19]]));
        let ip = eth().from(DIRECTOR_MAC).to(ROUTER_MAC).ipv4("192.0.2.1", "203.0.113.1");
        let ip = ip.ttl(64).tos(0xc0).df(false).id(id);
        let expected = ip.icmp_error(3, 4, 1500, &packet(63).ip_bytes()[..548]).build();
        assert_eq!(output.bytes, expected, "{first} bytes in the first buffer");
    }
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

/// What the packets of a life end for.
fn ends(fixture: &Fixture, life: &[Event]) -> Vec<&'static str> {
    let mut engine = Host::new(SIZES, fixture.features);
    fixture.write(&engine, None);
    let outputs = life.iter().filter_map(|event| random::apply(&mut engine, event));
    outputs.map(|output| output.reason.name()).collect()
}

#[test]
fn random_lives_lead_everywhere() {
    let mut runner = TestRunner::deterministic();
    let mut reasons = BTreeSet::new();
    let fixture = random::everything();
    for _ in 0..300 {
        let life = random::life().new_tree(&mut runner).expect("every life can be made").current();
        reasons.extend(ends(&fixture, &life));
    }
    reached(&reasons);
}

/// What is wrong with an input, the fuzzer's own target says.
#[test]
fn what_the_fuzzer_kept_holds_on_the_host_and_leads_everywhere() {
    let mut reasons = BTreeSet::new();
    for input in Target::Path.kept().expect("the corpus is in the repository").values() {
        Target::Path.play(input);
        let (fixture, life) = path::story(input);
        reasons.extend(ends(fixture, &life));
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_host_that_was_cleared_is_as_a_new_one(before in random::life(), life in random::life()) {
        let fixture = random::everything();
        let play = |engine: &mut Host, life: &[Event]| -> Vec<_> {
            fixture.write(engine, None);
            life.iter().filter_map(|event| random::apply(engine, event)).collect()
        };
        let mut new = Host::new(SIZES, fixture.features);
        let mut cleared = Host::new(SIZES, fixture.features);
        play(&mut cleared, &before);
        cleared.clear();
        prop_assert_eq!(State::of(&cleared), State::default());
        prop_assert_eq!(play(&mut cleared, &life), play(&mut new, &life));
        prop_assert_eq!(State::of(&cleared), State::of(&new));
    }
}
