//! Least connections: the smallest overhead, weights other than 0 ignored.

use lb_common::plan::cost;

pub(super) const COST: u8 = cost::LC;
