//! `cargo xtask bench --live`: packets a second over links between two network namespaces, and how many are lost.

use anyhow::Context;
use clap::Parser;
use lb_tests::live::{self, Options};

#[derive(Parser)]
#[command(name = "cargo xtask bench --live", about = "Packets a second over virtual links")]
struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Times each case takes its turn
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Packets of a turn
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    packets: u32,
    /// CPU to run on
    #[arg(long, default_value_t = 0)]
    cpu: usize,
}

fn main() -> anyhow::Result<()> {
    let Arguments { json, rounds, packets, cpu } = Arguments::parse();
    let figures = live::run(&Options { rounds, packets, cpu }).context("measuring over links")?;
    if json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        println!("{:<14} {:>8} {:>8} {:>8} {:>10}", "Case", "Mpps", "best", "ns", "lost");
        for figure in figures {
            println!(
                "{:<14} {:>8.2} {:>8.2} {:>8.1} {:>10}",
                figure.name, figure.mpps_median, figure.mpps_best, figure.ns_median, figure.lost
            );
        }
    }
    Ok(())
}
