//! The library over memory.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ipnet::IpNet;
use lb_common::counters::{Counters, Note, Reason, Verdict};
use lb_common::flow::{FlowKey, LOAD_WORDS, SPILL_WORDS, Shared, Slab, Thresholds, Words, load_word};
use lb_common::fragment::{FragmentKey, FragmentRoute};
use lb_common::limits;
use lb_common::locality::{LOCALITY_WORDS, LocalityKey};
use lb_common::net::Addr;
use lb_common::path::PathMtu;
use lb_common::plan::PlanHead;
use lb_common::server::Server;
use lb_common::service::{MatchRule, MatchSet, Service, ServiceKey};
use lb_common::settings::Settings;
use lb_ebpf::frame::Buffer;
use lb_ebpf::tables::Tables;
use lb_ebpf::tables::mem::{self, MemTables};
use lb_userspace::maps::{MapStore, StoreError};
use lb_userspace::sweep;
use lb_userspace::xdp::Sizes;

use super::{Engine, INGRESS, Output, jiffies};

/// Jiffies in a second of the host engine. Not one of the rates a kernel is built with: nothing may depend on it.
const HZ: u32 = 500;

/// Where the clock starts, in seconds: a little before its 32 bits wrap around, so that every test with time in it
/// crosses the wrap.
const START: u32 = u32::MAX / HZ - 20;

/// The path as a library, its maps in memory.
#[derive(Debug)]
pub struct Host {
    tables: Arc<Mutex<MemTables>>,
    sizes: Sizes,
    features: u32,
    /// Plain packets go the long way, too.
    long: bool,
}

/// What the host's random numbers start from.
const SEED: u64 = 1;

impl Host {
    /// `features` are bits of [`lb_common::settings::feature`].
    pub fn new(sizes: Sizes, features: u32) -> Self {
        let of = mem::Sizes { buckets: sizes.buckets(), spill: sizes.spill(), ..mem::Sizes::default() };
        let tables = MemTables::new(of, features, START * HZ, SEED);
        Self { tables: Arc::new(Mutex::new(tables)), sizes, features, long: false }
    }

    /// The same without the short way of plain packets.
    pub fn by_the_long_way(self) -> Self {
        Self { long: true, ..self }
    }

    fn tables(&self) -> MutexGuard<'_, MemTables> {
        self.tables.lock().expect("no test goes on after a panic")
    }

    /// Takes in a frame that lies in these buffers.
    pub fn run_in(&mut self, mut buffer: Buffer) -> Output {
        let mut tables = self.tables();
        let (reason, forwarded) =
            if self.long { tables.run_long(&mut buffer, INGRESS) } else { tables.run(&mut buffer, INGRESS) };
        let egress = match reason.verdict() {
            Verdict::Transmit | Verdict::Redirect => forwarded.map(|forwarded| forwarded.ifindex),
            Verdict::Reply => Some(INGRESS),
            Verdict::Pass | Verdict::Drop => None,
        };
        Output { reason, egress, bytes: buffer.bytes() }
    }
}

impl Engine for Host {
    type Store = HostStore;

    fn name(&self) -> &'static str {
        "host"
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn features(&self) -> u32 {
        self.features
    }

    fn store(&self) -> HostStore {
        HostStore(Arc::clone(&self.tables))
    }

    fn clear(&mut self) {
        self.tables().clear(START * HZ, SEED);
    }

    fn run(&mut self, frame: &[u8]) -> Output {
        self.run_in(Buffer::new(frame))
    }

    fn advance(&mut self, by: Duration) {
        let mut tables = self.tables();
        let now = tables.now().wrapping_add(jiffies(by, HZ));
        tables.set_now(now);
    }

    fn now(&self) -> u32 {
        self.tables().now()
    }

    fn hz(&self) -> u32 {
        HZ
    }

    fn reason(&self, reason: Reason) -> u64 {
        self.tables().reason(reason)
    }

    fn noted(&self, note: Note) -> u64 {
        self.tables().noted(note)
    }

    fn counters(&self, server: u32) -> Counters {
        self.tables().counters(server)
    }

