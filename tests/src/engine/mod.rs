//! Two engines for one path: the library over memory, and the loaded program in the kernel. Both take their
//! configuration through [`MapStore`], as the daemon writes it, so whatever writes maps (a [`Fixture`], a reconciler)
//! can be put in front of either.
//!
//! Time stands still between calls and passes when [`Engine::advance`] says so. The host's clock is a number; in the
//! kernel everything with a time in it is aged instead.

mod fixture;
mod host;
mod kernel;

use std::time::Duration;

use lb_common::counters::{Counters, Note, Reason};
use lb_common::flow::{FlowKey, SPILL_WORDS};
use lb_common::fragment::{FragmentKey, FragmentRoute};
use lb_common::locality::{LOCALITY_WORDS, LocalityKey};
use lb_common::net::Addr;
use lb_common::path::PathMtu;
use lb_userspace::maps::MapStore;
use lb_userspace::sweep;
use lb_userspace::xdp::Sizes;

pub use fixture::{Fixture, Place, Plan, Server, Service, dr, gre, gue, ipip, tcp};
pub use host::{Host, HostStore};
pub use kernel::Kernel;

/// The interface every packet comes in by: the loopback, which is what `BPF_PROG_TEST_RUN` says. A server behind it is
/// reached by TX, one behind any other by redirect.
pub const INGRESS: u32 = 1;

/// Table sizes of a test: large enough for a few hundred flows, small enough to be read whole after each step.
pub const SIZES: Sizes = Sizes { v4: 32, v6: 32, templates: 16 };

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What the packet was counted under; its verdict is what the caller does with the packet.
    pub reason: Reason,
    /// The interface a forwarded packet leaves by. `None` for a packet that ends here, and for one the kernel
    /// redirects: `BPF_PROG_TEST_RUN` does not tell where to.
    pub egress: Option<u32>,
    /// The frame as the path left it, whatever becomes of it.
    pub bytes: Vec<u8>,
}

/// A datapath under test.
pub trait Engine {
    /// The configuration maps.
    type Store: MapStore;

    fn name(&self) -> &'static str;

    fn sizes(&self) -> Sizes;

    /// What the program was loaded to do, bits of [`lb_common::settings::feature`].
    fn features(&self) -> u32;

    /// A writer of the configuration maps, independent of the engine: a reconciler can own it.
    fn store(&self) -> Self::Store;

    /// Empties every map.
    fn clear(&mut self);

    /// Takes in a frame that arrives on interface [`INGRESS`]; at least an Ethernet header, for the kernel.
    fn run(&mut self, frame: &[u8]) -> Output;

    /// Lets time pass.
    fn advance(&mut self, by: Duration);

    /// Jiffies, low 32 bits: the time of the latest packet or [`Engine::advance`].
    fn now(&self) -> u32;

    /// Jiffies in a second.
    fn hz(&self) -> u32;

    /// Packets counted under a reason.
    fn reason(&self, reason: Reason) -> u64;

    fn noted(&self, note: Note) -> u64;

    fn counters(&self, server: u32) -> Counters;

    /// The flow tables, templates and loads as shared memory: to be listed, to be swept.
    fn with_tables<T>(&self, look: impl FnOnce(sweep::Tables<'_>) -> T) -> T;

    fn spills(&self) -> Vec<(FlowKey, [u32; SPILL_WORDS])>;

    /// Takes a flow out of the spill map, as the sweeper does.
    fn remove_spill(&mut self, key: &FlowKey);

    fn localities(&self) -> Vec<(LocalityKey, [u32; LOCALITY_WORDS])>;

    /// Forgets a destination, as the sweeper does.
    fn remove_locality(&mut self, key: &LocalityKey);

    fn fragments(&self) -> Vec<(FragmentKey, FragmentRoute)>;

    /// Paths with a learned MTU, expired or not.
    fn paths(&self) -> Vec<PathMtu>;

    /// Source prefixes, and how many flows they opened in the latest second they opened any.
    fn sources(&self) -> Vec<(Addr, u32)>;
}

/// Jiffies in this time, rounded to the nearest.
fn jiffies(time: Duration, hz: u32) -> u32 {
    u32::try_from((time.as_micros() * u128::from(hz) + 500_000) / 1_000_000).expect("less than 24 days")
}
