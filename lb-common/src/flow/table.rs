use super::layout::{ENTRIES, EXPIRES};
use super::{FlowKey, Layout, V6, WAYS, Words, is_past, meta};
use crate::hash::Seed;
use core::marker::PhantomData;

/// The control word.
pub mod control {
    /// Low four bits: the TCP or SCTP state; 0 for UDP.
    pub const STATE: u32 = 0xf;
    /// A second packet was seen. A TCP flow is half-open until its state says otherwise; UDP has only this.
    pub const CONFIRMED: u32 = 1 << 4;
    pub const LIVE: u32 = 1 << 5;
    /// Claimed and being filled.
    pub const BUSY: u32 = 1 << 6;
    /// The flow counts as active on its server.
    pub const ACTIVE: u32 = 1 << 7;
    pub(super) const WAY: u32 = 8;
    pub(super) const GENERATION: u32 = 11;
    pub(super) const GENERATION_MASK: u32 = 0x1f << GENERATION;
    pub(super) const TAG: u32 = 0xffff_0000;

    #[inline(always)]
    pub const fn state(word: u32) -> u8 {
        (word & STATE) as u8
    }

    /// True if both words are of one life of a way: of the same flow, perhaps in another state.
    #[inline(always)]
    pub(super) const fn is_same_flow(a: u32, b: u32) -> bool {
        (a ^ b) & !(STATE | CONFIRMED | ACTIVE) == 0
    }

    #[inline(always)]
    pub const fn is_half_open(word: u32) -> bool {
        word & CONFIRMED == 0
    }

    /// The way's number, kept in the word. The verifier follows constants: were the way the loop's counter,
    /// everything after a hit would be verified once per way.
    #[inline(always)]
    pub const fn way(word: u32) -> u32 {
        word >> WAY & (super::WAYS - 1)
    }

    /// A released way: empty, with the generation that comes next.
    #[inline(always)]
    pub(super) const fn released(word: u32) -> u32 {
        word.wrapping_add(1 << GENERATION) & GENERATION_MASK
    }
}

use control::{ACTIVE, BUSY, CONFIRMED, LIVE, TAG};

/// A table's buckets.
pub trait Buckets<L: Layout> {
    type Words: Words;

    /// `None` past the last bucket.
    fn bucket(&self, index: u32) -> Option<Self::Words>;
}

/// Words of a value in the spill map: what a bucket of one way needs, in either family's layout.
pub const SPILL_WORDS: usize = (ENTRIES + V6::ENTRY) as usize;

/// Words [`open`] needs for itself.
pub const SCRATCH: usize = 3;

/// Where a key lives: two candidate buckets and the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    pub first: u32,
    pub second: u32,
    /// In the upper 16 bits, as in the control word.
    pub tag: u32,
}

#[inline(always)]
pub fn home<L: Layout>(seed: &Seed, key: &FlowKey, buckets: u32) -> Home {
    let hash = seed.hash(L::parts(key), key.ports, key.protocol as u8);
    let scale = |half: u32| ((half as u64 * buckets as u64) >> 32) as u32;
    Home { first: scale(hash as u32), second: scale((hash >> 32) as u32), tag: (hash as u32) << 16 }
}

/// One live way, as it was when it was found.
#[derive(Debug)]
pub struct Entry<L, W> {
    words: W,
    /// The control word it was found with.
    pub control: u32,
    /// Server, protocol and flags, see [`meta`].
    pub meta: u32,
    layout: PhantomData<L>,
}

impl<L, W: Copy> Clone for Entry<L, W> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L, W: Copy> Copy for Entry<L, W> {}

