//! Least connections: the smallest overhead, weights other than 0 ignored.

use std::cmp::Ordering;

use lb_common::plan::{cost, overhead};

use super::Load;

pub(super) const COST: u8 = cost::LC;

pub(super) fn compare(a: (Load, u32), b: (Load, u32)) -> Ordering {
    let overhead = |load: Load| overhead(load.active, load.inactive, false);
    overhead(a.0).cmp(&overhead(b.0))
}
