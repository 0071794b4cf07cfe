//! Weighted overflow: the heaviest server with no more active flows than its weight; none if all have more.

use std::cmp::Ordering;

use lb_common::plan::cost;

use super::Load;

pub(super) const COST: u8 = cost::OVF;

/// Servers that overflow last, those closest to having room again first.
pub(super) fn compare(a: (Load, u32), b: (Load, u32)) -> Ordering {
    let excess = |(load, weight): (Load, u32)| load.active.saturating_sub(weight);
    excess(a).cmp(&excess(b)).then(b.1.cmp(&a.1))
}
