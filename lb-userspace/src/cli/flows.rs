//! `lb flows`: flows and persistence templates, as `ipvsadm -Lnc` lists them, printed as they arrive.

use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use serde::Deserialize;

use crate::api::types::{self, FlowCount, FlowFilter, FlowProtocol, State};
use crate::client::{Client, ClientError};

use super::output::{BOLD, Format, json};
use super::{Answer, Connection};

#[derive(Debug, Args)]
pub struct Flows {
    /// Only flows of this virtual service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only flows to this real server
    #[arg(long, value_name = "ADDRESS")]
    server: Option<IpAddr>,
    /// Only flows from clients in this prefix, or from this client
    #[arg(long, value_name = "CIDR", value_parser = types::prefix)]
    client: Option<IpNet>,
    #[arg(
        long,
        value_name = "PROTOCOL",
        help = "Only flows of this protocol; any: templates that span protocols"
    )]
    protocol: Option<FlowProtocol>,
    /// Only flows in this state, such as ESTABLISHED, FIN_WAIT, UDP; of templates NONE or ASSURED
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Only persistence templates
    #[arg(long)]
    templates: bool,
    /// Stop after this many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print how many there are instead of them
    #[arg(long)]
    count: bool,
    #[command(flatten)]
    connection: Connection,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Flows {
    pub(super) async fn execute(
        self,
        out: &mut dyn Write,
        complaints: &mut dyn Write,
    ) -> anyhow::Result<Answer> {
        let format = Format { json: self.json };
        let filter = FlowFilter {
            service: self.service,
            server: self.server,
            client: self.client,
            protocol: self.protocol,
            state: self.state,
            templates: self.templates,
            limit: self.limit,
        };
        let client = self.connection.client();
        let printed = match (self.count, self.json) {
            (true, _) => count(&client, &filter, format, out).await,
            (false, true) => list_json(&client, &filter, out).await,
            (false, false) => list(&client, &filter, out).await,
        };
        match printed {
            Ok(()) => Ok(Answer::Yes),
            Err(error) => match error.downcast::<ClientError>()? {
                ClientError::Refused(failure) if failure.error.is_refusal() => {
                    format.refuse(&failure, out, complaints)
                }
                error => Err(error.into()),
            },
        }
    }
}

async fn count(
    client: &Client,
    filter: &FlowFilter,
    format: Format,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let flows = client.count_flows(filter).await?;
    if format.json {
        json(out, &FlowCount { flows })?;
    } else {
        writeln!(out, "{flows}")?;
    }
    Ok(())
}

async fn list_json(client: &Client, filter: &FlowFilter, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut flows = client.flows(filter).await?;
    while let Some(line) = flows.next_line().await? {
        out.write_all(&line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

async fn list(client: &Client, filter: &FlowFilter, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut flows = client.flows(filter).await?;
    let mut widths = Widths::default();
    write!(out, "{BOLD}")?;
    widths.line(out, "Pro", "Expire", "State", ["Source", "Virtual", "Destination"], "Service")?;
    writeln!(out, "{BOLD:#}")?;
    let mut expires = String::new();
    while let Some(line) = flows.next_line().await? {
        flow_line(&flows.parse(&line)?, &mut widths, &mut expires, out)?;
    }
    Ok(())
}

/// A flow in the director's own words: most of a million lines' time would go into reading addresses and writing them
/// again.
#[derive(Deserialize)]
struct Line<'a> {
    protocol: FlowProtocol,
    client: &'a str,
    #[serde(borrow, default)]
    vip: Option<&'a str>,
    server: &'a str,
    service: &'a str,
    state: &'a str,
    expires_in_s: u32,
}

/// `expires` is room to write in.
fn flow_line(
    flow: &Line<'_>,
    widths: &mut Widths,
    expires: &mut String,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (minutes, seconds) = (flow.expires_in_s / 60, flow.expires_in_s % 60);
    expires.clear();
    write!(expires, "{minutes:02}:{seconds:02}")?;
    // A template over many addresses has none; ipvsadm prints the firewall mark.
    let addresses = [flow.client, flow.vip.unwrap_or("-"), flow.server];
    widths.line(out, flow.protocol.ipvs_name(), expires, flow.state, addresses, flow.service)?;
    writeln!(out)?;
    Ok(())
}

/// Widths of the address columns. A listing that is not held in memory cannot look ahead: they start with room for
/// any IPv4 address and grow with what comes.
struct Widths([usize; 3]);

impl Default for Widths {
    fn default() -> Self {
        Self(["255.255.255.255:65535".len(); 3])
    }
}

impl Widths {
    fn line(
        &mut self,
        out: &mut dyn Write,
        protocol: &str,
        expires: &str,
        state: &str,
        addresses: [&str; 3],
        service: &str,
    ) -> std::io::Result<()> {
        for (width, address) in self.0.iter_mut().zip(addresses) {
            *width = (*width).max(address.len());
        }
        let ([source, vip, destination], [w0, w1, w2]) = (addresses, self.0);
        write!(
            out,
            "{protocol:<4} {expires:<6} {state:<11} {source:<w0$} {vip:<w1$} {destination:<w2$} {service}"
        )
    }
}
