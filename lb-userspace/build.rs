//! Puts the compiled eBPF programs where `src/object.rs` embeds them from. Without them it embeds nothing, so that
//! clippy and the host tests need no eBPF compiler; `cargo xtask build` makes them and builds again.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The objects, and what names another one than `cargo xtask build` makes. That must exist.
const OBJECTS: [(&str, &str); 2] = [("lb.o", "LB_EBPF_OBJECT"), ("bench.o", "LB_BENCH_OBJECT")];

fn main() {
    for (name, replacement) in OBJECTS {
        embed(name, replacement);
    }
}

fn embed(name: &str, replacement: &str) {
    println!("cargo::rerun-if-env-changed={replacement}");
    let object = match env::var_os(replacement) {
        Some(path) => PathBuf::from(path),
        None => {
            let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf").join(name);
            if !object.exists() {
                place_empty(&object);
            }
            object
        }
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(name);
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
