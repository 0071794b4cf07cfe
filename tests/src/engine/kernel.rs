//! The loaded program, run packet by packet with `BPF_PROG_TEST_RUN`. Loaded by the daemon's own loader, with maps pinned
//! in a folder of this engine that goes with it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32 as Counter, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use lb_common::counters::{Counters, Note, Reason, Verdict};
use lb_common::flow::{
    AtomicU32, Buckets, Entry, FlowKey, Layout, SPILL_WORDS, Slab, Templates, Thresholds, V4, V6, WAYS,
};
use lb_common::fragment::{FragmentKey, FragmentRoute};
use lb_common::limits;
use lb_common::locality::{LOCALITY_WORDS, LocalityKey, word};
use lb_common::net::Addr;
use lb_common::path::{self, PathMtu};
use lb_common::plan::PlanHead;
use lb_common::server::Server;
use lb_common::service::{MatchSet, Service};
use lb_common::settings::Settings;
use lb_userspace::jiffies::Clock;
use lb_userspace::maps::kernel::{self, open};
use lb_userspace::maps::{CounterMaps, MapStore, StoreError};
use lb_userspace::sweep;
use lb_userspace::xdp::{Arrays, Datapath, Sizes};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::{Engine, INGRESS, Output, jiffies};

/// The CPU packets run on: allowances are per CPU, so a test must not wander between them.
const CPU: usize = 0;

/// Bytes a frame may grow by: all a driver leaves in front of it.
const HEADROOM: usize = 256;

/// A packet is not run in the last part of a second, of as many.
const MARGIN: u32 = 10;

/// XDP's verdicts.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// The path in the kernel.
pub struct Kernel {
    datapath: Datapath,
    arrays: Arc<Arrays>,
    clock: Clock,
    hz: u32,
    /// All 64 bits of jiffies at the latest packet: when time stands still, this is when.
    now: u64,
    sizes: Sizes,
    reasons: PerCpuArray<MapData, u64>,
    notes: PerCpuArray<MapData, u64>,
    allowed: PerCpuArray<MapData, [u32; 2]>,
    counters: CounterMaps,
    spill: HashMap<MapData, FlowKey, [u32; SPILL_WORDS]>,
    locality: HashMap<MapData, LocalityKey, [u32; LOCALITY_WORDS]>,
    fragments: HashMap<MapData, FragmentKey, FragmentRoute>,
    sources: HashMap<MapData, Addr, [u32; 2]>,
    paths: Array<MapData, PathMtu>,
    /// Places of `PATHS` in use: reading it whole takes a system call an entry.
    learned: Vec<u32>,
}

impl Kernel {
    /// Loads the program with bits of [`lb_common::settings::feature`]. The calling thread stays on one CPU from now on.
    pub fn new(sizes: Sizes, features: u32) -> Self {
        static ENGINES: Counter = Counter::new(0);
        stay_on_cpu(CPU);
        let number = ENGINES.fetch_add(1, Ordering::Relaxed);
        let pin = PathBuf::from(format!("/sys/fs/bpf/lb-tests-{}-{number}", std::process::id()));
        let mut datapath = Datapath::load(&pin, sizes, features)
            .unwrap_or_else(|error| panic!("loading the program: {error}\n{:?}", error));
        let clock = datapath.clock().expect("the program `clock` loads with the others");
        let hz = clock.learn_hz().expect("the kernel's clock ticks");
        let now = clock.now().expect("the clock was read a moment ago");
        let allowed = datapath.ebpf_mut().take_map("ALLOWED").expect("the object has ALLOWED");
        let opened = "the loader pinned its maps";
        Self {
            arrays: Arc::clone(datapath.arrays()),
            clock,
            hz,
            now,
            sizes,
            reasons: open(&pin, "REASONS").expect(opened),
            notes: open(&pin, "NOTES").expect(opened),
            allowed: PerCpuArray::try_from(allowed).expect("ALLOWED is a per-CPU array of two words"),
            counters: CounterMaps::open(&pin).expect(opened),
            spill: open(&pin, "SPILL").expect(opened),
            locality: open(&pin, "LOCALITY").expect(opened),
            fragments: open(&pin, "FRAGMENTS").expect(opened),
            sources: open(&pin, "SOURCES").expect(opened),
            paths: open(&pin, "PATHS").expect(opened),
            learned: Vec::new(),
            datapath,
        }
    }