impl<L: Layout, W: Words> Entry<L, W> {
    /// The live flow in way `way` of a bucket, if there is one; for sweeps and listings.
    pub fn at(words: W, way: u32) -> Option<(Self, FlowKey)> {
        let control = words.load(way);
        if control & LIVE == 0 {
            return None;
        }
        let at = ENTRIES + way * L::ENTRY;
        let client = L::address(|i| words.load(at + i));
        let vip = L::address(|i| words.load(at + L::ADDRESS + i));
        let ports = words.load(at + 2 * L::ADDRESS);
        let meta = words.load(at + 2 * L::ADDRESS + 1);
        let again = words.load(way);
        if !control::is_same_flow(again, control) {
            return None;
        }
        let control = again;
        let key = FlowKey { client, vip, ports, protocol: meta::protocol(meta) as u32 };
        Some((Self { words, control, meta, layout: PhantomData }, key))
    }

    /// Lays a new flow out as the spill map holds it, a bucket whose only way is way 0. `words` are nobody else's: zeroes,
    /// or claimed.
    #[inline(always)]
    pub fn fill_spill(words: W, new: &NewFlow<'_>) {
        words.store(EXPIRES, new.expires);
        words.store(ENTRIES + 2 * L::ADDRESS + 1, new.meta);
        words.store(0, words.load(0) & control::GENERATION_MASK | LIVE | new.state_bits);
    }

    /// Lays a new flow out where one of the same key ended and is still in the spill map. False if a flow is there.
    #[inline(always)]
    pub fn refill_spill(words: W, new: &NewFlow<'_>) -> bool {
        let old = words.load(0);
        if old & (LIVE | BUSY) != 0 || !words.swap(0, old, control::released(old) | BUSY) {
            return false;
        }
        Self::fill_spill(words, new);
        true
    }

    /// The live flow in a value of the spill map. The key is the map's; its words in the value are not used.
    #[inline(always)]
    pub fn in_spill(words: W) -> Option<Self> {
        let control = words.load(0);
        if control & LIVE == 0 {
            return None;
        }
        let meta = words.load(ENTRIES + 2 * L::ADDRESS + 1);
        Some(Self { words, control, meta, layout: PhantomData })
    }

    #[inline(always)]
    fn way(&self) -> u32 {
        control::way(self.control)
    }

    /// When the flow is idle for good, in jiffies.
    #[inline(always)]
    pub fn expires(&self) -> u32 {
        self.words.load(EXPIRES + self.way())
    }

    /// Sets the end of the idle time; writes only if it moved, so a busy flow's line stays clean within a tick.
    #[inline(always)]
    pub fn set_expires(&self, expires: u32) {
        if self.expires() != expires {
            self.words.store(EXPIRES + self.way(), expires);
        }
    }

    /// Moves the flow to `state` and marks it confirmed and active as told. False if the way was
    /// meanwhile changed by someone else, in which case nothing happened and nothing is to be accounted.
    #[inline(always)]
    pub fn transition(&mut self, state: u8, confirmed: bool, active: bool) -> bool {
        let mut new = self.control & !(control::STATE | ACTIVE) | state as u32 & control::STATE;
        if confirmed {
            new |= CONFIRMED;
        }
        if active {
            new |= ACTIVE;
        }
        let done = new == self.control || self.words.swap(self.way(), self.control, new);
        if done {
            self.control = new;
        }
        done
    }

    /// Takes the flow out. True for the one caller that did it, who then does the accounting.
    #[inline(always)]
    pub fn remove(&self) -> bool {
        self.words.swap(self.way(), self.control, control::released(self.control))
    }

    /// Takes the flow out in whatever state it is by now; the control word it had, if this caller did it.
    #[inline(always)]
    fn withdraw(&self) -> Option<u32> {
        if self.remove() {
            return Some(self.control);
        }
        let control = self.words.load(self.way());
        let done = control::is_same_flow(control, self.control)
            && self.words.swap(self.way(), control, control::released(control));
        if done { Some(control) } else { None }
    }

    #[inline(always)]
    fn extra_at(&self, word: u32) -> u32 {
        ENTRIES + self.way() * L::ENTRY + 2 * L::ADDRESS + 2 + word
    }

    /// Word `word` behind the fixed part; `word` below `L::EXTRA`.
    #[inline(always)]
    pub fn extra(&self, word: u32) -> u32 {
        self.words.load(self.extra_at(word))
    }

