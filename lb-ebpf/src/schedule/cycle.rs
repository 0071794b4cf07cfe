//! rr, wrr: the next slot. fo: the first one that can be used.

use super::{NOBODY, is_usable, slot};
use crate::tables::Tables;
use lb_common::plan::{PlanHead, cycle};

/// Runs of slots with an overloaded server that are skipped, and then slots at the end of the period that are looked at,
/// before the search gives up. IPVS looks at every server.
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
    if tries == SKIPS && !fixed {
        let last = at_the_end(tables, plan);
        if last < len {
            let begin = (ticket % len as u64) as u32;
            let ahead = if last >= begin { last - begin } else { last + len - begin };
            tables.advance(plan.start(), ahead as u64);
            return slot(tables, plan, last).server();
        }
    }
    // Nobody was chosen: the cursor goes back to where it stood, or where the slot says so to the start of the period.
    if !fixed {
        let back = if rewinds { ticket.wrapping_add(1) } else { 1 };
        tables.advance(plan.start(), back.wrapping_neg());
    }
    NOBODY
}

/// Place of the first usable slot among the last of the period, which in wrr holds every server once there, so that many
/// heavy overloaded servers do not hide a light one. The plan's length if there is none.
#[inline(always)]
fn at_the_end<T: Tables>(tables: &T, plan: PlanHead) -> u32 {
    let len = plan.len();
    let mut index = len.saturating_sub(SKIPS);
    let mut tries = 0;
    while tries < SKIPS {
        if index >= len || is_usable(tables, slot(tables, plan, index)) {
            return index;
        }
        index += 1;
        tries += 1;
    }
    len
}
