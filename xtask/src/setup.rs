//! `cargo xtask setup`: finds what building and testing need and installs what is missing. Nothing is
//! remembered between runs; every answer is looked up again, which takes well under a second.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{find, run as run_command};
use crate::linker::{self, Linker};
use crate::privilege::is_root;
use crate::toolchain::{self, Compiler, DATED_NIGHTLY};

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<()> {
    let tools = ebpf_tools()?;
    println!("eBPF compiler: {}", tools.compiler);
    println!("eBPF linker:   {}", tools.linker.described);
    runtime_tools()?;
    println!("runtime tools: {}", RUNTIME_TOOLS.map(|(program, _)| program).join(", "));
    Ok(())
}

/// Compiler and linker that together make BPF objects.
pub(crate) struct EbpfTools {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// Finds them, or installs them.
pub(crate) fn ebpf_tools() -> Result<EbpfTools> {
    let compiler = match toolchain::choose(toolchain::present()) {
        Some(compiler) => compiler,
        None => install_compiler()?,
    };
    let linker = linker::ensure(&compiler)?;
    Ok(EbpfTools { compiler, linker })
}

/// What labs and privileged tests call, and the Debian packages it comes from.
const RUNTIME_TOOLS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("curl", "curl"), ("ethtool", "ethtool"), ("nsenter", "util-linux")];

/// Installs what is missing of [`RUNTIME_TOOLS`].
pub(crate) fn runtime_tools() -> Result<()> {
    let missing: Vec<&str> = RUNTIME_TOOLS
        .into_iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| package)
        .collect();
    install_packages(&missing)
}

/// A Debian package and a file by which to see that it is there.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) proof: &'static str,
}

/// Installs those of the packages whose file is missing.
pub(crate) fn ensure_packages(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !Path::new(package.proof).exists()).collect();
    install_packages(&missing.iter().map(|package| package.name).collect::<Vec<_>>())
}

const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// rustup's dated nightly, else Debian's packages.
fn install_compiler() -> Result<Compiler> {
    println!("no Rust that can compile for BPF yet");
    for compiler in toolchain::present() {
        if let Err(why) = compiler.usable() {
            println!("  {compiler}: {why}");
        }
    }
    for (name, attempt) in
        [("rustup", install_dated_nightly as fn() -> _), ("Debian packages", install_debian)]
    {
        match attempt() {
            Ok(()) => match toolchain::choose(toolchain::present()) {
                Some(compiler) => return Ok(compiler),
                None => println!("{name}: installed, but no usable compiler came of it"),
            },
            Err(error) => println!("{name}: {error:#}"),
        }
    }
    bail!(
        "no Rust that can compile for BPF, and none could be installed. Either of these gives one:\n  \
         {}\n  {}",
        format_args!("rustup {}", dated_nightly_args().join(" ")),
        by_hand(&DEBIAN_COMPILER)
    )
}

fn dated_nightly_args() -> [&'static str; 8] {
    [
        "toolchain",
        "install",
        DATED_NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--no-self-update",
    ]
}

/// Adds a toolchain of its own name. `install nightly` would instead update the developer's nightly, and an
/// update that is interrupted leaves that toolchain without its compiler.
fn install_dated_nightly() -> Result<()> {
    if find("rustup").is_none() {
        bail!("rustup is not installed");
    }
    let mut rustup = Command::new("rustup");
    rustup.args(dated_nightly_args()).env_remove("RUSTUP_TOOLCHAIN");
    run_command(&mut rustup)
}

fn install_debian() -> Result<()> {
    install_packages(&DEBIAN_COMPILER)
}

/// Installs Debian packages as root; otherwise the error is the command to run.
fn install_packages(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !is_root()? || find("apt-get").is_none() {
        bail!("missing {}; run: {}", packages.join(", "), by_hand(packages));
    }
    println!("installing {}", packages.join(", "));
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run_command(apt().args(["update", "-q"]))
        .and_then(|()| {
            run_command(apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(packages))
        })
        .with_context(|| format!("by hand: {}", by_hand(packages)))
}

fn by_hand(packages: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install {} (Debian; elsewhere the equivalent)",
        packages.join(" ")
    )
}
