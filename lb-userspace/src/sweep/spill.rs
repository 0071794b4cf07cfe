//! The few flows that found no room in the tables.

use super::templates::Children;
use super::{Rules, Tables, Tally, flows, unbind};
use crate::maps::StoreError;
use lb_common::flow::{AtomicU32, Entry, FlowKey, SPILL_WORDS, Shared, V4, V6, is_past, meta};

/// The spill map.
pub trait SpillStore {
    /// Whether there is anything in it.
    fn is_empty(&self) -> bool;

    /// All of it.
    ///
    /// # Errors
    /// The map cannot be read.
    fn entries(&self) -> Result<Vec<(FlowKey, [u32; SPILL_WORDS])>, StoreError>;

    /// Takes a flow out and counts it off; false if it was gone.
    ///
    /// # Errors
    /// The map cannot be written.
    fn remove(&mut self, key: &FlowKey) -> Result<bool, StoreError>;
}

/// As [`super::sweep_slice`], for the whole spill map.
///
/// # Errors
/// The map cannot be read or written.
pub fn sweep_spill(
    store: &mut dyn SpillStore,
    now: u32,
    tables: &Tables<'_>,
    rules: &Rules,
    tally: &mut Tally,
    children: &mut Children,
) -> Result<(), StoreError> {
    if store.is_empty() {
        return Ok(());
    }
    for (key, value) in store.entries()? {
        let words = value.map(AtomicU32::new);
        let words = Shared(&words);
        let found = if key.client.is_v4() {
            Entry::<V4, _>::in_spill(words).map(|entry| (entry.control, entry.meta, entry.expires()))
        } else {
            Entry::<V6, _>::in_spill(words).map(|entry| (entry.control, entry.meta, entry.expires()))
        };
        let Some((control, meta, expires)) = found else {
            // The datapath took the flow out and cannot take out its entry.
            store.remove(&key)?;
            continue;
        };
        if is_past(expires, now) || rules.server(meta::server(meta)).evict {
            if store.remove(&key)? {
                unbind(tables, rules, control, meta);
                tally.removed(meta::server(meta));
            }
            continue;
        }
        tally.live.spilled += 1;
        flows::count(tables, rules, tally, children, control, meta, &key);
    }
    Ok(())
}
