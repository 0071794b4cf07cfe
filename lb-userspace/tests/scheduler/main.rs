//! Plans against the plain reading of IPVS's schedulers: random services, edits, flows, thresholds and time, and the
//! same server for every flow. Plans are executed twice, by the host's model of the datapath and by what runs in the
//! kernel.

mod kernel;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use kernel::Kernel;
use lb_common::net::Addr;
use lb_userspace::model::{Scheduler, SchedulerFlags};
use lb_userspace::scheduler::execute::{Datapath, Packet, Server, World};
use lb_userspace::scheduler::reference::{Moment, Service};
use lb_userspace::scheduler::{Edit, Entry, Load, Plan, Schedule};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A step in the life of a service. Numbers pick among what is there, modulo its count.
#[derive(Clone, Debug)]
enum Step {
    Flow {
        client: u8,
        port: u16,
        destination: u8,
    },
    Close(usize),
    Forget(usize),
    Overload(usize, bool),
    /// Made at once, as a reload of the configuration does.
    Edits(Vec<Change>),
    Wait(u64),
    /// The control plane starts again.
    Resume,
}

#[derive(Clone, Debug)]
enum Change {
    Add {
        weight: u32,
    },
    /// Add again the server removed last.
    AddBack {
        weight: u32,
    },
    Weight {
        at: usize,
        weight: u32,
    },
    Reachable {
        at: usize,
        reachable: bool,
    },
    /// Nothing about it differs.
    Same {
        at: usize,
    },
    Remove {
        at: usize,
    },
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 3 => Just(1), 4 => 1..6u32, 3 => (1..4u32).prop_map(|w| w * 2), 1 => 1..80u32]
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..16usize;
    prop_oneof![
        4 => weight().prop_map(|weight| Change::Add { weight }),
        2 => weight().prop_map(|weight| Change::AddBack { weight }),
        4 => (at.clone(), weight()).prop_map(|(at, weight)| Change::Weight { at, weight }),
        2 => (at.clone(), any::<bool>()).prop_map(|(at, reachable)| Change::Reachable { at, reachable }),
        1 => at.clone().prop_map(|at| Change::Same { at }),
        2 => at.prop_map(|at| Change::Remove { at }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let flow = (any::<u8>(), any::<u16>(), 0..6u8);
    prop_oneof![
        30 => flow.prop_map(|(client, port, destination)| Step::Flow { client, port, destination }),
        6 => any::<usize>().prop_map(Step::Close),
        6 => any::<usize>().prop_map(Step::Forget),
        5 => (0..16usize, any::<bool>()).prop_map(|(at, overloaded)| Step::Overload(at, overloaded)),
        3 => prop::collection::vec(change(), 1..4).prop_map(Step::Edits),
        2 => prop_oneof![1..60_000u64, Just(86_400), Just(86_401)].prop_map(Step::Wait),
        1 => Just(Step::Resume),
    ]
}

/// The datapath with its plans, and the reference, living the same life.
struct Pair {
    scheduler: Scheduler,
    flags: SchedulerFlags,
    schedule: Schedule,
    datapath: Datapath,
    kernel: Kernel,
    reference: Service,
    loads: HashMap<u32, Load>,
    /// Server of every flow, and whether it is active.
    flows: Vec<(u32, bool)>,
    removed: Vec<u32>,
    /// As they were when they were removed.
    gone: HashMap<u32, Entry>,
    next: u32,
    now: u64,
    /// More servers than the datapath compares for one flow: its decisions are not to be IPVS's.
    many: bool,
    /// Flows that found a server.
    served: u32,
}

impl Pair {
    fn new(scheduler: Scheduler, flags: SchedulerFlags, since_2026: bool, many: bool) -> Self {
        let mut datapath = Datapath::new(0);
        let mut reference = Service::new(scheduler, flags);
        datapath.since_2026 = since_2026;
        reference.since_2026 = since_2026;
        Self {
            scheduler,
            flags,
            schedule: Schedule::new(scheduler, flags, Vec::new()),
            kernel: Kernel::new(since_2026, datapath.lblcr_expiration),
            datapath,
            reference,
            loads: HashMap::new(),
            flows: Vec::new(),
            removed: Vec::new(),
            gone: HashMap::new(),
            next: 1,
            now: 0,
            many,
            served: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Flow { client, port, destination } => self.flow(*client, *port, *destination),
            Step::Close(at) => {
                if let Some(at) = at.checked_rem(self.flows.len())
                    && self.flows[at].1
                {
                    self.flows[at].1 = false;
                    self.load(self.flows[at].0, |load| {
                        load.active -= 1;
                        load.inactive += 1;
                    });
                }
            }
            Step::Forget(at) => {
                if let Some(at) = at.checked_rem(self.flows.len()) {
                    let (server, active) = self.flows.swap_remove(at);
                    self.load(server, |load| {
                        let count = if active { &mut load.active } else { &mut load.inactive };
                        *count -= 1;
                    });
                }
            }
            Step::Overload(at, overloaded) => {
                if let Some(entry) = self.server(*at) {
                    self.load(entry.id, |load| load.overloaded = *overloaded);
                }
            }
            Step::Edits(changes) => self.edit(changes),
            Step::Wait(seconds) => self.now += seconds,
            Step::Resume => {
                let entries = self.schedule.entries().to_vec();
                let cursor = self.datapath.cursor;
                // A cursor that was set by an edit and has not moved since looks like one that moved there.
                if cursor == self.schedule.plan().cursor {
                    return;
                }
                // Nor is a plan without slots any memory.
                if self.schedule.plan().slots.is_empty() {
                    return;
                }
                self.schedule = Schedule::resumed(self.scheduler, self.flags, entries, cursor);
            }
        }
    }

    fn load(&mut self, id: u32, change: impl Fn(&mut Load)) {
        change(self.reference.load_mut(id));
        let load = self.loads.entry(id).or_default();
        change(load);
        self.kernel.put_load(id, *load);
    }

    fn server(&self, at: usize) -> Option<Entry> {
        self.schedule.entries().get(at % self.schedule.entries().len().max(1)).copied()
    }

    fn edit(&mut self, changes: &[Change]) {
        let mut list = self.schedule.entries().to_vec();
        let mut edits = Vec::new();
        for change in changes {
            let at = |at: &usize| at.checked_rem(list.len()).map(|at| list[at]);
            let edit = match change {
                Change::Add { weight } => {
                    self.next += 1;
                    Some(Edit::Add(entry(self.next - 1, *weight)))
                }
                Change::AddBack { weight } => self.removed.pop().map(|id| Edit::Add(entry(id, *weight))),
                Change::Weight { at: place, weight } => {
                    at(place).map(|entry| Edit::Change(Entry { weight: *weight, ..entry }))
                }
                Change::Reachable { at: place, reachable } => {
                    at(place).map(|entry| Edit::Change(Entry { reachable: *reachable, ..entry }))
                }
                Change::Same { at: place } => at(place).map(Edit::Change),
                Change::Remove { at: place } => at(place).map(|entry| Edit::Remove(entry.id)),
            };
            let Some(edit) = edit else { continue };
            if let Edit::Remove(id) = edit {
                self.removed.push(id);
                self.gone.extend(list.iter().filter(|entry| entry.id == id).map(|&entry| (id, entry)));
            }
            lb_userspace::scheduler::apply(&mut list, &edit);
            self.reference.edit(&edit);
            edits.push(edit);
        }
        self.schedule = self.schedule.edited(&edits, self.datapath.cursor);
        self.datapath.cursor = self.schedule.plan().cursor;
        for id in 1..self.next {
            self.kernel.put_server(id, record(&self.schedule, &self.gone, id));
        }
        self.kernel.put_plan(self.schedule.plan());
        assert_eq!(self.schedule.entries(), list);
        let order: Vec<Entry> = self.reference.servers().iter().map(|server| server.entry).collect();
        assert_eq!(self.schedule.entries(), order);
    }

    fn flow(&mut self, client: u8, port: u16, destination: u8) {
        let packet = Packet {
            source: address([192, 0, 2, client]),
            source_port: port,
            destination: address([203, 0, 113, destination]),
        };
        let load = |id| self.loads.get(&id).copied().unwrap_or_default();
        let server = |id| record(&self.schedule, &self.gone, id);
        let lots = RefCell::new(VecDeque::new());
        // With nobody to draw the kernel draws no lot.
        let mut draw = |most: u64| {
            if most == 0 {
                return 0;
            }
            lots.borrow_mut().push_back(self.kernel.lot());
            u64::from(lots.borrow()[lots.borrow().len() - 1]) % (most + 1)
        };
        let mut world = World { load: &load, server: &server, draw: &mut draw, now: self.now };
        let got = self.datapath.choose(self.schedule.plan(), &packet, &mut world);
        let mut again =
            |most: u64| lots.borrow_mut().pop_front().map_or(0, |lot| u64::from(lot) % (most + 1));
        let expected = if self.many {
            got
        } else {
            let mut moment = Moment { packet, now: self.now, draw: &mut again };
            self.reference.choose(&mut moment)
        };
        let in_kernel = self.kernel.choose(&packet, self.now);
        assert_eq!(in_kernel, got, "the kernel's choice and the host's for {expected:?}");
        assert_eq!(self.kernel.cursor(), self.datapath.cursor, "cursors after {got:?}");
        if got != expected {
            // mh-fallback gives up after HASH_PROBES; that it finds nothing must be chance, not a rule.
            let few = self.scheduler == Scheduler::Mh && self.flags.fallback && got.is_none();
            assert!(few && scarce(self.schedule.plan(), &load), "{got:?}, IPVS: {expected:?}");
        }
        if let Some(server) = expected {
            self.served += 1;
            self.flows.push((server, true));
            self.load(server, |load| load.active += 1);
        }
    }
}

/// What the datapath knows of a server besides its slot.
fn record(schedule: &Schedule, gone: &HashMap<u32, Entry>, id: u32) -> Server {
    let listed = schedule.entries().iter().find(|entry| entry.id == id);
    let weight = listed.map_or_else(|| gone[&id].live_weight(), Entry::live_weight);
    Server { weight, available: listed.is_some() }
}

/// Fewer than 5 % of the slots lead to a server: 256 probes miss once in 500,000 flows at that.
fn scarce(plan: &Plan, load: &dyn Fn(u32) -> Load) -> bool {
    let usable = plan.slots.iter().filter(|slot| slot.number() > 0 && !load(slot.server()).overloaded);
    usable.count() * 20 < plan.slots.len()
}

fn address(octets: [u8; 4]) -> Addr {
    Addr::from(IpAddr::V4(Ipv4Addr::from(octets)))
}

fn entry(id: u32, weight: u32) -> Entry {
    Entry::new(id, IpAddr::from([10, 0, (id >> 8) as u8, id as u8]), 80, weight)
}

/// Lives random lives and holds every decision against the reference.
fn decides_as_ipvs(scheduler: Scheduler, cases: u32) {
    let config = Config { failure_persistence: None, ..Config::with_cases(cases) };
    let flags = (any::<bool>(), any::<bool>()).prop_map(|(port, fallback)| SchedulerFlags { port, fallback });
    let first = prop::collection::vec(weight(), 0..8);
    let life = (flags, any::<bool>(), first, prop::collection::vec(step(), 1..300));
    let served = Cell::new(0);
    TestRunner::new(config)
        .run(&life, |(flags, since_2026, first, steps)| {
            let mut pair = Pair::new(scheduler, flags, since_2026, false);
            pair.edit(&first.iter().map(|&weight| Change::Add { weight }).collect::<Vec<_>>());
            for step in steps {
                pair.step(&step);
            }
            served.set(served.get() + pair.served);
            Ok(())
        })
        .unwrap();
    assert!(served.get() > cases * 20, "{} flows in {cases} lives", served.get());
}

#[test]
fn the_kernel_finds_a_light_server_behind_heavy_overloaded_ones() {
    let mut pair = Pair::new(Scheduler::Wrr, SchedulerFlags::default(), false, true);
    let weights = [1].into_iter().chain([100; 10]);
    pair.edit(&weights.map(|weight| Change::Add { weight }).collect::<Vec<_>>());
    for id in 2..=11 {
        pair.load(id, |load| load.overloaded = true);
    }
    let plan = pair.schedule.plan().clone();
    for begin in (0..2 * plan.slots.len() as u64).step_by(7) {
        pair.datapath.cursor = begin;
        pair.kernel.put_plan(&Plan { cursor: begin, ..plan.clone() });
        let before = pair.served;
        // Holds the kernel's choice and cursor against the host model's.
        pair.flow(1, 2, 3);
        assert_eq!(pair.served, before + 1, "from {begin}");
    }
}

/// Lives of services with very many servers, where the kernel is held against the host's model of it alone.
#[test]
fn the_kernel_slides_over_many_servers_as_the_host_does() {
    use Scheduler::{Lblc, Lblcr, Lc, Nq, Ovf, Sed, Twos, Wlc};
    let config = Config { failure_persistence: None, ..Config::with_cases(48) };
    let scheduler = prop::sample::select(vec![Lc, Wlc, Sed, Nq, Ovf, Twos, Lblc, Lblcr]);
    // Some of the weights are 0, and edits add and remove servers: plans of both sides of the bound.
    let first = prop::collection::vec(weight(), 290..420);
    let life = (scheduler, any::<bool>(), first, prop::collection::vec(step(), 1..200));
    let slid = Cell::new(0);
    TestRunner::new(config)
        .run(&life, |(scheduler, since_2026, first, steps)| {
            let mut pair = Pair::new(scheduler, SchedulerFlags::default(), since_2026, true);
            pair.edit(&first.iter().map(|&weight| Change::Add { weight }).collect::<Vec<_>>());
            for step in steps {
                pair.step(&step);
                slid.set(slid.get() + u32::from(pair.schedule.plan().slides()));
            }
            Ok(())
        })
        .unwrap();
    assert!(slid.get() > 500, "{}", slid.get());
}

macro_rules! decides_as_ipvs {
    ($($name:ident: $scheduler:ident, $cases:literal;)*) => {
        $(#[test] fn $name() { decides_as_ipvs(Scheduler::$scheduler, $cases); })*
    };
}

decides_as_ipvs! {
    rr_decides_as_ipvs: Rr, 500;
    wrr_decides_as_ipvs: Wrr, 1500;
    lc_decides_as_ipvs: Lc, 200;
    wlc_decides_as_ipvs: Wlc, 300;
    sh_decides_as_ipvs: Sh, 200;
    dh_decides_as_ipvs: Dh, 200;
    sed_decides_as_ipvs: Sed, 200;
    nq_decides_as_ipvs: Nq, 200;
    lblc_decides_as_ipvs: Lblc, 300;
    lblcr_decides_as_ipvs: Lblcr, 500;
    mh_decides_as_ipvs: Mh, 60;
    fo_decides_as_ipvs: Fo, 200;
    ovf_decides_as_ipvs: Ovf, 300;
    twos_decides_as_ipvs: Twos, 200;
}
