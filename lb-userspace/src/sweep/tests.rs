//! Sweeps over host memory.

use super::*;
use crate::maps::{Mapped, StoreError};
use lb_common::flow::{
    AtomicU32, Buckets, Entry, FlowKey, NewFlow, Opened, SCRATCH, SPILL_WORDS, Shared, WAYS, control, home,
    load_word, open,
};
use lb_common::locality::{LOCALITY_WORDS, LocalityKey, word};
use lb_common::net::{Addr, proto};
use lb_common::service::service_flag;
use lb_common::tcp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

const SEED: Seed = Seed([11, 22, 33, 44, 55, 66]);
const HZ: u32 = 250;
/// Jiffies near the wrap, as after 4.9 minutes of a kernel's life.
const NOW: u32 = u32::MAX - 10;

struct Memory {
    v4: Mapped,
    v6: Mapped,
    templates: Mapped,
    loads: Mapped,
}

impl Memory {
    fn new(buckets: usize) -> Self {
        let table = |words: u32| Mapped::private(buckets * words as usize * 4).unwrap();
        Self {
            v4: table(V4::BUCKET),
            v6: table(V6::BUCKET),
            templates: table(Templates::BUCKET),
            loads: Mapped::private(64 * LOAD_WORDS as usize * 4).unwrap(),
        }
    }

    fn tables(&self) -> Tables<'_> {
        Tables {
            v4: Slab::new(self.v4.words()),
            v6: Slab::new(self.v6.words()),
            templates: Slab::new(self.templates.words()),
            loads: self.loads.words(),
        }
    }

    fn load(&self, server: u32) -> [u32; 4] {
        let at = (server * LOAD_WORDS) as usize;
        std::array::from_fn(|word| self.loads.words()[at + word].load(Relaxed))
    }

    /// Remembers a flow as the datapath does, its server's count included.
    fn flow<L: Layout>(&self, table: &Slab<'_, L>, flow: Flow) {
        let state = if flow.active { tcp::state::ESTABLISHED } else { tcp::state::FIN_WAIT };
        let active = if flow.active { control::ACTIVE } else { 0 };
        let new = NewFlow {
            key: &flow.key,
            meta: meta::pack(flow.server, flow.key.protocol, flow.flags),
            state_bits: u32::from(state) | active | control::CONFIRMED,
            expires: flow.expires,
            extra: [0; 2],
        };
        let home = home::<L>(&SEED, &flow.key, table.buckets());
        assert!(matches!(
            open::<L, _>(table, Shared(&[const { AtomicU32::new(0) }; SCRATCH]), &home, &new, NOW),
            Opened::New { evicted, .. } if evicted.who().is_none()
        ));
        flow::bind(self.tables().load(flow.server).unwrap(), None, flow.active);
    }

    fn template(&self, key: FlowKey, server: u32, expires: u32, children: u32) {
        let table = self.tables().templates;
        let new = NewFlow {
            key: &key,
            meta: meta::pack(server, key.protocol, 0),
            state_bits: control::CONFIRMED,
            expires,
            extra: [360 * HZ, children],
        };
        let home = home::<Templates>(&SEED, &key, table.buckets());
        assert!(matches!(
            open::<Templates, _>(&table, Shared(&[const { AtomicU32::new(0) }; SCRATCH]), &home, &new, NOW),
            Opened::New { .. }
        ));
        flow::bind_template(self.tables().load(server).unwrap(), None);
    }

    /// Timeout, children and expiry of all templates.
    fn templates(&self) -> Vec<(u32, u32, u32)> {
        let table = self.tables().templates;
        let entries = (0..table.buckets()).flat_map(|bucket| {
            (0..WAYS).filter_map(move |way| Entry::<Templates, _>::at(table.bucket(bucket)?, way))
        });
        entries
            .map(|(entry, _)| {
                (entry.extra(Templates::TIMEOUT), entry.extra(Templates::CHILDREN), entry.expires())
            })
            .collect()
    }
}

#[derive(Clone, Copy)]
struct Flow {
    key: FlowKey,
    server: u32,
    active: bool,
    expires: u32,
    flags: u32,
}

fn key(client: u32, port: u16) -> FlowKey {
    let address = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    FlowKey {
        client: Addr::v4((0xc633_6400 + client).to_be()),
        vip: address("192.0.2.1"),
        ports: FlowKey::ports(port.to_be(), 80u16.to_be()),
        protocol: proto::TCP.into(),
    }
}

fn key6(client: u32) -> FlowKey {
    let address = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    let mut key = key(client, 1000);
    key.client = Addr([0x2001_0db8_u32.to_be(), 0, 0, client.to_be()]);
    key.vip = address("2001:db8::1");
    key
}

