//! `cargo xtask`: what a developer runs, and what CI runs, from a clean clone.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod command;
mod ebpf;
mod linker;
mod lint;
mod privilege;
mod setup;
mod summary;
mod test;
mod toolchain;
mod version;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, check and test lb")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what building and testing need: eBPF compiler, bpf-linker, ip, curl
    Setup,
    /// Build the eBPF program, then the host side with the program embedded
    Build(ebpf::Build),
    /// Run rustfmt and clippy; warnings are errors
    Lint,
    /// Build everything and run every test; without --host that needs root
    Test(test::Test),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::run(),
        Task::Build(build) => build.run(),
        Task::Lint => lint::run(),
        Task::Test(test) => test.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
