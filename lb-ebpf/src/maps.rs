//! The map statics, and [`Tables`] over them. Names, kinds and writers: `lb_common`'s crate documentation.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::{bpf_get_prandom_u32, bpf_jiffies64},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, lpm_trie::Key},
    programs::XdpContext,
};
use core::intrinsics::{
    // Never relaxed: LLVM turns a relaxed addition into the instruction that does not fetch, and the value before is
    // then whatever the register held.
    AtomicOrdering::SeqCst,
    atomic_cxchg,
    atomic_xadd,
};
use lb_common::{
    counters::{self, Counters, Note, Reason},
    decap,
    flow::{Buckets, FlowKey, LOAD_WORDS, Layout, SPILL_WORDS, Templates, Thresholds, V4, V6, Words},
    fragment::{FragmentKey, FragmentRoute},
    limits,
    locality::{LOCALITY_WORDS, LocalityKey, word},
    net::Addr,
    path::{self, PathMtu},
    plan::{PlanHead, Slot},
    server::Server,
    service::{MatchSet, Service, ServiceKey},
    settings::Settings,
};
use lb_ebpf::{
    decap::{Ends, Opened, Step},
    stage::{Stage, Trip},
    tables::{ALLOWANCES, Allowance, SCRATCH_WORDS, Tables},
};

/// `BPF_F_MMAPABLE` of the kernel's uapi: the control plane maps the array into its memory.
const MAPPED: u32 = 1 << 10;

/// Entries of the tables whose size the configuration sets at load.
const SIZED_AT_LOAD: u32 = 1;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static SERVICES: HashMap<ServiceKey, u32> = HashMap::with_max_entries(limits::SERVICES * 4, 0);
#[map]
static PREFIXES: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(limits::MATCH_PREFIXES, BPF_F_NO_PREALLOC);
#[map]
static MATCHES: Array<MatchSet> = Array::with_max_entries(limits::MATCH_PREFIXES, 0);
#[map]
static SERVICE: Array<Service> = Array::with_max_entries(limits::SERVICES, 0);
#[map]
static PLANS: Array<u64> = Array::with_max_entries(limits::SERVICES, 0);
#[map]
static SLOTS: Array<u64> = Array::with_max_entries(limits::SLOTS, MAPPED);
#[map]
static SERVERS: Array<Server> = Array::with_max_entries(limits::SERVERS, 0);
#[map]
static THRESHOLDS: Array<Thresholds> = Array::with_max_entries(limits::SERVERS, 0);
#[map]
static LOADS: Array<[u32; LOAD_WORDS as usize]> = Array::with_max_entries(limits::SERVERS, MAPPED);
#[map]
static FLOWS4: Array<[u32; V4::BUCKET as usize]> = Array::with_max_entries(SIZED_AT_LOAD, MAPPED);
#[map]
static FLOWS6: Array<[u32; V6::BUCKET as usize]> = Array::with_max_entries(SIZED_AT_LOAD, MAPPED);
#[map]
static TEMPLATES: Array<[u32; Templates::BUCKET as usize]> = Array::with_max_entries(SIZED_AT_LOAD, MAPPED);
#[map]
static SPILL: HashMap<FlowKey, [u32; SPILL_WORDS]> = HashMap::with_max_entries(SIZED_AT_LOAD, 0);
#[map]
static SPILLED: Array<u32> = Array::with_max_entries(1, MAPPED);
#[map]
static LOCALITY: HashMap<LocalityKey, [u32; LOCALITY_WORDS]> =
    HashMap::with_max_entries(limits::LOCALITY, BPF_F_NO_PREALLOC);
/// What one stage leaves for the next.
#[map]
static TRIPS: PerCpuArray<Trip> = PerCpuArray::with_max_entries(1, 0);
/// See `Tables::scratch`.
#[map]
static SCRATCH: PerCpuArray<[u32; SCRATCH_WORDS]> = PerCpuArray::with_max_entries(1, 0);
/// The stages' programs, by `Stage`.
#[map]
static STAGES: ProgramArray = ProgramArray::with_max_entries(Stage::ALL.len() as u32, 0);

