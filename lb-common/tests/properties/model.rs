//! The flow table beside the plainest thing it could be: a map from keys to flows.

use lb_common::flow::{
    self, AtomicU32, Buckets, Entry, Evicted, FlowKey, Home, Layout, NewFlow, Opened, SCRATCH, Shared, Slab,
    WAYS, control, is_past, meta,
};
use lb_common::hash::Seed;
use std::collections::HashMap;

/// What a test does with the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Looks a flow up and opens it if it is unknown, or known and expired.
    Open {
        key: u32,
        confirmed: bool,
        timeout: u32,
    },
    /// Opens a flow that is known already, as two CPUs do that both missed it.
    OpenTwice {
        key: u32,
        timeout: u32,
    },
    Move {
        key: u32,
        state: u8,
        confirmed: bool,
        active: bool,
        timeout: u32,
    },
    Mark {
        key: u32,
        extra: u32,
    },
    Expire {
        key: u32,
    },
    Remove {
        key: u32,
    },
    /// Takes a flow out and moves it by what was found before it was removed.
    UseAfterRemoval,
    Sweep,
    Wait {
        jiffies: u32,
    },
}

/// A flow as the model has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    bucket: u32,
    way: u32,
    /// [`BITS`] of the control word.
    bits: u32,
    meta: u32,
    expires: u32,
    extra: [u32; 2],
}

/// What the model knows of the control word.
const BITS: u32 = control::STATE | control::CONFIRMED | control::ACTIVE;

/// How willingly a way is given away, as the documentation has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    None,
    /// Jiffies it has left, the fewest first.
    HalfOpen(std::cmp::Reverse<u32>),
    Expired,
    Empty,
}

/// The table and the map.
pub(crate) struct Both<'a, L> {
    table: Slab<'a, L>,
    scratch: Shared<'a>,
    seed: Seed,
    now: u32,
    flows: HashMap<u32, Flow>,
    /// Openings so far. Every one is given a server of its own, which tells its flow from all others.
    openings: u32,
    gone: Option<Entry<L, Shared<'a>>>,
    key: fn(u32) -> FlowKey,
}

impl<'a, L: Layout + std::fmt::Debug> Both<'a, L> {
    pub(crate) fn new(
        words: &'a [AtomicU32],
        scratch: &'a [AtomicU32; SCRATCH],
        seed: Seed,
        now: u32,
        key: fn(u32) -> FlowKey,
    ) -> Self {
        let (table, scratch) = (Slab::new(words), Shared(scratch));
        Self { table, scratch, seed, now, flows: HashMap::new(), openings: 0, gone: None, key }
    }

    fn home(&self, key: u32) -> Home {
        flow::home::<L>(&self.seed, &(self.key)(key), self.table.buckets())
    }

