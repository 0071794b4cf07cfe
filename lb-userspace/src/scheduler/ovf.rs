//! Weighted overflow: the heaviest server with no more active flows than its weight; none if all have more.

use lb_common::plan::cost;

pub(super) const COST: u8 = cost::OVF;
