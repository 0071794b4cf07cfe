//! A lab to watch and to play in: a client, a router, the director and three real servers on this machine.
//! `cargo xtask build-and-attach` and `cargo xtask lab` start it.

mod play;
mod stage;
mod watch;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "A lab with a running director: client, router, director, three real servers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send real requests through the director and show how they spread, until Ctrl-C
    Watch(watch::Watch),
    /// Leave a lab running
    Up,
    /// Remove the lab that `up` left
    Down,
    /// A shell in one of the hosts of the lab that `up` left
    Shell(play::Shell),
    /// What `up` starts in the background
    #[command(hide = true)]
    Serve,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Watch(watch) => watch.run(),
        Command::Up => play::up(),
        Command::Down => play::down(),
        Command::Shell(shell) => shell.run(),
        Command::Serve => play::serve(),
    }
}
