//! What the kernel lets this process do, for tests that load programs and make network namespaces.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::run;

const BPF_FS: &str = "/sys/fs/bpf";

/// Bits of `CapEff`, from linux/capability.h, and what the privileged tests do with them.
const NEEDED: [(u32, &str); 3] = [
    (12, "CAP_NET_ADMIN (attach XDP programs, make links)"),
    (21, "CAP_SYS_ADMIN (make network namespaces, mount bpffs)"),
    (39, "CAP_BPF (load programs)"),
];

/// Fails naming the rights that are missing.
pub(crate) fn check() -> Result<()> {
    let missing = missing(effective()?);
    if !missing.is_empty() {
        bail!(
            "the privileged tests lack {}; run as root, or run only the others with `cargo xtask test --host`",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Mounts the BPF file system, where maps are pinned, unless it is.
pub(crate) fn ensure_bpf_fs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    if is_bpf_fs(&mounts, Path::new(BPF_FS)) {
        return Ok(());
    }
    println!("mounting the BPF file system on {BPF_FS}");
    run(Command::new("mount").args(["-t", "bpf", "bpf", BPF_FS]))
}

pub(crate) fn is_root() -> Result<bool> {
    let status = status()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, file system.
    Ok(uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0"))
}

fn effective() -> Result<u64> {
    let status = status()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.context("no CapEff line in /proc/self/status")?.trim();
    u64::from_str_radix(mask, 16).with_context(|| format!("CapEff of /proc/self/status is {mask:?}"))
}

fn status() -> Result<String> {
    fs::read_to_string("/proc/self/status").context("reading /proc/self/status")
}

fn missing(effective: u64) -> Vec<&'static str> {
    NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|&(_, name)| name).collect()
}

fn is_bpf_fs(mounts: &str, folder: &Path) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next().is_some_and(|at| Path::new(at) == folder) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_right_is_named() {
        let all = 1 << 12 | 1 << 21 | 1 << 39;
        assert!(missing(all).is_empty());
        assert_eq!(missing(0).len(), 3);
        assert!(missing(all & !(1 << 39))[0].starts_with("CAP_BPF"));
    }

    #[test]
    fn only_a_bpf_mount_at_that_folder_counts() {
        let here = Path::new("/sys/fs/bpf");
        for (mounts, expected) in [
            ("bpf /sys/fs/bpf bpf rw,nosuid 0 0\n", true),
            ("bpf /run/other bpf rw 0 0\n", false),
            ("sysfs /sys/fs/bpf sysfs rw 0 0\n", false),
            ("sysfs /sys sysfs rw 0 0\n", false),
        ] {
            assert_eq!(is_bpf_fs(mounts, here), expected, "{mounts}");
        }
    }
}
