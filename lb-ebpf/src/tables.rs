//! All the path may ask of the maps. Implemented over kernel maps by the binary and over memory by the host engine.

#[cfg(feature = "host")]
pub mod mem;

use crate::stage::Trip;
use lb_common::{
    counters::Note,
    flow::{Buckets, FlowKey, Templates, Thresholds, V4, V6, Words},
    fragment::{FragmentKey, FragmentRoute},
    locality::LocalityKey,
    net::Addr,
    path::PathMtu,
    plan::{PlanHead, Slot},
    server::Server,
    service::{MatchSet, Service, ServiceKey},
    settings::Settings,
};

/// A per-CPU allowance of something per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Allowance {
    /// ICMP errors sent.
    Icmp = 0,
    /// New flows remembered.
    NewFlows = 1,
}

/// Number of allowances, and entries of their map.
pub const ALLOWANCES: u32 = 2;

/// See [`Tables::scratch`].
pub const SCRATCH_WORDS: usize = 16;

/// Ids come from the maps themselves, so an entry that is missing is a configuration being changed under a packet:
/// every lookup may fail, and the path says what then.
pub trait Tables:
    Buckets<V4, Words = Self::Cells> + Buckets<V6, Words = Self::Cells> + Buckets<Templates, Words = Self::Cells>
{
    /// Shared words: of a bucket, of a server's load.
    type Cells: Words;

    /// Jiffies, low 32 bits.
    fn now(&self) -> u32;

    fn random(&self) -> u32;

    /// What this program was loaded to do, see `lb_common::settings::feature`.
    fn features(&self) -> u32;

    /// Leaves a trip for the next stage, and takes it up there.
    fn leave(&self, trip: &Trip);

    fn trip(&self) -> Option<&Trip>;

    /// [`SCRATCH_WORDS`] words of this CPU's own, to be used within one step.
    fn scratch(&self) -> Option<Self::Cells>;

    fn settings(&self) -> Option<&Settings>;

    /// Value of exactly this key of the services map.
    fn service_at(&self, key: &ServiceKey) -> Option<u32>;

    /// Rules of the longest prefix that holds the address.
    fn matches(&self, vip: &Addr) -> Option<&MatchSet>;

    fn service(&self, id: u32) -> Option<&Service>;

    fn plan(&self, service: u32) -> PlanHead;

    fn slot(&self, cell: u32) -> Option<Slot>;

    /// Moves the cursor in a cell by `by`, wrapping; its value before.
    fn advance(&self, cell: u32, by: u64) -> Option<u64>;

    fn server(&self, id: u32) -> Option<&Server>;

    fn thresholds(&self, server: u32) -> Option<&Thresholds>;

    /// The server's load, `LOAD_WORDS` words.
    fn load(&self, server: u32) -> Option<Self::Cells>;

    /// Counts a packet of `bytes` (from the IP header on) for a server, and a connection if it opened one.
    fn account(&self, server: u32, opened: bool, bytes: u32);

    fn note(&self, note: Note);

    /// Flows in the spill map; while it is 0 nobody looks there.
    fn spilled(&self) -> u32;

    /// The flow in the spill map, laid out as a bucket of one way.
    fn spill(&self, key: &FlowKey) -> Option<Self::Cells>;

    /// Puts a flow into the spill map, laid out by `fill` over zeroes. False if the map is full, or has the key. Counts
    /// towards [`Tables::spilled`].
    fn spill_insert(&self, key: &FlowKey, fill: impl FnOnce(Self::Cells)) -> bool;

    /// The servers a destination went to, laid out as `lb_common::locality::word` says.
    fn locality(&self, key: &LocalityKey) -> Option<Self::Cells>;

    /// Remembers a destination with one server. False if the map is full.
    fn locality_insert(&self, key: &LocalityKey, server: u32, now: u32) -> bool;

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRoute>;

    fn set_fragment(&self, key: &FragmentKey, route: &FragmentRoute);

    /// The entry of the path cache a real server would have, whosever it is.
    fn path(&self, rip: &Addr) -> Option<PathMtu>;

    fn set_path(&self, path: &PathMtu);

    fn is_denied(&self, source: &Addr) -> bool;

    /// Counts a new flow of a source prefix in the second `now` falls in; how many it has opened in it.
    fn source_opened(&self, prefix: &Addr, second: u32) -> u32;

    /// Takes one from this CPU's allowance of `limit` a second. False when it is used up.
    fn allow(&self, what: Allowance, limit: u32, second: u32) -> bool;

    /// Notes that this CPU forwarded a new flow without remembering it.
    fn forget(&self, second: u32);

    /// The second of the latest [`Tables::forget`] on this CPU; 0 for never.
    fn forgot(&self) -> u32;
}
