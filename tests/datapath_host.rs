//! Every case through the library on the host.

use lb_tests::cases;
use lb_tests::engine::{Host, SIZES};

#[test]
fn every_case_holds_on_the_host() {
    let failures: Vec<String> = cases::all()
        .iter()
        .filter_map(|case| case.run(&mut Host::new(SIZES, case.fixture.features)).err())
        .collect();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}
