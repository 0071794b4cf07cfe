//! What the sweeper walks beside the tables, over an engine's maps.

use lb_common::flow::{FlowKey, SPILL_WORDS};
use lb_common::locality::{LOCALITY_WORDS, LocalityKey};
use lb_userspace::maps::StoreError;
use lb_userspace::sweep::{LocalityStore, SpillStore};

/// The engine's spill map, for one pass; what it takes out is noted.
pub(super) struct Spill {
    pub(super) flows: Vec<(FlowKey, [u32; SPILL_WORDS])>,
    pub(super) gone: Vec<FlowKey>,
}

impl SpillStore for Spill {
    fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    fn entries(&self) -> Result<Vec<(FlowKey, [u32; SPILL_WORDS])>, StoreError> {
        Ok(self.flows.clone())
    }

    fn remove(&mut self, key: &FlowKey) -> Result<bool, StoreError> {
        self.gone.push(*key);
        Ok(true)
    }
}

/// Likewise what lblc and lblcr remember.
pub(super) struct Localities {
    pub(super) entries: Vec<(LocalityKey, [u32; LOCALITY_WORDS])>,
    pub(super) gone: Vec<LocalityKey>,
}

impl LocalityStore for Localities {
    fn entries(&self) -> Result<Vec<(LocalityKey, [u32; LOCALITY_WORDS])>, StoreError> {
        Ok(self.entries.clone())
    }

    fn remove(&mut self, key: &LocalityKey) -> Result<(), StoreError> {
        self.gone.push(*key);
        Ok(())
    }
}
