//! Destinations that lblc and lblcr remember: forgotten when unused, as IPVS's garbage collector does it.

use super::{Tally, grown};
use crate::maps::StoreError;
use lb_common::locality::{Locality, LocalityKey};
use std::collections::BTreeMap;

/// IPVS's `CHECK_EXPIRE_INTERVAL`.
const INTERVAL_SECONDS: u32 = 60;
/// Every so many intervals all entries are looked at (IPVS: `COUNT_FOR_FULL_EXPIRATION`).
const FULL_EVERY: u32 = 30;
/// Entries of a service above which unused ones go early (IPVS: `max_size`, 16 times its 1024 buckets).
const CROWDED: u32 = 16 * 1024;
/// Unused that long, an entry of a crowded service goes (IPVS: `ENTRY_TIMEOUT`).
const EARLY_SECONDS: u32 = 6 * 60;

/// The locality map.
pub trait LocalityStore {
    /// All of it.
    ///
    /// # Errors
    /// The map cannot be read.
    fn entries(&self) -> Result<Vec<(LocalityKey, Locality)>, StoreError>;

    /// # Errors
    /// The map cannot be written.
    fn remove(&mut self, key: &LocalityKey) -> Result<(), StoreError>;
}

/// When which round is due.
#[derive(Clone, Copy, Debug)]
pub struct LocalityGc {
    due: Option<u32>,
    round: u32,
}

impl Default for LocalityGc {
    fn default() -> Self {
        Self { due: None, round: 1 }
    }
}

impl LocalityGc {
    /// Counts the destinations each server is remembered for and, once in a minute, forgets unused ones. `now` is
    /// jiffies; `expiration` gives a service's `lblc_expiration` or `lblcr_expiration` in jiffies.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn run(
        &mut self,
        store: &mut dyn LocalityStore,
        now: u32,
        hz: u32,
        expiration: impl Fn(u32) -> u32,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let due = *self.due.get_or_insert(now.wrapping_add(INTERVAL_SECONDS * hz));
        let collect = now.wrapping_sub(due) as i32 >= 0;
        let full = collect && self.round % FULL_EVERY == 0;
        let mut crowd: BTreeMap<u32, u32> = BTreeMap::new();
        let entries = store.entries()?;
        for (key, _) in &entries {
            *crowd.entry(key.service).or_default() += 1;
        }
        let mut quota: BTreeMap<u32, u32> = crowd
            .iter()
            .filter(|(_, count)| collect && !full && **count > CROWDED)
            .map(|(service, count)| (*service, ((count - CROWDED) * 4 / 3).min(CROWDED / 2)))
            .collect();
        for (key, entry) in &entries {
            let unused = now.wrapping_sub(entry.used);
            let early = quota.get_mut(&key.service).filter(|left| **left > 0 && unused >= EARLY_SECONDS * hz);
            let forget = match early {
                Some(left) => {
                    *left -= 1;
                    true
                }
                None => full && unused >= expiration(key.service),
            };
            if forget {
                store.remove(key)?;
                continue;
            }
            for server in entry.servers.iter().take(entry.count as usize) {
                *grown(&mut tally.destinations, (*server).into()) += 1;
            }
        }
        if collect {
            self.due = Some(now.wrapping_add(INTERVAL_SECONDS * hz));
            // A crowded round does not count, as in IPVS.
            self.round = if full { 1 } else { self.round + u32::from(quota.is_empty()) };
        }
        Ok(())
    }
}
