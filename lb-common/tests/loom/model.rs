//! A few ways of a table under the model checker, and CPUs that do to it what the datapath does.

use lb_common::flow::{
    self, AtomicU32, Buckets, Entry, Evicted, FlowKey, Home, Layout, NewFlow, Opened, SCRATCH, Shared, V4,
    WAYS, Words, control, is_past, meta,
};
use lb_common::net::Addr;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::Ordering::AcqRel;

/// Jiffies at which every model runs.
pub(crate) const NOW: u32 = 1000;
/// Idle times, in jiffies.
pub(crate) const HALF_OPEN: u32 = 60;
pub(crate) const ESTABLISHED: u32 = 900;

/// State bits of a flow's first packet, and the state its second leads to.
const SYN_RECV: u32 = 2;
const ESTAB: u8 = 1;

/// Keys are told apart by number, and a server says by which CPU and for which key it was chosen: so a reader can see
/// from an entry alone whether it is a mixture of two flows.
const CPUS: u32 = 8;

pub(crate) fn key(number: u32) -> FlowKey {
    FlowKey { client: Addr::v4(number), vip: Addr::v4(!number), ports: number << 16 | number, protocol: 6 }
}

pub(crate) fn server(number: u32, cpu: u32) -> u32 {
    number * CPUS + cpu
}

/// Number of a key that an entry was found with. Panics on a mixture.
fn number(key: &FlowKey, meta: u32) -> u32 {
    let number = key.client.0[3];
    assert_eq!(*key, self::key(number), "a key of two flows");
    assert_eq!(meta::server(meta) / CPUS, number, "the key of one flow and the server of another");
    number
}

pub(crate) fn at(first: u32, second: u32, tag: u32) -> Home {
    Home { first, second, tag: tag << 16 }
}

/// How a model's memory behaves. Every model is run with both, since loom alone leaves something out with either.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// As Rust's memory model has it: a CPU may read an older value. But where a CPU loads a word and then swaps it,
    /// loom does not try to run that swap before another CPU's earlier load of the word.
    Weak,
    /// Every CPU sees one order: loads and stores are done as read-modify-writes, so loom tries all of them in every
    /// order.
    InOrder,
}

/// A word of the table. What no CPU of a model has any business to change is not under the model checker, which keeps
/// models small, and changing it is an error.
pub(crate) enum Word {
    Fixed(u32),
    InPlay(AtomicU32),
    /// The same, in a model of [`Memory::InOrder`].
    InOrder(AtomicU32),
    /// While an image is made, outside of any model.
    Draft(Cell<u32>),
}

pub(crate) struct Table {
    words: Vec<Word>,
}

/// Words of one bucket, or a CPU's own scratch.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    Bucket(&'a [Word]),
    Scratch(&'a [Cell<u32>; SCRATCH]),
}

impl Words for View<'_> {
    fn load(self, at: u32) -> u32 {
        match self {
            View::Scratch(words) => words[at as usize].get(),
            View::Bucket(words) => match &words[at as usize] {
                Word::Fixed(value) => *value,
                Word::InPlay(word) => Shared(std::slice::from_ref(word)).load(0),
                Word::InOrder(word) => word.fetch_or(0, AcqRel),
                Word::Draft(cell) => cell.get(),
            },
        }
    }

    fn store(self, at: u32, value: u32) {
        if let View::Bucket(words) = self
            && let Word::InOrder(word) = &words[at as usize]
        {
            word.swap(value, AcqRel);
            return;
        }
        match self.place(at) {
            Ok(word) => word.store(0, value),
            Err(cell) => cell.set(value),
        }
    }

    fn swap(self, at: u32, old: u32, new: u32) -> bool {
        match self.place(at) {
            Ok(word) => word.swap(0, old, new),
            Err(cell) => cell.get() == old && cell.replace(new) == old,
        }
    }

    fn add(self, at: u32, delta: u32) -> u32 {
        match self.place(at) {
            Ok(word) => word.add(0, delta),
            Err(cell) => cell.replace(cell.get().wrapping_add(delta)),
        }
    }
}

impl<'a> View<'a> {
    /// What is about to be written: memory all CPUs share, or one's own.
    fn place(self, at: u32) -> Result<Shared<'a>, &'a Cell<u32>> {
        match self {
            View::Scratch(words) => Err(&words[at as usize]),
            View::Bucket(words) => match &words[at as usize] {
                Word::Fixed(_) => panic!("word {at} of an established flow was written"),
                Word::InPlay(word) | Word::InOrder(word) => Ok(Shared(std::slice::from_ref(word))),
                Word::Draft(cell) => Err(cell),
            },
        }
    }
}

#[derive(Clone, Copy)]
struct Of<'a>(&'a Table);