    #[inline(always)]
    pub fn set_extra(&self, word: u32, value: u32) {
        self.words.store(self.extra_at(word), value);
    }

    #[inline(always)]
    pub fn add_extra(&self, word: u32, delta: u32) {
        self.words.add(self.extra_at(word), delta);
    }

    /// Adds flags to the entry's meta word. Not atomic with the control word; flags only ever accumulate. A swap and
    /// not a store: if the way went to another flow meanwhile, it must keep that flow's server.
    #[inline(always)]
    pub fn set_flags(&self, flags: u32) {
        let at = ENTRIES + self.way() * L::ENTRY + 2 * L::ADDRESS + 1;
        let meta = self.words.load(at);
        if meta & flags != flags {
            self.words.swap(at, meta, meta | flags);
        }
    }
}

/// What a lookup found.
pub type Lookup<L, W> = Option<Entry<L, W>>;

#[inline(always)]
fn matches<L: Layout, W: Words>(words: W, at: u32, key: &FlowKey, meta: u32) -> bool {
    let mut differ = words.load(at + 2 * L::ADDRESS) ^ key.ports;
    differ |= meta::protocol(meta) as u32 ^ key.protocol;
    let mut i = 0;
    while i < L::ADDRESS {
        differ |= words.load(at + i) ^ L::word(&key.client, i);
        differ |= words.load(at + L::ADDRESS + i) ^ L::word(&key.vip, i);
        i += 1;
    }
    differ == 0
}

/// A flow that had to give its way to another, for the caller to take off its server's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    pub control: u32,
    pub meta: u32,
}

/// Not an `Option`: LLVM reads the value of an absent one from wherever it would have been spilled, which the kernel's
/// verifier refuses.
impl Evicted {
    pub const NOBODY: Self = Self { control: 0, meta: 0 };

    /// The flow that had to go, if one had to.
    #[inline(always)]
    pub const fn who(self) -> Option<Self> {
        if self.control & LIVE != 0 { Some(self) } else { None }
    }
}

/// A flow about to be remembered.
#[derive(Clone, Copy, Debug)]
pub struct NewFlow<'a> {
    pub key: &'a FlowKey,
    /// See [`meta`].
    pub meta: u32,
    /// State, CONFIRMED and ACTIVE of the control word.
    pub state_bits: u32,
    /// Jiffies.
    pub expires: u32,
    /// Words behind the fixed part; the first `L::EXTRA` count.
    pub extra: [u32; 2],
}

/// What became of an insertion.
enum Insert<L, W> {
    /// The flow that gave way is in `scratch`, see [`evicted`].
    Placed {
        entry: Entry<L, W>,
        in_second: bool,
    },
    Full,
    Contended,
}

/// How eagerly a way is taken, the highest first. An empty way before an expired one before the oldest half-open.
const EMPTY: u32 = 3;
const EXPIRED: u32 = 2;
const HALF_OPEN: u32 = 1;

/// A bucket as a newcomer sees it.
struct Room {
    /// Live flows.
    live: u32,
    /// Class in the top two bits, then the age, the way in the lowest three; 0 when no way can be had.
    best: u32,
}

/// The best score is kept in `scratch` and not in a register: the verifier follows what it knows of registers, and would
/// walk four classes to the power of eight ways; what is in a map it does not know.
#[inline(always)]
fn room<W: Words>(words: W, scratch: W, now: u32) -> Room {
    let mut live = 0;
    scratch.store(0, 0);
    let mut way = 0;
    while way < WAYS {
        let control = words.load(way);
        let left = words.load(EXPIRES + way).wrapping_sub(now);
        live += (control / LIVE) & 1;
        let class = if control & (LIVE | BUSY) == 0 {
            EMPTY
        } else if control & BUSY != 0 {
            0
        } else if left as i32 <= 0 {
            EXPIRED
        } else if control::is_half_open(control) {
            HALF_OPEN
        } else {
            0
        };
        if class != 0 {
            let age = OLDEST.saturating_sub(left);
            let score = class << 30 | age << 3 | way;
            if score > scratch.load(0) {
                scratch.store(0, score);
            }
        }
        way += 1;
    }
    Room { live, best: scratch.load(0) }
}

