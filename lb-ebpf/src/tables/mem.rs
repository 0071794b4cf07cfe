//! The maps in ordinary memory, with the kernel's capacities and the kernel's answers about what was never written:
//! arrays read as zero, hash maps as absent. One CPU, a clock and a source of random numbers that are told what to say.

mod control;
mod store;

use self::store::{Recent, Store, longest};
use super::{ALLOWANCES, Allowance, SCRATCH_WORDS, Tables};
use crate::{
    frame::{Buffer, Frame, Moved},
    process, process_long,
    stage::Trip,
    verdict::Forwarded,
};
use lb_common::{
    counters::{Counters, NOTES, Note, REASONS, Reason},
    flow::{
        AtomicU32, Buckets, FlowKey, LOAD_WORDS, Layout, SPILL_WORDS, Shared, Slab, Templates, Thresholds,
        V4, V6, Words,
    },
    fragment::{FragmentKey, FragmentRoute},
    limits,
    locality::{LOCALITY_WORDS, LocalityKey, word},
    net::Addr,
    path::{self, PathMtu},
    plan::{PlanHead, Slot},
    server::Server,
    service::{MatchSet, Service, ServiceKey},
    settings::{Settings, feature},
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    hash::Hash,
    slice,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

/// Sizes of the tables that the configuration sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Buckets of the IPv4 flows, the IPv6 flows and the templates.
    pub buckets: [u32; 3],
    /// Flows in the spill map.
    pub spill: u32,
    /// Destinations of lblc and lblcr.
    pub locality: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { buckets: [64; 3], spill: 64, locality: 256 }
    }
}

/// Programs a packet may go through behind the first (`MAX_TAIL_CALL_CNT`).
const TRIPS: usize = 33;

/// Every map of the datapath. Written through `&mut`, as by the control plane; `&MemTables` is what the path sees.
#[derive(Debug)]
pub struct MemTables {
    sizes: Sizes,
    features: u32,
    now: u32,
    random: Cell<u64>,

    settings: Settings,
    services: HashMap<ServiceKey, u32>,
    /// By length in bits, of the mapped address for IPv4.
    prefixes: HashMap<(u32, Addr), u32>,
    matches: HashMap<u32, MatchSet>,
    service: Vec<Service>,
    plans: Vec<PlanHead>,
    slots: Vec<AtomicU64>,
    servers: Vec<Server>,
    thresholds: Vec<Thresholds>,
    denied: HashMap<(u32, Addr), ()>,

    loads: Vec<AtomicU32>,
    flows4: Vec<AtomicU32>,
    flows6: Vec<AtomicU32>,
    templates: Vec<AtomicU32>,
    spill: Store<FlowKey>,
    spilled: AtomicU32,
    locality: Store<LocalityKey>,
    fragments: Recent<FragmentKey, FragmentRoute>,
    sources: Recent<Addr, [u32; 2]>,
    paths: RefCell<HashMap<u32, PathMtu>>,

    counters: Vec<Cell<Counters>>,
    reasons: [Cell<u64>; REASONS],
    notes: [Cell<u64>; NOTES],
    allowed: [Cell<[u32; 2]>; ALLOWANCES as usize],
    forgot: Cell<u32>,
    scratch: [AtomicU32; SCRATCH_WORDS],
    /// One place for every stage a packet may go through: a trip is lent out, so none is overwritten before the next
    /// packet.
    trips: Vec<OnceCell<Trip>>,
    left: Cell<usize>,
}

fn words(count: usize) -> Vec<AtomicU32> {
    (0..count).map(|_| AtomicU32::new(0)).collect()
}

fn table<L: Layout>(buckets: u32) -> Vec<AtomicU32> {
    words(buckets as usize * L::BUCKET as usize)
}

impl MemTables {
    /// Empty maps; the clock stands at `now` jiffies, `seed` starts the random numbers.
    pub fn new(sizes: Sizes, features: u32, now: u32, seed: u64) -> Self {
        Self {
            sizes,
            features,
            now,
            random: Cell::new(seed),
            settings: Settings::default(),
            services: HashMap::new(),
            prefixes: HashMap::new(),
            matches: HashMap::new(),
            service: vec![Service::default(); limits::SERVICES as usize],
            plans: vec![PlanHead::NONE; limits::SERVICES as usize],
            slots: Vec::new(),
            servers: vec![Server::default(); limits::SERVERS as usize],
            thresholds: vec![Thresholds::default(); limits::SERVERS as usize],
            denied: HashMap::new(),
            loads: words(limits::SERVERS as usize * LOAD_WORDS as usize),
            flows4: table::<V4>(sizes.buckets[0]),
            flows6: table::<V6>(sizes.buckets[1]),
            templates: table::<Templates>(sizes.buckets[2]),
            spill: Store::new(sizes.spill, SPILL_WORDS),
            spilled: AtomicU32::new(0),
            locality: Store::new(sizes.locality, LOCALITY_WORDS),
            fragments: Recent::new(limits::FRAGMENTS),
            sources: Recent::new(limits::SOURCES),
            paths: RefCell::default(),
            counters: vec![Cell::default(); limits::SERVERS as usize],
            reasons: std::array::from_fn(|_| Cell::new(0)),
            notes: std::array::from_fn(|_| Cell::new(0)),
            allowed: std::array::from_fn(|_| Cell::default()),
            forgot: Cell::new(0),
            scratch: std::array::from_fn(|_| AtomicU32::new(0)),
            trips: vec![OnceCell::new(); TRIPS],
            left: Cell::new(0),
        }
    }