impl<'a> Buckets<V4> for Of<'a> {
    type Words = View<'a>;

    fn bucket(&self, index: u32) -> Option<View<'a>> {
        let at = (index * V4::BUCKET) as usize;
        self.0.words.get(at..at + V4::BUCKET as usize).map(View::Bucket)
    }
}

/// What the datapath's counters would say: active and inactive flows by server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loads(HashMap<u32, [i64; 2]>);

impl Loads {
    fn count(&mut self, server: u32, active: bool, by: i64) {
        let load = self.0.entry(server).or_default();
        load[!active as usize] += by;
        if *load == [0, 0] {
            self.0.remove(&server);
        }
    }

    fn unbind(&mut self, gone: Evicted) {
        self.count(meta::server(gone.meta), gone.control & control::ACTIVE != 0, -1);
    }

    pub(crate) fn merge(&mut self, other: &Loads) {
        for (&server, load) in &other.0 {
            self.count(server, true, load[0]);
            self.count(server, false, load[1]);
        }
    }
}

/// What became of an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    New,
    Known,
    NotRemembered,
}

/// One CPU: its number, its clock and its share of the counters.
pub(crate) struct Cpu {
    pub(crate) number: u32,
    pub(crate) loads: Loads,
    pub(crate) became: Vec<Became>,
    pub(crate) evictions: u32,
    /// Flows it established.
    pub(crate) established: u32,
    scratch: [Cell<u32>; SCRATCH],
}

impl Cpu {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            loads: Loads::default(),
            became: vec![],
            evictions: 0,
            established: 0,
            scratch: Default::default(),
        }
    }

    /// The first packet of a flow that a lookup missed.
    pub(crate) fn open(&mut self, table: &Table, home: Home, number: u32) {
        let server = server(number, self.number);
        let new = NewFlow {
            key: &key(number),
            meta: meta::pack(server, 6, 0),
            state_bits: SYN_RECV,
            expires: NOW + HALF_OPEN,
            extra: [0; 2],
        };
        let scratch = View::Scratch(&self.scratch);
        let (became, evicted, twin) = match flow::open::<V4, _>(&Of(table), scratch, &home, &new, NOW) {
            Opened::New { evicted, twin, .. } => (Became::New, evicted.who(), twin.who()),
            Opened::Known { entry, evicted } => {
                assert_eq!(meta::server(entry.meta) / CPUS, number, "another flow's server");
                (Became::Known, evicted.who(), None)
            }
            Opened::Full | Opened::Contended => (Became::NotRemembered, None, None),
        };
        if became == Became::New {
            self.loads.count(server, false, 1);
        }
        for gone in [evicted, twin].into_iter().flatten() {
            self.loads.unbind(gone);
        }
        self.evictions += evicted.is_some() as u32;
        self.became.push(became);
    }

    /// A packet that establishes its flow; true if it found it and changed it.
    pub(crate) fn establish(&mut self, table: &Table, home: Home, number: u32) -> bool {
        self.look(table, home, number).is_some_and(|entry| self.move_on(entry))
    }

    fn move_on(&mut self, mut entry: Entry<V4, View<'_>>) -> bool {
        let was = entry.control & control::ACTIVE != 0;
        let done = entry.transition(ESTAB, true, true);
        if done {
            let server = meta::server(entry.meta);
            self.loads.count(server, was, -1);
            self.loads.count(server, true, 1);
            self.established += 1;
        }
        entry.set_expires(NOW + ESTABLISHED);
        done
    }

    /// A packet as the datapath treats it, whether or not its flow is known.
    pub(crate) fn packet(&mut self, table: &Table, home: Home, number: u32) {
        match self.look(table, home, number) {
            Some(entry) => {
                self.move_on(entry);
            }
            None => self.open(table, home, number),
        }
    }

    /// Lookup. Checks that what is found is one flow; finds an expired one gone, and takes it out.
    pub(crate) fn look<'t>(
        &mut self,
        table: &'t Table,
        home: Home,
        number: u32,
    ) -> Option<Entry<V4, View<'t>>> {
        let entry = flow::lookup::<V4, _>(&Of(table), &home, &key(number))?;
        assert_eq!(meta::server(entry.meta) / CPUS, number, "another flow's server");
        if is_past(entry.expires(), NOW) {
            self.remove(&entry);
            return None;
        }
        Some(entry)
    }

    pub(crate) fn remove(&mut self, entry: &Entry<V4, View<'_>>) -> bool {
        let done = entry.remove();
        if done {
            self.loads.unbind(Evicted { control: entry.control, meta: entry.meta });
        }
        done
    }

    /// The flow's end, as when its client opens it again after a FIN.
    pub(crate) fn end(&mut self, table: &Table, home: Home, number: u32) -> bool {
        self.look(table, home, number).is_some_and(|entry| self.remove(&entry))
    }

    /// The sweeper: every live flow of a bucket is looked at, expired ones removed.
    pub(crate) fn sweep(&mut self, table: &Table, bucket: u32) {
        for way in 0..WAYS {
            if let Some((entry, key)) = Entry::<V4, _>::at(Of(table).bucket(bucket).unwrap(), way) {
                number(&key, entry.meta);
                if is_past(entry.expires(), NOW) && entry.remove() {
                    self.loads.unbind(Evicted { control: entry.control, meta: entry.meta });
                }
            }
        }
    }
}

