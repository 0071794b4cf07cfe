//! `cargo xtask lint`: formatting and clippy, every target and feature, on the host.

use anyhow::Result;

use crate::command::{host_cargo, run as run_command};
use crate::summary::Summary;

pub(crate) fn run() -> Result<()> {
    let mut summary = Summary::default();
    summary.step("rustfmt", || run_command(host_cargo().args(["fmt", "--all", "--check"])));
    summary.step("clippy", || {
        let clippy =
            ["clippy", "--workspace", "--all-targets", "--features", "lb-tests/privileged,lb-tests/vm"];
        run_command(host_cargo().args(clippy).args(["--", "-D", "warnings"]))
    });
    summary.close()
}
