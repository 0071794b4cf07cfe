//! From a service's servers to the plan the datapath executes.
//!
//! | scheduler | plan | slots |
//! |---|---|---|
//! | rr, wrr | `Cycle` | one period of the sequence IPVS would produce |
//! | fo | `Cycle`, fixed | servers by falling weight |
//! | sh, dh, mh | `Hash` | IPVS's table, bucket by bucket |
//! | lc, wlc, sed, nq, ovf, twos | `Least` | servers in list order with their weight; shuffled from 257 on |
//! | lblc, lblcr | `Locality` | the same; the cheapest by wlc |
//!
//! Everything here is pure: no clock, no I/O. A [`Schedule`] is made from a list of servers and changed by edits,
//! and says after each what the plan is and where its cursor stands. [`reference`] reads the same algorithms
//! plainly, with live state and no plans; [`execute`] does on the host what the datapath does with a plan. The tests
//! hold the two against each other.
//!
//! *The list* of a service is in IPVS's order, the newest server first, and it matters: ties go to the earlier
//! one. A server is added at the head; a change leaves it where it is; removing and adding it again moves it to
//! the head.
//!
//! A server that is not reachable counts as one of weight 0: it stays where IPVS keeps a drained server (the buckets
//! of sh, the slots of mh and dh) and is left out of every other plan.

mod candidates;
mod cycle;
mod entry;
pub mod execute;
mod plan;
pub mod reference;
mod schedule;

mod dh;
mod fo;
mod lblc;
mod lblcr;
mod lc;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod twos;
mod wlc;
mod wrr;

pub use cycle::{CYCLE_SLOTS, CYCLE_TRIES};
pub use entry::{Edit, Entry, apply, edits_between};
pub use plan::{Load, Plan, Warning};
pub use schedule::Schedule;

use lb_common::plan::PlanKind;

use crate::model::{Scheduler, SchedulerFlags};
use candidates::candidates;

/// A plan from scratch. rr and wrr start at the head of the list; [`Schedule`] moves the cursor to where they were.
fn plan(scheduler: Scheduler, flags: SchedulerFlags, entries: &[Entry]) -> (Plan, Option<Warning>) {
    let least = |cost| Plan::new(PlanKind::Least, cost, candidates(entries));
    // Without candidates, too: looking a destination up marks it used, and thins out its set.
    let locality = |detail| Plan { kind: PlanKind::Locality, detail, slots: candidates(entries), cursor: 0 };
    match scheduler {
        Scheduler::Rr => (rr::plan(entries), None),
        Scheduler::Wrr => wrr::plan(entries),
        Scheduler::Fo => (fo::plan(entries), None),
        Scheduler::Sh => (sh::plan(entries, flags), None),
        Scheduler::Dh => (dh::plan(entries), None),
        Scheduler::Mh => mh::plan(entries, flags),
        Scheduler::Lc => (least(lc::COST), None),
        Scheduler::Wlc => (least(wlc::COST), None),
        Scheduler::Sed => (least(sed::COST), None),
        Scheduler::Nq => (least(nq::COST), None),
        Scheduler::Ovf => (least(ovf::COST), None),
        Scheduler::Twos => (least(twos::COST), None),
        Scheduler::Lblc => (locality(lblc::DETAIL), None),
        Scheduler::Lblcr => (locality(lblcr::DETAIL), None),
    }
}
