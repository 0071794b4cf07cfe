//! `cargo xtask`: what a developer runs, and what CI runs, from a clean clone.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod command;
mod ebpf;
mod fuzz;
mod lab;
mod linker;
mod lint;
mod privilege;
mod setup;
mod summary;
mod test;
mod toolchain;
mod version;
mod vm;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, check and test lb")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what building and testing need: eBPF compiler, bpf-linker, ip, curl, ethtool
    Setup,
    /// Build the eBPF program, then the host side with the program embedded
    Build(ebpf::Build),
    /// Build everything and run the director: with --config on this host, else in a lab with real HTTP requests
    BuildAndAttach(lab::BuildAndAttach),
    /// A lab to play in: network namespaces with a client, a router, the director and three real servers
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Run rustfmt and clippy; warnings are errors
    Lint,
    /// Build everything and run every test; without --host that needs root
    Test(test::Test),
    /// Run packet cases and labs on Debian's kernel, in a virtual machine; root only to install what is missing
    VmTest(vm::VmTest),
    /// Play random inputs through the library, under AddressSanitizer
    Fuzz(fuzz::Fuzz),
    /// Measure what a packet costs; needs root
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::run(),
        Task::Build(build) => build.run(),
        Task::BuildAndAttach(task) => task.run(),
        Task::Lab(task) => task.run(),
        Task::Lint => lint::run(),
        Task::Test(test) => test.run(),
        Task::VmTest(test) => test.run(),
        Task::Fuzz(fuzz) => fuzz.run(),
        Task::Bench(bench) => bench.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
