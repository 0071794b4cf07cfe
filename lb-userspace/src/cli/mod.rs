//! The command line: what an operator may ask, and how the answers look. Everything about a running director comes
//! through [`crate::client`].

mod bench;
mod check;
mod flows;
mod output;
mod real_server;
mod reload;
mod run;
mod servers;
mod services;
mod stats;
mod status;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::api::DEFAULT_SOCKET;
use crate::client::Client;

pub use run::Run;

/// A layer-4 load balancer on XDP, in the manner of LVS.
#[derive(Debug, Parser)]
#[command(
    name = "lb",
    version,
    arg_required_else_help = true,
    after_help = "Exit status: 0 success, 1 the answer is no, 2 something failed, 64 wrong usage."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be the director: attach the program and keep it supplied, in the foreground.
    Run(Run),
    #[command(flatten)]
    Ask(Ask),
}

/// What is answered and done with.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Validate configuration files and say all that is wrong with them.
    Check(check::Check),
    /// Show the director: interfaces, flow tables, servers that get nothing and why.
    Status(status::Status),
    /// List virtual services with their real servers, as `ipvsadm -Ln` does.
    Services(services::Services),
    /// List real servers with their traffic, thresholds and next hops.
    Servers(servers::Servers),
    /// List or count flows and persistence templates, as `ipvsadm -Lnc` does.
    Flows(flows::Flows),
    /// Show what became of packets, and the traffic of each server.
    Stats(stats::Stats),
    /// Have the director read its configuration file again.
    Reload(reload::Reload),
    /// Measure what a packet costs on this machine, beside a running director and without touching it.
    Bench(bench::Bench),
    /// Prepare this machine to be a real server, and see whether it is fit to be one.
    RealServer(real_server::RealServer),
}

/// What was found out; failures apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    /// Asked in order, and the answer is no: the file is not valid, there is no such service.
    No,
}

impl Ask {
    /// Asks and prints: answers to `out`, refusals to `complaints`.
    ///
    /// # Errors
    /// Whatever keeps the question from being answered; not printed yet.
    pub async fn execute(self, out: &mut dyn Write, complaints: &mut dyn Write) -> anyhow::Result<Answer> {
        match self {
            Self::Check(check) => check.execute(out),
            Self::Status(status) => status.execute(out).await,
            Self::Services(services) => services.execute(out, complaints).await,
            Self::Servers(servers) => servers.execute(out, complaints).await,
            Self::Flows(flows) => flows.execute(out, complaints).await,
            Self::Stats(stats) => stats.execute(out).await,
            Self::Reload(reload) => reload.execute(out, complaints).await,
            Self::Bench(bench) => bench.execute(out, complaints),
            Self::RealServer(real_server) => real_server.execute(out).await,
        }
    }
}

/// Where the director answers.
#[derive(Debug, Args)]
struct Connection {
    /// Unix socket of the director's API
    #[arg(long, value_name = "PATH", env = "LB_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

impl Connection {
    fn client(self) -> Client {
        Client::new(self.socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }
}
