//! `lb run`: what the daemon is told on the command line.

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Run {
    /// Configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Attach to this interface instead of those in the file; may be given several times
    #[arg(long = "interface", short, value_name = "IF")]
    pub interfaces: Vec<String>,
}