    fn with_tables<T>(&self, look: impl FnOnce(sweep::Tables<'_>) -> T) -> T {
        let tables = self.tables();
        look(sweep::Tables {
            v4: Slab::new(tables.flows4()),
            v6: Slab::new(tables.flows6()),
            templates: Slab::new(tables.templates()),
            loads: tables.loads(),
        })
    }

    fn spills(&self) -> Vec<(FlowKey, [u32; SPILL_WORDS])> {
        copied(self.tables().spills())
    }

    fn remove_spill(&mut self, key: &FlowKey) {
        self.tables().remove_spill(key);
    }

    fn localities(&self) -> Vec<(LocalityKey, [u32; LOCALITY_WORDS])> {
        copied(self.tables().localities())
    }

    fn remove_locality(&mut self, key: &LocalityKey) {
        self.tables().remove_locality(key);
    }

    fn fragments(&self) -> Vec<(FragmentKey, FragmentRoute)> {
        self.tables().fragments()
    }

    fn paths(&self) -> Vec<PathMtu> {
        self.tables().paths()
    }

    fn sources(&self) -> Vec<(Addr, u32)> {
        self.tables().sources().into_iter().map(|(prefix, [_, opened])| (prefix, opened)).collect()
    }
}

fn copied<K, const N: usize>(entries: Vec<(K, Shared<'_>)>) -> Vec<(K, [u32; N])> {
    let words = |shared: Shared<'_>| std::array::from_fn(|at| shared.load(at as u32));
    entries.into_iter().map(|(key, shared)| (key, words(shared))).collect()
}

/// The host engine's maps, as the control plane writes them.
#[derive(Clone, Debug)]
pub struct HostStore(Arc<Mutex<MemTables>>);

impl HostStore {
    fn tables(&self) -> MutexGuard<'_, MemTables> {
        self.0.lock().expect("no test goes on after a panic")
    }
}

/// An id beyond the map's end, which the kernel refuses.
#[derive(Debug, thiserror::Error)]
#[error("the map ends at {0}")]
struct Beyond(u32);

fn bounded(map: &'static str, at: u32, below: u32) -> Result<(), StoreError> {
    if at < below {
        return Ok(());
    }
    Err(StoreError { action: "writing", map, key: at.to_string(), source: Box::new(Beyond(below)) })
}

/// Leading bits and address of a prefix among mapped addresses.
fn trie_key(prefix: IpNet) -> (u32, Addr) {
    let family = if prefix.addr().is_ipv4() { 96 } else { 0 };
    (u32::from(prefix.prefix_len()) + family, Addr::from(prefix.network()))
}

fn prefix(bits: u32, address: Addr) -> IpNet {
    let bits = u8::try_from(bits).expect("at most 128");
    match address.to_ip() {
        IpAddr::V4(v4) if bits >= 96 => IpNet::new(v4.into(), bits - 96),
        IpAddr::V4(v4) => IpNet::new(v4.to_ipv6_mapped().into(), bits),
        v6 => IpNet::new(v6, bits),
    }
    .expect("the length was the family's when it was put")
}

const NO_MATCHES: MatchSet = MatchSet {
    count: 0,
    rules: [MatchRule { from: 0, to: 0, protocol: 0, pad: [0; 3], service: 0 }; limits::MATCH_RULES],
};

impl MapStore for HostStore {
    fn settings(&self) -> Result<Settings, StoreError> {
        Ok(*self.tables().settings())
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<(), StoreError> {
        self.tables().put_settings(settings);
        Ok(())
    }

    fn places(&self) -> Result<Vec<(ServiceKey, u32)>, StoreError> {
        Ok(self.tables().places().collect())
    }

    fn put_place(&mut self, place: &ServiceKey, service: u32) -> Result<(), StoreError> {
        self.tables().put_place(place, service);
        Ok(())
    }

    fn remove_place(&mut self, place: &ServiceKey) -> Result<(), StoreError> {
        self.tables().remove_place(place);
        Ok(())
    }

    fn prefixes(&self) -> Result<Vec<(IpNet, u32)>, StoreError> {
        Ok(self.tables().prefixes().map(|(bits, address, id)| (prefix(bits, address), id)).collect())
    }

    fn put_prefix(&mut self, prefix: IpNet, match_set: u32) -> Result<(), StoreError> {
        let (bits, address) = trie_key(prefix);
        self.tables().put_prefix(bits, address, match_set);
        Ok(())
    }

    fn remove_prefix(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        let (bits, address) = trie_key(prefix);
        self.tables().remove_prefix(bits, address);
        Ok(())
    }

    fn match_set(&self, id: u32) -> Result<MatchSet, StoreError> {
        Ok(self.tables().match_set(id).copied().unwrap_or(NO_MATCHES))
    }

    fn put_match_set(&mut self, id: u32, set: &MatchSet) -> Result<(), StoreError> {
        bounded("MATCHES", id, limits::MATCH_PREFIXES)?;
        self.tables().put_match_set(id, set);
        Ok(())
    }

    fn service(&self, id: u32) -> Result<Service, StoreError> {
        Ok((&*self.tables()).service(id).copied().unwrap_or_default())
    }

    fn put_service(&mut self, id: u32, service: &Service) -> Result<(), StoreError> {
        bounded("SERVICE", id, limits::SERVICES)?;
        self.tables().put_service(id, service);
        Ok(())
    }

    fn plan(&self, service: u32) -> Result<PlanHead, StoreError> {
        Ok((&*self.tables()).plan(service))
    }

    fn put_plan(&mut self, service: u32, head: PlanHead) -> Result<(), StoreError> {
        bounded("PLANS", service, limits::SERVICES)?;
        self.tables().put_plan(service, head);
        Ok(())
    }

    fn cells(&self, start: u32, count: u32) -> Result<Vec<u64>, StoreError> {
        Ok(self.tables().cells(start, count))
    }

    fn put_cells(&mut self, start: u32, cells: &[u64]) -> Result<(), StoreError> {
        bounded("SLOTS", start + cells.len() as u32, limits::SLOTS + 1)?;
        self.tables().put_cells(start, cells);
        Ok(())
    }

    fn server(&self, id: u32) -> Result<Server, StoreError> {
        Ok((&*self.tables()).server(id).copied().unwrap_or_default())
    }

    fn put_server(&mut self, id: u32, server: &Server) -> Result<(), StoreError> {
        bounded("SERVERS", id, limits::SERVERS)?;
        self.tables().put_server(id, server);
        Ok(())
    }

    fn thresholds(&self, id: u32) -> Result<Thresholds, StoreError> {
        Ok((&*self.tables()).thresholds(id).copied().unwrap_or_default())
    }

    fn put_thresholds(&mut self, id: u32, thresholds: &Thresholds) -> Result<(), StoreError> {
        bounded("THRESHOLDS", id, limits::SERVERS)?;
        self.tables().put_thresholds(id, thresholds);
        Ok(())
    }

    fn load(&self, id: u32) -> Result<[u32; LOAD_WORDS as usize], StoreError> {
        bounded("LOADS", id, limits::SERVERS)?;
        let tables = self.tables();
        Ok(std::array::from_fn(|at| tables.load_words(id).load(at as u32)))
    }

    fn put_overloaded(&mut self, id: u32, overloaded: bool) -> Result<(), StoreError> {
        bounded("LOADS", id, limits::SERVERS)?;
        self.tables().load_words(id).store(load_word::OVERLOADED, overloaded.into());
        Ok(())
    }

    fn forget_server(&mut self, id: u32) -> Result<(), StoreError> {
        bounded("LOADS", id, limits::SERVERS)?;
        self.tables().forget_server(id);
        Ok(())
    }

    fn denied(&self) -> Result<Vec<IpNet>, StoreError> {
        Ok(self.tables().denied().map(|(bits, address)| prefix(bits, address)).collect())
    }

    fn deny(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        let (bits, address) = trie_key(prefix);
        self.tables().deny(bits, address);
        Ok(())
    }

    fn allow(&mut self, prefix: IpNet) -> Result<(), StoreError> {
        let (bits, address) = trie_key(prefix);
        self.tables().allow(bits, address);
        Ok(())
    }
}
