//! What a scenario asks: the world it is played in, its services, its events.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use serde::Deserialize;

pub use super::read::{Hex, Setting};

use super::event::Event;

/// One scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    /// Whether the director has IPv6.
    #[serde(default)]
    pub ipv6: bool,
    /// MTU of the director's interface, bytes.
    #[serde(default = "Scenario::default_mtu")]
    pub mtu: u32,
    /// MTU of the driver's end of the segment, bytes. Unsaid: large enough for any frame sent.
    pub drv_mtu: Option<u32>,
    /// Kernel settings before the services are added, by their dotted names.
    #[serde(default)]
    pub sysctl: BTreeMap<String, Setting>,
    /// Shell commands in the director's namespace, before the services are added; see [`Scenario::route_mtus`].
    #[serde(default)]
    pub setup: Vec<String>,
    /// Addresses the director knows the neighbours of though no service names them.
    #[serde(default)]
    pub neighbours: Vec<IpAddr>,
    /// Which events have their frames recorded, where an event does not say.
    #[serde(default)]
    pub hex: HexMode,
    /// Whether connections are recorded with every event.
    pub conns: Option<ConnsMode>,
    /// Whether changed counters are recorded. Unsaid: yes.
    pub track: Option<bool>,
    /// Added in this order, each with its servers in theirs.
    pub services: Vec<Service>,
    pub events: Vec<Event>,
}

/// Which events of a scenario have their frames recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HexMode {
    /// The first of each kind.
    #[default]
    Auto,
    All,
    None,
}

/// When connections are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnsMode {
    /// With every event.
    Each,
}

impl Scenario {
    fn default_mtu() -> u32 {
        1500
    }

    /// The route MTUs that `setup` asks for: a prefix and the MTU of the way there. The error is the first command
    /// that asks for anything else.
    pub fn route_mtus(&self) -> Result<Vec<RouteMtu>, &str> {
        self.setup.iter().map(|command| RouteMtu::parse(command).ok_or(command.as_str())).collect()
    }

    /// The service an event means: the one with this id, or the first.
    ///
    /// As in the recordings, only services the scenario starts with can be meant.
    pub fn service(&self, id: Option<&str>) -> Option<&Service> {
        match id {
            Some(_) => self.services.iter().find(|service| service.id.as_deref() == id),
            None => self.services.first(),
        }
    }
}

/// `ip route replace PREFIX dev eth0 mtu MTU`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteMtu {
    pub network: IpAddr,
    pub prefix_len: u8,
    /// Largest IP packet on this route, bytes.
    pub mtu: u32,
}

impl RouteMtu {
    /// What a command asks for, if it is such a one.
    pub fn parse(command: &str) -> Option<Self> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let words = words.strip_prefix(&["ip"])?;
        let words = words.strip_prefix(&["-6"]).unwrap_or(words);
        let ["route", "replace", prefix, "dev", "eth0", "mtu", mtu] = words else { return None };
        let (network, prefix_len) = prefix.split_once('/')?;
        Some(Self {
            network: network.parse().ok()?,
            prefix_len: prefix_len.parse().ok()?,
            mtu: mtu.parse().ok()?,
        })
    }
}

/// A virtual service with its real servers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The name events call it by.
    pub id: Option<String>,
    /// Exactly one of `vip` and `fwmark` is given.
    pub vip: Option<IpAddr>,
    /// Port the client dials; 0 (any) if unsaid.
    pub port: Option<u16>,
    /// Of a service with a VIP: TCP if unsaid. Of a mark it says nothing.
    pub proto: Option<Proto>,
    pub fwmark: Option<NonZeroU32>,
    /// Of a service with a mark: IPv4 if unsaid.
    pub family: Option<Family>,
    /// Packets that get the mark.
    #[serde(rename = "match", default)]
    pub matches: Vec<Match>,
    /// Whether its addresses are local to the director. Unsaid: yes.
    pub local: Option<bool>,
    pub sched: Option<String>,
    /// Scheduler flags, separated by commas.
    pub flags: Option<String>,
    /// Persistence timeout, seconds.
    pub persistent: Option<u32>,
    /// Persistence granularity: an IPv4 mask or an IPv6 prefix length.
    pub netmask: Option<String>,
    /// One-packet scheduling.
    #[serde(default)]
    pub ops: bool,
    /// More arguments of `ipvsadm -A`.
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub servers: Vec<Server>,
}

