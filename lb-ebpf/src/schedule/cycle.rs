//! rr, wrr: the next slot. fo: the first one that can be used.

use super::{NOBODY, is_usable, slot};
use crate::tables::Tables;
use lb_common::plan::{PlanHead, cycle};

/// Runs of slots with an overloaded server that are skipped before the search gives up.
const SKIPS: u32 = 256;

#[inline(always)]
pub(super) fn choose<T: Tables>(tables: &T, plan: PlanHead) -> u32 {
    let len = plan.len();
    if len == 0 {
        return NOBODY;
    }
    let fixed = plan.detail() & cycle::FIXED != 0;
    let ticket = if fixed { 0 } else { tables.advance(plan.start(), 1).unwrap_or(0) };
    let mut index = (ticket % len as u64) as u32;
    let mut rewinds = false;
    let mut skipped = 0u32;
    let mut tries = 0;
    while tries < SKIPS {
        let slot = slot(tables, plan, index);
        if is_usable(tables, slot) {
            if !fixed && skipped != 0 {
                tables.advance(plan.start(), skipped as u64);
            }
            return slot.server();
        }
        let number = slot.number();
        if tries == 0 {
            rewinds = number >= len;
        }
        let step = if number >= len { number - len } else { number };
        skipped = skipped.wrapping_add(step);
        if step == 0 || skipped >= len {
            break;
        }
        index = index.wrapping_add(step);
        if index >= len {
            index -= len;
        }
        tries += 1;
    }
    // Nobody was chosen: the cursor goes back to where it stood, or where the slot says so to the start of the period.
    if !fixed {
        let back = if rewinds { ticket.wrapping_add(1) } else { 1 };
        tables.advance(plan.start(), back.wrapping_neg());
    }
    NOBODY
}
