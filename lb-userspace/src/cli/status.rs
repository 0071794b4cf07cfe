//! `lb status`: the director at a glance, and every server that gets nothing with the reason.

use std::io::{self, Write};

use clap::Args;

use crate::api::types::{self, Verdict};

use super::output::{
    Align, BAD, BOLD, Cell, Format, PLAIN, Table, WARN, counted, human, human_seconds, json,
};
use super::services::state;
use super::{Answer, Connection};

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    format: Format,
}

impl Status {
    pub(super) async fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        let status = self.connection.client().status().await?;
        if self.format.json {
            json(out, &status)?;
        } else {
            print(&status, out)?;
        }
        Ok(Answer::Yes)
    }
}

fn print(status: &types::Status, out: &mut dyn Write) -> io::Result<()> {
    let types::Status { version, abi, pid, uptime_s, .. } = status;
    let uptime = human_seconds(*uptime_s);
    writeln!(out, "{BOLD}lb {version}{BOLD:#}, map ABI {abi}, pid {pid}, up {uptime}")?;
    let loaded = humantime::format_rfc3339_seconds(status.config_loaded);
    writeln!(out, "{}, read {loaded}", status.config.display())?;
    writeln!(out)?;
    interfaces(&status.interfaces).print(out)?;
    writeln!(out)?;
    tables(&status.flow_tables).print(out)?;
    unremembered(&status.flow_tables, out)?;
    writeln!(out, "{}", sweep(&status.sweep))?;
    writeln!(out)?;
    packets(status).print(out)?;
    writeln!(out)?;
    servers(status, out)
}

fn interfaces(interfaces: &[types::Interface]) -> Table {
    let mut table = Table::new(&[
        ("Interface", Align::Left),
        ("Index", Align::Right),
        ("Mode", Align::Left),
        ("MAC", Align::Left),
        ("MTU", Align::Right),
        ("", Align::Left),
    ]);
    for interface in interfaces {
        let style = if interface.why_generic.is_some() { WARN } else { PLAIN };
        table.row([
            interface.name.as_str().into(),
            interface.ifindex.into(),
            Cell::styled(interface.mode.name(), style),
            interface.mac.as_str().into(),
            interface.mtu.into(),
            Cell::styled(interface.why_generic.as_deref().unwrap_or_default(), style),
        ]);
    }
    table
}

/// From here on a table loses half-open flows and spills; a warning, not an error.
const CROWDED: f64 = 0.85;

fn tables(tables: &types::FlowTables) -> Table {
    let mut table = Table::new(&[
        ("Flows", Align::Left),
        ("In use", Align::Right),
        ("Places", Align::Right),
        ("Full", Align::Right),
    ]);
    for (name, part) in [("IPv4", &tables.ipv4), ("IPv6", &tables.ipv6), ("templates", &tables.templates)] {
        let style = if part.occupancy > CROWDED { BAD } else { PLAIN };
        let full = format!("{:.1} %", part.occupancy * 100.0);
        table.row([name.into(), part.flows.into(), part.ways.into(), Cell::styled(full, style)]);
    }
    table.row(["spilled".into(), tables.spilled.into()]);
    table
}

/// Says that flows were not remembered, if any were not: a flood, or tables too small.
fn unremembered(tables: &types::FlowTables, out: &mut dyn Write) -> io::Result<()> {
    for (flows, why) in [
        (tables.over_admission, "over admission.new_flows_per_second"),
        (tables.without_place, "the tables had no place"),
    ] {
        if flows > 0 {
            writeln!(
                out,
                "{WARN}{} new flows sent on without being remembered: {why}{WARN:#}",
                human(flows)
            )?;
        }
    }
    Ok(())
}

fn sweep(sweep: &types::Sweep) -> String {
    let last = match sweep.last_full_duration_ms {
        Some(ms) => format!("last full sweep took {:.1} s", ms as f64 / 1000.0),
        None => "no full sweep yet".to_owned(),
    };
    let work = sweep.last_full_work_us.map(|us| format!(", {:.1} ms of it work", us as f64 / 1000.0));
    let last = last + &work.unwrap_or_default();
    format!("{last}, {} corrected", counted(usize::try_from(sweep.corrected).unwrap_or(usize::MAX), "count"))
}

/// Packets by what became of them.
fn packets(status: &types::Status) -> Table {
    let sum = |verdicts: &[Verdict]| -> u64 {
        let of = status.counters.iter().filter(|count| verdicts.contains(&count.verdict));
        of.map(|count| count.packets).sum()
    };
    let columns = ["Forwarded", "Answered", "To the stack", "Dropped"];
    let mut table = Table::new(&columns.map(|head| (head, Align::Right)));
    table.row(
        [&[Verdict::Transmit, Verdict::Redirect][..], &[Verdict::Reply], &[Verdict::Pass], &[Verdict::Drop]]
            .map(|verdicts| human(sum(verdicts)).into()),
    );
    table
}

/// How many servers there are, and those that take no new flows.
fn servers(status: &types::Status, out: &mut dyn Write) -> io::Result<()> {
    let all = || {
        status.services.iter().flat_map(|service| service.servers.iter().map(move |server| (service, server)))
    };
    let (services, servers) = (status.services.len(), all().count());
    let eligible = all().filter(|(_, server)| server.eligible).count();
    let (services, servers) = (counted(services, "virtual service"), counted(servers, "real server"));
    writeln!(out, "{services}, {servers}, {eligible} eligible")?;
    let mut table =
        Table::new(&[("Service", Align::Left), ("Server", Align::Left), ("Takes no new flows", Align::Left)]);
    for (service, server) in all() {
        if let (Some(why), style) = state(server) {
            table.row([service.name.as_str().into(), server.address.into(), Cell::styled(why, style)]);
        }
    }
    if table.len() > 1 { table.print(out) } else { Ok(()) }
}
