//! Next hops of the real servers, from the kernel's own routes and neighbour tables.
//!
//! [`state`] is the machine: it is told what the kernel says and what time it is, and says what to ask the kernel and
//! what is known. [`task`] is its driver, the only part with a clock and sockets.
//!
//! The kernel confirms a neighbour because its own traffic is answered. What XDP forwards bypasses the kernel, so to
//! it the real servers look unused: their entries grow stale, then go. Hence the machine has them probed for as long
//! as they are wanted.

mod followed;
mod path;
pub mod state;
pub mod task;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

pub use crate::netlink::{Mac, VlanTag};

/// A real server that needs a next hop. The address alone is enough; the rest overrides the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedServer {
    pub address: IpAddr,
    /// Sends to this MAC instead of asking for it. Interface, source and MTU still come from the route.
    pub mac: Option<Mac>,
    /// Interface to route through, by name; else the routing table decides.
    pub interface: Option<String>,
    /// VLAN the real server is in, 1–4094. The kernel's VLAN device for it is used if there is one (on `interface`,
    /// if given). Without one only a server with `mac` can be reached: its packets are tagged here, and ARP in that
    /// VLAN is not possible.
    pub vlan: Option<u16>,
}

impl WantedServer {
    /// A real server of which only the address is configured.
    pub fn new(address: IpAddr) -> Self {
        Self { address, mac: None, interface: None, vlan: None }
    }
}

/// How to send to a real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Destination MAC: the real server's, or its gateway's. Zero if `local`.
    pub dmac: Mac,
    /// Source MAC: that of the interface the route names. Zero if `local`.
    pub smac: Mac,
    /// Interface to send from: the one with the XDP program, under any VLAN device. If `local`, the one the kernel
    /// names (`lo`).
    pub ifindex: u32,
    /// Tags to push, outermost first; at most two.
    pub vlan: Vec<VlanTag>,
    /// Largest IP packet, bytes: the lower of the route's and the interface's limit. Tags do not count.
    pub mtu: u32,
    /// The kernel's preferred source towards the real server: the outer source of tunnels. Unspecified
    /// (`0.0.0.0`, `::`) if the director has no address of this family, and a tunnel is then impossible.
    pub source: IpAddr,
    /// Router the packets are handed to, if the real server is not on the link.
    pub gateway: Option<IpAddr>,
    /// The real server's address is one of the director's own: packets go to the local stack.
    pub local: bool,
}

/// What is known about every wanted real server, by its address.
pub type NextHopTable = HashMap<IpAddr, Result<NextHop, Unresolved>>;

/// Why a real server has no next hop, in words for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Just added; the kernel has not been asked yet.
    #[error("the route to {address} is being looked up")]
    LookingUp { address: IpAddr },
    #[error("no route to {address}")]
    NoRoute { address: IpAddr },
    #[error("unreachable route to {address}")]
    UnreachableRoute { address: IpAddr },
    #[error("blackhole route to {address}")]
    BlackholeRoute { address: IpAddr },
    #[error("prohibit route to {address}")]
    ProhibitRoute { address: IpAddr },
    #[error("the route to {address} cannot be used: {why}")]
    UnusableRoute { address: IpAddr, why: String },
    #[error("there is no interface {interface}")]
    NoInterface { interface: String },
    #[error("interface {interface} is down")]
    InterfaceDown { interface: String },
    #[error("interface {interface} has no carrier")]
    NoCarrier { interface: String },
    #[error("interface {interface} has no Ethernet address")]
    NotEthernet { interface: String },
    /// A VLAN is configured, the kernel has no device for it and no MAC is configured.
    #[error("no VLAN device for VLAN {vlan} on {interface}, so its MAC cannot be asked for")]
    NoVlanDevice { vlan: u16, interface: String },
    #[error("interface {interface} puts more than two VLAN tags on a packet")]
    TooManyTags { interface: String },
    /// `device` is the interface under `interface` where the walk ended; often the same.
    #[error("route goes out of {interface}{}, which has no XDP program", under(interface, device))]
    NoXdp { interface: String, device: String },
    /// The neighbour (the real server, or its gateway) does not answer.
    #[error("no {} answer from {neighbour}{} on {interface}", protocol(neighbour), role(gateway_to))]
    NoAnswer {
        neighbour: IpAddr,
        /// The real server, if `neighbour` is the gateway to it.
        gateway_to: Option<IpAddr>,
        interface: String,
        last_asked: Asked,
    },
}

fn under(interface: &str, device: &str) -> String {
    if interface == device { String::new() } else { format!(" over {device}") }
}

fn protocol(neighbour: &IpAddr) -> &'static str {
    if neighbour.is_ipv4() { "ARP" } else { "NDP" }
}

fn role(gateway_to: &Option<IpAddr>) -> String {
    gateway_to.map(|address| format!(", the gateway to {address},")).unwrap_or_default()
}

impl Unresolved {
    /// The reason, and how long ago the neighbour was last asked.
    pub fn describe(&self, now: Instant) -> String {
        match self {
            Self::NoAnswer { last_asked: Asked(Some(then)), .. } => {
                format!("{self} (last asked {} s ago)", now.saturating_duration_since(*then).as_secs())
            }
            _ => self.to_string(),
        }
    }
}

/// When a neighbour was last asked for its MAC. All are equal: one more question asked is no new reason.
#[derive(Clone, Copy, Default)]
pub struct Asked(pub Option<Instant>);

impl PartialEq for Asked {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Asked {}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Asked(at)" } else { "Asked(never)" })
    }
}

/// How patient the machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A confirmed neighbour is asked again after this; the kernel's `base_reachable_time` is 30 s.
    pub confirm_every: Duration,
    /// Least time between two questions to the same neighbour.
    pub ask_gap: Duration,
    /// A neighbour of which the kernel lost the entry keeps its old MAC this long; and a question is repeated when
    /// the kernel told no outcome for this long. Longer than the kernel's own three attempts of a second each.
    pub patience: Duration,
    /// Pause before asking a neighbour that did not answer again: this first, doubling up to `retry_at_most`.
    pub retry_first: Duration,
    pub retry_at_most: Duration,
    /// Routes are looked up again this often though nothing is known to have changed, for what is not notified:
    /// path MTUs, next-hop objects.
    pub route_refresh: Duration,
    /// Least time between two lookups of the same route, however many routes a routing daemon changes.
    pub route_gap: Duration,
    /// Neighbours asked in one go, and the pause before more are: a restart must not flood the network.
    pub burst: usize,
    pub burst_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            confirm_every: Duration::from_secs(30),
            ask_gap: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            retry_first: Duration::from_secs(1),
            retry_at_most: Duration::from_secs(15),
            route_refresh: Duration::from_secs(30),
            route_gap: Duration::from_millis(200),
            burst: 100,
            burst_pause: Duration::from_millis(20),
        }
    }
}
