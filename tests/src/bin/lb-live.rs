//! `cargo xtask bench --live`: packets a second over links between two network namespaces, and how many are lost.
//! With `--flood`, a running director in a flood of SYNs; with `--listing`, its full table listed and swept.

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use lb_tests::live::{self, Options};
use lb_tests::{flood, listing};

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
    /// Instead, flood a running director with SYNs beside established flows, from every CPU
    #[arg(long, conflicts_with_all = ["cpu", "packets"])]
    flood: bool,
    /// Instead, time how a running director with a full table lists and sweeps it
    #[arg(long, conflicts_with_all = ["cpu", "packets", "flood"])]
    listing: bool,
    /// Established flows of the director [default: 10000; 1000000 to list]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    flows: Option<u32>,
    /// How long to flood
    #[arg(long, default_value_t = 10, requires = "flood", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match (arguments.flood, arguments.listing) {
        (true, _) => flood(&arguments),
        (_, true) => listing(&arguments),
        _ => live(&arguments),
    }
}

fn live(&Arguments { json, rounds, packets, cpu, .. }: &Arguments) -> anyhow::Result<()> {
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

/// One packet of an established flow among so many.
const EVERY: u32 = 16;

fn options(arguments: &Arguments, flows: u32) -> anyhow::Result<flood::Options> {
    Ok(flood::Options {
        flows: arguments.flows.unwrap_or(flows),
        lasts: Duration::from_secs(arguments.seconds),
        every: EVERY,
        cpus: flood::cpus().context("finding this process's CPUs")?,
        rounds: arguments.rounds,
        table: "1M".to_owned(),
        more: String::new(),
    })
}

fn listing(arguments: &Arguments) -> anyhow::Result<()> {
    let report = listing::run(&options(arguments, 1_000_000)?).context("listing a director's flows")?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{} flows", report.flows);
    println!("a pass of the sweeper: {:.1} ms of work in {} ms", report.sweep_work_ms, report.sweep_ms);
    for (command, seconds, lines) in &report.listings {
        println!("{command:<44} {seconds:>6.2} s {lines:>9} lines");
    }
    Ok(())
}

fn flood(arguments: &Arguments) -> anyhow::Result<()> {
    let options = options(arguments, 10_000)?;
    let report = flood::run(&options).context("flooding a director")?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let row = |what: &str, value: String| println!("{what:<52} {value:>12}");
    let flood::Report { established, .. } = report;
    row("flood, million packets a second", format!("{:.2}", report.flood_mpps));
    row("established flows alone, before", format!("{:.2}", report.before_mpps));
    row("established flows alone, after", format!("{:.2}", report.after_mpps));
    row("SYNs", report.syns.to_string());
    row("half-open flows in the table afterwards", report.half_open.to_string());
    for (name, times) in &report.noted {
        row(name, times.to_string());
    }
    row("established flows", established.flows.to_string());
    row("  lost", established.lost.to_string());
    row("  their packets", established.packets.to_string());
    row("  of these to another server", established.elsewhere.to_string());
    row("  of these missing", established.missing.to_string());
    row("packets lost by the link, to the director", report.lost_before.to_string());
    row("packets lost by the link, from the director", report.lost_behind.to_string());
    row("packets the director did not send on", report.not_sent_on.to_string());
    println!(
        "\n{:<52} {:>15}   {:>15}",
        "An established flow's packet, ns", "in the program", "over the link"
    );
    let quiet = report.quiet;
    let cost = |what: &str, cost: flood::Cost| {
        let ratio = |cost: f64, than: f64| format!("{cost:.1} {:>6}", format!("({:.2})", cost / than));
        println!(
            "{what:<52} {:>15}   {:>15}",
            ratio(cost.program, quiet.program),
            ratio(cost.whole, quiet.whole)
        );
    };
    cost("before the flood", quiet);
    cost("after it", report.after);
    cost("in turn with the flood's packets on one CPU", report.between);
    cost("(a packet of the flood)", report.of_flood);
    println!("while the other CPU sends such packets, too {:>20.1}", report.beside_ordinary);
    println!(
        "while the other CPU floods {:>37.1} ({:.2})",
        report.beside_flood,
        report.beside_flood / report.beside_ordinary
    );
    Ok(())
}