    /// Runs frames on as many CPUs at once as there are lists, each in the order of its list. What became of them is in
    /// the maps; time goes on meanwhile.
    pub fn run_at_once(&mut self, lists: &[Vec<Vec<u8>>]) {
        let program = self.datapath.ebpf_mut().program_mut("lb").expect("the object has the program `lb`");
        let program: &mut Xdp = program.try_into().expect("`lb` is an XDP program");
        let program = &*program;
        let start = Barrier::new(lists.len());
        std::thread::scope(|scope| {
            for (cpu, frames) in lists.iter().enumerate() {
                let start = &start;
                scope.spawn(move || {
                    stay_on_cpu(cpu);
                    start.wait();
                    for frame in frames {
                        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
                        program.test_run(options).unwrap_or_else(|error| panic!("on CPU {cpu}: {error:?}"));
                    }
                });
            }
        });
    }

    /// What the datapath takes for the number of flows in the spill map.
    pub fn spilled(&self) -> u32 {
        self.arrays.spilled.words()[0].load(Ordering::Acquire)
    }

    /// Packets counted under each reason.
    fn counts(&self) -> Vec<u64> {
        Reason::ALL.iter().map(|reason| self.reason(*reason)).collect()
    }

    /// Looks where a path was learned, after a packet from which one can be.
    fn look_for_paths(&mut self, reason: Reason) {
        use Reason::{DroppedDenied, DroppedNoRoom, DroppedTunnelError, RepliedTunnelError};
        if matches!(reason, DroppedDenied | DroppedNoRoom | DroppedTunnelError | RepliedTunnelError) {
            let used = |place: &u32| self.paths.get(place, 0).is_ok_and(|path| path != PathMtu::default());
            self.learned = (0..limits::PATHS).filter(used).collect();
        }
    }

    /// The kernel's clock.
    fn jiffies(&self) -> u64 {
        self.clock.now().expect("the program `clock` runs")
    }

    /// Time that passed by itself since the latest packet is taken back, so that it stands still.
    fn stand_still(&mut self) {
        let mut now = self.jiffies();
        // What is limited by the second must not see one end between here and the packet.
        while now as u32 % self.hz > self.hz - self.hz / MARGIN {
            std::thread::sleep(Duration::from_millis(10));
            now = self.jiffies();
        }
        let passed = now.wrapping_sub(self.now) as u32;
        let seconds = (now as u32 / self.hz).wrapping_sub(self.now as u32 / self.hz);
        self.now = now;
        if passed != 0 {
            self.age(passed.wrapping_neg(), seconds.wrapping_neg());
        }
    }

    /// Makes everything with a time in it `jiffies` older, and what counts by the second `seconds` older.
    fn age(&mut self, jiffies: u32, seconds: u32) {
        let arrays = &self.arrays;
        age_table::<V4>(arrays.flows4.words(), jiffies);
        age_table::<V6>(arrays.flows6.words(), jiffies);
        age_table::<Templates>(arrays.templates.words(), jiffies);
        // The expiry of way 0, the only one, stands behind the control words.
        change(&mut self.spill, |words| words[WAYS as usize] = words[WAYS as usize].wrapping_sub(jiffies));
        change(&mut self.locality, |words| {
            for at in [word::USED, word::MODIFIED] {
                words[at as usize] = words[at as usize].wrapping_sub(jiffies);
            }
        });
        change(&mut self.fragments, |route| route.expires = route.expires.wrapping_sub(jiffies));
        for mut path in self.paths() {
            path.expires = path.expires.wrapping_sub(jiffies);
            self.paths.set(path::index(&path.rip), path, 0).expect("PATHS has as many entries");
        }
        if seconds != 0 {
            change(&mut self.sources, |[second, _]| *second = second.wrapping_sub(seconds));
            for at in 0..self.allowed.len() {
                let of_cpus = self.allowed.get(&at, 0).expect("ALLOWED has as many entries");
                // 0 says never.
                let older = |[second, used]: &[u32; 2]| match second {
                    0 => [0, *used],
                    second => [second.wrapping_sub(seconds), *used],
                };
                let of_cpus = PerCpuValues::try_from(of_cpus.iter().map(older).collect::<Vec<_>>());
                let of_cpus = of_cpus.expect("as many CPUs as before");
                self.allowed.set(at, of_cpus, 0).expect("ALLOWED has as many entries");
            }
        }
    }
}