    /// Empties the maps, as [`MemTables::new`] makes them, in the memory they have: a fuzzer does so for each input.
    pub fn clear(&mut self, now: u32, seed: u64) {
        // Every field by name, so that none is forgotten.
        #[rustfmt::skip]
        let Self {
            sizes: _, features: _, now: clock, random,
            settings, services, prefixes, matches, service, plans, slots, servers, thresholds, denied,
            loads, flows4, flows6, templates, spill, spilled, locality, fragments, sources, paths,
            counters, reasons, notes, allowed, forgot, scratch, trips, left,
        } = self;
        *clock = now;
        random.set(seed);
        *settings = Settings::default();
        services.clear();
        prefixes.clear();
        matches.clear();
        service.fill(Service::default());
        plans.fill(PlanHead::NONE);
        slots.clear();
        servers.fill(Server::default());
        thresholds.fill(Thresholds::default());
        denied.clear();
        for words in [&mut loads[..], flows4, flows6, templates, scratch, slice::from_mut(spilled)] {
            words.iter_mut().for_each(|word| *word.get_mut() = 0);
        }
        spill.clear();
        locality.clear();
        fragments.clear();
        sources.clear();
        paths.get_mut().clear();
        counters.iter_mut().for_each(|cell| *cell.get_mut() = Counters::default());
        reasons.iter_mut().chain(notes).for_each(|cell| *cell.get_mut() = 0);
        allowed.iter_mut().for_each(|cell| *cell.get_mut() = [0; 2]);
        forgot.set(0);
        trips.fill(OnceCell::new());
        left.set(0);
    }

    /// Takes in a packet, which comes in by interface `ingress`, and counts it under its reason, as the XDP programs do.
    /// What left, or for a packet that does not leave what it was left as, is in `packet` afterwards.
    pub fn run(&mut self, packet: &mut Buffer, ingress: u32) -> (Reason, Option<Forwarded>) {
        self.run_by(|frame, tables| process(frame, tables), packet, ingress)
    }

    /// As [`MemTables::run`], by [`process_long`].
    pub fn run_long(&mut self, packet: &mut Buffer, ingress: u32) -> (Reason, Option<Forwarded>) {
        self.run_by(|frame, tables| process_long(frame, tables), packet, ingress)
    }

    fn run_by(
        &mut self,
        process: impl FnOnce(&mut Frame<Moved<'_>>, &&Self) -> Result<Forwarded, Reason>,
        packet: &mut Buffer,
        ingress: u32,
    ) -> (Reason, Option<Forwarded>) {
        self.trips.fill(OnceCell::new());
        self.left.set(0);
        let tables: &Self = self;
        let (reason, forwarded) = match packet.lend(|frame| process(frame, &tables)) {
            Ok(forwarded) if forwarded.ifindex == ingress => (Reason::Transmitted, Some(forwarded)),
            Ok(forwarded) => (Reason::Redirected, Some(forwarded)),
            Err(reason) => (reason, None),
        };
        increment(&self.reasons[reason as usize]);
        (reason, forwarded)
    }

    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Jiffies, low 32 bits.
    pub fn now(&self) -> u32 {
        self.now
    }

    pub fn set_now(&mut self, now: u32) {
        self.now = now;
    }

    /// Bits of [`feature`].
    pub fn set_features(&mut self, features: u32) {
        self.features = features & feature::ALL;
    }
}

fn increment(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl<'a> Buckets<V4> for &'a MemTables {
    type Words = Shared<'a>;

    fn bucket(&self, index: u32) -> Option<Shared<'a>> {
        Slab::<V4>::new(&self.flows4).bucket(index)
    }
}

impl<'a> Buckets<V6> for &'a MemTables {
    type Words = Shared<'a>;

    fn bucket(&self, index: u32) -> Option<Shared<'a>> {
        Slab::<V6>::new(&self.flows6).bucket(index)
    }
}

impl<'a> Buckets<Templates> for &'a MemTables {
    type Words = Shared<'a>;

    fn bucket(&self, index: u32) -> Option<Shared<'a>> {
        Slab::<Templates>::new(&self.templates).bucket(index)
    }
}

impl<'a> Tables for &'a MemTables {
    type Cells = Shared<'a>;

    fn now(&self) -> u32 {
        self.now
    }

    fn random(&self) -> u32 {
        // SplitMix64 (Steele, Lea and Flood).
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as u32
    }

    fn features(&self) -> u32 {
        self.features
    }