fn later(seconds: u32) -> u32 {
    NOW.wrapping_add(seconds * HZ)
}

fn rules() -> Rules {
    let persistent = Service {
        flags: service_flag::IN_USE | service_flag::PERSISTENT,
        persistence: 360 * HZ,
        persistence_mask: Addr([!0; 4]),
        port: lb_common::net::Be16::from_host(80),
        protocol: proto::TCP,
        ..Service::default()
    };
    Rules {
        seed: SEED,
        hz: HZ,
        servers: vec![ServerRules::default(); 8],
        services: vec![persistent],
        ..Rules::default()
    }
}

/// A spill map in memory.
#[derive(Default)]
struct Spilt(BTreeMap<u32, (FlowKey, [u32; SPILL_WORDS])>);

impl SpillStore for Spilt {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn entries(&self) -> Result<Vec<(FlowKey, [u32; SPILL_WORDS])>, StoreError> {
        Ok(self.0.values().copied().collect())
    }

    fn remove(&mut self, key: &FlowKey) -> Result<bool, StoreError> {
        Ok(self.0.remove(&key.client.to_v4()).is_some())
    }
}

/// A locality map in memory.
#[derive(Default)]
struct Remembered(Vec<(LocalityKey, [u32; LOCALITY_WORDS])>);

impl LocalityStore for Remembered {
    fn entries(&self) -> Result<Vec<(LocalityKey, [u32; LOCALITY_WORDS])>, StoreError> {
        Ok(self.0.clone())
    }

    fn remove(&mut self, key: &LocalityKey) -> Result<(), StoreError> {
        self.0.retain(|(other, _)| other != key);
        Ok(())
    }
}

fn whole(pass: &mut Pass, memory: &Memory, rules: &Rules, now: u32) -> Report {
    whole_with(pass, memory, rules, now, &mut Spilt::default(), &mut Remembered::default())
}

fn whole_with(
    pass: &mut Pass,
    memory: &Memory,
    rules: &Rules,
    now: u32,
    spilt: &mut Spilt,
    remembered: &mut Remembered,
) -> Report {
    loop {
        match pass.step(&memory.tables(), rules, now, spilt, remembered).unwrap() {
            Step::Walked(_) => {}
            Step::Done(report) => return report,
        }
    }
}

#[test]
fn idle_flows_go_and_are_taken_off_their_servers_count() {
    let memory = Memory::new(64);
    let tables = memory.tables();
    for (n, (active, expires)) in
        [(true, NOW), (true, later(1)), (false, NOW - 5), (false, later(900))].iter().enumerate()
    {
        let flow = Flow { key: key(n as u32, 1), server: 3, active: *active, expires: *expires, flags: 0 };
        memory.flow(&tables.v4, flow);
        memory.flow(&tables.v6, Flow { key: key6(n as u32), ..flow });
    }
    assert_eq!(memory.load(3), [4, 4, 0, 0]);
    let report = whole(&mut Pass::default(), &memory, &rules(), NOW);
    assert_eq!(memory.load(3), [2, 2, 0, 0]);
    assert_eq!(report.tally.live, Live { v4: 2, v6: 2, templates: 0, spilled: 0 });
    assert_eq!((report.tally.removed, report.corrected), (4, 0));
    assert_eq!(report.tally.servers[3], Counted { active: 2, inactive: 2, templates: 0 });
    assert!(report.tally.is_referenced(3) && !report.tally.is_referenced(2));
}

#[test]
fn flows_of_a_removed_server_go_at_once_if_they_are_to_be_expired() {
    let memory = Memory::new(64);
    let tables = memory.tables();
    for server in [1, 2] {
        let flow = Flow { key: key(server, 1), server, active: true, expires: later(900), flags: 0 };
        memory.flow(&tables.v4, flow);
        memory.template(key(server, 0), server, later(300), 0);
    }
    let mut rules = rules();
    rules.servers[2].evict = true;
    let report = whole(&mut Pass::default(), &memory, &rules, NOW);
    assert_eq!((memory.load(1), memory.load(2)), ([1, 0, 1, 0], [0; 4]));
    assert_eq!(report.tally.removed, 2);
}

#[test]
fn an_expired_flow_can_relieve_an_overloaded_server() {
    let memory = Memory::new(64);
    let flow = Flow { key: key(1, 1), server: 1, active: true, expires: NOW, flags: 0 };
    memory.flow(&memory.tables().v4, flow);
    let mut rules = rules();
    rules.servers[1].thresholds = Some(Thresholds { upper: 1, lower: 0 });
    memory.tables().load(1).unwrap().0[load_word::OVERLOADED as usize].store(1, Relaxed);
    whole(&mut Pass::default(), &memory, &rules, NOW);
    assert_eq!(memory.load(1), [0; 4]);
}

