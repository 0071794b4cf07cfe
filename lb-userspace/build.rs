//! Puts the compiled eBPF program where `src/object.rs` embeds it from. Without one it embeds nothing, so that
//! clippy and the host tests need no eBPF compiler; `cargo xtask build` makes one and builds again.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Names another object than the one `cargo xtask build` makes. It must exist.
const OVERRIDE: &str = "LB_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let object = match env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => {
            let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/lb.o");
            if !object.exists() {
                place_empty(&object);
            }
            object
        }
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("lb.o");
    fs::copy(&object, &out)
        .unwrap_or_else(|error| panic!("copying {} to {}: {error}", object.display(), out.display()));
}

/// Cargo runs this script at every build while a watched file is missing, and would compile the crate each
/// time; so an empty one stands in. Its time stamp is old, or cargo would take it for a change after this run.
fn place_empty(object: &Path) {
    let folder = object.parent().expect("the object is in a folder");
    fs::create_dir_all(folder).unwrap_or_else(|error| panic!("creating {}: {error}", folder.display()));
    File::create_new(object)
        .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH))
        .unwrap_or_else(|error| panic!("creating {}: {error}", object.display()));
}
