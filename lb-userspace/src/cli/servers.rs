//! `lb servers`: one line a real server, with traffic, thresholds and next hop.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use crate::api::types::{Server, Service};

use super::output::{Align, Cell, Format, Table, human, human_bytes, json};
use super::services::{forward, named, next_hop, state};
use super::{Answer, Connection};

#[derive(Debug, Args)]
pub struct Servers {
    /// Only real servers of this virtual service; may be given several times
    #[arg(long, value_name = "SERVICE")]
    service: Vec<String>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    format: Format,
}

/// A server and whose it is.
#[derive(Debug, Serialize)]
struct Belonging<'a> {
    service: &'a str,
    #[serde(flatten)]
    server: &'a Server,
}

impl Servers {
    pub(super) async fn execute(
        self,
        out: &mut dyn Write,
        complaints: &mut dyn Write,
    ) -> anyhow::Result<Answer> {
        let services = self.connection.client().services().await?;
        let services = match named(services, &self.service) {
            Ok(services) => services,
            Err(failure) => return self.format.refuse(&failure, out, complaints),
        };
        let servers: Vec<_> = services.iter().flat_map(belonging).collect();
        if self.format.json {
            json(out, &servers)?;
        } else {
            print(&servers, out)?;
        }
        Ok(Answer::Yes)
    }
}

fn belonging(service: &Service) -> impl Iterator<Item = Belonging<'_>> {
    service.servers.iter().map(|server| Belonging { service: &service.name, server })
}

fn print(servers: &[Belonging<'_>], out: &mut dyn Write) -> std::io::Result<()> {
    let mut table = Table::new(&[
        ("Service", Align::Left),
        ("Server", Align::Left),
        ("State", Align::Left),
        ("Forward", Align::Left),
        ("Weight", Align::Right),
        ("Active", Align::Right),
        ("Inactive", Align::Right),
        ("Persist", Align::Right),
        ("Limit", Align::Right),
        ("Conns", Align::Right),
        ("Packets", Align::Right),
        ("Bytes", Align::Right),
        ("MTU", Align::Right),
        ("NextHop", Align::Left),
    ]);
    for Belonging { service, server } in servers {
        let (why, style) = state(server);
        table.row([
            (*service).into(),
            Cell::styled(server.address.to_string(), style),
            Cell::styled(word(server), style),
            forward(server).into(),
            server.weight.into(),
            server.active.into(),
            server.inactive.into(),
            server.persistent.into(),
            limit(server).into(),
            human(server.connections).into(),
            human(server.packets).into(),
            human_bytes(server.bytes).into(),
            server.next_hop.as_ref().map_or_else(String::new, |hop| hop.mtu.to_string()).into(),
            match why {
                Some(why) => Cell::styled(why, style),
                None => next_hop(server).into(),
            },
        ]);
    }
    table.print(out)
}

/// The state in a word.
fn word(server: &Server) -> &'static str {
    match (server.eligible, server.weight, server.overloaded) {
        (true, _, false) => "up",
        (true, _, true) => "overloaded",
        (false, 0, _) => "drained",
        (false, ..) => "down",
    }
}

/// Upper and lower threshold: `1000/750`.
fn limit(server: &Server) -> String {
    match (server.upper_threshold, server.lower_threshold) {
        (0, 0) => "-".to_owned(),
        (upper, 0) => upper.to_string(),
        (upper, lower) => format!("{upper}/{lower}"),
    }
}
