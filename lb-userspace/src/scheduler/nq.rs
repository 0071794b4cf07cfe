//! Never queue: the first idle server, whatever its weight; else as sed.

use std::cmp::Ordering;

use lb_common::plan::cost;

use super::{Load, sed};

pub(super) const COST: u8 = cost::NQ;

pub(super) fn compare(a: (Load, u32), b: (Load, u32)) -> Ordering {
    match (a.0.active == 0, b.0.active == 0) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => sed::compare(a, b),
    }
}
