//! Virtual services and their real servers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::IpNet;

use super::{Family, Mac, Port, Ports, Protocol};

/// Largest weight: the `int` IPVS keeps it in.
pub const MAX_WEIGHT: u32 = i32::MAX as u32;
/// Largest connection threshold: the `int` IPVS keeps it in.
pub const MAX_THRESHOLD: u32 = i32::MAX as u32;

/// A virtual service: which packets it takes, and the real servers they go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique; 1 to 63 of `A-Z a-z 0-9 . _ : -`.
    pub name: String,
    /// Which packets belong to the service.
    pub selector: Selector,
    pub scheduler: Scheduler,
    pub flags: SchedulerFlags,
    /// Clients come back to their server; `None` is off.
    pub persistence: Option<Persistence>,
    /// Every packet is scheduled by itself; UDP only.
    pub one_packet: bool,
    /// No flow table: every packet goes where the hash says. Only sh, dh and mh, without persistence and
    /// thresholds.
    pub stateless: bool,
    /// What a client gets when no server can take its flow.
    pub no_destination: NoDestination,
    /// Real servers in the order of the file, which is the order of adding them, addresses unique.
    ///
    /// IPVS inserts at the head: **the last one here is the first of its list**, and first in its list wins ties.
    pub servers: Vec<Server>,
}

impl Service {
    /// Family of the addresses clients use; a server may differ only through a tunnel.
    pub fn family(&self) -> Family {
        self.selector.family()
    }
}

/// Which packets belong to a virtual service.
///
/// Of all entries of all services that take in a packet, the one with the longest prefix decides; at the same
/// prefix a port or range comes before any port. Validation leaves no two that tie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// One VIP: LVS's ordinary virtual service. Persistence is per protocol and port (per protocol for any port).
    Vip { address: IpAddr, port: Port, protocol: Protocol },
    /// Several addresses, protocols and ports of one family: what LVS uses firewall marks for. Persistence is
    /// shared by all of them. At least one entry.
    Matches(Vec<Match>),
}

impl Selector {
    /// Family of all its addresses.
    pub fn family(&self) -> Family {
        match self {
            Self::Vip { address, .. } => Family::of(*address),
            Self::Matches(matches) => {
                matches.first().map_or(Family::V4, |entry| Family::of(entry.prefix.addr()))
            }
        }
    }

    /// The entries, with a single VIP as one entry of a full-length prefix.
    pub fn matches(&self) -> Vec<Match> {
        match self {
            Self::Vip { address, port, protocol } => {
                vec![Match { prefix: (*address).into(), protocol: *protocol, ports: (*port).into() }]
            }
            Self::Matches(matches) => matches.clone(),
        }
    }
}

/// One entry of a `match` list. `protocol: any` in the file has become three of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// No host bits set; a single address has the full length.
    pub prefix: IpNet,
    pub protocol: Protocol,
    pub ports: Ports,
}

impl fmt::Display for Match {
    /// As an operator would say it: `tcp 192.0.2.1 port 80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.protocol)?;
        if self.prefix.prefix_len() == self.prefix.max_prefix_len() {
            self.prefix.addr().fmt(f)?;
        } else {
            self.prefix.fmt(f)?;
        }
        write!(f, " port {}", self.ports)
    }
}

/// How a server is chosen for a new flow, under IPVS's short names.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[strum(serialize_all = "lowercase")]
pub enum Scheduler {
    Rr,
    Wrr,
    Lc,
    #[default]
    Wlc,
    Sh,
    Dh,
    Sed,
    Nq,
    Lblc,
    Lblcr,
    Mh,
    Fo,
    Ovf,
    Twos,
}

impl Scheduler {
    /// Whether its choice depends on the packet alone, so that it works without a flow table.
    pub fn is_hash(self) -> bool {
        matches!(self, Self::Sh | Self::Dh | Self::Mh)
    }
}

/// `sh-port`, `sh-fallback`, `mh-port`, `mh-fallback`; only ever set with the scheduler they are named after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerFlags {
    /// The client's port is hashed too.
    pub port: bool,
    /// When the hash leads to a server that cannot take the flow, try on.
    pub fallback: bool,
}

/// Clients come back to the server they had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long after the last new flow; whole seconds, 1 second to 31 days.
    pub timeout: Duration,
    /// Which clients count as one; of the service's family.
    pub mask: ClientMask,
}

/// Which clients persistence treats as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMask {
    /// ANDed with the client's address; any pattern of bits, as in IPVS.
    V4(Ipv4Addr),
    /// Length of the prefix that counts, 1 to 128.
    V6(u8),
}

choice! {
    /// What a client gets when no server can take its flow.
    #[strum(serialize_all = "lowercase")]
    pub enum NoDestination {
        /// ICMP port unreachable, also for TCP: what IPVS does.
        #[default]
        Reject,
        /// Nothing.
        Drop,
    }
}

/// A real server of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// RIP: unicast.
    pub address: IpAddr,
    /// 0 (drained: no new flows) to [`MAX_WEIGHT`].
    pub weight: u32,
    pub method: Method,
    /// At this many connections the server takes no new ones; 0 is no limit, at most [`MAX_THRESHOLD`].
    pub upper_threshold: u32,
    /// Below this many it takes new ones again; 0 is three quarters of the upper threshold. Never above it.
    pub lower_threshold: u32,
    /// Destination MAC of its packets instead of what the neighbour table says; unicast.
    pub mac: Option<Mac>,
}

/// How packets travel to a server. Its port is the VIP's port in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Direct routing: a new destination MAC, the IP packet untouched but for its TTL.
    #[default]
    Dr,
    /// IP in IP.
    Ipip,
    Gre {
        /// The optional GRE checksum.
        checksum: bool,
    },
    Gue {
        /// UDP port the server decapsulates.
        port: NonZeroU16,
        /// The outer UDP checksum.
        checksum: bool,
    },
}

impl Method {
    /// Whether the packet is encapsulated, so that the server may be of another family than the service.
    pub fn is_tunnel(self) -> bool {
        self != Self::Dr
    }
}