/// Ages are compared up to this many jiffies. A flow with longer to live is the youngest.
const OLDEST: u32 = 0x07ff_ffff;

/// Fullness at which a newcomer stops going to its first bucket and looks at the second as well.
const CROWDED: u32 = 6;

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn insert<L: Layout, W: Words>(
    first: W,
    second: W,
    scratch: W,
    home: &Home,
    new: &NewFlow<'_>,
    now: u32,
) -> Insert<L, W> {
    let key = new.key;
    let mut in_second = false;
    let mut words = first;
    let here = room(first, scratch, now);
    let mut best = here.best;
    // Two buckets may be one: then it is the first.
    if home.first != home.second && (here.live >= CROWDED || best >> 30 != EMPTY) {
        let there = room(second, scratch, now);
        let better = there.best >> 30 > best >> 30;
        if better || (there.best >> 30 == best >> 30 && there.live < here.live) {
            words = second;
            best = there.best;
            in_second = true;
        }
    }
    if best == 0 {
        return Insert::Full;
    }
    let way = best & (WAYS - 1);
    let old = words.load(way);
    // Between the choice and now someone may have filled the way with a flow that must not go.
    let stays = old & LIVE != 0 && !control::is_half_open(old) && !is_past(words.load(EXPIRES + way), now);
    let claimed = control::released(old) | BUSY;
    if old & BUSY != 0 || stays || !words.swap(way, old, claimed) {
        return Insert::Contended;
    }
    let at = ENTRIES + way * L::ENTRY;
    scratch.store(1, old);
    scratch.store(2, words.load(at + 2 * L::ADDRESS + 1));
    let mut i = 0;
    while i < L::ADDRESS {
        words.store(at + i, L::word(&key.client, i));
        words.store(at + L::ADDRESS + i, L::word(&key.vip, i));
        i += 1;
    }
    words.store(at + 2 * L::ADDRESS, key.ports);
    words.store(at + 2 * L::ADDRESS + 1, new.meta);
    let mut i = 0;
    while i < L::EXTRA {
        words.store(at + 2 * L::ADDRESS + 2 + i, new.extra[(i & 1) as usize]);
        i += 1;
    }
    words.store(EXPIRES + way, new.expires);
    let live = home.tag | claimed & control::GENERATION_MASK | way << control::WAY | LIVE | new.state_bits;
    // A swap and not a store: it is the barrier that makes the search for a duplicate below sound.
    if !words.swap(way, claimed, live) {
        return Insert::Contended;
    }
    // Read back, so that the verifier forgets which way it was (see `control::way`). The way may be another flow's
    // already.
    let control = words.load(way);
    let control = if control::is_same_flow(control, live) { control } else { live };
    Insert::Placed { entry: Entry { words, control, meta: new.meta, layout: PhantomData }, in_second }
}

/// Whom an insertion took the way from. Kept in `scratch`, because the stack of a BPF program is small.
#[inline(always)]
fn evicted<W: Words>(scratch: W) -> Evicted {
    Evicted { control: scratch.load(1), meta: scratch.load(2) }
}

/// The live flow of `key` in one bucket, leaving out way `except` ([`WAYS`]: none). An expired one is found too:
/// the caller decides.
#[inline(always)]
fn find<L: Layout, W: Words>(words: W, key: &FlowKey, tag: u32, except: u32) -> Lookup<L, W> {
    let mut way = 0;
    while way < WAYS {
        let control = words.load(way);
        if control & (TAG | LIVE) == tag | LIVE && way != except {
            let at = ENTRIES + way * L::ENTRY;
            let meta = words.load(at + 2 * L::ADDRESS + 1);
            if matches::<L, W>(words, at, key, meta) {
                // Another CPU may have moved the flow meanwhile: it is found all the same, as it is now.
                let again = words.load(way);
                if control::is_same_flow(again, control) {
                    return Some(Entry { words, control: again, meta, layout: PhantomData });
                }
            }
        }
        way += 1;
    }
    None
}

