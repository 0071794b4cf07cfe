//! Recorded decisions of IPVS, groups A, B and C, replayed: every one must be this director's too.
//!
//! `LB_TRACES` names other folders of recordings, separated by colons; `LB_TRACES_ONLY` takes only those with this in
//! their name.

use lb_tests::engine::Host;
use lb_tests::replay::{FEATURES, SIZES, report};
use lb_tests::traces::{Recording, store};

/// All but the groups with a test of their own: frames and ipvsadm's texts.
fn recordings() -> Vec<Recording> {
    store::chosen(|group| !matches!(group, "D" | "E"))
}

#[test]
fn the_library_decides_as_ipvs_did() {
    report::replay(&recordings(), &mut Host::new(SIZES, FEATURES));
}

#[cfg(feature = "privileged")]
#[test]
fn the_loaded_program_decides_as_ipvs_did() {
    report::replay(&recordings(), &mut lb_tests::engine::Kernel::new(SIZES, FEATURES));
}