#[test]
fn templates_end_without_flows_and_live_on_by_the_minute_with_them() {
    let memory = Memory::new(64);
    // What the datapath counted is wrong in all of them: children that ended are not counted down.
    memory.template(key(1, 0), 1, NOW, 5);
    memory.template(key(2, 0), 2, NOW, 5);
    memory.template(key(3, 0), 3, later(100), 5);
    for port in [1001, 1002] {
        let flow =
            Flow { key: key(2, port), server: 2, active: true, expires: later(900), flags: meta::PARENT };
        memory.flow(&memory.tables().v4, flow);
    }
    // A flow of a client's earlier server is not the present template's.
    let stray = Flow { key: key(3, 1003), server: 1, active: true, expires: later(900), flags: meta::PARENT };
    memory.flow(&memory.tables().v4, stray);

    let report = whole(&mut Pass::default(), &memory, &rules(), NOW);
    let mut left = memory.templates();
    left.sort_unstable();
    assert_eq!(left, [(60 * HZ, 2, later(60)), (360 * HZ, 0, later(100))]);
    assert_eq!((memory.load(1)[2], memory.load(2)[2], memory.load(3)[2]), (0, 1, 1));
    assert_eq!(report.tally.live.templates, 2);
}

#[test]
fn a_count_that_is_wrong_twice_is_put_right() {
    let memory = Memory::new(64);
    let flow = Flow { key: key(1, 1), server: 1, active: true, expires: later(900), flags: 0 };
    memory.flow(&memory.tables().v4, flow);
    memory.template(key(1, 0), 1, later(900), 0);
    let words = memory.tables().load(1).unwrap().0;
    words[0].store(3, Relaxed);
    words[1].store(2_u32.wrapping_neg(), Relaxed);
    words[2].store(4, Relaxed);
    let mut pass = Pass::default();
    assert_eq!(whole(&mut pass, &memory, &rules(), NOW).corrected, 0);
    assert_eq!(memory.load(1), [3, 2_u32.wrapping_neg(), 4, 0]);
    assert_eq!(whole(&mut pass, &memory, &rules(), NOW).corrected, 2 + 2 + 3);
    assert_eq!(memory.load(1), [1, 0, 1, 0]);
    assert_eq!(whole(&mut pass, &memory, &rules(), NOW).corrected, 0);
}

#[test]
fn a_small_difference_on_a_busy_server_is_traffic_and_a_large_one_is_not() {
    for (too_many, corrected) in [(5, 0), (500, 500)] {
        let memory = Memory::new(256);
        for n in 0..300 {
            let flow = Flow { key: key(n, 1), server: 1, active: true, expires: later(900), flags: 0 };
            memory.flow(&memory.tables().v4, flow);
        }
        let words = memory.tables().load(1).unwrap().0;
        words[0].fetch_add(too_many, Relaxed);
        let mut pass = Pass::default();
        let mut sum = 0;
        for n in 0..2 {
            // Between its two looks the pass sees another flow come.
            let rules = rules();
            pass.step(&memory.tables(), &rules, NOW, &mut Spilt::default(), &mut Remembered::default())
                .unwrap();
            let flow = Flow { key: key(1000 + n, 1), server: 1, active: true, expires: later(900), flags: 0 };
            memory.flow(&memory.tables().v4, flow);
            sum += whole(&mut pass, &memory, &rules, NOW).corrected;
        }
        assert_eq!(sum, corrected, "{too_many} flows too many");
    }
}

/// Half of what comes during a pass comes behind its back, pass after pass, for as long as the load grows or, with short
/// timeouts, lasts.
#[test]
fn flows_that_come_during_the_walk_are_not_missing() {
    for (what, timeout) in [("a load that grows", 900), ("a load that lasts, of flows that soon expire", 1)] {
        let memory = Memory::new(4096);
        let mut pass = Pass::default();
        let mut corrected = 0;
        for second in 0..6 {
            let now = later(second);
            for half in 0..2 {
                for n in 0..400 {
                    let key = key(second * 1000 + half * 400 + n, 1);
                    let expires = later(second + timeout);
                    memory
                        .flow(&memory.tables().v4, Flow { key, server: 1, active: false, expires, flags: 0 });
                }
                if half == 0 {
                    // The beginning, and half of the first table.
                    for _ in 0..5 {
                        let (mut spilt, mut remembered) = (Spilt::default(), Remembered::default());
                        pass.step(&memory.tables(), &rules(), now, &mut spilt, &mut remembered).unwrap();
                    }
                }
            }
            corrected += whole(&mut pass, &memory, &rules(), now).corrected;
        }
        assert_eq!(corrected, 0, "{what}");
    }
}

