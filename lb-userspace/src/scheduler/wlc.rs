//! Weighted least connections, the default: the smallest overhead for its weight.

use lb_common::plan::cost;

pub(super) const COST: u8 = cost::WLC;
