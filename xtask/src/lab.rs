//! `cargo xtask build-and-attach` and `cargo xtask lab`: build, then become the program that does it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::command::root;
use crate::{ebpf, privilege, setup};

#[derive(Args)]
pub(crate) struct BuildAndAttach {
    /// Run the director with this configuration; without one, in a lab made for it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Attach to these interfaces instead of those in the configuration
    #[arg(long, short, value_name = "NAME", requires = "config")]
    interface: Vec<String>,
    /// In the lab: end after this many requests, successfully only if each was answered and the shares are exact
    #[arg(long, value_name = "N", conflicts_with = "config")]
    requests: Option<usize>,
    /// Build the host side optimised; the default with --config
    #[arg(long)]
    release: bool,
}

impl BuildAndAttach {
    pub(crate) fn run(&self) -> Result<()> {
        privilege::check()?;
        let release = self.release || self.config.is_some();
        prepare(release)?;
        match &self.config {
            Some(config) => {
                let mut lb = program("lb", release);
                lb.arg("run").arg("--config").arg(config);
                for interface in &self.interface {
                    lb.arg("--interface").arg(interface);
                }
                become_(lb)
            }
            None => {
                let mut lab = program("lb-lab", release);
                lab.arg("watch");
                if let Some(requests) = self.requests {
                    lab.arg("--requests").arg(requests.to_string());
                }
                become_(lab)
            }
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Lab {
    /// Build, and leave a lab running with a director in it
    Up,
    /// Remove the lab
    Down,
    /// A shell, or a command behind `--`, in one of the lab's hosts
    Shell {
        /// client, router, director, rs1, rs2 or rs3
        #[arg(default_value = "client")]
        host: String,
        #[arg(last = true)]
        command: Vec<String>,
    },
}

impl Lab {
    pub(crate) fn run(&self) -> Result<()> {
        privilege::check()?;
        if !matches!(self, Lab::Shell { .. }) {
            prepare(false)?;
        }
        let mut lab = program("lb-lab", false);
        match self {
            Lab::Up => lab.arg("up"),
            Lab::Down => lab.arg("down"),
            Lab::Shell { host, command } => lab.arg("shell").arg(host).arg("--").args(command),
        };
        become_(lab)
    }
}

fn prepare(release: bool) -> Result<()> {
    setup::runtime_tools()?;
    privilege::ensure_bpf_fs()?;
    ebpf::Build { release }.run()
}

fn program(name: &str, release: bool) -> Command {
    Command::new(root().join("target").join(if release { "release" } else { "debug" }).join(name))
}

/// Replaces this process, so that Ctrl-C and the exit status are the program's own.
fn become_(mut program: Command) -> Result<()> {
    Err(program.exec()).with_context(|| format!("starting {}", program.get_program().display()))
}
