//! Never queue: the first idle server, whatever its weight; else as sed.

use lb_common::plan::cost;

pub(super) const COST: u8 = cost::NQ;