/// Protocol of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
    Sctp,
}

/// Address family of a service with a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// Packets that get a service's mark.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Destination: an address or `network/length`.
    pub dst: String,
    /// Any protocol if unsaid. A port means nothing without it.
    pub proto: Option<Proto>,
    /// Any port if unsaid.
    pub port: Option<u16>,
}

impl Match {
    /// The destination as network and prefix length.
    pub fn prefix(&self) -> Option<(IpAddr, u8)> {
        match self.dst.split_once('/') {
            Some((network, len)) => Some((network.parse().ok()?, len.parse().ok()?)),
            None => {
                let address: IpAddr = self.dst.parse().ok()?;
                Some((address, if address.is_ipv4() { 32 } else { 128 }))
            }
        }
    }
}

/// How a service is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKey {
    Address { proto: Proto, vip: IpAddr, port: u16 },
    Mark { mark: NonZeroU32, family: Family },
}

impl std::fmt::Display for ServiceKey {
    /// As traces name it: `TCP 192.0.2.1:80`, `FWM 7`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Address { proto, vip, port } => {
                let proto = match proto {
                    Proto::Tcp => "TCP",
                    Proto::Udp => "UDP",
                    Proto::Sctp => "SCTP",
                };
                write!(f, "{proto} {}", SocketAddr::new(vip, port))
            }
            Self::Mark { mark, .. } => write!(f, "FWM {mark}"),
        }
    }
}

impl Service {
    /// What tells this service from others; none if it names neither a mark nor a VIP. A mark wins over a VIP.
    pub fn key(&self) -> Option<ServiceKey> {
        match (self.fwmark, self.vip) {
            (Some(mark), _) => Some(ServiceKey::Mark { mark, family: self.family.unwrap_or(Family::Ipv4) }),
            (None, Some(vip)) => Some(ServiceKey::Address {
                proto: self.proto.unwrap_or(Proto::Tcp),
                vip,
                port: self.port.unwrap_or(0),
            }),
            (None, None) => None,
        }
    }

    /// What can be changed of it without making it another.
    pub fn options(&self) -> ServiceOptions {
        ServiceOptions {
            sched: self.sched.clone(),
            flags: self.flags.clone(),
            persistent: self.persistent,
            netmask: self.netmask.clone(),
            ops: self.ops,
            args: self.args.clone(),
        }
    }
}

/// What can be changed of a service; fields as in [`Service`]. What is unsaid is at ipvsadm's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceOptions {
    pub sched: Option<String>,
    pub flags: Option<String>,
    pub persistent: Option<u32>,
    pub netmask: Option<String>,
    #[serde(default)]
    pub ops: bool,
    #[serde(default)]
    pub args: Vec<String>,
}

/// A real server of a service. What is unsaid is at ipvsadm's default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub rip: IpAddr,
    /// The service's if unsaid.
    pub port: Option<u16>,
    pub weight: Option<i64>,
    pub method: Option<Method>,
    /// UDP port of GUE; 6080 if unsaid.
    pub tun_port: Option<u16>,
    /// Upper connection threshold.
    pub uthresh: Option<u32>,
    /// Lower connection threshold.
    pub lthresh: Option<u32>,
    /// More arguments of `ipvsadm -a`.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Forwarding method of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    #[serde(alias = "route")]
    Dr,
    Ipip,
    Gre,
    Gue,
    #[serde(alias = "nat")]
    Masq,
}

impl Server {
    /// The address and port it is listed under. Only NAT can change the port, so with a VIP every other method has the
    /// service's, whatever is said here.
    pub fn endpoint(&self, of: &Service) -> SocketAddr {
        let own = self.port.or(of.port).unwrap_or(0);
        let port = match of.key() {
            Some(ServiceKey::Address { port, .. }) if self.method != Some(Method::Masq) => port,
            _ => own,
        };
        SocketAddr::new(self.rip, port)
    }
}
