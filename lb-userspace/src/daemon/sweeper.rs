//! The thread that sweeps, in slices of a millisecond.

use super::keeper::Command;
use super::shared::{Shared, Swept, Took};
use crate::jiffies::{Clock, ClockError};
use crate::maps::{KernelLocality, KernelSpill, StoreError};
use crate::sweep::{Pass, Report, Rules, Step, Tables};
use lb_common::flow::Slab;
use nix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

/// Pause between two slices.
const TICK: Duration = Duration::from_millis(10);
/// How long a slice may take.
const SLICE: Duration = Duration::from_millis(1);
/// A pass over small tables takes as long; one over larger ones as much longer as they are larger, so that sweeping
/// costs a few percent of one core at the most.
const PERIOD: Duration = Duration::from_secs(1);
/// Buckets of a small table: a million flows.
const SMALL: u64 = 160_000;
const LONGEST: Duration = Duration::from_secs(30);

/// The running thread.
pub(super) struct Sweeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sweeper {
    pub(super) fn start(
        shared: Arc<Shared>,
        clock: Clock,
        reports: UnboundedSender<Command>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("sweeper".into()).spawn(move || {
            if let Err(error) = sweep(&shared, &clock, &reports, &stopped) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "idle flows are not removed any more"
                );
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops within a tick.
    pub(super) fn stop(self) {
        self.stop.store(true, Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            warn!("the sweeper had panicked");
        }
    }
}

/// Why the sweeper ended.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Clock(#[from] ClockError),
}

fn period(buckets: u64) -> Duration {
    (PERIOD * u32::try_from(buckets.div_ceil(SMALL)).unwrap_or(u32::MAX).clamp(1, 30)).min(LONGEST)
}

fn sweep(
    shared: &Shared,
    clock: &Clock,
    reports: &UnboundedSender<Command>,
    stop: &AtomicBool,
) -> Result<(), SweepError> {
    let arrays = &shared.arrays;
    let tables = Tables {
        v4: Slab::new(arrays.flows4.words()),
        v6: Slab::new(arrays.flows6.words()),
        templates: Slab::new(arrays.templates.words()),
        loads: arrays.loads.words(),
    };
    let mut spill = KernelSpill::open(&shared.pin, &arrays.spilled.words()[0])?;
    let mut locality = KernelLocality::open(&shared.pin)?;
    let length = Pass::length(&tables);
    let period = period(length);
    // What a tick has to walk for the pass to end in its period.
    let quota = (length * TICK.as_millis() as u64 / period.as_millis() as u64).max(1);

    let mut pass = Pass::default();
    let mut began = Instant::now();
    let mut worked = thread_time();
    while !stop.load(Relaxed) {
        let now = clock.now()? as u32;
        shared.now.store(now, Relaxed);
        let rules: Arc<Rules> = shared.rules();
        let slice = Instant::now();
        let mut walked = 0;
        while walked < quota && slice.elapsed() < SLICE {
            match pass.step(&tables, &rules, now, &mut spill, &mut locality) {
                Ok(Step::Walked(buckets)) => walked += u64::from(buckets),
                Ok(Step::Done(report)) => {
                    let work = thread_time().saturating_sub(worked);
                    finish(shared, reports, Took { all: began.elapsed(), work }, report);
                    while began.elapsed() < period && !stop.load(Relaxed) {
                        std::thread::park_timeout((period.saturating_sub(began.elapsed())).min(10 * TICK));
                        shared.now.store(clock.now()? as u32, Relaxed);
                    }
                    began = Instant::now();
                    worked = thread_time();
                    break;
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "the sweep starts over");
                    std::thread::park_timeout(period);
                    break;
                }
            }
        }
        std::thread::park_timeout(TICK);
    }
    Ok(())
}

/// Processor time of this thread. Zero, and so no work, from a kernel without such a clock, which Linux has had since 2.6.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

fn finish(shared: &Shared, reports: &UnboundedSender<Command>, lasted: Took, report: Report) {
    let before = shared.swept();
    if report.corrected > 0 {
        info!(flows = report.corrected, "servers' counts of flows had drifted and were corrected");
    }
    debug!(?lasted, live = ?report.tally.live, removed = report.tally.removed, "swept");
    shared.set_swept(Swept {
        lasted: Some(lasted),
        live: report.tally.live,
        corrected: before.corrected + report.corrected,
        removed: before.removed + report.tally.removed,
    });
    // The keeper is gone only while the daemon stops.
    let _ = reports.send(Command::Swept(report.tally));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tables_are_swept_more_slowly() {
        for (buckets, seconds) in [(0, 1), (SMALL, 1), (SMALL + 1, 2), (16 * SMALL, 16), (u64::MAX, 30)] {
            assert_eq!(period(buckets), Duration::from_secs(seconds), "{buckets} buckets");
        }
    }
}
