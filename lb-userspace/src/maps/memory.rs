//! The configuration maps in ordinary memory, with the capacities of the real ones.

use super::{MapStore, StoreError, prefix_of, trie_key};
use ipnet::IpNet;
use lb_common::flow::{LOAD_WORDS, Thresholds, load_word};
use lb_common::limits;
use lb_common::plan::PlanHead;
use lb_common::server::Server;
use lb_common::service::{MatchSet, Service, ServiceKey};
use lb_common::settings::Settings;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Maps in memory: sparse, absent entries read as zero, as a fresh array does.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    settings: Settings,
    places: HashMap<ServiceKey, u32>,
    prefixes: BTreeMap<IpNet, u32>,
    match_sets: BTreeMap<u32, MatchSet>,
    services: BTreeMap<u32, Service>,
    plans: BTreeMap<u32, PlanHead>,
    cells: Vec<u64>,
    servers: BTreeMap<u32, Server>,
    thresholds: BTreeMap<u32, Thresholds>,
    /// Set by tests as if the datapath had counted.
    pub loads: BTreeMap<u32, [u32; LOAD_WORDS as usize]>,
    denied: BTreeSet<IpNet>,
}

/// What the kernel would answer with E2BIG.
#[derive(Debug, thiserror::Error)]
#[error("the map is full or has no such entry")]
struct NoRoom;

fn bounded(map: &'static str, at: u32, below: u32) -> Result<(), StoreError> {
    if at < below {
        return Ok(());
    }
    Err(StoreError { action: "writing", map, key: at.to_string(), source: Box::new(NoRoom) })
}

fn capacity(map: &'static str, used: usize, limit: u32, key: &dyn std::fmt::Debug) -> Result<(), StoreError> {
    if used < limit as usize {
        return Ok(());
    }
    Err(StoreError { action: "writing", map, key: format!("{key:?}"), source: Box::new(NoRoom) })
}

const NO_MATCHES: MatchSet = MatchSet {
    count: 0,
    rules: [lb_common::service::MatchRule { from: 0, to: 0, protocol: 0, pad: [0; 3], service: 0 };
        limits::MATCH_RULES],
};

impl MapStore for Memory {
    fn settings(&self) -> Result<Settings, StoreError> {
        Ok(self.settings)
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<(), StoreError> {
        self.settings = *settings;
        Ok(())
    }

    fn places(&self) -> Result<Vec<(ServiceKey, u32)>, StoreError> {
        Ok(self.places.iter().map(|(key, id)| (*key, *id)).collect())
    }

    fn put_place(&mut self, place: &ServiceKey, service: u32) -> Result<(), StoreError> {
        if !self.places.contains_key(place) {
            capacity("SERVICES", self.places.len(), limits::SERVICES, place)?;
        }
        self.places.insert(*place, service);
        Ok(())
    }

    fn remove_place(&mut self, place: &ServiceKey) -> Result<(), StoreError> {
        self.places.remove(place);
        Ok(())
    }

    fn prefixes(&self) -> Result<Vec<(IpNet, u32)>, StoreError> {
        // Through the trie's key and back, as in the kernel.
        let through = |prefix: IpNet| {
            let (bits, address) = trie_key(prefix);
            prefix_of(bits, address)
        };
        Ok(self.prefixes.iter().map(|(prefix, id)| (through(*prefix), *id)).collect())
    }

    fn put_prefix(&mut self, prefix: IpNet, match_set: u32) -> Result<(), StoreError> {
        if !self.prefixes.contains_key(&prefix) {
            capacity("PREFIXES", self.prefixes.len(), limits::MATCH_PREFIXES, &prefix)?;
        }
        self.prefixes.insert(prefix, match_set);
        Ok(())
    }

    fn remove_prefix(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        self.prefixes.remove(&prefix);
        Ok(())
    }

    fn match_set(&self, id: u32) -> Result<MatchSet, StoreError> {
        Ok(self.match_sets.get(&id).copied().unwrap_or(NO_MATCHES))
    }

    fn put_match_set(&mut self, id: u32, set: &MatchSet) -> Result<(), StoreError> {
        bounded("MATCHES", id, limits::MATCH_PREFIXES)?;
        self.match_sets.insert(id, *set);
        Ok(())
    }

    fn service(&self, id: u32) -> Result<Service, StoreError> {
        Ok(self.services.get(&id).copied().unwrap_or_default())
    }

    fn put_service(&mut self, id: u32, service: &Service) -> Result<(), StoreError> {
        bounded("SERVICE", id, limits::SERVICES)?;
        self.services.insert(id, *service);
        Ok(())
    }

    fn plan(&self, service: u32) -> Result<PlanHead, StoreError> {
        Ok(self.plans.get(&service).copied().unwrap_or_default())
    }

    fn put_plan(&mut self, service: u32, head: PlanHead) -> Result<(), StoreError> {
        bounded("PLANS", service, limits::SERVICES)?;
        self.plans.insert(service, head);
        Ok(())
    }

    fn cells(&self, start: u32, count: u32) -> Result<Vec<u64>, StoreError> {
        let at = |cell| self.cells.get(cell as usize).copied().unwrap_or_default();
        Ok((start..start + count).map(at).collect())
    }

    fn put_cells(&mut self, start: u32, cells: &[u64]) -> Result<(), StoreError> {
        let end = start as usize + cells.len();
        bounded("SLOTS", end as u32, limits::SLOTS + 1)?;
        if self.cells.len() < end {
            self.cells.resize(end, 0);
        }
        self.cells[start as usize..end].copy_from_slice(cells);
        Ok(())
    }

    fn server(&self, id: u32) -> Result<Server, StoreError> {
        Ok(self.servers.get(&id).copied().unwrap_or_default())
    }

    fn put_server(&mut self, id: u32, server: &Server) -> Result<(), StoreError> {
        bounded("SERVERS", id, limits::SERVERS)?;
        self.servers.insert(id, *server);
        Ok(())
    }

    fn thresholds(&self, id: u32) -> Result<Thresholds, StoreError> {
        Ok(self.thresholds.get(&id).copied().unwrap_or_default())
    }

    fn put_thresholds(&mut self, id: u32, thresholds: &Thresholds) -> Result<(), StoreError> {
        bounded("THRESHOLDS", id, limits::SERVERS)?;
        self.thresholds.insert(id, *thresholds);
        Ok(())
    }

    fn load(&self, id: u32) -> Result<[u32; LOAD_WORDS as usize], StoreError> {
        Ok(self.loads.get(&id).copied().unwrap_or_default())
    }

    fn put_overloaded(&mut self, id: u32, overloaded: bool) -> Result<(), StoreError> {
        self.loads.entry(id).or_default()[load_word::OVERLOADED as usize] = overloaded.into();
        Ok(())
    }

    fn forget_server(&mut self, id: u32) -> Result<(), StoreError> {
        self.loads.remove(&id);
        Ok(())
    }

    fn denied(&self) -> Result<Vec<IpNet>, StoreError> {
        Ok(self.denied.iter().copied().collect())
    }

    fn deny(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        if !self.denied.contains(&prefix) {
            capacity("DENIED", self.denied.len(), limits::DENIED, &prefix)?;
        }
        self.denied.insert(prefix);
        Ok(())
    }

    fn allow(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        self.denied.remove(&prefix);
        Ok(())
    }
}
