//! Candidates of `Least` and `Locality` plans.

use lb_common::limits::LEAST_CANDIDATES;
use lb_common::plan::Slot;

use super::Entry;

/// Every server with a weight: in list order, or, when there are more than [`LEAST_CANDIDATES`], shuffled.
///
/// In list order every decision of the datapath is IPVS's. Of more it compares one stretch for every new flow, so the
/// order is to have nothing to do with how busy servers are. It depends on the ids alone: a server that comes, goes or
/// changes its weight leaves the others in theirs.
pub(super) fn candidates(entries: &[Entry]) -> Vec<Slot> {
    let usable = entries.iter().filter(|entry| entry.live_weight() > 0);
    let mut candidates: Vec<Slot> = usable.map(|entry| Slot::new(entry.id, entry.weight)).collect();
    if candidates.len() > LEAST_CANDIDATES as usize {
        candidates.sort_unstable_by_key(|slot| shuffled(slot.server()));
    }
    candidates
}

/// A number for an id, no two the same: every step can be undone (the last of MurmurHash3, by Austin Appleby, who put
/// it in the public domain).
fn shuffled(id: u32) -> u32 {
    let mut mixed = id;
    mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x85eb_ca6b);
    mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
    mixed ^ (mixed >> 16)
}
