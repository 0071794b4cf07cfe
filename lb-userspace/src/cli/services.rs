//! `lb services`: virtual services and their real servers, as `ipvsadm -Ln` lists them.

use std::io::Write;

use clap::Args;

use crate::api::types::{NextHop, Server, Service};

use super::output::{Align, BAD, BOLD, Cell, DIM, Format, PLAIN, Table, WARN, json};
use super::{Answer, Connection};

#[derive(Debug, Args)]
pub struct Services {
    /// Only these virtual services, by name
    #[arg(value_name = "SERVICE")]
    names: Vec<String>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    format: Format,
}

impl Services {
    pub(super) async fn execute(
        self,
        out: &mut dyn Write,
        complaints: &mut dyn Write,
    ) -> anyhow::Result<Answer> {
        let services = self.connection.client().services().await?;
        let services = match named(services, &self.names) {
            Ok(services) => services,
            Err(failure) => return self.format.refuse(&failure, out, complaints),
        };
        if self.format.json {
            json(out, &services)?;
        } else {
            print(&services, out)?;
        }
        Ok(Answer::Yes)
    }
}

/// The services with these names; all if there are none.
pub(super) fn named(
    services: Vec<Service>,
    names: &[String],
) -> Result<Vec<Service>, crate::api::types::Failure> {
    let unknown = names.iter().find(|name| services.iter().all(|service| service.name != **name));
    match unknown {
        Some(name) => Err(crate::api::unknown_service(name, &services)),
        None if names.is_empty() => Ok(services),
        None => Ok(services.into_iter().filter(|service| names.contains(&service.name)).collect()),
    }
}

fn print(services: &[Service], out: &mut dyn Write) -> std::io::Result<()> {
    let mut table =
        Table::headless(&[Align::Left, Align::Left, Align::Right, Align::Right, Align::Right, Align::Left]);
    table.wide([Cell::styled("Prot  LocalAddress:Port Scheduler Flags", BOLD)]);
    let heads = ["  -> RemoteAddress", "Forward", "Weight", "ActiveConn", "InActConn", "NextHop"];
    table.row(heads.map(|head| Cell::styled(head, BOLD)));
    for service in services {
        add(service, &mut table);
    }
    table.print(out)
}

fn add(service: &Service, table: &mut Table) {
    for (i, address) in service.addresses.iter().enumerate() {
        let place = format!("{:<5} {address}", address.protocol.ipvs_name());
        if i == 0 {
            let name = Cell::styled(format!("# {}", service.name), DIM);
            table.wide([Cell::styled(place, BOLD), scheduling(service).into(), name]);
        } else {
            // Further addresses of the same service.
            table.wide([Cell::styled(format!("+ {place}"), BOLD)]);
        }
    }
    for server in &service.servers {
        let (state, style) = state(server);
        table.row([
            Cell::styled(format!("  -> {}", server.address), style),
            forward(server).into(),
            server.weight.into(),
            server.active.into(),
            server.inactive.into(),
            match state {
                Some(state) => Cell::styled(state, style),
                None => next_hop(server).into(),
            },
        ]);
    }
}

/// `wlc (mh-port) persistent 360 mask 255.255.255.0 ops stateless`.
fn scheduling(service: &Service) -> String {
    let mut text = service.scheduler.clone();
    if !service.flags.is_empty() {
        text += &format!(" ({})", service.flags.join(","));
    }
    if let Some(persistence) = &service.persistence {
        text += &format!(" persistent {}", persistence.timeout_s);
        if let Some(mask) = &persistence.mask {
            text += &format!(" mask {mask}");
        }
    }
    if service.one_packet {
        text += " ops";
    }
    if service.stateless {
        text += " stateless";
    }
    text
}

/// ipvsadm's forwarding method.
pub(super) fn forward(server: &Server) -> String {
    if server.local { "Local".to_owned() } else { server.method.to_string() }
}

/// What keeps new flows from a server, and how it is shown.
pub(super) fn state(server: &Server) -> (Option<String>, anstyle::Style) {
    match &server.why_not {
        _ if server.eligible && server.overloaded => {
            (Some(format!("overloaded: over {} connections", server.upper_threshold)), WARN)
        }
        _ if server.eligible => (None, PLAIN),
        reason => {
            let style = if server.weight == 0 { WARN } else { BAD };
            (Some(reason.clone().unwrap_or_else(|| "not eligible".to_owned())), style)
        }
    }
}

/// `02:00:00:00:00:0b eth1 vlan 5 via 10.0.0.254`.
pub(super) fn next_hop(server: &Server) -> String {
    let Some(NextHop { mac, interface, vlan, gateway, .. }) = &server.next_hop else {
        return String::new();
    };
    let mut text = format!("{mac} {interface}");
    if !vlan.is_empty() {
        let tags: Vec<_> = vlan.iter().map(u16::to_string).collect();
        text += &format!(" vlan {}", tags.join("."));
    }
    if let Some(gateway) = gateway {
        text += &format!(" via {gateway}");
    }
    text
}
