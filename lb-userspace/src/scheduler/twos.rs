//! Power of two choices: of two servers drawn by weight, the one with the smaller overhead for its weight.

use std::cmp::Ordering;

use lb_common::plan::cost;

use super::{Load, wlc};

pub(super) const COST: u8 = cost::TWOS;

/// Of many servers the lot is drawn among the least busy.
pub(super) fn compare(a: (Load, u32), b: (Load, u32)) -> Ordering {
    wlc::compare(a, b)
}