/// Values being put together before they are inserted.
#[map]
static SPILL_DRAFT: PerCpuArray<[u32; SPILL_WORDS]> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LOCALITY_DRAFT: PerCpuArray<[u32; LOCALITY_WORDS]> = PerCpuArray::with_max_entries(1, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentRoute> = LruHashMap::with_max_entries(limits::FRAGMENTS, 0);
#[map]
static PATHS: Array<PathMtu> = Array::with_max_entries(limits::PATHS, 0);
#[map]
static DENIED: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(limits::DENIED, BPF_F_NO_PREALLOC);
#[map]
static SOURCES: LruHashMap<Addr, [u32; 2]> = LruHashMap::with_max_entries(limits::SOURCES, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(limits::SERVERS, 0);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::REASONS as u32, 0);
#[map]
static NOTES: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::NOTES as u32, 0);
/// Per allowance: the second it is for, what was used of it. Behind them: the second of the latest forgetting.
#[map]
static ALLOWED: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(ALLOWANCES + 1, 0);

/// The decapsulator's, see `lb_common::decap`.
#[map]
static TUNNELS: Array<decap::Tunnels> = Array::with_max_entries(1, 0);
#[map]
static TUNNEL_ADDRESSES: HashMap<Addr, u32> = HashMap::with_max_entries(decap::ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static DECAPSULATED: PerCpuArray<u64> = PerCpuArray::with_max_entries(decap::REASONS as u32, 0);

/// What one step of the decapsulator leaves for the next.
#[map]
static TUNNEL_OPENED: PerCpuArray<Opened> = PerCpuArray::with_max_entries(1, 0);
/// The steps' programs, by `Step`.
#[map]
static TUNNEL_STEPS: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// What this program does, a bit each of `lb_common::settings::feature`. Set before loading; read-only then, so
/// the verifier knows it and removes what is off.
#[unsafe(no_mangle)]
static FEATURES: u32 = lb_common::settings::feature::ALL;

/// Words of a map value.
#[derive(Clone, Copy)]
pub(crate) struct MapWords(*mut u32);

impl Words for MapWords {
    #[inline(always)]
    fn load(self, at: u32) -> u32 {
        // SAFETY: the pointer is a live map value and `at` in its bounds, which the verifier proves again.
        unsafe { self.0.add(at as usize).read_volatile() }
    }

    #[inline(always)]
    fn store(self, at: u32, value: u32) {
        // SAFETY: as for `load`; other CPUs and the control plane see words, never parts of one.
        unsafe { self.0.add(at as usize).write_volatile(value) }
    }

    #[inline(always)]
    fn swap(self, at: u32, old: u32, new: u32) -> bool {
        // SAFETY: as for `load`; map values are aligned to eight bytes.
        unsafe { atomic_cxchg::<u32, { SeqCst }, { SeqCst }>(self.0.add(at as usize), old, new).1 }
    }

    #[inline(always)]
    fn add(self, at: u32, delta: u32) -> u32 {
        // SAFETY: as for `swap`.
        unsafe { atomic_xadd::<u32, u32, { SeqCst }>(self.0.add(at as usize), delta) }
    }
}

/// The maps as the path sees them.
pub(crate) struct KernelMaps;

impl Buckets<V4> for KernelMaps {
    type Words = MapWords;

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<MapWords> {
        FLOWS4.get_ptr_mut(index).map(|bucket| MapWords(bucket.cast()))
    }
}

impl Buckets<V6> for KernelMaps {
    type Words = MapWords;

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<MapWords> {
        FLOWS6.get_ptr_mut(index).map(|bucket| MapWords(bucket.cast()))
    }
}

impl Buckets<Templates> for KernelMaps {
    type Words = MapWords;

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<MapWords> {
        TEMPLATES.get_ptr_mut(index).map(|bucket| MapWords(bucket.cast()))
    }
}

/// Bits of an IPv6 address, the length of a key that asks for one address.
const WHOLE_ADDRESS: u32 = 128;

impl Tables for KernelMaps {
    type Cells = MapWords;

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: no arguments; the verifier inlines it.
        unsafe { bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn features(&self) -> u32 {
        // SAFETY: a static of this program. Volatile, because its value is set after compilation.
        unsafe { core::ptr::read_volatile(&FEATURES) }
    }

    #[inline(always)]
    fn leave(&self, trip: &Trip) {
        if let Some(left) = TRIPS.get_ptr_mut(0) {
            // SAFETY: a live value of this CPU's own.
            unsafe { *left = *trip };
        }
    }

    #[inline(always)]
    fn trip(&self) -> Option<&Trip> {
        // Only stages ask, and they run behind a `leave` on the same CPU.
        TRIPS.get(0)
    }

    #[inline(always)]
    fn scratch(&self) -> Option<MapWords> {
        SCRATCH.get_ptr_mut(0).map(|words| MapWords(words.cast()))
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(0)
    }

    #[inline(always)]
    fn service_at(&self, key: &ServiceKey) -> Option<u32> {
        // SAFETY: an aligned u32, which the control plane replaces whole.
        unsafe { SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn matches(&self, vip: &Addr) -> Option<&MatchSet> {
        MATCHES.get(*PREFIXES.get(&Key::new(WHOLE_ADDRESS, *vip))?)
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<&Service> {
        SERVICE.get(id)
    }

    #[inline(always)]
    fn plan(&self, service: u32) -> PlanHead {
        match PLANS.get(service) {
            Some(&head) => PlanHead(head),
            None => PlanHead::NONE,
        }
    }

    #[inline(always)]
    fn slot(&self, cell: u32) -> Option<Slot> {
        SLOTS.get(cell).map(|&slot| Slot(slot))
    }

    #[inline(always)]
    fn advance(&self, cell: u32, by: u64) -> Option<u64> {
        let cursor = SLOTS.get_ptr_mut(cell)?;
        // SAFETY: a live map value of eight bytes.
        Some(unsafe { atomic_xadd::<u64, u64, { SeqCst }>(cursor, by) })
    }

    #[inline(always)]
    fn server(&self, id: u32) -> Option<&Server> {
        SERVERS.get(id)
    }

    #[inline(always)]
    fn thresholds(&self, server: u32) -> Option<&Thresholds> {
        THRESHOLDS.get(server)
    }

    #[inline(always)]
    fn load(&self, server: u32) -> Option<MapWords> {
        LOADS.get_ptr_mut(server).map(|words| MapWords(words.cast()))
    }

    #[inline(always)]
    fn account(&self, server: u32, opened: bool, bytes: u32) {
        if let Some(counters) = COUNTERS.get_ptr_mut(server) {
            // SAFETY: a live value of this CPU's own; no other program runs on it meanwhile.
            unsafe {
                (*counters).packets += 1;
                (*counters).bytes += bytes as u64;
                (*counters).connections += opened as u64;
            }
        }
    }

    #[inline(always)]
    fn note(&self, note: Note) {
        increment(&NOTES, note as u32);
    }

    #[inline(always)]
    fn spilled(&self) -> u32 {
        SPILLED.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn spill(&self, key: &FlowKey) -> Option<MapWords> {
        SPILL.get_ptr_mut(key).map(|words| MapWords(words.cast()))
    }

    #[inline(always)]
    fn spill_insert(&self, key: &FlowKey, fill: impl FnOnce(MapWords)) -> bool {
        let Some(draft) = SPILL_DRAFT.get_ptr_mut(0) else { return false };
        // SAFETY: a live value of this CPU's own. Too large for the stack, hence a map.
        let draft = unsafe {
            *draft = [0; SPILL_WORDS];
            &*draft
        };
        fill(MapWords(draft.as_ptr().cast_mut()));
        // Only if the key is not there: another CPU may have been faster, and its flow is counted.
        if SPILL.insert(key, draft, u64::from(BPF_NOEXIST)).is_err() {
            return false;
        }
        if let Some(spilled) = SPILLED.get_ptr_mut(0) {
            MapWords(spilled).add(0, 1);
        }
        true
    }

    #[inline(always)]
    fn locality(&self, key: &LocalityKey) -> Option<MapWords> {
        LOCALITY.get_ptr_mut(key).map(|words| MapWords(words.cast()))
    }

    #[inline(always)]
    fn locality_insert(&self, key: &LocalityKey, server: u32, now: u32) -> bool {
        let Some(draft) = LOCALITY_DRAFT.get_ptr_mut(0) else { return false };
        // SAFETY: a live value of this CPU's own. Too large for the stack, hence a map. What lies behind the first
        // server is left over from before and not read: the count is one.
        let draft = unsafe {
            let words = MapWords(draft.cast());
            words.store(word::USED, now);
            words.store(word::MODIFIED, now);
            words.store(word::COUNT, 1);
            words.store(word::SERVERS, server);
            &*draft
        };
        LOCALITY.insert(key, draft, 0).is_ok()
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRoute> {
        // SAFETY: eight aligned bytes, copied at once.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn set_fragment(&self, key: &FragmentKey, route: &FragmentRoute) {
        // An LRU map finds room; if it fails under pressure the later fragments are dropped and counted.
        let _ = FRAGMENTS.insert(key, route, 0);
    }

    #[inline(always)]
    fn path(&self, rip: &Addr) -> Option<PathMtu> {
        PATHS.get(path::index(rip)).copied()
    }

    #[inline(always)]
    fn set_path(&self, path: &PathMtu) {
        if let Some(entry) = PATHS.get_ptr_mut(path::index(&path.rip)) {
            // SAFETY: a live map value. Readers compare the address and the time, so a torn entry is not used.
            unsafe { *entry = *path };
        }
    }

    #[inline(always)]
    fn is_denied(&self, source: &Addr) -> bool {
        DENIED.get(&Key::new(WHOLE_ADDRESS, *source)).is_some()
    }

    #[inline(always)]
    fn source_opened(&self, prefix: &Addr, second: u32) -> u32 {
        if let Some(window) = SOURCES.get_ptr_mut(prefix) {
            let window = MapWords(window.cast());
            if window.load(0) == second {
                return window.add(1, 1).wrapping_add(1);
            }
        }
        let _ = SOURCES.insert(prefix, &[second, 1], 0);
        1
    }

    #[inline(always)]
    fn allow(&self, what: Allowance, limit: u32, second: u32) -> bool {
        let Some(cell) = ALLOWED.get_ptr_mut(what as u32) else { return false };
        // SAFETY: a live value of this CPU's own.
        let [current, used] = unsafe { &mut *cell };
        if *current != second {
            *current = second;
            *used = 0;
        }
        if *used >= limit {
            return false;
        }
        *used += 1;
        true
    }

    #[inline(always)]
    fn forget(&self, second: u32) {
        if let Some(cell) = ALLOWED.get_ptr_mut(ALLOWANCES) {
            // SAFETY: a live value of this CPU's own.
            unsafe { (*cell)[0] = second };
        }
    }

    #[inline(always)]
    fn forgot(&self) -> u32 {
        ALLOWED.get(ALLOWANCES).map_or(0, |cell| cell[0])
    }
}

/// Goes on with a stage's program. Returns only if there is none.
#[inline(always)]
pub(crate) fn go_on(context: &XdpContext, stage: Stage) {
    // SAFETY: the context this program was called with; nothing of this stack is needed any more.
    let _ = unsafe { STAGES.tail_call(context, stage as u32) };
}

impl Ends for KernelMaps {
    #[inline(always)]
    fn tunnels(&self) -> Option<&decap::Tunnels> {
        TUNNELS.get(0)
    }

    #[inline(always)]
    fn roles(&self, address: &Addr) -> u32 {
        // SAFETY: an aligned u32, which userspace replaces whole.
        unsafe { TUNNEL_ADDRESSES.get(address) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn leave(&self, opened: &Opened) {
        if let Some(left) = TUNNEL_OPENED.get_ptr_mut(0) {
            // SAFETY: a live value of this CPU's own.
            unsafe { *left = *opened };
        }
    }

    #[inline(always)]
    fn opened(&self) -> Option<&Opened> {
        // Only steps ask, and they run behind a `leave` on the same CPU.
        TUNNEL_OPENED.get(0)
    }
}

/// Goes on with a step's program. Returns only if there is none.
#[inline(always)]
pub(crate) fn step(context: &XdpContext, step: Step) {
    // SAFETY: as for `go_on`.
    let _ = unsafe { TUNNEL_STEPS.tail_call(context, step as u32) };
}

/// Counts a packet the decapsulator saw under its reason.
#[inline(always)]
pub(crate) fn count_decapsulated(reason: decap::Reason) {
    increment(&DECAPSULATED, reason as u32);
}

/// Counts a packet under its reason.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    increment(&REASONS, reason as u32);
}

#[inline(always)]
fn increment(map: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = map.get_ptr_mut(index) {
        // SAFETY: a live value of this CPU's own.
        unsafe { *counter += 1 };
    }
}
