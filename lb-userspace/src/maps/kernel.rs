//! The configuration maps of the kernel, opened from where they are pinned.

use super::{MapStore, Mapped, StoreError, prefix_of, trie_key};
use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use ipnet::IpNet;
use lb_common::counters::Counters;
use lb_common::flow::{LOAD_WORDS, Thresholds, load_word};
use lb_common::net::Addr;
use lb_common::plan::PlanHead;
use lb_common::server::Server;
use lb_common::service::{MatchSet, Service, ServiceKey};
use lb_common::settings::Settings;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// The pinned maps the control plane writes.
pub struct Kernel {
    settings: Array<MapData, Settings>,
    places: HashMap<MapData, ServiceKey, u32>,
    prefixes: LpmTrie<MapData, Addr, u32>,
    matches: Array<MapData, MatchSet>,
    services: Array<MapData, Service>,
    plans: Array<MapData, PlanHead>,
    slots: Arc<Mapped>,
    servers: Array<MapData, Server>,
    thresholds: Array<MapData, Thresholds>,
    loads: Arc<Mapped>,
    denied: LpmTrie<MapData, Addr, u32>,
    counters: PerCpuArray<MapData, Counters>,
    cpus: usize,
}

/// Opens one pinned map as the type it should be.
///
/// # Errors
/// There is none at the place, or it is of another kind or size.
pub fn open<M>(pin: &Path, name: &'static str) -> Result<M, StoreError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let open = || M::try_from(Map::from_map_data(MapData::from_pin(pin.join(name))?)?);
    open().map_err(|source| StoreError {
        action: "opening",
        map: name,
        key: pin.join(name).display().to_string(),
        source: Box::new(source),
    })
}

impl Kernel {
    /// Opens the maps pinned in the folder `pin`. `slots` and `loads` are the arrays of those names, mapped.
    ///
    /// # Errors
    /// The first map that is missing or not what it should be.
    pub fn open(pin: &Path, slots: Arc<Mapped>, loads: Arc<Mapped>) -> Result<Self, StoreError> {
        Ok(Self {
            settings: open(pin, "SETTINGS")?,
            places: open(pin, "SERVICES")?,
            prefixes: open(pin, "PREFIXES")?,
            matches: open(pin, "MATCHES")?,
            services: open(pin, "SERVICE")?,
            plans: open(pin, "PLANS")?,
            slots,
            servers: open(pin, "SERVERS")?,
            thresholds: open(pin, "THRESHOLDS")?,
            loads,
            denied: open(pin, "DENIED")?,
            counters: open(pin, "COUNTERS")?,
            cpus: nr_cpus().map_err(|(path, source)| StoreError {
                action: "sizing",
                map: "COUNTERS",
                key: path.into(),
                source: Box::new(source),
            })?,
        })
    }
}

fn failed<K: Debug>(action: &'static str, map: &'static str, key: K) -> impl FnOnce(MapError) -> StoreError {
    move |source| StoreError { action, map, key: format!("{key:?}"), source: Box::new(source) }
}

fn get<V: Pod>(map: &Array<MapData, V>, name: &'static str, id: u32) -> Result<V, StoreError> {
    map.get(&id, 0).map_err(failed("reading", name, id))
}

fn set<V: Pod>(
    map: &mut Array<MapData, V>,
    name: &'static str,
    id: u32,
    value: &V,
) -> Result<(), StoreError> {
    map.set(id, value, 0).map_err(failed("writing", name, id))
}

fn trie_entries(
    map: &LpmTrie<MapData, Addr, u32>,
    name: &'static str,
) -> Result<Vec<(IpNet, u32)>, StoreError> {
    let read = |(key, value): (Key<Addr>, u32)| (prefix_of(key.prefix_len(), key.data()), value);
    map.iter().map(|entry| entry.map(read).map_err(failed("reading", name, "all"))).collect()
}

fn trie_insert(
    map: &mut LpmTrie<MapData, Addr, u32>,
    name: &'static str,
    prefix: IpNet,
    value: u32,
) -> Result<(), StoreError> {
    let (bits, address) = trie_key(prefix);
    map.insert(&Key::new(bits, address), value, 0).map_err(failed("writing", name, prefix))
}

fn trie_remove(
    map: &mut LpmTrie<MapData, Addr, u32>,
    name: &'static str,
    prefix: IpNet,
) -> Result<(), StoreError> {
    let (bits, address) = trie_key(prefix);
    absent_is_fine(map.remove(&Key::new(bits, address))).map_err(failed("removing from", name, prefix))
}

