//! Destination hashing: 256 buckets filled round the list, one each, weights ignored.

use lb_common::hash::SH_TABLE;
use lb_common::plan::{PlanKind, Slot, hash_detail};

use super::{Entry, Plan};

pub(super) fn plan(entries: &[Entry]) -> Plan {
    let around = entries.iter().cycle().map(|entry| Slot::new(entry.id, entry.live_weight()));
    Plan::new(PlanKind::Hash, hash_detail::DH, around.take(SH_TABLE as usize).collect())
}
