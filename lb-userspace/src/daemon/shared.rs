//! What the daemon's parts know of each other.

use crate::api::types;
use crate::maps::{CounterMaps, StoreError};
use crate::model::Model;
use crate::neigh::NextHopTable;
use crate::reconcile::AssignedService;
use crate::sweep::{Live, Rules};
use crate::xdp::Arrays;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// Shared by the task that keeps the maps, the sweeper and the API.
pub(super) struct Shared {
    pub(super) pin: PathBuf,
    pub(super) arrays: Arc<Arrays>,
    pub(super) counters: CounterMaps,
    pub(super) started: SystemTime,
    pub(super) hz: u32,
    /// Jiffies, low 32 bits, a fraction of a second old. Written by the sweeper.
    pub(super) now: AtomicU32,
    view: RwLock<Arc<View>>,
    rules: RwLock<Arc<Rules>>,
    swept: Mutex<Swept>,
}

/// The configuration in force and what is known of its servers, for the API.
#[derive(Clone)]
pub(super) struct View {
    pub(super) config: PathBuf,
    pub(super) loaded: SystemTime,
    pub(super) model: Arc<Model>,
    pub(super) assigned: Vec<AssignedService>,
    pub(super) why_not: BTreeMap<u32, String>,
    pub(super) next_hops: NextHopTable,
    pub(super) interfaces: Vec<types::Interface>,
    /// Names of all interfaces, by index.
    pub(super) links: HashMap<u32, String>,
    /// Who a server id is, removed ones with live flows included.
    pub(super) servers: Arc<HashMap<u32, KnownServer>>,
}

/// A server as flows are listed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownServer {
    pub(super) service: Arc<str>,
    pub(super) address: IpAddr,
}

/// What the sweeper has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Swept {
    /// How long the latest whole pass took.
    pub(super) lasted: Option<Took>,
    /// As of the latest pass.
    pub(super) live: Live,
    /// Since the start.
    pub(super) corrected: u64,
    pub(super) removed: u64,
}

/// How long a pass took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// From its beginning to its end, pauses included.
    pub(super) all: Duration,
    /// Processor time of the sweeping thread.
    pub(super) work: Duration,
}

impl Shared {
    pub(super) fn new(
        pin: &Path,
        arrays: Arc<Arrays>,
        hz: u32,
        now: u32,
        view: View,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            pin: pin.to_owned(),
            arrays,
            counters: CounterMaps::open(pin)?,
            started: SystemTime::now(),
            hz,
            now: AtomicU32::new(now),
            view: RwLock::new(Arc::new(view)),
            rules: RwLock::default(),
            swept: Mutex::default(),
        })
    }

    // Whoever panicked while holding a lock left a whole value behind: they are only ever replaced.

    pub(super) fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_view(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    pub(super) fn swept(&self) -> Swept {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_swept(&self, swept: Swept) {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = swept;
    }
}