pub(super) fn absent_is_fine(outcome: Result<(), MapError>) -> Result<(), MapError> {
    match outcome {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the map ends at {0}")]
struct Beyond(usize);

impl MapStore for Kernel {
    fn settings(&self) -> Result<Settings, StoreError> {
        get(&self.settings, "SETTINGS", 0)
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<(), StoreError> {
        set(&mut self.settings, "SETTINGS", 0, settings)
    }

    fn places(&self) -> Result<Vec<(ServiceKey, u32)>, StoreError> {
        self.places.iter().map(|entry| entry.map_err(failed("reading", "SERVICES", "all"))).collect()
    }

    fn put_place(&mut self, place: &ServiceKey, service: u32) -> Result<(), StoreError> {
        self.places.insert(place, service, 0).map_err(failed("writing", "SERVICES", place))
    }

    fn remove_place(&mut self, place: &ServiceKey) -> Result<(), StoreError> {
        absent_is_fine(self.places.remove(place)).map_err(failed("removing from", "SERVICES", place))
    }

    fn prefixes(&self) -> Result<Vec<(IpNet, u32)>, StoreError> {
        trie_entries(&self.prefixes, "PREFIXES")
    }

    fn put_prefix(&mut self, prefix: IpNet, match_set: u32) -> Result<(), StoreError> {
        trie_insert(&mut self.prefixes, "PREFIXES", prefix, match_set)
    }

    fn remove_prefix(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        trie_remove(&mut self.prefixes, "PREFIXES", prefix)
    }

    fn match_set(&self, id: u32) -> Result<MatchSet, StoreError> {
        get(&self.matches, "MATCHES", id)
    }

    fn put_match_set(&mut self, id: u32, match_set: &MatchSet) -> Result<(), StoreError> {
        set(&mut self.matches, "MATCHES", id, match_set)
    }

    fn service(&self, id: u32) -> Result<Service, StoreError> {
        get(&self.services, "SERVICE", id)
    }

    fn put_service(&mut self, id: u32, service: &Service) -> Result<(), StoreError> {
        set(&mut self.services, "SERVICE", id, service)
    }

    fn plan(&self, service: u32) -> Result<PlanHead, StoreError> {
        get(&self.plans, "PLANS", service)
    }

    fn put_plan(&mut self, service: u32, head: PlanHead) -> Result<(), StoreError> {
        // The kernel copies values of eight bytes in one store (`bpf_long_memcpy`).
        set(&mut self.plans, "PLANS", service, &head)
    }

    fn cells(&self, start: u32, count: u32) -> Result<Vec<u64>, StoreError> {
        let range = start as usize..start as usize + count as usize;
        let cells = self.slots.cells();
        match cells.get(range) {
            Some(cells) => Ok(cells.iter().map(|cell| cell.load(Acquire)).collect()),
            None => Err(beyond("reading", "SLOTS", start, cells.len())),
        }
    }

    fn put_cells(&mut self, start: u32, values: &[u64]) -> Result<(), StoreError> {
        let range = start as usize..start as usize + values.len();
        let all = self.slots.cells();
        let Some(cells) = all.get(range) else {
            return Err(beyond("writing", "SLOTS", start, all.len()));
        };
        for (cell, value) in cells.iter().zip(values) {
            cell.store(*value, Release);
        }
        Ok(())
    }

    fn server(&self, id: u32) -> Result<Server, StoreError> {
        get(&self.servers, "SERVERS", id)
    }

    fn put_server(&mut self, id: u32, server: &Server) -> Result<(), StoreError> {
        set(&mut self.servers, "SERVERS", id, server)
    }

    fn thresholds(&self, id: u32) -> Result<Thresholds, StoreError> {
        get(&self.thresholds, "THRESHOLDS", id)
    }

    fn put_thresholds(&mut self, id: u32, thresholds: &Thresholds) -> Result<(), StoreError> {
        set(&mut self.thresholds, "THRESHOLDS", id, thresholds)
    }

    fn load(&self, id: u32) -> Result<[u32; LOAD_WORDS as usize], StoreError> {
        let words = self.load_words("reading", id)?;
        Ok(std::array::from_fn(|at| words[at].load(Acquire)))
    }

    fn put_overloaded(&mut self, id: u32, overloaded: bool) -> Result<(), StoreError> {
        let words = self.load_words("writing", id)?;
        words[load_word::OVERLOADED as usize].store(overloaded.into(), Release);
        Ok(())
    }

    fn forget_server(&mut self, id: u32) -> Result<(), StoreError> {
        for word in self.load_words("writing", id)? {
            word.swap(0, AcqRel);
        }
        let nothing = PerCpuValues::try_from(vec![Counters::default(); self.cpus]);
        let nothing =
            nothing.map_err(|source| failed("writing", "COUNTERS", id)(MapError::IoError(source)))?;
        self.counters.set(id, nothing, 0).map_err(failed("writing", "COUNTERS", id))
    }

    fn denied(&self) -> Result<Vec<IpNet>, StoreError> {
        Ok(trie_entries(&self.denied, "DENIED")?.into_iter().map(|(prefix, _)| prefix).collect())
    }

    fn deny(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        trie_insert(&mut self.denied, "DENIED", prefix, 1)
    }

    fn allow(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        trie_remove(&mut self.denied, "DENIED", prefix)
    }
}

impl Kernel {
    fn load_words(&self, action: &'static str, id: u32) -> Result<&[lb_common::flow::AtomicU32], StoreError> {
        let words = self.loads.words();
        let at = id as usize * LOAD_WORDS as usize;
        words.get(at..at + LOAD_WORDS as usize).ok_or_else(|| beyond(action, "LOADS", id, words.len()))
    }
}

fn beyond(action: &'static str, map: &'static str, at: u32, len: usize) -> StoreError {
    StoreError { action, map, key: at.to_string(), source: Box::new(Beyond(len)) }
}