    fn find(&self, key: u32) -> Option<Entry<L, Shared<'a>>> {
        let found = flow::lookup(&self.table, &self.home(key), &(self.key)(key));
        assert_eq!(found.is_some(), self.flows.contains_key(&key), "found, and in the model");
        found
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Open { key, confirmed, timeout } => {
                let found = self.find(key);
                let expired = found.filter(|entry| is_past(entry.expires(), self.now));
                if let Some(expired) = expired {
                    self.remove(key, expired);
                }
                if found.is_none() || expired.is_some() {
                    self.open(key, confirmed, timeout);
                }
            }
            Step::OpenTwice { key, timeout } => {
                if self.find(key).is_some() {
                    self.open_twice(key, timeout);
                }
            }
            Step::Move { key, state, confirmed, active, timeout } => {
                if let Some(mut entry) = self.find(key) {
                    assert!(entry.transition(state, confirmed, active));
                    entry.set_expires(self.now.wrapping_add(timeout));
                    let flow = self.flows.get_mut(&key).unwrap();
                    let kept = flow.bits & control::CONFIRMED;
                    flow.bits = kept
                        | state as u32
                        | bit(confirmed, control::CONFIRMED)
                        | bit(active, control::ACTIVE);
                    flow.expires = self.now.wrapping_add(timeout);
                }
            }
            Step::Mark { key, extra } => {
                if let Some(entry) = self.find(key) {
                    let flow = self.flows.get_mut(&key).unwrap();
                    entry.set_flags(meta::ASSURED);
                    flow.meta |= meta::ASSURED;
                    if L::EXTRA > 0 {
                        entry.set_extra(0, extra);
                        entry.add_extra(1, extra);
                        flow.extra = [extra, flow.extra[1].wrapping_add(extra)];
                    }
                }
            }
            Step::Expire { key } => {
                if let Some(entry) = self.find(key) {
                    let past = is_past(self.flows[&key].expires, self.now);
                    assert_eq!(is_past(entry.expires(), self.now), past);
                    if past {
                        assert!(entry.remove());
                        self.flows.remove(&key);
                        self.gone = Some(entry);
                    }
                }
            }
            Step::Remove { key } => {
                if let Some(entry) = self.find(key) {
                    self.remove(key, entry);
                }
            }
            Step::UseAfterRemoval => {
                if let Some(mut entry) = self.gone.take() {
                    assert!(!entry.remove(), "removed twice");
                    let other = control::state(entry.control) ^ 1;
                    assert!(!entry.transition(other, true, true), "moved after it was removed");
                }
            }
            Step::Sweep => {
                for bucket in 0..self.table.buckets() {
                    for way in 0..WAYS {
                        if let Some((entry, _)) = Entry::<L, _>::at(self.table.bucket(bucket).unwrap(), way)
                            && is_past(entry.expires(), self.now)
                        {
                            assert!(entry.remove());
                        }
                    }
                }
                let now = self.now;
                self.flows.retain(|_, flow| !is_past(flow.expires, now));
            }
            Step::Wait { jiffies } => self.now = self.now.wrapping_add(jiffies),
        }
        self.compare();
    }

    fn remove(&mut self, key: u32, entry: Entry<L, Shared<'a>>) {
        assert!(entry.remove());
        self.flows.remove(&key);
        self.gone = Some(entry);
    }

    /// The best room in a bucket, and how many flows it holds.
    fn room(&self, bucket: u32) -> (Room, usize) {
        let flows: Vec<_> = self.flows.values().filter(|flow| flow.bucket == bucket).collect();
        let room = |flow: &&Flow| {
            let left = flow.expires.wrapping_sub(self.now);
            if is_past(flow.expires, self.now) {
                Room::Expired
            } else if flow.bits & control::CONFIRMED == 0 {
                Room::HalfOpen(std::cmp::Reverse(left))
            } else {
                Room::None
            }
        };
        let occupied = flows.iter().map(room).max().unwrap_or(Room::Empty);
        (if flows.len() < WAYS as usize { Room::Empty } else { occupied }, flows.len())
    }

    fn new_flow<'k>(&mut self, key: &'k FlowKey, confirmed: bool, timeout: u32) -> NewFlow<'k> {
        self.openings += 1;
        NewFlow {
            key,
            meta: meta::pack(self.openings, key.protocol, 0),
            state_bits: 1 | bit(confirmed, control::CONFIRMED | control::ACTIVE),
            expires: self.now.wrapping_add(timeout),
            extra: if L::EXTRA > 0 { [timeout, 1] } else { [0; 2] },
        }
    }

    fn open(&mut self, number: u32, confirmed: bool, timeout: u32) {
        let (home, key) = (self.home(number), (self.key)(number));
        let new = self.new_flow(&key, confirmed, timeout);
        let rooms = [home.first, home.second].map(|bucket| self.room(bucket));
        let opened = flow::open(&self.table, self.scratch, &home, &new, self.now);
        let Opened::New { evicted, twin: Evicted::NOBODY, .. } = opened else {
            assert!(matches!(opened, Opened::Full), "{opened:?}");
            assert!(rooms.iter().all(|room| room.0 == Room::None), "full with {rooms:?}");
            return;
        };
        // Which kind of room is taken is promised over both buckets; the oldest, within the one it is taken in.
        let kind = |room: &Room| std::mem::discriminant(room);
        let best = rooms.iter().map(|room| room.0).max_by_key(class).unwrap();
        assert_ne!(best, Room::None, "no room, and yet remembered");
        let (taken, victim) = match evicted.who() {
            None => (Room::Empty, None),
            Some(evicted) => {
                let (victim, room) = self.victim(&evicted);
                (room, Some(victim))
            }
        };
        assert_eq!(kind(&taken), kind(&best), "took {taken:?} of {rooms:?}");
        if let Some(victim) = victim {
            let gone = self.flows.remove(&victim).unwrap();
            assert!([home.first, home.second].contains(&gone.bucket));
        }
        let entry = flow::lookup(&self.table, &home, &key).expect("what was opened is there");
        let (bucket, way) = self.place(&entry, &home, new.meta);
        if let (Room::HalfOpen(_), Some(place)) =
            (taken, [home.first, home.second].iter().position(|b| *b == bucket))
        {
            assert_eq!(taken, rooms[place].0, "not the oldest half-open flow of the bucket");
        }
        let flow = Flow {
            bucket,
            way,
            bits: new.state_bits,
            meta: new.meta,
            expires: new.expires,
            extra: new.extra,
        };
        self.flows.insert(number, flow);
    }

    /// Whom an eviction hit, and why it was fair.
    fn victim(&self, evicted: &Evicted) -> (u32, Room) {
        let server = meta::server(evicted.meta);
        let (&key, flow) = self.flows.iter().find(|(_, flow)| meta::server(flow.meta) == server).unwrap();
        assert_eq!((evicted.control & BITS, evicted.meta), (flow.bits, flow.meta));
        let left = flow.expires.wrapping_sub(self.now);
        let room = if is_past(flow.expires, self.now) {
            Room::Expired
        } else {
            assert_eq!(flow.bits & control::CONFIRMED, 0, "an established flow was evicted");
            Room::HalfOpen(std::cmp::Reverse(left))
        };
        (key, room)
    }

    /// One of both copies is taken out and accounted for, whoever was in time, and an expired one never stays.
    fn open_twice(&mut self, number: u32, timeout: u32) {
        let (home, key) = (self.home(number), (self.key)(number));
        let old = self.flows[&number];
        let new = self.new_flow(&key, false, timeout);
        let (evicted, kept) = match flow::open(&self.table, self.scratch, &home, &new, self.now) {
            Opened::Full => return,
            Opened::Contended => panic!("nobody else is here"),
            Opened::Known { entry, evicted } => {
                assert_eq!(entry.meta, old.meta);
                assert!(!is_past(old.expires, self.now), "an expired flow was taken for a live one");
                (evicted.who(), None)
            }
            Opened::New { entry, evicted, twin } => {
                assert_eq!(entry.meta, new.meta);
                let (evicted, twin) = (evicted.who(), twin.who());
                // Its own victim, or its twin.
                let gone = twin.or(evicted).expect("the copy was left");
                assert_eq!((gone.control & BITS, gone.meta), (old.bits, old.meta));
                (if twin.is_some() { evicted } else { None }, Some(entry))
            }
        };
        if let Some(evicted) = evicted {
            let (victim, _) = self.victim(&evicted);
            self.flows.remove(&victim);
        }
        if let Some(entry) = kept {
            let (bucket, way) = self.place(&entry, &home, new.meta);
            let (meta, expires, extra) = (new.meta, new.expires, new.extra);
            self.flows.insert(number, Flow { bucket, way, bits: new.state_bits, meta, expires, extra });
        }
    }

    fn place(&self, entry: &Entry<L, Shared<'a>>, home: &Home, meta: u32) -> (u32, u32) {
        let way = control::way(entry.control);
        let of = |bucket: &u32| {
            let at = Entry::<L, _>::at(self.table.bucket(*bucket).unwrap(), way);
            at.is_some_and(|(entry, _)| entry.meta == meta)
        };
        ([home.first, home.second].into_iter().find(of).expect("in one of its buckets"), way)
    }

    /// The whole table is the whole map.
    fn compare(&self) {
        let mut seen = 0;
        for bucket in 0..self.table.buckets() {
            for way in 0..WAYS {
                let Some((entry, key)) = Entry::<L, _>::at(self.table.bucket(bucket).unwrap(), way) else {
                    continue;
                };
                seen += 1;
                let of_key = self.flows.iter().find(|(number, _)| (self.key)(**number) == key);
                let (_, flow) = of_key.expect("a flow the model does not have");
                let extra = if L::EXTRA > 0 { [entry.extra(0), entry.extra(1)] } else { [0; 2] };
                let (bits, meta, expires) = (entry.control & BITS, entry.meta, entry.expires());
                assert_eq!(*flow, Flow { bucket, way, bits, meta, expires, extra });
            }
        }
        assert_eq!(seen, self.flows.len(), "flows in the table, and in the model");
    }
}

fn class(room: &Room) -> u32 {
    match room {
        Room::None => 0,
        Room::HalfOpen(_) => 1,
        Room::Expired => 2,
        Room::Empty => 3,
    }
}

fn bit(on: bool, bits: u32) -> u32 {
    if on { bits } else { 0 }
}
