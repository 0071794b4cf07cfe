//! Running other programs: what they print is shown or captured, failures name the command, and what
//! `cargo xtask` got from its own cargo does not leak into theirs.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    // At run time first: with a shared target folder, the binary may have been built by another checkout.
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf)
}

/// Who a nested cargo builds for, which decides what of the environment it may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// This machine: the user's own flags stay.
    Host,
    /// The BPF virtual machine: flags and compiler meant for the host would break it.
    Bpf,
}

/// A cargo for this machine, in the workspace, chosen afresh by rust-toolchain.toml.
pub(crate) fn host_cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    without_leaks(&mut command, Build::Host);
    command
}

/// Removes from the command's environment what must not reach it.
pub(crate) fn without_leaks(command: &mut Command, build: Build) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| leaks(name, build)) {
            command.env_remove(name);
        }
    }
}

/// Whether a variable, set for this process, would mislead a cargo started by it.
fn leaks(name: &str, build: Build) -> bool {
    // Set by rustup's proxy and by `cargo run` for xtask itself. Left in place they pin the nested cargo to
    // this one's toolchain and jobserver, and rebuild crates whose build scripts watch them.
    const OURS: [&str; 9] = [
        "CARGO",
        "CARGO_CRATE_NAME",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CARGO_PRIMARY_PACKAGE",
        "MAKEFLAGS",
        "OUT_DIR",
        "RUSTUP_TOOLCHAIN",
        "RUST_RECURSION_COUNT",
    ];
    const OUR_PREFIXES: [&str; 3] = ["CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    // The user's, for host builds: instrumentation, a cross target, sccache, another compiler.
    const HOST_ONLY: [&str; 8] = [
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "LD_LIBRARY_PATH",
    ];
    const HOST_ONLY_PREFIXES: [&str; 3] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];

    let ours = OURS.contains(&name) || OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let host_only = HOST_ONLY.contains(&name) || HOST_ONLY_PREFIXES.iter().any(|p| name.starts_with(p));
    // `cargo run` never sets these two; whoever did wanted another host compiler, which rust-toolchain.toml
    // decides here.
    let compiler = ["RUSTC", "RUSTDOC"].contains(&name);
    ours || compiler || (build == Build::Bpf && host_only)
}

/// Runs with the terminal as its output, so that long steps show their own progress. The command is told on standard
/// error: standard output may be a report for another program.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    let status = command.status().with_context(|| format!("starting `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs silently and returns standard output without the last newline.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed: {}: {}", output.status, said.trim());
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("output of `{shown}`"))?;
    Ok(text.trim_end().to_owned())
}

/// A program's path, if PATH has it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The command as one would type it, without its environment.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_cargo_sees_the_users_settings_and_not_ours() {
        // name, kept for the host, kept for BPF
        for (name, host, bpf) in [
            ("PATH", true, true),
            ("CARGO_HOME", true, true),
            ("CARGO_NET_OFFLINE", true, true),
            ("CARGO_TERM_COLOR", true, true),
            ("RUSTUP_HOME", true, true),
            ("RUSTUP_TOOLCHAIN", false, false),
            ("CARGO", false, false),
            ("RUSTC", false, false),
            ("CARGO_ENCODED_RUSTFLAGS", false, false),
            ("CARGO_MAKEFLAGS", false, false),
            ("CARGO_MANIFEST_DIR", false, false),
            ("CARGO_PKG_VERSION", false, false),
            ("RUSTFLAGS", true, false),
            ("RUSTC_WRAPPER", true, false),
            ("CARGO_BUILD_TARGET", true, false),
            ("CARGO_TARGET_DIR", true, false),
            ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", true, false),
            ("CARGO_PROFILE_RELEASE_DEBUG", true, false),
            ("LD_LIBRARY_PATH", true, false),
        ] {
            assert_eq!(!leaks(name, Build::Host), host, "{name} for the host");
            assert_eq!(!leaks(name, Build::Bpf), bpf, "{name} for BPF");
        }
    }

    #[test]
    fn a_failing_command_is_named_with_what_it_said() {
        let error =
            capture(Command::new("sh").args(["-c", "echo oh no >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("oh no"), "{error}");
    }
}
