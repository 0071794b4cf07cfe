//! The program as the control plane loads it: the verifier takes it whatever it is asked to do, the maps are found
//! again, and a start that fails leaves nothing behind. Needs root.

use lb_common::settings::feature;
use lb_userspace::model::{FlowTables, Interface};
use lb_userspace::object;
use lb_userspace::xdp::{Datapath, Sizes, XdpError};
use std::path::{Path, PathBuf};

/// A folder on the bpffs, gone at the end.
struct Pin(PathBuf);

impl Pin {
    fn new(name: &str) -> Self {
        Self(PathBuf::from(format!("/sys/fs/bpf/lb-test-{}-{name}", std::process::id())))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn small() -> Sizes {
    Sizes::of(FlowTables { ipv4: 1 << 10, ipv6: 1 << 10 })
}

fn load(pin: &Path, features: u32) -> Result<Datapath, XdpError> {
    assert!(object::embedded().is_ok(), "build the program first: cargo xtask build");
    Datapath::load(pin, small(), features)
}

#[test]
fn the_verifier_takes_the_program_with_every_single_feature_without_and_with_all() {
    let single = (0..32).map(|bit| 1 << bit).filter(|bit| feature::ALL & bit != 0);
    let mut refused = Vec::new();
    for features in [0, feature::ALL].into_iter().chain(single) {
        let pin = Pin::new(&format!("features-{features}"));
        if let Err(error) = load(&pin.0, features) {
            refused.push(format!("features {features:#x}: {error}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn the_clock_ticks_at_a_rate_a_kernel_is_built_with() {
    let pin = Pin::new("clock");
    let mut datapath = load(&pin.0, feature::ALL).unwrap();
    let clock = datapath.clock().unwrap();
    assert!([100, 250, 300, 1000].contains(&clock.learn_hz().unwrap()));
    let (first, second) = (clock.now().unwrap(), clock.now().unwrap());
    assert!(first <= second && second - first < 1000);
}

#[test]
fn a_datapath_that_was_never_attached_leaves_nothing_pinned() {
    let pin = Pin::new("unattached");
    let mut datapath = load(&pin.0, feature::ALL).unwrap();
    assert!(pin.0.join("FLOWS4").exists());
    let second = load(&pin.0, feature::ALL).err().map(|error| error.to_string());
    assert!(second.as_ref().is_some_and(|error| error.starts_with("another lb is running")), "{second:?}");
    let nowhere = Interface { name: "no-such-if".into(), mode: Default::default() };
    let error = datapath.attach(&[nowhere]).unwrap_err().to_string();
    assert!(error.starts_with("there is no interface no-such-if; there are "), "{error}");
    drop(datapath);
    assert!(!pin.0.exists());
}
