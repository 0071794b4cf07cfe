//! `lb real-server`: the real server's side. It asks no director: it is about the machine it runs on.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use lb_common::decap::{Tunnels, method};
use lb_common::net::Be16;
use serde::Serialize;

use crate::model::{AttachMode, Family};
use crate::realserver::check::{self, Finding, Severity};
use crate::realserver::commands::{self, Step, Wanted};
use crate::realserver::decap;
use crate::realserver::host::Host;
use crate::realserver::setup::{self, Did, Outcome};

use super::Answer;
use super::output::{Align, BAD, DIM, Format, Table, WARN, json};

#[derive(Debug, Args)]
pub struct RealServer {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give this machine the VIPs and all that has to be so with them; says what it changed, and then what is left
    Setup(Setup),
    /// Name every mistake that keeps this machine from being a real server, with what mends it
    Check(Check),
    /// Take the VIPs away again
    Teardown(Teardown),
    /// Take packets for the VIPs out of their tunnels, by XDP, in the foreground until SIGTERM: for kernels without
    /// tunnel devices
    Decap(Decap),
}

impl RealServer {
    pub(super) async fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        match self.command {
            Command::Setup(setup) => setup.execute(out).await,
            Command::Check(check) => check.execute(out).await,
            Command::Teardown(teardown) => teardown.execute(out).await,
            Command::Decap(decap) => decap.execute(out).await,
        }
    }
}

/// Bytes of an Ethernet packet.
const ETHERNET_MTU: u32 = 1500;

/// Somewhere in the Internet, for the route replies take.
const SOMEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
];

/// How packets come from the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    Dr,
    Ipip,
    Gre,
    Gue,
}

/// Family of the addresses a tunnel runs between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Outer {
    Ipv4,
    Ipv6,
}

#[derive(Debug, Args)]
struct About {
    /// VIP that is served here; may be given several times
    #[arg(long = "vip", value_name = "ADDRESS", required = true)]
    vips: Vec<IpAddr>,
    /// Forwarding method of the director
    #[arg(long, value_enum, default_value_t = Method::Dr)]
    method: Method,
    /// UDP port of GUE
    #[arg(long, value_name = "PORT", default_value_t = 6080, value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,
    /// Family of this server's address in the director's configuration, for tunnels
    #[arg(long, value_enum, default_value_t = Outer::Ipv4)]
    outer: Outer,
    /// Interface packets from the director come in by [default: the one replies leave by]
    #[arg(long, short, value_name = "IF")]
    interface: Option<String>,
    /// Address of the director, which must not be the gateway; may be given several times
    #[arg(long = "director", value_name = "ADDRESS")]
    directors: Vec<IpAddr>,
    /// Address of a client whose replies' route is looked at; one of each family [default: somewhere in the Internet]
    #[arg(long = "client", value_name = "ADDRESS")]
    clients: Vec<IpAddr>,
    /// Bytes of the largest packet a client sends
    #[arg(long, value_name = "BYTES", default_value_t = ETHERNET_MTU)]
    client_mtu: u32,
}

impl About {
    fn wanted(self) -> Wanted {
        let mut vips = Vec::new();
        for vip in self.vips {
            if !vips.contains(&vip) {
                vips.push(vip);
            }
        }
        let client = |default: IpAddr| {
            let given = self.clients.iter().find(|client| client.is_ipv4() == default.is_ipv4());
            given.copied().unwrap_or(default)
        };
        Wanted {
            vips,
            method: match self.method {
                Method::Dr => commands::Method::Dr,
                Method::Ipip => commands::Method::Ipip,
                Method::Gre => commands::Method::Gre,
                Method::Gue => commands::Method::Gue(self.gue_port),
            },
            outer: match self.outer {
                Outer::Ipv4 => Family::V4,
                Outer::Ipv6 => Family::V6,
            },
            interface: self.interface,
            directors: self.directors.into_iter().collect(),
            client_mtu: self.client_mtu,
            clients: SOMEWHERE.map(client),
        }
    }
}

#[derive(Debug, Args)]
struct Setup {
    #[command(flatten)]
    about: About,
    /// Only print the commands, for a machine without lb
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    done: Vec<Did>,
    findings: Vec<Finding>,
}

impl Setup {
    async fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        let wanted = self.about.wanted();
        if self.print {
            let lines: Vec<_> = commands::steps(&wanted).iter().map(Step::command).collect();
            print_commands(&lines, self.format, out)?;
            if wanted.devices().is_none() && !self.format.json {
                let interface = wanted.interface.as_deref().unwrap_or("IF");
                writeln!(out, "# no tunnel device does this; with lb: {}", wanted.decapsulator(interface))?;
            }
            return Ok(Answer::Yes);
        }
        let done = setup::setup(&wanted).await.context("not set up")?;
        let findings = check::check(&wanted, &Host::read(&wanted).await?);
        report(Report { done, findings }, self.format, out)
    }
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    about: About,
    #[command(flatten)]
    format: Format,
}

