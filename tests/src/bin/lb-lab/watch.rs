//! Requests through the director, and where they went.

use crate::stage::Stage;
use anyhow::Result;
use clap::Args;
use lb_tests::lab::client::{Load, nth_port};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Watch {
    /// End after this many requests: exit status 0 only if each was answered and the shares are exact
    #[arg(long)]
    requests: Option<usize>,
}

/// Requests sent at once; a multiple of the servers, so that every batch spreads evenly.
const BATCH: usize = 30;
/// Pause between batches without `--requests`: a pace one can watch.
const PAUSE: Duration = Duration::from_millis(200);
const CONCURRENCY: usize = 6;
/// Every request has a port of its own for as long as there are any: a port used again within two minutes would go to the
/// server of the connection that is closing, as with IPVS.
const FIRST_PORT: u16 = 1024;

impl Watch {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let ends = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&ends))?;
        }
        let folder = tempfile::tempdir()?;
        println!("building the lab: client, router, director, three real servers");
        let stage = Stage::set(&lb_tests::netns::unique_prefix(), folder.path())?;
        println!("{}", stage.ask(&["status"])?);
        println!("sending HTTP requests from {} to {}", stage.lab.client_addresses[0].v4, stage.vip());
        let seen = self.send(&stage, &ends)?;
        println!("\n{}", stage.ask(&["services"])?);
        let names = stage.names();
        stage.strike()?;
        println!("the lab is removed");
        Ok(if self.verdict(&seen, &names) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn send(&self, stage: &Stage, ends: &AtomicBool) -> Result<Seen> {
        let client = stage.lab.client()?;
        let first = SocketAddr::new(stage.lab.client_addresses[0].v4.into(), FIRST_PORT);
        let mut seen = Seen::default();
        let begun = Instant::now();
        while !ends.load(Ordering::Relaxed) {
            let left = self.requests.map_or(BATCH, |requests| requests - seen.sent);
            if left == 0 {
                break;
            }
            let load = Load::new(stage.vip(), left.min(BATCH)).concurrency(CONCURRENCY);
            for outcome in client.http(&load.from_ports(nth_port(first, seen.sent))) {
                seen.sent += 1;
                match outcome.result {
                    Ok(answer) => *seen.answers.entry(answer.server).or_default() += 1,
                    Err(error) => {
                        seen.failures += 1;
                        eprintln!("\nno answer: {error}");
                    }
                }
            }
            seen.show(begun.elapsed())?;
            if self.requests.is_none() {
                std::thread::sleep(PAUSE);
            }
        }
        println!();
        Ok(seen)
    }

    /// Round robin gives every server the same, to within one.
    fn verdict(&self, seen: &Seen, names: &[String]) -> bool {
        let share = |name: &String| seen.answers.get(name).copied().unwrap_or(0);
        let most = names.iter().map(share).max().unwrap_or(0);
        let least = names.iter().map(share).min().unwrap_or(0);
        let exact = most - least <= 1;
        println!(
            "{} requests, {} unanswered, shares {} to {}{}",
            seen.sent,
            seen.failures,
            least,
            most,
            if exact { "" } else { ": not the even shares round robin promises" }
        );
        seen.failures == 0 && exact
    }
}

#[derive(Default)]
struct Seen {
    sent: usize,
    failures: usize,
    answers: BTreeMap<String, usize>,
}

impl Seen {
    /// One line, over the last one on a terminal.
    fn show(&self, elapsed: Duration) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        let is_terminal = out.is_terminal();
        // A log gets a line now and then.
        if !is_terminal && !self.sent.is_multiple_of(10 * BATCH) {
            return Ok(());
        }
        let shares: Vec<String> =
            self.answers.iter().map(|(server, answers)| format!("{server} {answers}")).collect();
        let pace = self.sent as f64 / elapsed.as_secs_f64();
        let line = format!("{} requests, {pace:.0}/s   {}", self.sent, shares.join("   "));
        if is_terminal {
            write!(out, "\r{line}\x1b[K")?
        } else {
            writeln!(out, "{line}")?
        };
        out.flush()
    }
}
