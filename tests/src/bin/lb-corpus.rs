//! The fuzzer's inputs, for `cargo xtask fuzz`: out of the repository, and back.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use lb_tests::fuzz::Target;

#[derive(Parser)]
#[command(name = "lb-corpus", about = "The fuzzer's inputs")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Put the kept inputs, and those made from the cases, in a folder
    Unpack { target: Target, folder: PathBuf },
    /// Keep the inputs in a folder, and no others
    Pack { target: Target, folder: PathBuf },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Unpack { target, folder } => target.unpack(&folder),
        Task::Pack { target, folder } => target.pack(&folder),
    }
}
