//! `lb real-server`: the real server's side. It asks no director: it is about the machine it runs on.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use lb_common::decap::{Tunnels, method};
use lb_common::net::Be16;
use serde::Serialize;

use crate::model::AttachMode;
use crate::realserver::decap;

use super::Answer;
use super::output::{Align, Format, Table, json};

#[derive(Debug, Args)]
pub struct RealServer {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take packets for the VIPs out of their tunnels, by XDP, in the foreground until SIGTERM: for kernels without
    /// tunnel devices
    Decap(Decap),
}

impl RealServer {
    pub(super) async fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        match self.command {
            Command::Decap(decap) => decap.execute(out).await,
        }
    }
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
