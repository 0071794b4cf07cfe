//! What a running director's full table costs to list and to sweep.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::director;
use crate::flood::{FloodError, Options, Rig};

/// Passes of the sweeper that are looked at, and how long one may take, pauses included.
const PASSES: usize = 5;
const PASS: Duration = Duration::from_secs(30);

/// What `lb` is asked, each an argument list.
const QUESTIONS: [&[&str]; 5] = [
    &["flows"],
    &["flows", "--json"],
    &["flows", "--count"],
    &["flows", "--client", "10.7.0.0/16"],
    &["flows", "--server", "10.0.0.105", "--json"],
];

/// Times of one table. Medians.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// All established.
    pub flows: u64,
    /// Processor time of a pass of the sweeper, and how long it takes with its pauses; milliseconds.
    pub sweep_work_ms: f64,
    pub sweep_ms: u64,
    /// Seconds from starting `lb` with these arguments to its end, and lines it printed.
    pub listings: Vec<(String, f64, usize)>,
}

/// Fills a director's table and asks.
///
/// # Errors
/// See [`FloodError`].
pub fn run(options: &Options) -> Result<Report, FloodError> {
    let rig = Rig::set_up(options)?;
    let (mut works, mut alls) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    while works.len() < PASSES && begin.elapsed() < PASS * PASSES as u32 {
        let sweep = rig.director.status()?.sweep;
        if let (Some(work), Some(all)) = (sweep.last_full_work_us, sweep.last_full_duration_ms)
            && works.last() != Some(&work)
        {
            works.push(work);
            alls.push(all);
        }
        thread::sleep(Duration::from_millis(200));
    }
    // The first is of the time when flows were opened.
    let middle = |times: &mut Vec<u64>| {
        let mut times = times.split_off(1.min(times.len()));
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let (work, all) = (middle(&mut works), middle(&mut alls));
    let mut listings = Vec::new();
    for question in QUESTIONS {
        let lines = rig.director.lb(question)?.stdout.lines().count();
        let mut times = Vec::new();
        for _ in 0..options.rounds {
            let mut command = Command::new(director::lb()?);
            command.args(question).arg("--socket").arg(&rig.director.socket).stdout(Stdio::null());
            let begin = Instant::now();
            command.status()?;
            times.push(begin.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        listings.push((format!("lb {}", question.join(" ")), times[times.len() / 2], lines));
    }
    let flows = rig.director.status()?.flow_tables.ipv4.flows;
    Ok(Report { flows, sweep_work_ms: work as f64 / 1000.0, sweep_ms: all, listings })
}
