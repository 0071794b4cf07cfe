//! The loaded program on two CPUs at once, with flows that fight for a few buckets: what was counted is what is there.
//! Needs root and two CPUs.

use std::collections::BTreeMap;

use lb_common::counters::{Note, Reason};
use lb_common::flow::{Buckets, Entry, FlowKey, LOAD_WORDS, Shared, V4, WAYS, control, load_word, meta};
use lb_tests::engine::{Engine, Fixture, Kernel, Plan, dr, tcp};
use lb_tests::packet::eth;
use lb_userspace::xdp::Sizes;

const SERVERS: u32 = 3;
/// Packets on each CPU.
const PACKETS: u32 = 60_000;
/// 32 ways, and 544 places in the spill map.
const FEW: Sizes = Sizes { v4: 4, v6: 64, templates: 1 };

fn director() -> Kernel {
    let servers = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
    let service = tcp("192.0.2.1", 80).plan(Plan::cycle(&[1, 2, 3]));
    let fixture =
        servers.iter().fold(Fixture::new().service(service), |fixture, rip| fixture.server(dr(rip)));
    let engine = Kernel::new(FEW, fixture.features);
    fixture.write(&engine, None);
    engine
}

/// Packets of clients at these ports, in no order: mostly openings, a few that establish, end or reset what is there.
fn packets(ports: std::ops::Range<u16>, seed: u64) -> Vec<Vec<u8>> {
    let mut random = seed;
    let mut packet = |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = (random >> 33) as u32;
        let port = ports.start + (draw % ports.len() as u32) as u16;
        let segment = eth().ipv4("203.0.113.1", "192.0.2.1").tcp(port, 80);
        match draw / 65_536 % 16 {
            0 => segment.ack(1).build(),
            1 => segment.fin().ack(1).build(),
            2..5 => segment.rst().build(),
            _ => segment.syn().build(),
        }
    };
    (0..PACKETS).map(&mut packet).collect()
}

/// Active and inactive flows by server, and how often each key is remembered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    loads: BTreeMap<u32, [i32; 2]>,
    keys: BTreeMap<u16, u32>,
}

impl Found {
    fn add(&mut self, key: &FlowKey, entry: &Entry<V4, Shared<'_>>) {
        let load = self.loads.entry(meta::server(entry.meta)).or_default();
        load[(entry.control & control::ACTIVE == 0) as usize] += 1;
        *self.keys.entry(key.client_port()).or_default() += 1;
    }
}

/// What is remembered, in the table and beside it.
fn recount(engine: &Kernel) -> Found {
    let mut found =
        Found { loads: (1..=SERVERS).map(|server| (server, [0; 2])).collect(), ..Found::default() };
    engine.with_tables(|tables| {
        for bucket in 0..FEW.v4 {
            let words = tables.v4.bucket(bucket).expect("within the table");
            for (entry, key) in (0..WAYS).filter_map(|way| Entry::at(words, way)) {
                found.add(&key, &entry);
            }
        }
    });
    for (key, value) in engine.spills() {
        let words = value.map(lb_common::flow::AtomicU32::new);
        if let Some(entry) = Entry::in_spill(Shared(&words)) {
            found.add(&key, &entry);
        }
    }
    found
}

fn counted(engine: &Kernel) -> BTreeMap<u32, [i32; 2]> {
    engine.with_tables(|tables| {
        let word = |server: u32, at| {
            let word = &tables.loads[(server * LOAD_WORDS + at) as usize];
            word.load(std::sync::atomic::Ordering::Acquire) as i32
        };
        let load = |server| [load_word::ACTIVE, load_word::INACTIVE].map(|at| word(server, at));
        (1..=SERVERS).map(|server| (server, load(server))).collect()
    })
}

/// Runs both lists at once, and holds what was counted against what is there.
fn fight(lists: [Vec<Vec<u8>>; 2]) -> (Kernel, Found) {
    let mut engine = director();
    engine.run_at_once(&lists);
    let found = recount(&engine);
    let notes: BTreeMap<_, _> = Note::ALL.iter().map(|note| (note.name(), engine.noted(*note))).collect();
    println!("{} flows remembered, {notes:?}", found.keys.len());
    assert_eq!(counted(&engine), found.loads, "active and inactive flows by server: counted, and found");
    assert_eq!(engine.reason(Reason::DroppedNoStage), 0);
    assert!(engine.noted(Note::EvictedHalfOpen) > 0, "the table was never full");
    (engine, found)
}

#[test]
fn two_cpus_with_flows_of_their_own_count_every_flow_once() {
    let (engine, found) = fight([packets(10_000..10_400, 1), packets(20_000..20_400, 2)]);
    let twice: Vec<_> = found.keys.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "ports remembered more than once: {twice:?}");
    assert_eq!(engine.noted(Note::Twin), 0, "no flow was opened by both");
}

#[test]
fn two_cpus_with_the_same_flows_count_every_flow_once() {
    fight([packets(10_000..10_100, 1), packets(10_000..10_100, 2)]);
}

/// A table full of established flows, so that all others go beside it.
fn filler() -> Vec<Vec<u8>> {
    let segment = |port| eth().ipv4("203.0.113.9", "192.0.2.1").tcp(port, 80);
    (1..400).flat_map(|port| [segment(port).syn().build(), segment(port).ack(1).build()]).collect()
}

#[test]
fn two_cpus_with_the_same_flows_beside_a_full_table_count_every_flow_once() {
    let mut engine = director();
    engine.run_at_once(&[filler()]);
    let before = engine.noted(Note::Spilled);
    engine.run_at_once(&[packets(10_000..10_008, 1), packets(10_000..10_008, 2)]);
    let found = recount(&engine);
    let spilled = engine.noted(Note::Spilled) - before;
    println!("{spilled} spilled, {} flows beside the table", engine.spills().len());
    assert!(spilled > 1000, "{spilled} flows spilled: they met too rarely");
    assert_eq!(
        engine.spilled() as usize,
        engine.spills().len(),
        "flows in the spill map: counted, and found"
    );
    assert_eq!(counted(&engine), found.loads, "active and inactive flows by server: counted, and found");
}
