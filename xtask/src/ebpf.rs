//! `cargo xtask build`: the eBPF programs, then the host side around it.

use std::env::consts::ARCH;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{self, host_cargo, root, without_leaks};
use crate::setup::{self, EbpfTools};

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";
/// Binaries of `lb-ebpf`, and the objects `lb-userspace`'s build script looks for: the director, and what `lb bench`
/// measures it with.
const OBJECTS: [(&str, &str); 2] = [("lb-ebpf", "lb.o"), ("lb-bench", "bench.o")];

#[derive(Args)]
pub(crate) struct Build {
    /// Build the host side optimised; the eBPF program always is
    #[arg(long)]
    pub(crate) release: bool,
}

impl Build {
    pub(crate) fn run(&self) -> Result<()> {
        objects()?;
        let mut cargo = host_cargo();
        // Not xtask: it is running, and cargo has just built it.
        cargo.args(["build", "--workspace", "--exclude", "xtask"]);
        if self.release {
            cargo.arg("--release");
        }
        command::run(&mut cargo).context("building the host side")
    }
}

/// Builds the programs and puts them where `lb-userspace`'s build script looks for them: in `target/bpf`.
pub(crate) fn objects() -> Result<()> {
    let tools = setup::ebpf_tools()?;
    // Its own target folder: another compiler in the host's would rebuild everything at every change of sides.
    let folder = root().join("target/bpf");
    command::run(&mut cargo_build(&tools, &folder)).context("building the eBPF programs")?;
    let built = folder.join(TARGET).join(PROFILE);
    OBJECTS.iter().try_for_each(|(binary, object)| place(&built.join(binary), &folder.join(object)))
}

fn cargo_build(EbpfTools { compiler, linker }: &EbpfTools, folder: &Path) -> Command {
    let mut cargo = Command::new(&compiler.cargo);
    without_leaks(&mut cargo, command::Build::Bpf);
    // In the encoded form a path may hold spaces. `v3` is fetch-and-add and 32-bit arithmetic, of Linux 5.12.
    // aya-ebpf takes the layout of the kernel's `pt_regs` from `bpf_target_arch`.
    let flags = [
        "-Ctarget-cpu=v3".into(),
        "-Cdebuginfo=2".into(),
        format!("-Clinker={}", linker.program.display()),
        "-Clink-arg=--btf".into(),
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
    ];
    cargo
        .current_dir(root())
        .args(["build", "--package", "lb-ebpf"])
        .args(OBJECTS.iter().flat_map(|(binary, _)| ["--bin", *binary]))
        .args(["--target", TARGET, "--profile", PROFILE, "-Zbuild-std=core", "--target-dir"])
        .arg(folder)
        .env("RUSTC", &compiler.rustc)
        // Lets Debian's stable accept `-Z`; makes no difference to a nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if let Some(llvm) = &linker.llvm_folder {
        cargo.env("LD_LIBRARY_PATH", llvm);
    }
    cargo
}

/// Copies the object, unless it is already there: a new time stamp would rebuild the host side.
fn place(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    if fs::read(object).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    // Written aside and renamed, so that a build running meanwhile never embeds half of it.
    let aside = object.with_extension(format!("{}.new", std::process::id()));
    fs::write(&aside, bytes).with_context(|| format!("writing {}", aside.display()))?;
    fs::rename(&aside, object).with_context(|| format!("replacing {}", object.display()))
}