fn stay_on_cpu(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).expect("a set has room for every CPU");
    sched_setaffinity(Pid::from_raw(0), &cpus)
        .unwrap_or_else(|error| panic!("running on CPU {cpu}: {error}"));
}

fn age_table<L: Layout>(words: &[AtomicU32], jiffies: u32) {
    let slab = Slab::<L>::new(words);
    for bucket in (0..slab.buckets()).filter_map(|index| slab.bucket(index)) {
        for (entry, _) in (0..WAYS).filter_map(|way| Entry::<L, _>::at(bucket, way)) {
            entry.set_expires(entry.expires().wrapping_sub(jiffies));
        }
    }
}

/// Writes every entry of a map anew.
fn change<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, edit: impl Fn(&mut V)) {
    for (key, mut value) in entries(map) {
        edit(&mut value);
        map.insert(key, value, 0).expect("the key is in the map");
    }
}

fn entries<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Vec<(K, V)> {
    map.iter().map(|entry| entry.expect("nobody else changes the map")).collect()
}

fn remove_all<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) {
    for (key, _) in entries(map) {
        map.remove(&key).expect("the key is in the map");
    }
}

/// Ids in a row that nobody uses, behind which there are no more: ids are given from the lowest on.
const UNUSED: usize = 64;

/// The entries in use, and those between.
fn used<V: PartialEq + Default>(count: u32, read: impl Fn(u32) -> V) -> Vec<u32> {
    let mut unused = 0;
    let is_in_reach = |id: &u32| {
        unused = if read(*id) == V::default() { unused + 1 } else { 0 };
        unused < UNUSED
    };
    (0..count).take_while(is_in_reach).collect()
}

fn clear_configuration(store: &mut kernel::Kernel) -> Result<(), StoreError> {
    store.put_settings(&Settings::default())?;
    for (place, _) in store.places()? {
        store.remove_place(&place)?;
    }
    for (prefix, set) in store.prefixes()? {
        store.remove_prefix(prefix)?;
        let none = MatchSet { count: 0, ..store.match_set(set)? };
        store.put_match_set(set, &none)?;
    }
    for prefix in store.denied()? {
        store.allow(prefix)?;
    }
    for id in used(limits::SERVICES, |id| store.service(id).unwrap_or_default()) {
        let head = store.plan(id)?;
        store.put_plan(id, PlanHead::NONE)?;
        store.put_cells(head.start(), &vec![0; head.len() as usize + 1])?;
        store.put_service(id, &Service::default())?;
    }
    for id in used(limits::SERVERS, |id| store.server(id).unwrap_or_default()) {
        store.put_server(id, &Server::default())?;
        store.put_thresholds(id, &Thresholds::default())?;
        store.forget_server(id)?;
    }
    Ok(())
}

fn zero<V: Pod + Default>(map: &mut PerCpuArray<MapData, V>) {
    let cpus = nr_cpus().expect("the kernel tells its CPUs");
    for at in 0..map.len() {
        let zeroes = PerCpuValues::try_from((0..cpus).map(|_| V::default()).collect::<Vec<_>>());
        map.set(at, zeroes.expect("one for each CPU"), 0).expect("the map has as many entries");
    }
}

impl Engine for Kernel {
    type Store = kernel::Kernel;

    fn name(&self) -> &'static str {
        "kernel"
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn features(&self) -> u32 {
        self.datapath.features()
    }

    fn store(&self) -> kernel::Kernel {
        let (slots, loads) = (Arc::clone(&self.arrays.slots), Arc::clone(&self.arrays.loads));
        kernel::Kernel::open(self.datapath.pin(), slots, loads).expect("the loader pinned its maps")
    }

