//! Shortest expected delay: the smallest number of active flows, the new one included, for its weight.

use lb_common::plan::cost;

pub(super) const COST: u8 = cost::SED;
