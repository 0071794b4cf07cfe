//! Real threads on one table: after a great many packets, what was counted is what is there.
#![cfg(not(loom))]

use lb_common::flow::{
    self, AtomicU32, Buckets, Entry, Evicted, FlowKey, LOAD_WORDS, Layout, NewFlow, Opened, SCRATCH, Shared,
    Slab, V4, WAYS, control, is_past, load_word, meta,
};
use lb_common::hash::Seed;
use lb_common::net::Addr;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

const BUCKETS: u32 = 4;
const KEYS: u32 = 48;
const SERVERS: u32 = 8;
/// Packets of each thread.
const PACKETS: u32 = 400_000;

/// What all CPUs share.
struct World {
    table: Vec<AtomicU32>,
    loads: Vec<AtomicU32>,
    /// Jiffies: every CPU's packets move it on.
    clock: AtomicU32,
    /// Openings that found no room or lost a way to another CPU.
    not_remembered: AtomicU32,
    twins: AtomicU32,
    evictions: AtomicU32,
}

impl World {
    fn new() -> Self {
        let zeroes = |count: u32| (0..count).map(|_| AtomicU32::new(0)).collect();
        Self {
            table: zeroes(BUCKETS * V4::BUCKET),
            loads: zeroes(SERVERS * LOAD_WORDS),
            // About to wrap.
            clock: AtomicU32::new(u32::MAX - 1000),
            not_remembered: AtomicU32::new(0),
            twins: AtomicU32::new(0),
            evictions: AtomicU32::new(0),
        }
    }

    fn load(&self, server: u32) -> Shared<'_> {
        Shared(&self.loads[(server * LOAD_WORDS) as usize..][..LOAD_WORDS as usize])
    }

    fn unbind(&self, gone: Evicted) {
        flow::unbind(self.load(meta::server(gone.meta)), None, gone.control & control::ACTIVE != 0);
    }

    fn release(&self, entry: &Entry<V4, Shared<'_>>) {
        if entry.remove() {
            self.unbind(Evicted { control: entry.control, meta: entry.meta });
        }
    }
}

fn key(number: u32) -> FlowKey {
    FlowKey { client: Addr::v4(number), vip: Addr::v4(!number), ports: number, protocol: 6 }
}

/// A CPU's packets, as the datapath treats them.
fn run(world: &World, cpu: u64) {
    let seed = Seed([1, 2, 3, 4, 5, 6]);
    let scratch = [const { AtomicU32::new(0) }; SCRATCH];
    let table = Slab::<V4>::new(&world.table);
    let mut random = cpu;
    for _ in 0..PACKETS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = (random >> 33) as u32;
        let (number, what) = (draw % KEYS, draw / KEYS % 16);
        let now = if what == 0 { world.clock.fetch_add(1, Relaxed) } else { world.clock.load(Relaxed) };
        let key = key(number);
        let home = flow::home::<V4>(&seed, &key, BUCKETS);
        if let Some(mut entry) = flow::lookup(&table, &home, &key) {
            // The server tells which key it was chosen for.
            assert_eq!(
                meta::server(entry.meta) % (SERVERS / 2),
                number % (SERVERS / 2),
                "another flow's server"
            );
            if is_past(entry.expires(), now) || what == 1 {
                world.release(&entry);
                continue;
            }
            let was_active = entry.control & control::ACTIVE != 0;
            let active = what < 12;
            if entry.transition(if active { 1 } else { 4 }, what > 4, active) {
                flow::move_state(world.load(meta::server(entry.meta)), was_active, active);
            }
            entry.set_expires(now.wrapping_add(20));
            continue;
        }
        let server = number % (SERVERS / 2) + cpu as u32 % 2 * (SERVERS / 2);
        let (meta, expires) = (meta::pack(server, 6, 0), now.wrapping_add(10));
        let new = NewFlow { key: &key, meta, state_bits: 2, expires, extra: [0; 2] };
        let (evicted, twin) = match flow::open(&table, Shared(&scratch), &home, &new, now) {
            Opened::New { evicted, twin, .. } => {
                flow::bind(world.load(server), None, false);
                (evicted.who(), twin.who())
            }
            Opened::Known { evicted, .. } => {
                world.twins.fetch_add(1, Relaxed);
                (evicted.who(), None)
            }
            Opened::Full | Opened::Contended => {
                world.not_remembered.fetch_add(1, Relaxed);
                continue;
            }
        };
        world.twins.fetch_add(twin.is_some() as u32, Relaxed);
        world.evictions.fetch_add(evicted.is_some() as u32, Relaxed);
        evicted.into_iter().chain(twin).for_each(|gone| world.unbind(gone));
    }
}

/// Flows by key and by server, as they are in the table.
fn recount(world: &World) -> (HashMap<FlowKey, u32>, Vec<[u32; 2]>) {
    let table = Slab::<V4>::new(&world.table);
    let (mut keys, mut loads) = (HashMap::new(), vec![[0; 2]; SERVERS as usize]);
    for bucket in 0..BUCKETS {
        let words = table.bucket(bucket).unwrap();
        for way in 0..WAYS {
            if let Some((entry, key)) = Entry::<V4, _>::at(words, way) {
                *keys.entry(key).or_default() += 1;
                loads[meta::server(entry.meta) as usize][(entry.control & control::ACTIVE == 0) as usize] +=
                    1;
            }
        }
    }
    (keys, loads)
}

fn stress(cpus: u64) {
    let world = World::new();
    std::thread::scope(|scope| {
        for cpu in 1..=cpus {
            let world = &world;
            scope.spawn(move || run(world, cpu));
        }
    });
    let (keys, found) = recount(&world);
    let counted: Vec<_> = (0..SERVERS)
        .map(|server| {
            [load_word::ACTIVE, load_word::INACTIVE]
                .map(|at| world.loads[(server * LOAD_WORDS + at) as usize].load(Relaxed))
        })
        .collect();
    let of = |count: &AtomicU32| count.load(Relaxed);
    println!(
        "{cpus} CPUs: {} flows live, {} evicted, {} opened twice, {} not remembered",
        keys.len(),
        of(&world.evictions),
        of(&world.twins),
        of(&world.not_remembered)
    );
    assert_eq!(counted, found, "active and inactive flows by server: counted, and found");
    assert!(of(&world.evictions) > 0 && of(&world.not_remembered) > 0, "the table was never full");
    // `flow::open` says when a copy may stay. It is rare and the copy soon expires, so that never more than one is left
    // at the end; without the search for twins they are several.
    let copies = keys.values().filter(|&&count| count > 1).count();
    assert!(copies <= 1, "{copies} flows are remembered twice");
}

#[test]
fn two_cpus_count_every_flow_once() {
    stress(2);
}

#[test]
fn more_cpus_than_there_are_count_every_flow_once() {
    stress(6);
}
