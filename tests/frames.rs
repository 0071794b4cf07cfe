//! Recorded frames of IPVS, group D, replayed: every frame that leaves must be the recorded one, byte for byte.
//!
//! `LB_TRACES` and `LB_TRACES_ONLY` as for `fidelity`.

use lb_tests::engine::Host;
use lb_tests::replay::{FEATURES, SIZES, report};
use lb_tests::traces::{Recording, store};

fn recordings() -> Vec<Recording> {
    store::chosen(|group| group == "D")
}

#[test]
fn the_library_sends_the_frames_ipvs_sent() {
    report::replay(&recordings(), &mut Host::new(SIZES, FEATURES));
}

#[cfg(feature = "privileged")]
#[test]
fn the_loaded_program_sends_the_frames_ipvs_sent() {
    report::replay(&recordings(), &mut lb_tests::engine::Kernel::new(SIZES, FEATURES));
}
