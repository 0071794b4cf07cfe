//! Destinations that lblc and lblcr remember: forgotten when unused, as IPVS's garbage collector does it.

use super::{Tally, grown};
use crate::maps::StoreError;
use lb_common::limits;
use lb_common::locality::{LOCALITY_WORDS, LocalityKey, word};
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
    fn entries(&self) -> Result<Vec<(LocalityKey, [u32; LOCALITY_WORDS])>, StoreError>;

    /// # Errors
    /// The map cannot be written.
    fn remove(&mut self, key: &LocalityKey) -> Result<(), StoreError>;
}

/// When which round is due, and what the last one found.
#[derive(Clone, Debug)]
pub struct LocalityGc {
    due: Option<u32>,
    round: u32,
    destinations: Vec<u32>,
}

impl Default for LocalityGc {
    fn default() -> Self {
        Self { due: None, round: 1, destinations: Vec::new() }
    }
}

impl LocalityGc {
    /// Tells how many destinations each server is remembered for. Once in a minute counts them anew, and forgets
    /// unused ones and those of services that remember none. `now` is jiffies; `expiration` gives a service's
    /// `lblc_expiration` or `lblcr_expiration` in jiffies, `None` if its scheduler is another.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn run(
        &mut self,
        store: &mut dyn LocalityStore,
        now: u32,
        hz: u32,
        expiration: impl Fn(u32) -> Option<u32>,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        if self.due.is_none_or(|due| now.wrapping_sub(due) as i32 >= 0) {
            self.collect(store, now, hz, expiration)?;
            self.due = Some(now.wrapping_add(INTERVAL_SECONDS * hz));
        }
        tally.destinations.clone_from(&self.destinations);
        Ok(())
    }

    fn collect(
        &mut self,
        store: &mut dyn LocalityStore,
        now: u32,
        hz: u32,
        expiration: impl Fn(u32) -> Option<u32>,
    ) -> Result<(), StoreError> {
        let full = self.round.is_multiple_of(FULL_EVERY);
        let entries = store.entries()?;
        let mut crowd: BTreeMap<u32, u32> = BTreeMap::new();
        for (key, _) in &entries {
            *crowd.entry(key.service).or_default() += 1;
        }
        crowd.retain(|_, count| !full && *count > CROWDED);
        let mut quota: BTreeMap<u32, u32> = crowd
            .iter()
            .map(|(service, count)| (*service, ((count - CROWDED) * 4 / 3).min(CROWDED / 2)))
            .collect();
        let mut destinations = Vec::new();
        for (key, entry) in &entries {
            let unused = now.wrapping_sub(entry[word::USED as usize]);
            let forget = match (expiration(key.service), quota.get_mut(&key.service)) {
                (None, _) => true,
                (Some(_), Some(left)) if *left > 0 && unused >= EARLY_SECONDS * hz => {
                    *left -= 1;
                    true
                }
                (Some(expiration), _) => full && unused >= expiration,
            };
            if forget {
                store.remove(key)?;
                continue;
            }
            let servers = &entry[word::SERVERS as usize..];
            for server in servers.iter().take(entry[word::COUNT as usize] as usize) {
                // The set changes under us; what is no id counts for nobody.
                if *server < limits::SERVERS {
                    *grown(&mut destinations, *server) += 1;
                }
            }
        }
        self.destinations = destinations;
        // A crowded round does not count, as in IPVS.
        self.round = if full { 1 } else { self.round + u32::from(crowd.is_empty()) };
        Ok(())
    }
}
