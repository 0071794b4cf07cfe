//! Weighted least connections, the default: the smallest overhead for its weight.

use std::cmp::Ordering;

use lb_common::plan::{cost, overhead};

use super::Load;

pub(super) const COST: u8 = cost::WLC;

pub(super) fn compare(a: (Load, u32), b: (Load, u32)) -> Ordering {
    let overhead = |load: Load| overhead(load.active, load.inactive, false);
    by_weight((overhead(a.0), a.1), (overhead(b.0), b.1))
}

/// Compares cost / weight without dividing.
pub(super) fn by_weight(a: (u32, u32), b: (u32, u32)) -> Ordering {
    (u64::from(a.0) * u64::from(b.1)).cmp(&(u64::from(b.0) * u64::from(a.1)))
}
