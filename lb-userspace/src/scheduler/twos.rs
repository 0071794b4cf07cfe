//! Power of two choices: of two servers drawn by weight, the one with the smaller overhead for its weight.

use lb_common::plan::cost;

pub(super) const COST: u8 = cost::TWOS;
