//! `lb stats`: what became of packets, and the traffic of each server.

use std::io::{self, Write};

use clap::Args;

use crate::api::types::{self, ReasonCount, Verdict};

use super::output::{Align, Cell, Format, PLAIN, Table, WARN, human, human_bytes, json};
use super::{Answer, Connection};

#[derive(Debug, Args)]
pub struct Stats {
    /// Show counters that are zero, too
    #[arg(long, conflicts_with = "json")]
    all: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    format: Format,
}

impl Stats {
    pub(super) async fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        let stats = self.connection.client().stats().await?;
        if self.format.json {
            json(out, &stats)?;
        } else {
            print(&stats, self.all, out)?;
        }
        Ok(Answer::Yes)
    }
}

fn print(stats: &types::Stats, all: bool, out: &mut dyn Write) -> io::Result<()> {
    reasons(&stats.reasons, all).print(out)?;
    let mut notes = Table::new(&[("Noted", Align::Left), ("Times", Align::Right)]);
    for note in stats.notes.iter().filter(|note| all || note.times > 0) {
        notes.row([note.name.as_str().into(), note.times.into()]);
    }
    if notes.len() > 1 {
        writeln!(out)?;
        notes.print(out)?;
    }
    let mut servers = Table::new(&[
        ("Service", Align::Left),
        ("Server", Align::Left),
        ("Conns", Align::Right),
        ("InPkts", Align::Right),
        ("InBytes", Align::Right),
    ]);
    for count in &stats.servers {
        servers.row([
            count.service.as_str().into(),
            count.server.into(),
            human(count.connections).into(),
            human(count.packets).into(),
            human_bytes(count.bytes).into(),
        ]);
    }
    writeln!(out)?;
    servers.print(out)
}

/// Packets by reason, with each one's part of them all.
fn reasons(counts: &[ReasonCount], all: bool) -> Table {
    let total: u64 = counts.iter().map(|count| count.packets).sum();
    let mut table = Table::new(&[("Packets", Align::Left), ("", Align::Right), ("", Align::Right)]);
    for count in counts.iter().filter(|count| all || count.packets > 0) {
        let style = match count.verdict {
            Verdict::Drop => WARN,
            Verdict::Transmit | Verdict::Redirect | Verdict::Reply | Verdict::Pass => PLAIN,
        };
        table.row([
            Cell::styled(count.name.as_str(), style),
            count.packets.into(),
            share(count.packets, total).into(),
        ]);
    }
    table.row(["total".into(), total.into()]);
    table
}

/// A part in percent, to a tenth.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}