impl Check {
    async fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        let wanted = self.about.wanted();
        let host = Host::read(&wanted).await.context("this machine cannot be looked at")?;
        report(Report { done: Vec::new(), findings: check::check(&wanted, &host) }, self.format, out)
    }
}

#[derive(Debug, Args)]
struct Teardown {
    #[command(flatten)]
    about: About,
    /// Also set arp_ignore and arp_announce back to the kernel's defaults
    #[arg(long)]
    reset: bool,
    /// Only print the commands, for a machine without lb
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    format: Format,
}

impl Teardown {
    async fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        let wanted = self.about.wanted();
        if self.print {
            print_commands(&commands::undoing(&wanted, self.reset), self.format, out)?;
            return Ok(Answer::Yes);
        }
        let done = setup::teardown(&wanted, self.reset).await.context("not all was taken away")?;
        if self.format.json {
            json(out, &Report { done, findings: Vec::new() })?;
        } else {
            print_done(&done, out)?;
        }
        Ok(Answer::Yes)
    }
}

fn print_commands(commands: &[String], format: Format, out: &mut dyn Write) -> anyhow::Result<()> {
    if format.json {
        json(out, &commands)?;
    } else {
        commands.iter().try_for_each(|command| writeln!(out, "{command}"))?;
    }
    Ok(())
}

/// No if there is an error among the findings.
fn report(report: Report, format: Format, out: &mut dyn Write) -> anyhow::Result<Answer> {
    if format.json {
        json(out, &report)?;
    } else {
        print_done(&report.done, out)?;
        for finding in &report.findings {
            let (style, word) = match finding.severity {
                Severity::Error => (BAD, "error"),
                Severity::Warning => (WARN, "warning"),
            };
            writeln!(out, "{style}{word}{style:#}: {}", finding.text)?;
            writeln!(out, "    {DIM}{}{DIM:#}", finding.remedy)?;
        }
        if report.findings.is_empty() {
            writeln!(out, "this machine is fit to be a real server")?;
        }
    }
    let fails = report.findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if fails { Answer::No } else { Answer::Yes })
}

fn print_done(done: &[Did], out: &mut dyn Write) -> std::io::Result<()> {
    let mut table = Table::headless(&[Align::Left, Align::Left, Align::Left]);
    for Did { command, outcome } in done {
        let (word, why) = match outcome {
            Outcome::Changed => ("changed", ""),
            Outcome::Unchanged => ("as it was", ""),
            Outcome::Skipped(why) => ("skipped", why.as_str()),
        };
        table.row([word.into(), command.into(), why.into()]);
    }
    table.print(out)
}

/// Tunnels the decapsulator opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tunnel {
    Ipip,
    Gre,
    Gue,
}

impl Tunnel {
    fn bit(self) -> u32 {
        match self {
            Self::Ipip => method::IPIP,
            Self::Gre => method::GRE,
            Self::Gue => method::GUE,
        }
    }
}

/// Where the decapsulator may run in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Auto,
    Native,
    Generic,
}

#[derive(Debug, Args)]
struct Decap {
    /// Interface tunnel packets come in by
    #[arg(long, short, value_name = "IF")]
    interface: String,
    /// VIP that is served here; may be given several times
    #[arg(long = "vip", value_name = "ADDRESS", required = true)]
    vips: Vec<IpAddr>,
    /// Kind of tunnel to open; may be given several times, all if left out
    #[arg(long = "method", value_enum, value_name = "METHOD")]
    methods: Vec<Tunnel>,
    /// UDP port of GUE
    #[arg(long, value_name = "PORT", default_value_t = 6080, value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,
    /// In the driver, in the generic hook, or in whichever is possible
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Counted {
    reason: &'static str,
    packets: u64,
}

impl Decap {
    async fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        let methods = if self.methods.is_empty() { Tunnel::value_variants() } else { &self.methods };
        let options = decap::Options {
            interface: self.interface,
            mode: match self.mode {
                Mode::Auto => AttachMode::Auto,
                Mode::Native => AttachMode::Native,
                Mode::Generic => AttachMode::Generic,
            },
            vips: self.vips.into_iter().collect::<BTreeSet<_>>(),
            tunnels: Tunnels {
                methods: methods.iter().fold(0, |all, tunnel| all | tunnel.bit()),
                gue_port: Be16::from_host(self.gue_port),
                pad: 0,
            },
        };
        let counts = decap::run(&options, stopped()?).await.context("no decapsulation")?;
        let counted = counts.into_iter().filter(|(_, packets)| *packets > 0);
        let counted: Vec<_> =
            counted.map(|(reason, packets)| Counted { reason: reason.name(), packets }).collect();
        if self.format.json {
            json(out, &counted)?;
        } else {
            let mut table = Table::new(&[("Packets", Align::Right), ("What became of them", Align::Left)]);
            for Counted { reason, packets } in &counted {
                table.row([(*packets).into(), (*reason).into()]);
            }
            table.print(out)?;
        }
        Ok(Answer::Yes)
    }
}

/// Done at SIGTERM or SIGINT, which are caught from now on.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
