//! Shortest expected delay: the smallest number of active flows, the new one included, for its weight.

use std::cmp::Ordering;

use lb_common::plan::cost;

use super::{Load, wlc};

pub(super) const COST: u8 = cost::SED;

pub(super) fn compare(a: (Load, u32), b: (Load, u32)) -> Ordering {
    wlc::by_weight((a.0.active + 1, a.1), (b.0.active + 1, b.1))
}