/// A table before the CPUs start.
#[derive(Clone, Default)]
pub(crate) struct Image {
    words: Vec<u32>,
    /// Places that stay as they are, by word.
    fixed: Vec<bool>,
    loads: Loads,
}

impl Image {
    /// Buckets with so many established flows each, which stay, and empty ways.
    pub(crate) fn new(established: &[u32]) -> Self {
        let words = vec![0; established.len() * V4::BUCKET as usize];
        let mut image = Self { fixed: vec![false; words.len()], words, loads: Loads::default() };
        let mut filler = 1000;
        for (bucket, &count) in established.iter().enumerate() {
            for _ in 0..count {
                image.add(bucket as u32, filler, filler, true, NOW + ESTABLISHED, true);
                filler += 1;
            }
        }
        image
    }

    /// Adds a flow that CPUs may change. `tag` as given to [`at`].
    pub(crate) fn with(mut self, bucket: u32, number: u32, tag: u32, confirmed: bool, expires: u32) -> Self {
        self.add(bucket, number, tag, confirmed, expires, false);
        self
    }

    fn add(&mut self, bucket: u32, number: u32, tag: u32, confirmed: bool, expires: u32, fixed: bool) {
        let table = Table { words: self.words.iter().map(|&word| Word::Draft(Cell::new(word))).collect() };
        let mut cpu = Cpu::new(0);
        let home = at(bucket, bucket, tag);
        cpu.open(&table, home, number);
        assert_eq!(cpu.became, [Became::New]);
        assert_eq!(cpu.evictions, 0, "more flows than ways");
        if confirmed {
            assert!(cpu.establish(&table, home, number));
        }
        cpu.look(&table, home, number).unwrap().set_expires(expires);
        let after: Vec<u32> =
            table.words.iter().map(|word| View::Bucket(std::slice::from_ref(word)).load(0)).collect();
        if fixed {
            let changed =
                self.words[..].iter().zip(&after).position(|(before, after)| before != after).unwrap();
            let (start, way) = (changed as u32 / V4::BUCKET * V4::BUCKET, changed as u32 % V4::BUCKET);
            assert!(way < WAYS);
            let entry = start + 2 * WAYS + way * V4::ENTRY;
            for word in [start + way, start + WAYS + way].into_iter().chain(entry..entry + V4::ENTRY) {
                self.fixed[word as usize] = true;
            }
        }
        self.words = after;
        self.loads.merge(&cpu.loads);
    }

    /// To be called inside a model.
    pub(crate) fn table(&self, memory: Memory) -> Table {
        let word = |(&value, &fixed): (&u32, &bool)| match (fixed, memory) {
            (true, _) => Word::Fixed(value),
            (false, Memory::Weak) => Word::InPlay(AtomicU32::new(value)),
            (false, Memory::InOrder) => Word::InOrder(AtomicU32::new(value)),
        };
        Table { words: self.words.iter().zip(&self.fixed).map(word).collect() }
    }

    /// Holds the table against what the CPUs counted; which flows are live, by key number in ascending order.
    pub(crate) fn settle(&self, table: &Table, cpus: &[Cpu]) -> Vec<u32> {
        let mut counted = self.loads.clone();
        for cpu in cpus {
            counted.merge(&cpu.loads);
        }
        let mut found = Loads::default();
        let mut live = Vec::new();
        for bucket in 0..table.words.len() as u32 / V4::BUCKET {
            for way in 0..WAYS {
                let words = Of(table).bucket(bucket).unwrap();
                assert_eq!(words.load(way) & control::BUSY, 0, "a way was claimed and left");
                if let Some((entry, key)) = Entry::<V4, _>::at(words, way) {
                    live.push(number(&key, entry.meta));
                    found.count(meta::server(entry.meta), entry.control & control::ACTIVE != 0, 1);
                }
            }
        }
        assert_eq!(counted, found, "counted, and found in the table");
        live.sort_unstable();
        live.retain(|&number| number < 1000);
        live
    }
}
