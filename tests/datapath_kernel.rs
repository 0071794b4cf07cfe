//! Every case through the program in the kernel, with the same expectations.

use lb_tests::cases;
use lb_tests::engine::{Engine, Kernel};

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
