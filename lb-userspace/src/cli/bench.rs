//! `lb bench`: what a packet costs on this machine.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::bench::{self, Figure, Options, Report};

use super::Answer;
use super::output::{Align, Table, json};

#[derive(Debug, Args)]
pub struct Bench {
    /// Print JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print a Markdown table
    #[arg(long)]
    markdown: bool,
    /// Compare with an earlier run's JSON: net cost now over net cost then
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "markdown"])]
    compare: Option<PathBuf>,
    /// Fewer packets and rounds: twice the noise, and little more time than opening the flows takes
    #[arg(long)]
    quick: bool,
    /// Only cases with one of these in their names
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    filter: Vec<String>,
    /// Times each case takes its turn
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// CPU to run on [default: the last]
    #[arg(long)]
    cpu: Option<usize>,
}

/// Rounds unless told.
const ROUNDS: u16 = 16;
const QUICK_ROUNDS: u16 = 5;

impl Bench {
    pub(super) fn execute(self, out: &mut dyn Write, progress: &mut dyn Write) -> anyhow::Result<Answer> {
        let earlier = self.compare.as_ref().map(read).transpose()?;
        let rounds = self.rounds.unwrap_or(if self.quick { QUICK_ROUNDS } else { ROUNDS });
        let options =
            Options { rounds: rounds.into(), quick: self.quick, filter: self.filter, cpu: self.cpu };
        let report = bench::run(&options, |what| {
            // Nobody watching is no reason to stop.
            let _ = writeln!(progress, "{what}");
        })?;
        if self.json {
            json(out, &report)?;
        } else if self.markdown {
            markdown(&report, out)?;
        } else {
            table(&report, earlier.as_ref(), out)?;
        }
        Ok(Answer::Yes)
    }
}

fn read(path: &PathBuf) -> anyhow::Result<Report> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no run's JSON", path.display()))
}

fn flows(figure: &Figure) -> String {
    if figure.flows == 0 { "-".to_owned() } else { figure.flows.to_string() }
}

fn table(report: &Report, earlier: Option<&Report>, out: &mut dyn Write) -> std::io::Result<()> {
    use Align::{Left, Right};
    let mut columns = vec![
        ("Case", Left),
        ("Flows", Right),
        ("Net ns", Right),
        ("min", Right),
        ("Raw ns", Right),
        ("min", Right),
    ];
    if earlier.is_some() {
        columns.extend([("Now/then", Right), ("min", Right)]);
    }
    let mut table = Table::new(&columns);
    let ratios: Vec<_> = earlier.map(|earlier| report.against(earlier).collect()).unwrap_or_default();
    for figure in &report.cases {
        let ns = |value: f64| format!("{value:.1}");
        let mut row = vec![
            figure.name.clone(),
            flows(figure),
            ns(figure.net_ns_median),
            ns(figure.net_ns_min),
            ns(figure.raw_ns_median),
            ns(figure.raw_ns_min),
        ];
        if let Some((_, [min, median])) = ratios.iter().find(|(known, _)| known.name == figure.name) {
            let ratio = |ratio: &Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            row.extend([ratio(median), ratio(min)]);
        }
        table.row(row.into_iter().map(Into::into));
    }
    table.print(out)
}

fn markdown(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{}, Linux {}\n", report.host.processor, report.host.kernel)?;
    writeln!(out, "| case | flows | net ns, median | net ns, min |\n|---|---:|---:|---:|")?;
    for figure in &report.cases {
        let Figure { name, net_ns_median, net_ns_min, .. } = figure;
        writeln!(out, "| `{name}` | {} | {net_ns_median:.1} | {net_ns_min:.1} |", flows(figure))?;
    }
    Ok(())
}
