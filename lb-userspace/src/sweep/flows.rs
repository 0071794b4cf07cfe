//! A slice of a flow table.

use super::templates::Children;
use super::{Flows, Rules, Tables, Tally, unbind};
use lb_common::flow::{Buckets, Entry, FlowKey, Layout, Slab, WAYS, control, is_past, meta};
use std::ops::Range;

/// Walks the buckets `range` of `table`: takes out what is idle for good, or belongs to a server that keeps no flows,
/// and counts the rest. `now` is jiffies.
pub fn sweep_slice<L: Flows>(
    table: &Slab<'_, L>,
    range: Range<u32>,
    now: u32,
    tables: &Tables<'_>,
    rules: &Rules,
    tally: &mut Tally,
    children: &mut Children,
) {
    for index in range {
        let Some(words) = table.bucket(index) else { return };
        for way in 0..WAYS {
            let Some((entry, key)) = Entry::<L, _>::at(words, way) else { continue };
            let over = is_past(entry.expires(), now) || rules.server(meta::server(entry.meta)).evict;
            if over && entry.remove() {
                unbind(tables, rules, entry.control, entry.meta);
                tally.removed(meta::server(entry.meta));
                continue;
            }
            if over {
                // The datapath was at it in this very moment: the flow lives on, or is gone already.
                continue;
            }
            *L::count(&mut tally.live) += 1;
            count(tables, rules, tally, children, entry.control, entry.meta, &key);
        }
    }
}

/// Counts a live flow for its server and its template.
pub(super) fn count(
    tables: &Tables<'_>,
    rules: &Rules,
    tally: &mut Tally,
    children: &mut Children,
    control: u32,
    meta: u32,
    key: &FlowKey,
) {
    tally.flow(meta, control & control::ACTIVE != 0);
    if meta & meta::PARENT != 0 {
        children.count(tables, rules, meta::server(meta), key);
    }
}

/// Live entries of a table.
pub fn live<L: Layout>(table: &Slab<'_, L>) -> u64 {
    let ways = (0..table.buckets()).filter_map(|index| table.bucket(index));
    ways.map(|words| (0..WAYS).filter(|way| Entry::<L, _>::at(words, *way).is_some()).count() as u64).sum()
}
