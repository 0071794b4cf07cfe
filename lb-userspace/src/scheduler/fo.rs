//! Weighted failover: the heaviest server that is not overloaded, the earlier in the list among equals.

use lb_common::plan::{PlanKind, cycle::FIXED};

use super::{Entry, Plan, cycle};

pub(super) fn plan(entries: &[Entry]) -> Plan {
    let mut usable: Vec<&Entry> = entries.iter().filter(|entry| entry.live_weight() > 0).collect();
    usable.sort_by_key(|entry| std::cmp::Reverse(entry.weight));
    let servers: Vec<u32> = usable.iter().map(|entry| entry.id).collect();
    Plan::new(PlanKind::Cycle, FIXED, cycle::slots(&servers, 0..0))
}
