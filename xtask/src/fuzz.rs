//! `cargo xtask fuzz`: byte strings nobody thought of through the library, under AddressSanitizer.

use std::path::{self, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::command::{Build, capture, host_cargo, root, run, without_leaks};
use crate::setup::{self, Package};

/// The cargo-fuzz that is known to do; it needs no more than the stable compiler, told to take `-Z`.
const CARGO_FUZZ: &str = "0.13.2";

/// Bytes of an input: some dozens of packets.
const LONGEST: u32 = 4096;

/// Seconds an input may take; they take milliseconds.
const TIMEOUT: u32 = 20;

#[derive(Args)]
pub(crate) struct Fuzz {
    /// What to fuzz; each target in turn without it
    #[arg(long)]
    target: Option<Target>,
    /// How long, for each target
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Afterwards keep in the repository what reaches everything that was reached, as tests/fuzz/TARGET.tar.xz
    #[arg(long)]
    keep: bool,
    /// Play this input alone: a finding, say
    #[arg(long, value_name = "FILE", requires = "target")]
    play: Option<PathBuf>,
    /// Passed to libFuzzer: -jobs=2, -use_value_profile=1, …
    #[arg(last = true)]
    args: Vec<String>,
}

/// The fuzzer's targets, by the names of their programs.
#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// The director's path
    Path,
    /// The real server's decapsulator
    Decap,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Decap => "decap",
        }
    }
}

impl Fuzz {
    pub(crate) fn run(&self) -> Result<()> {
        let cargo_fuzz = cargo_fuzz()?;
        setup::ensure_packages(&[Package { name: "g++", proof: "/usr/bin/c++" }])?;
        let targets = self.target.as_ref().map_or(Target::value_variants(), std::slice::from_ref);
        for target in targets {
            self.fuzz(&cargo_fuzz, *target)?;
        }
        Ok(())
    }

    fn fuzz(&self, cargo_fuzz: &Path, target: Target) -> Result<()> {
        if let Some(finding) = &self.play {
            let finding = path::absolute(finding).context("finding the input")?;
            return run(fuzzer(cargo_fuzz, "run", target).arg(finding));
        }
        let inputs = root().join("target/fuzz/inputs").join(target.name());
        corpus("unpack", target, &inputs)?;
        run(fuzzer(cargo_fuzz, "run", target)
            .arg(&inputs)
            .arg("--")
            .arg(format!("-max_total_time={}", u64::from(self.minutes) * 60))
            .args([format!("-max_len={LONGEST}"), format!("-timeout={TIMEOUT}")])
            .arg("-print_final_stats=1")
            .args(&self.args))?;
        if self.keep {
            run(fuzzer(cargo_fuzz, "cmin", target).arg(&inputs))?;
            corpus("pack", target, &inputs)?;
        }
        Ok(())
    }
}

/// Between the repository and the fuzzer's folder.
fn corpus(task: &str, target: Target, folder: &Path) -> Result<()> {
    let program = ["run", "--quiet", "--package", "lb-tests", "--bin", "lb-corpus", "--"];
    run(host_cargo().args(program).args([task, target.name()]).arg(folder))
}

/// cargo-fuzz in the workspace. Its compiler is the one rust-toolchain.toml names; its builds are kept apart from the
/// others, whose flags are not these.
fn fuzzer(cargo_fuzz: &Path, task: &str, target: Target) -> Command {
    let mut command = Command::new(cargo_fuzz);
    without_leaks(command.current_dir(root()), Build::Host);
    command.env("RUSTC_BOOTSTRAP", "1").args(["fuzz", task, "--fuzz-dir", "tests/fuzz"]);
    command.args(["--features", "libfuzzer", "--sanitizer", "address", "--target-dir", "target/fuzz"]);
    command.arg(target.name());
    command
}

/// Where cargo-fuzz is; it is built if need be.
fn cargo_fuzz() -> Result<PathBuf> {
    let tools = root().join("target/tools");
    let program = tools.join("bin/cargo-fuzz");
    let is_there = || {
        program.is_file()
            && capture(Command::new(&program).args(["fuzz", "--version"]))
                .is_ok_and(|said| said == format!("cargo-fuzz {CARGO_FUZZ}"))
    };
    if !is_there() {
        println!("building cargo-fuzz {CARGO_FUZZ}, once: about a minute");
        let install = ["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--force", "--root"];
        run(host_cargo().args(install).arg(&tools)).context("installing cargo-fuzz")?;
        if !is_there() {
            bail!("{} does not run as version {CARGO_FUZZ} after installing it", program.display());
        }
    }
    Ok(program)
}
