//! The short way of plain packets does as the long one: the same random lives through the library with and without it.

use lb_common::settings::feature;
use lb_tests::engine::{Host, SIZES};
use lb_tests::random;
use lb_tests::state::State;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_short_way_does_as_the_long_one(life in random::life(), denies: bool) {
        let mut fixture = random::everything();
        if !denies {
            fixture.denied.clear();
        }
        // As many new flows as come, so that enough of them are known afterwards.
        fixture.new_flows_per_second = 0;
        fixture.source_flows_per_second = u32::MAX;
        let mut short = Host::new(SIZES, feature::ALL & !feature::ADMISSION);
        let mut long = Host::new(SIZES, feature::ALL & !feature::ADMISSION).by_the_long_way();
        fixture.write(&short, None);
        fixture.write(&long, None);
        for event in &life {
            prop_assert_eq!(random::apply(&mut short, event), random::apply(&mut long, event));
        }
        prop_assert_eq!(State::of(&short), State::of(&long));
    }
}
