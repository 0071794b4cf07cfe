//! `cargo xtask bench`: what a packet costs, with programs as they are now.

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{host_cargo, run};
use crate::{ebpf, privilege};

#[derive(Args)]
pub(crate) struct Bench {
    /// Packets over real (virtual) links instead: how many a second, and how many are lost; with --flood, a running
    /// director in a flood of SYNs; with --listing, its full table listed and swept
    #[arg(long)]
    live: bool,
    /// Passed on to what measures: --quick, --filter, --json, --markdown, --compare, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        privilege::check()?;
        ebpf::objects()?;
        let mut build = host_cargo();
        let mut cargo = host_cargo();
        if self.live {
            // Optimised: there is a director to be timed, too.
            build.args(["build", "--release", "--package", "lb-userspace", "--bin", "lb"]);
            build.args(["--package", "lb-tests", "--bin", "lb-live"]);
            cargo.args(["run", "--release", "--quiet", "--package", "lb-tests", "--bin", "lb-live", "--"]);
        } else {
            // The kernel does all that is measured, so the host side need not be.
            build.args(["build", "--package", "lb-userspace", "--bin", "lb"]);
            cargo.args(["run", "--quiet", "--package", "lb-userspace", "--bin", "lb", "--", "bench"]);
        }
        run(&mut build)?;
        // Not through `run`: what it prints is the report, and nothing else.
        let status = cargo.args(&self.args).status().context("starting the benchmark")?;
        if !status.success() {
            bail!("the benchmark failed: {status}");
        }
        Ok(())
    }
}
