//! Every case through the program in the kernel, with the same expectations.

use std::cell::RefCell;
use std::collections::HashMap;

use lb_tests::cases;
use lb_tests::engine::{Engine, Fixture, Host, Kernel, Output, SIZES};
use lb_tests::fuzz::{Target, path};
use lb_tests::random::{self, Event};
use lb_tests::state::State;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[test]
fn every_case_holds_in_the_kernel() {
    // Loading takes longer than a case, so an engine plays all cases it is fit for.
    let mut engines: Vec<Kernel> = Vec::new();
    let mut failures = Vec::new();
    for case in cases::all() {
        let (sizes, features) = (case.sizes, case.fixture.features);
        let fits = |engine: &Kernel| engine.sizes() == sizes && engine.features() == features;
        let at = engines.iter().position(fits).unwrap_or_else(|| {
            engines.push(Kernel::new(sizes, features));
            engines.len() - 1
        });
        failures.extend(case.run(&mut engines[at]).err());
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// Plays a life on both engines, and looks at every packet and at all that the maps hold in the end.
fn same(kernel: &mut Kernel, fixture: &Fixture, life: &[Event]) -> Result<(), TestCaseError> {
    kernel.clear();
    fixture.write(kernel, None);
    let mut host = Host::new(SIZES, fixture.features);
    fixture.write(&host, None);
    let mut outputs = Vec::new();
    for event in life {
        let (Some(there), Some(here)) = (random::apply(kernel, event), random::apply(&mut host, event))
        else {
            continue;
        };
        let here_masked = random::masked(&here);
        let expected = Output { egress: there.egress.and(here_masked.egress), ..here_masked };
        prop_assert_eq!(random::masked(&there), expected, "the kernel's output, and the library's");
        outputs.push(there);
    }
    random::check(kernel, life, &outputs)?;
    prop_assert_eq!(State::of(kernel), State::of(&host));
    Ok(())
}

#[test]
fn whatever_comes_the_kernel_does_as_the_library() {
    let fixture = random::everything();
    let kernel = RefCell::new(Kernel::new(SIZES, fixture.features));
    let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
    let same = |life: Vec<Event>| same(&mut kernel.borrow_mut(), &fixture, &life);
    if let Err(error) = TestRunner::new(config).run(&random::life(), same) {
        panic!("{error}");
    }
}

#[test]
fn what_the_fuzzer_kept_the_kernel_does_as_the_library() {
    let mut kernels: HashMap<u32, Kernel> = HashMap::new();
    // Jiffies of a kernel and of the library are not equally long: no wait may end close to a flow's.
    let far = |event| match event {
        Event::Wait(_) => Event::Wait(random::LONG),
        Event::Frame(frame) => Event::Frame(frame),
    };
    for (name, input) in Target::Path.kept().expect("the corpus is in the repository") {
        let (fixture, life) = path::story(&input);
        let life: Vec<Event> = life.into_iter().map(far).collect();
        let kernel = kernels.entry(fixture.features).or_insert_with(|| Kernel::new(SIZES, fixture.features));
        if let Err(error) = same(kernel, fixture, &life) {
            panic!("{name}: {error}");
        }
    }
}
