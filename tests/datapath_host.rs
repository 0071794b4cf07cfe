//! Every case through the library on the host.

use lb_tests::cases;
use lb_tests::engine::Host;

#[test]
fn every_case_holds_on_the_host() {
    let failures: Vec<String> = cases::all()
        .iter()
        .filter_map(|case| case.run(&mut Host::new(case.sizes, case.fixture.features)).err())
        .collect();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}
