//! Candidates of `Least` and `Locality` plans.

use std::cmp::Ordering;

use lb_common::limits::LEAST_CANDIDATES;
use lb_common::plan::Slot;

use super::{Entry, Load, lc, nq, ovf, sed, twos, wlc};
use crate::model::Scheduler;

/// Candidates in list order: every server with a weight, or, when there are more than [`LEAST_CANDIDATES`], the ones
/// the scheduler would choose first by these loads, the earlier in the list among equals. Overloaded servers come
/// last.
///
/// With no more servers than that the loads do not matter, and every decision of the datapath is IPVS's. The
/// window is to be refreshed as counters move; between two refreshes the servers outside get no new flows.
/// Kernels since mid-2026 weigh active flows 257 instead of 256; the window does not tell the two apart.
pub fn window(scheduler: Scheduler, entries: &[Entry], loads: &dyn Fn(u32) -> Load) -> Vec<Slot> {
    let usable = entries.iter().filter(|entry| entry.live_weight() > 0);
    let mut candidates: Vec<Slot> = usable.map(|entry| Slot::new(entry.id, entry.weight)).collect();
    let most = LEAST_CANDIDATES as usize;
    if candidates.len() <= most {
        return candidates;
    }
    let mut ranked: Vec<(usize, Load)> =
        candidates.iter().enumerate().map(|(at, slot)| (at, loads(slot.server()))).collect();
    ranked.select_nth_unstable_by(most, |a, b| {
        let cost = |&(at, load): &(usize, Load)| (load, candidates[at].number());
        let busy = a.1.overloaded.cmp(&b.1.overloaded);
        busy.then_with(|| compare(scheduler, cost(a), cost(b))).then(a.0.cmp(&b.0))
    });
    ranked.truncate(most);
    let mut chosen: Vec<usize> = ranked.into_iter().map(|(at, _)| at).collect();
    chosen.sort_unstable();
    for (place, &at) in chosen.iter().enumerate() {
        candidates[place] = candidates[at];
    }
    candidates.truncate(most);
    candidates
}

/// Which of two servers, each a load and a weight, is chosen first. Schedulers without a cost are never asked.
fn compare(scheduler: Scheduler, a: (Load, u32), b: (Load, u32)) -> Ordering {
    match scheduler {
        Scheduler::Lc => lc::compare(a, b),
        Scheduler::Wlc | Scheduler::Lblc | Scheduler::Lblcr => wlc::compare(a, b),
        Scheduler::Sed => sed::compare(a, b),
        Scheduler::Nq => nq::compare(a, b),
        Scheduler::Ovf => ovf::compare(a, b),
        Scheduler::Twos => twos::compare(a, b),
        Scheduler::Rr | Scheduler::Wrr | Scheduler::Fo | Scheduler::Sh | Scheduler::Dh | Scheduler::Mh => {
            Ordering::Equal
        }
    }
}
