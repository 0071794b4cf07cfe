//! Where a frame went that left the director, in the words of a trace: a pair of `to` and `via`.

use std::fmt::{Display, Formatter};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::read::{hex, unhex};
use crate::packet::{Mac, tcp_flags};

/// A frame seen: to whom, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub to: To,
    pub via: Via,
}

/// Whose MAC address the frame had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum To {
    /// The router: an answer of the director's, or a reply of a server on its way to a client.
    Router,
    Server(IpAddr),
    /// Nobody's the scenario names.
    Unknown(Mac),
    /// The frame could not even be sent to the director.
    SendFailed,
}

/// How the frame was wrapped, or what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Addresses unchanged: direct routing.
    Dr,
    Ipip,
    Gre,
    Gue,
    /// Rewritten to this destination. Of a fragment that is not the first, the port is whatever is there.
    Nat(IpAddr, u16),
    /// A fragment of an outer IPv6 packet.
    Fragment,
    /// ICMP rewritten to this server. Of a fragment that is not the first, type and code are whatever is there.
    IcmpTo {
        kind: u8,
        code: u8,
        to: IpAddr,
    },
    /// ICMP to the router.
    Icmp {
        v6: bool,
        kind: u8,
        code: u8,
        from: IpAddr,
    },
    /// TCP to the router; flags are bits as in the header.
    Tcp {
        flags: u8,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
    },
    /// UDP to the router.
    Udp {
        from: (IpAddr, u16),
        to: (IpAddr, u16),
    },
    /// Another IP protocol.
    Protocol(u8),
    /// Not IP.
    EtherType(u16),
    /// Nothing to say: [`To::SendFailed`].
    Nothing,
}

impl Display for To {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Router => f.write_str("router"),
            Self::Server(rip) => rip.fmt(f),
            Self::Unknown(mac) => f.write_str(&hex(mac)),
            Self::SendFailed => f.write_str("send-failed"),
        }
    }
}

/// `to` or `via` of a trace is none of the known ones.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{field} {text:?} is not one a trace can have")]
pub struct UnknownOutcome {
    field: &'static str,
    text: String,
}

impl FromStr for To {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        match text {
            "router" => return Ok(Self::Router),
            "send-failed" => return Ok(Self::SendFailed),
            _ => {}
        }
        if let Ok(rip) = text.parse() {
            return Ok(Self::Server(rip));
        }
        let mac = unhex(text).ok().and_then(|bytes| Mac::try_from(bytes).ok());
        mac.map(Self::Unknown).ok_or_else(|| UnknownOutcome { field: "to", text: text.to_owned() })
    }
}

impl Display for Via {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dr => f.write_str("dr"),
            Self::Ipip => f.write_str("ipip"),
            Self::Gre => f.write_str("gre"),
            Self::Gue => f.write_str("gue"),
            Self::Nat(address, port) => write!(f, "nat {address}:{port}"),
            Self::Fragment => f.write_str("frag"),
            Self::IcmpTo { kind, code, to } => write!(f, "icmp {kind}/{code} to {to}"),
            Self::Icmp { v6, kind, code, from } => {
                write!(f, "icmp{} {kind}/{code} from {from}", if *v6 { "6" } else { "" })
            }
            Self::Tcp { flags, from, to } => {
                f.write_str("tcp ")?;
                for (bit, letter) in "FSRPAUEC".chars().enumerate() {
                    if flags & 1 << bit != 0 {
                        write!(f, "{letter}")?;
                    }
                }
                write!(f, " {}:{}>{}:{}", from.0, from.1, to.0, to.1)
            }
            Self::Udp { from, to } => write!(f, "udp {}:{}>{}:{}", from.0, from.1, to.0, to.1),
            Self::Protocol(number) => write!(f, "ip proto {number}"),
            Self::EtherType(number) => write!(f, "ethertype {number:04x}"),
            Self::Nothing => Ok(()),
        }
    }
}

impl FromStr for Via {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        parse_via(text).ok_or_else(|| UnknownOutcome { field: "via", text: text.to_owned() })
    }
}

fn parse_via(text: &str) -> Option<Via> {
    let words: Vec<&str> = text.split(' ').collect();
    Some(match words.as_slice() {
        [""] => Via::Nothing,
        ["dr"] => Via::Dr,
        ["ipip"] => Via::Ipip,
        ["gre"] => Via::Gre,
        ["gue"] => Via::Gue,
        ["frag"] => Via::Fragment,
        ["nat", to] => {
            let (address, port) = address_port(to)?;
            Via::Nat(address, port)
        }
        ["icmp", what, "to", to] => {
            let (kind, code) = slash(what)?;
            Via::IcmpTo { kind, code, to: to.parse().ok()? }
        }
        [icmp @ ("icmp" | "icmp6"), what, "from", from] => {
            let (kind, code) = slash(what)?;
            Via::Icmp { v6: *icmp == "icmp6", kind, code, from: from.parse().ok()? }
        }
        ["tcp", flags, ends] => {
            let (from, to) = ends.split_once('>')?;
            Via::Tcp { flags: tcp_flags(flags)?, from: address_port(from)?, to: address_port(to)? }
        }
        ["udp", ends] => {
            let (from, to) = ends.split_once('>')?;
            Via::Udp { from: address_port(from)?, to: address_port(to)? }
        }
        ["ip", "proto", number] => Via::Protocol(number.parse().ok()?),
        ["ethertype", number] => Via::EtherType(u16::from_str_radix(number, 16).ok()?),
        _ => return None,
    })
}

/// `address:port`; traces write IPv6 addresses without brackets here.
fn address_port(text: &str) -> Option<(IpAddr, u16)> {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Some((both.ip(), both.port()));
    }
    let (address, port) = text.rsplit_once(':')?;
    Some((address.parse().ok()?, port.parse().ok()?))
}

fn slash(text: &str) -> Option<(u8, u8)> {
    let (kind, code) = text.split_once('/')?;
    Some((kind.parse().ok()?, code.parse().ok()?))
}