#[test]
fn spilt_flows_are_swept_and_counted_like_the_others() {
    let memory = Memory::new(64);
    let mut spilt = Spilt::default();
    for (client, expires, server) in [(1, NOW, 1), (2, later(60), 2)] {
        let key = key(client, 1);
        let words: [AtomicU32; SPILL_WORDS] = std::array::from_fn(|_| AtomicU32::new(0));
        let new = NewFlow {
            key: &key,
            meta: meta::pack(server, key.protocol, 0),
            state_bits: control::ACTIVE,
            expires,
            extra: [0; 2],
        };
        Entry::<V4, _>::fill_spill(Shared(&words), &new);
        spilt.0.insert(key.client.to_v4(), (key, words.map(AtomicU32::into_inner)));
        flow::bind(memory.tables().load(server).unwrap(), None, true);
    }
    let report =
        whole_with(&mut Pass::default(), &memory, &rules(), NOW, &mut spilt, &mut Remembered::default());
    assert_eq!((spilt.0.len(), report.tally.live.spilled, report.tally.removed), (1, 1, 1));
    assert_eq!((memory.load(1)[0], memory.load(2)[0]), (0, 1));
    assert!(report.tally.is_referenced(2));
}

/// A destination of a service, last used so many seconds ago.
fn destination(n: u32, service: u32, seconds: u32) -> (LocalityKey, [u32; LOCALITY_WORDS]) {
    let mut value = [0; LOCALITY_WORDS];
    value[word::USED as usize] = NOW.wrapping_sub(seconds * HZ);
    value[word::COUNT as usize] = 1;
    value[word::SERVERS as usize] = 4;
    (LocalityKey { destination: Addr::v4(n.to_be()), service }, value)
}

#[test]
fn destinations_are_forgotten_as_ipvs_does() {
    let mut gc = LocalityGc::default();
    let mut store = Remembered(vec![destination(1, 0, 90_000), destination(2, 0, 10), destination(3, 9, 10)]);
    let run = |gc: &mut LocalityGc, store: &mut Remembered, minutes: u32| {
        let mut tally = Tally::default();
        let now = NOW.wrapping_add(minutes * 60 * HZ);
        let expiration = |service: u32| (service == 0).then_some(86_400 * HZ);
        gc.run(store, now, HZ, expiration, &mut tally).unwrap();
        (store.0.len(), tally.destinations.get(4).copied().unwrap_or_default())
    };
    assert_eq!(run(&mut gc, &mut store, 0), (2, 2), "a service that remembers none has none");
    for minute in 1..29 {
        assert_eq!(run(&mut gc, &mut store, minute), (2, 2), "minute {minute}");
    }
    assert_eq!(run(&mut gc, &mut store, 29), (1, 1), "the thirtieth round looks at all of them");
    // A crowded service loses what was unused for six minutes, a part at a time.
    store.0.extend((0..17_000).map(|n| destination(100 + n, 0, 400)));
    let (left, _) = run(&mut gc, &mut store, 30);
    assert_eq!(left, 17_001 - (17_001 - 16_384) * 4 / 3);
}

#[test]
fn a_sweep_of_a_million_flows_takes_a_fraction_of_a_second() {
    // Release builds take some 20 ms; this is to notice a factor of a hundred.
    let flows = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
    let memory = Memory::new(flows as usize * 100 / 80 / 8);
    let table = memory.tables().v4;
    for n in 0..flows {
        let key = key(n & 0xffff, (n >> 16) as u16);
        let new = NewFlow {
            key: &key,
            meta: meta::pack(1 + n % 60, key.protocol, 0),
            state_bits: control::CONFIRMED | control::ACTIVE,
            expires: later(900),
            extra: [0; 2],
        };
        let home = home::<V4>(&SEED, &key, table.buckets());
        open::<V4, _>(&table, Shared(&[const { AtomicU32::new(0) }; SCRATCH]), &home, &new, NOW);
    }
    let (mut tally, mut children) = (Tally::default(), Children::default());
    let began = std::time::Instant::now();
    sweep_slice(&table, 0..table.buckets(), NOW, &memory.tables(), &rules(), &mut tally, &mut children);
    let lasted = began.elapsed();
    println!("{} flows in {lasted:?}", tally.live.v4);
    assert!(tally.live.v4 > u64::from(flows) * 99 / 100, "{} flows of {flows}", tally.live.v4);
    assert!(lasted.as_millis() < 1000, "{lasted:?}");
}