    fn leave(&self, trip: &Trip) {
        let place = self.trips.get(self.left.get()).expect("a packet goes through at most 33 stages");
        place.set(*trip).expect("places are used in turn");
        self.left.set(self.left.get() + 1);
    }

    fn trip(&self) -> Option<&Trip> {
        self.trips.get(self.left.get().checked_sub(1)?)?.get()
    }

    fn scratch(&self) -> Option<Shared<'a>> {
        let tables: &'a MemTables = self;
        Some(Shared(&tables.scratch))
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn service_at(&self, key: &ServiceKey) -> Option<u32> {
        self.services.get(key).copied()
    }

    fn matches(&self, vip: &Addr) -> Option<&MatchSet> {
        let id = longest(&self.prefixes, vip)?;
        Some(
            self.matches
                .get(&id)
                .unwrap_or(&const { MatchSet { count: 0, rules: [NO_RULE; limits::MATCH_RULES] } }),
        )
    }

    fn service(&self, id: u32) -> Option<&Service> {
        self.service.get(id as usize)
    }

    fn plan(&self, service: u32) -> PlanHead {
        self.plans.get(service as usize).copied().unwrap_or(PlanHead::NONE)
    }

    fn slot(&self, cell: u32) -> Option<Slot> {
        if cell >= limits::SLOTS {
            return None;
        }
        Some(Slot(self.slots.get(cell as usize).map_or(0, |cell| cell.load(SeqCst))))
    }

    fn advance(&self, cell: u32, by: u64) -> Option<u64> {
        Some(self.slots.get(cell as usize)?.fetch_add(by, SeqCst))
    }

    fn server(&self, id: u32) -> Option<&Server> {
        self.servers.get(id as usize)
    }

    fn thresholds(&self, server: u32) -> Option<&Thresholds> {
        self.thresholds.get(server as usize)
    }

    fn load(&self, server: u32) -> Option<Shared<'a>> {
        let tables: &'a MemTables = self;
        if server < limits::SERVERS { Some(tables.load_words(server)) } else { None }
    }

    fn account(&self, server: u32, opened: bool, bytes: u32) {
        if let Some(cell) = self.counters.get(server as usize) {
            let mut counters = cell.get();
            counters.packets += 1;
            counters.bytes += bytes as u64;
            counters.connections += opened as u64;
            cell.set(counters);
        }
    }

    fn note(&self, note: Note) {
        increment(&self.notes[note as usize]);
    }

    fn spilled(&self) -> u32 {
        self.spilled.load(SeqCst)
    }

    fn spill(&self, key: &FlowKey) -> Option<Shared<'a>> {
        let tables: &'a MemTables = self;
        tables.spill.get(key)
    }

    fn spill_insert(&self, key: &FlowKey, fill: impl FnOnce(Shared<'a>)) -> bool {
        let tables: &'a MemTables = self;
        let Some(words) = tables.spill.insert(key) else { return false };
        fill(words);
        self.spilled.fetch_add(1, SeqCst);
        true
    }

    fn locality(&self, key: &LocalityKey) -> Option<Shared<'a>> {
        let tables: &'a MemTables = self;
        tables.locality.get(key)
    }

    fn locality_insert(&self, key: &LocalityKey, server: u32, now: u32) -> bool {
        let Some(words) = self.locality.insert(key) else { return false };
        words.store(word::USED, now);
        words.store(word::MODIFIED, now);
        words.store(word::COUNT, 1);
        words.store(word::SERVERS, server);
        true
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRoute> {
        self.fragments.get(key)
    }

    fn set_fragment(&self, key: &FragmentKey, route: &FragmentRoute) {
        self.fragments.insert(key, *route);
    }

    fn path(&self, rip: &Addr) -> Option<PathMtu> {
        Some(self.paths.borrow().get(&path::index(rip)).copied().unwrap_or_default())
    }

    fn set_path(&self, path: &PathMtu) {
        self.paths.borrow_mut().insert(path::index(&path.rip), *path);
    }

    fn is_denied(&self, source: &Addr) -> bool {
        longest(&self.denied, source).is_some()
    }

    fn source_opened(&self, prefix: &Addr, second: u32) -> u32 {
        let opened = match self.sources.get(prefix) {
            Some([of, opened]) if of == second => opened + 1,
            _ => 1,
        };
        self.sources.insert(prefix, [second, opened]);
        opened
    }

    fn allow(&self, what: Allowance, limit: u32, second: u32) -> bool {
        let cell = &self.allowed[what as usize];
        let used = match cell.get() {
            [of, used] if of == second => used,
            _ => 0,
        };
        let granted = used < limit;
        cell.set([second, used + u32::from(granted)]);
        granted
    }

    fn forget(&self, second: u32) {
        self.forgot.set(second);
    }

    fn forgot(&self) -> u32 {
        self.forgot.get()
    }
}

const NO_RULE: lb_common::service::MatchRule =
    lb_common::service::MatchRule { from: 0, to: 0, protocol: 0, pad: [0; 3], service: 0 };