    fn clear(&mut self) {
        clear_configuration(&mut self.store()).expect("the maps are the loader's");
        for table in [&self.arrays.flows4, &self.arrays.flows6, &self.arrays.templates, &self.arrays.spilled]
        {
            table.words().iter().for_each(|word| word.store(0, Ordering::Release));
        }
        remove_all(&mut self.spill);
        remove_all(&mut self.locality);
        remove_all(&mut self.fragments);
        remove_all(&mut self.sources);
        for path in self.paths() {
            let none = PathMtu::default();
            self.paths.set(path::index(&path.rip), none, 0).expect("PATHS has as many entries");
        }
        self.learned.clear();
        zero(&mut self.reasons);
        zero(&mut self.notes);
        zero(&mut self.allowed);
    }

    fn run(&mut self, frame: &[u8]) -> Output {
        self.stand_still();
        let before = self.counts();
        let mut bytes = vec![0; frame.len() + HEADROOM];
        let program = self.datapath.ebpf_mut().program_mut("lb").expect("the object has the program `lb`");
        let program: &mut Xdp = program.try_into().expect("`lb` is an XDP program");
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut bytes), ..TestRunOptions::new() };
        let ran = program
            .test_run(options)
            .unwrap_or_else(|error| panic!("running a frame of {} bytes: {error:?}", frame.len()));
        bytes.truncate(ran.data_size_out as usize);
        let after = self.counts();
        let counted: Vec<Reason> = Reason::ALL
            .iter()
            .zip(before.iter().zip(&after))
            .flat_map(|(reason, (before, after))| vec![*reason; (after - before) as usize])
            .collect();
        let [reason] = counted[..] else {
            panic!(
                "every packet is counted once, this one under {counted:?} (XDP action {})",
                ran.return_value
            )
        };
        let (action, egress) = match reason.verdict() {
            Verdict::Transmit | Verdict::Reply => (XDP_TX, Some(INGRESS)),
            Verdict::Redirect => (XDP_REDIRECT, None),
            Verdict::Pass => (XDP_PASS, None),
            Verdict::Drop => (XDP_DROP, None),
        };
        self.look_for_paths(reason);
        assert_eq!(ran.return_value, action, "the XDP action of a packet counted as {}", reason.name());
        Output { reason, egress, bytes }
    }

    fn advance(&mut self, by: Duration) {
        self.stand_still();
        self.age(jiffies(by, self.hz), by.as_secs() as u32);
    }

    fn now(&self) -> u32 {
        self.now as u32
    }

    fn hz(&self) -> u32 {
        self.hz
    }

    fn reason(&self, reason: Reason) -> u64 {
        self.counters.reason(reason).expect("REASONS has an entry for each")
    }

    fn noted(&self, note: Note) -> u64 {
        self.counters.note(note).expect("NOTES has an entry for each")
    }

    fn counters(&self, server: u32) -> Counters {
        self.counters.server(server).expect("COUNTERS has an entry for each server")
    }

    fn with_tables<T>(&self, look: impl FnOnce(sweep::Tables<'_>) -> T) -> T {
        look(sweep::Tables {
            v4: Slab::new(self.arrays.flows4.words()),
            v6: Slab::new(self.arrays.flows6.words()),
            templates: Slab::new(self.arrays.templates.words()),
            loads: self.arrays.loads.words(),
        })
    }

    fn spills(&self) -> Vec<(FlowKey, [u32; SPILL_WORDS])> {
        entries(&self.spill)
    }

    fn remove_spill(&mut self, key: &FlowKey) {
        match self.spill.remove(key) {
            Ok(()) => drop(self.arrays.spilled.words()[0].fetch_sub(1, Ordering::AcqRel)),
            Err(MapError::KeyNotFound) => {}
            Err(error) => panic!("removing a flow from the spill map: {error}"),
        }
    }

    fn localities(&self) -> Vec<(LocalityKey, [u32; LOCALITY_WORDS])> {
        entries(&self.locality)
    }

    fn remove_locality(&mut self, key: &LocalityKey) {
        match self.locality.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => panic!("forgetting a destination: {error}"),
        }
    }

    fn fragments(&self) -> Vec<(FragmentKey, FragmentRoute)> {
        entries(&self.fragments)
    }

    fn paths(&self) -> Vec<PathMtu> {
        let read = |place: &u32| self.paths.get(place, 0).expect("PATHS has as many entries");
        self.learned.iter().map(read).collect()
    }

    fn sources(&self) -> Vec<(Addr, u32)> {
        entries(&self.sources).into_iter().map(|(prefix, [_, opened])| (prefix, opened)).collect()
    }
}
