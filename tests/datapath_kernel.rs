//! Every case through the program in the kernel, with the same expectations.

use std::collections::BTreeMap;

use lb_tests::cases;
use lb_tests::engine::{Kernel, SIZES};

#[test]
fn every_case_holds_in_the_kernel() {
    let mut engines: BTreeMap<u32, Kernel> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in cases::all() {
        let features = case.fixture.features;
        let engine = engines.entry(features).or_insert_with(|| Kernel::new(SIZES, features));
        failures.extend(case.run(engine).err());
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}
