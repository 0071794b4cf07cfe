//! Source hashing: 256 buckets filled from the list, weight by weight.

use lb_common::hash::SH_TABLE;
use lb_common::plan::{PlanKind, Slot, hash_detail};

use super::{Entry, Plan};
use crate::model::SchedulerFlags;

/// Around the list, each server gets as many buckets in a row as its weight says. One of weight 0 gets one, and
/// its clients are refused, or move on with sh-fallback. An unreachable server keeps the buckets of its weight, so
/// that a failing health check moves nobody else's clients.
pub(super) fn plan(entries: &[Entry], flags: SchedulerFlags) -> Plan {
    let around = entries.iter().cycle().flat_map(|entry| {
        // No server can get more buckets than there are.
        let buckets = entry.weight.clamp(1, SH_TABLE) as usize;
        std::iter::repeat_n(Slot::new(entry.id, entry.live_weight()), buckets)
    });
    Plan::new(PlanKind::Hash, hash_detail::SH | bits(flags), around.take(SH_TABLE as usize).collect())
}

/// Detail bits of the flags sh and mh share.
pub(super) fn bits(flags: SchedulerFlags) -> u8 {
    let port = if flags.port { hash_detail::PORT } else { 0 };
    let fallback = if flags.fallback { hash_detail::FALLBACK } else { 0 };
    port | fallback
}