/// Looks a key up in both of its buckets.
#[inline(always)]
pub fn lookup<L: Layout, B: Buckets<L>>(table: &B, home: &Home, key: &FlowKey) -> Lookup<L, B::Words> {
    let first = table.bucket(home.first)?;
    touch::<L, _>(first);
    let found = find::<L, _>(first, key, home.tag, WAYS);
    if found.is_some() {
        return found;
    }
    find::<L, _>(table.bucket(home.second)?, key, home.tag, WAYS)
}

/// Words of a cache line.
const LINE: u32 = 16;

/// Asks for all of a bucket at once. Only the control words say which line holds the flow, or where a new one will be
/// written, and to wait for one line after the other costs as much again.
#[inline(always)]
fn touch<L: Layout, W: Words>(words: W) {
    let mut at = ENTRIES;
    while at < L::BUCKET {
        words.load(at);
        at += LINE;
    }
}

/// What became of an opening.
#[derive(Debug)]
pub enum Opened<L, W> {
    /// The flow is remembered. `evicted` made room; `twin` is the same flow as another CPU had just remembered it,
    /// taken out again because ours stands first. Both are to be taken off their servers' counts. (`twin` is
    /// `entry` itself if it was moved between the counts before it was found to stand second.)
    New { entry: Entry<L, W>, evicted: Evicted, twin: Evicted },
    /// Another CPU remembered the same flow first; this is its entry. Ours is gone.
    Known { entry: Entry<L, W>, evicted: Evicted },
    /// Every way of both buckets holds an established flow.
    Full,
    /// Others kept claiming the same ways.
    Contended,
}

/// Remembers a flow that a lookup just missed.
///
/// Two CPUs may open the same flow at once. Both publish and then look for a twin; publishing is a full barrier,
/// so at least one of them sees both entries, and the one that stands first (bucket, then way) stays. Should others
/// move the one that has to go twice within that moment, it stays too: never found, counted, and gone when it expires.
/// `scratch`: [`SCRATCH`] words nobody else uses meanwhile.
#[inline(always)]
pub fn open<L: Layout, B: Buckets<L>>(
    table: &B,
    scratch: B::Words,
    home: &Home,
    new: &NewFlow<'_>,
    now: u32,
) -> Opened<L, B::Words> {
    let (Some(first), Some(second)) = (table.bucket(home.first), table.bucket(home.second)) else {
        return Opened::Full;
    };
    let (entry, in_second) = match insert::<L, _>(first, second, scratch, home, new, now) {
        Insert::Placed { entry, in_second } => (entry, in_second),
        Insert::Full => return Opened::Full,
        Insert::Contended => return Opened::Contended,
    };
    let own = entry.way();
    let (skip_first, skip_second) = if in_second { (WAYS, own) } else { (own, WAYS) };
    let (other, other_in_second) = match find::<L, _>(first, new.key, home.tag, skip_first) {
        Some(other) => (other, false),
        None if home.first == home.second => {
            return Opened::New { entry, evicted: evicted(scratch), twin: Evicted::NOBODY };
        }
        None => match find::<L, _>(second, new.key, home.tag, skip_second) {
            Some(other) => (other, true),
            None => return Opened::New { entry, evicted: evicted(scratch), twin: Evicted::NOBODY },
        },
    };
    let other_first = (other_in_second, other.way()) < (in_second, own);
    let ours_goes = other_first && !is_past(other.expires(), now);
    let loser = if ours_goes { entry } else { other };
    let Some(control) = loser.withdraw() else {
        return Opened::New { entry, evicted: evicted(scratch), twin: Evicted::NOBODY };
    };
    // Should a third CPU have moved ours between the counts, before it was counted at all, it is counted and taken off.
    if ours_goes && (control ^ new.state_bits) & ACTIVE == 0 {
        return Opened::Known { entry: other, evicted: evicted(scratch) };
    }
    Opened::New { entry, evicted: evicted(scratch), twin: Evicted { control, meta: loser.meta } }
}
