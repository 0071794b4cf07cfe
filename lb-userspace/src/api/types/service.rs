use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A virtual service and its real servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The datapath's number for it; kept over restarts.
    pub id: u32,
    pub name: String,
    /// What it takes: one address for an ordinary service, several for what LVS does with firewall marks.
    pub addresses: Vec<Address>,
    /// IPVS's short name.
    pub scheduler: String,
    /// Scheduler flags under ipvsadm's names: `sh-port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Every packet is scheduled by itself.
    pub one_packet: bool,
    /// No flow table: the hash decides for every packet.
    pub stateless: bool,
    /// In the order of the configuration.
    pub servers: Vec<Server>,
}

/// Where clients reach a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub protocol: Protocol,
    /// A single VIP has the full length.
    pub prefix: IpNet,
    pub ports: Ports,
}

impl fmt::Display for Address {
    /// As ipvsadm writes it, `192.0.2.1:80` or `[2001:db8::1]:80`, with the length of a prefix and with ranges.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.prefix.prefix_len() == self.prefix.max_prefix_len();
        let (address, length) = (self.prefix.addr(), self.prefix.prefix_len());
        match (address, full) {
            (IpAddr::V4(address), true) => write!(f, "{address}")?,
            (IpAddr::V4(address), false) => write!(f, "{address}/{length}")?,
            (IpAddr::V6(address), true) => write!(f, "[{address}]")?,
            (IpAddr::V6(address), false) => write!(f, "[{address}/{length}]")?,
        }
        write!(f, ":{}", self.ports)
    }
}

/// A transport protocol the director balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As ipvsadm prints it.
    pub fn ipvs_name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// Ports of a service on one address; in JSON text like `80`, `8000-8999` or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every port: port 0 in LVS.
    Any,
    /// First and last, both included.
    Range(u16, u16),
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Range(first, last) if first == last => write!(f, "{first}"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// The text is not ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a port, nor a range like 8000-8999, nor `any`")]
pub struct UnknownPorts(String);

impl FromStr for Ports {
    type Err = UnknownPorts;

    fn from_str(text: &str) -> Result<Self, UnknownPorts> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self::Range(first, last)),
            _ => Err(UnknownPorts(text.to_owned())),
        }
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Clients come back to the server they had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    pub timeout_s: u32,
    /// Which clients count as one, as ipvsadm takes it: a netmask (IPv4) or a prefix length (IPv6). `None` is every
    /// address by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// A real server of one virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The datapath's number for it; kept over restarts.
    pub id: u32,
    /// RIP. Its port is the one the client dialled.
    pub address: IpAddr,
    /// 0: drained.
    pub weight: u32,
    pub method: Method,
    /// The RIP is the director's own: its packets go up the local stack.
    #[serde(default)]
    pub local: bool,
    /// Whether the plan gives it new flows; thresholds aside, see `overloaded`.
    pub eligible: bool,
    /// Why it is not eligible; `None` if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// `None` while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// Flows in an active state.
    pub active: u32,
    /// Other flows.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Flows scheduled to it; with one-packet scheduling, packets.
    pub connections: u64,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub bytes: u64,
    /// Over its upper threshold, and not yet under its lower one: it takes no new flows.
    pub overloaded: bool,
    /// 0: none.
    pub upper_threshold: u32,
    /// 0: three quarters of the upper one.
    pub lower_threshold: u32,
}

/// How packets travel to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Method {
    /// Direct routing.
    Dr,
    /// IP in IP.
    Ipip,
    Gre {
        checksum: bool,
    },
    Gue {
        /// UDP port the server decapsulates.
        port: u16,
        checksum: bool,
    },
}

impl fmt::Display for Method {
    /// ipvsadm's forwarding method, and its tunnel information.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |checksum| if checksum { "+c" } else { "-c" };
        match *self {
            Self::Dr => f.write_str("Route"),
            Self::Ipip => f.write_str("Tunnel ipip"),
            Self::Gre { checksum } => write!(f, "Tunnel gre:{}", sign(checksum)),
            Self::Gue { port, checksum } => write!(f, "Tunnel gue:{port}:{}", sign(checksum)),
        }
    }
}

/// Where frames for a server go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Destination MAC, `02:00:00:00:00:0b`.
    pub mac: String,
    /// Name of the egress interface.
    pub interface: String,
    /// 802.1Q tags, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlan: Vec<u16>,
    /// Largest IP packet towards the server.
    pub mtu: u16,
    /// The router the MAC belongs to; `None` if the server is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_ipvsadm_writes_them() {
        for (prefix, ports, text) in [
            ("192.0.2.1/32", "80", "192.0.2.1:80"),
            ("2001:db8::1/128", "443", "[2001:db8::1]:443"),
            ("198.18.0.0/16", "8000-8999", "198.18.0.0/16:8000-8999"),
            ("2001:db8::/32", "any", "[2001:db8::/32]:any"),
        ] {
            let (prefix, ports) = (prefix.parse().unwrap(), ports.parse().unwrap());
            assert_eq!(Address { protocol: Protocol::Tcp, prefix, ports }.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["", "http", "65536", "9-8", "1-", "-1", "1-2-3"] {
            assert!(text.parse::<Ports>().is_err(), "{text:?} was taken for ports");
        }
    }

    #[test]
    fn methods_print_as_ipvsadms_tunnel_information() {
        for (method, text) in [
            (Method::Dr, "Route"),
            (Method::Ipip, "Tunnel ipip"),
            (Method::Gre { checksum: false }, "Tunnel gre:-c"),
            (Method::Gue { port: 6080, checksum: true }, "Tunnel gue:6080:+c"),
        ] {
            assert_eq!(method.to_string(), text);
        }
    }
}
