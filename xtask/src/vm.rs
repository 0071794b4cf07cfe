//! `cargo xtask vm-test`: the tests of `tests/vm` on Debian's kernel, in the virtual machine of `tests/oracle`.

use std::collections::HashMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::command::{Build, host_cargo, root, run, without_leaks};
use crate::ebpf;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Seconds the virtual machine may take: several times what it does on a busy machine.
const TIMEOUT: &str = "7200";
/// The virtual machine's last words, with the exit status of what ran in it.
const END: &str = "ORACLE-END rc=";

#[derive(Args)]
pub(crate) struct VmTest {
    /// Passed to the test program: a name to filter by, --nocapture, …
    #[arg(last = true)]
    args: Vec<String>,
}

impl VmTest {
    pub(crate) fn run(&self) -> Result<()> {
        if ARCH != "x86_64" {
            bail!(
                "the virtual machine is of x86_64 and takes its programs from this machine, which is {ARCH}"
            );
        }
        let oracle = root().join("tests/oracle");
        let mut build_vm = Command::new(oracle.join("build-vm"));
        without_leaks(&mut build_vm, Build::Host);
        run(&mut build_vm).context("building the virtual machine")?;
        ebpf::objects()?;
        let mut programs = build().context("building what runs in the virtual machine")?;
        let folder = root().join("target/vm");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut boot = Command::new(oracle.join("run"));
        boot.args(["--verbose", "--timeout", TIMEOUT, "--shell"]).arg(root().join("tests/vm/guest"));
        for name in ["lb", "vm"] {
            let built = programs.remove(name).with_context(|| format!("cargo named no program {name}"))?;
            boot.arg(stripped(&built, &folder.join(name))?);
        }
        let words = folder.join("args");
        fs::write(&words, self.args.join(" ")).with_context(|| format!("writing {}", words.display()))?;
        // What the machine prints is shown as it comes on standard error, and all of it once more at its end.
        let output =
            boot.arg(words).stderr(Stdio::inherit()).output().context("starting the virtual machine")?;
        if !output.status.success() {
            bail!("the virtual machine failed: {}", output.status);
        }
        verdict(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Builds the test program and `lb` for a machine without shared libraries, and says where they are, by name.
fn build() -> Result<HashMap<String, PathBuf>> {
    let mut cargo = host_cargo();
    // Optimised: what emulates the machine makes it ten times slower. With a target named, build scripts are built as
    // ever, without these flags.
    cargo
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .args(["-p", "lb-tests", "-p", "lb-userspace", "--features=lb-tests/vm", "--test=vm", "--bin=lb"]);
    let output = cargo.stderr(Stdio::inherit()).output().context("starting cargo")?;
    if !output.status.success() {
        bail!("cargo failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout).context("reading what cargo built")?;
    Ok(text.lines().filter_map(executable).collect())
}

/// Name and place of a program, from one of cargo's messages.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    Some((name.to_owned(), message["executable"].as_str()?.into()))
}

/// A copy without debug information: all of it is in the virtual machine's memory.
fn stripped(built: &Path, copy: &Path) -> Result<PathBuf> {
    run(Command::new("strip").arg("--strip-debug").arg(built).arg("-o").arg(copy))?;
    Ok(copy.to_owned())
}

/// What became of the tests, from all that the machine printed.
fn verdict(printed: &str) -> Result<()> {
    let end = printed.lines().rev().find_map(|line| line.trim().strip_prefix(END));
    match end {
        Some("0") => Ok(()),
        Some(status) => bail!("tests failed in the virtual machine (exit status {status})"),
        None => bail!("the virtual machine stopped before the tests ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_said_so_has_passed() {
        for (printed, said) in [
            ("6.1.0\r\ntest result: ok.\r\nORACLE-END rc=0\r\n12.3 0.4\r\n", None),
            ("test result: FAILED.\r\nORACLE-END rc=101\r\n", Some("exit status 101")),
            ("test result: ok.\r\nKernel panic\r\n", Some("stopped before")),
        ] {
            let error = verdict(printed).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), said.is_some(), "{printed}: {error:?}");
            assert!(error.unwrap_or_default().contains(said.unwrap_or_default()), "{printed}");
        }
    }

    #[test]
    fn programs_are_found_among_cargo_s_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"lb"},"executable":"/t/lb"}"#;
        assert_eq!(executable(message), Some(("lb".to_owned(), "/t/lb".into())));
        let library = r#"{"reason":"compiler-artifact","target":{"name":"lb_common"},"executable":null}"#;
        assert_eq!(executable(library), None);
    }
}
