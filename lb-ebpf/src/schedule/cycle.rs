//! rr, wrr: the next slot. fo: the first one that can be used.

use super::{is_usable, slot};
use crate::tables::Tables;
use lb_common::plan::{PlanHead, cycle};

/// Runs of slots with an overloaded server that are skipped before the search gives up.
const SKIPS: u32 = 256;

#[inline(always)]
pub(super) fn choose<T: Tables>(tables: &T, plan: PlanHead) -> Option<u32> {
    let len = plan.len();
    if len == 0 {
        return None;
    }
    let fixed = plan.detail() & cycle::FIXED != 0;
    let mut index = if fixed { 0 } else { (tables.advance(plan.start(), 1)? % len as u64) as u32 };
    let mut skipped = 0u32;
    let mut tries = 0;
    while tries < SKIPS {
        let slot = slot(tables, plan, index)?;
        if is_usable(tables, slot) {
            if !fixed && skipped != 0 {
                tables.advance(plan.start(), skipped as u64);
            }
            return Some(slot.server());
        }
        let step = slot.number();
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
    // Nobody was chosen, so the cursor stands where it stood (IPVS: the scheduler's mark did not move).
    if !fixed {
        tables.advance(plan.start(), 1u64.wrapping_neg());
    }
    None
}
