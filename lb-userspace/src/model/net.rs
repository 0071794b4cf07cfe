//! Addresses, ports and protocols as the model speaks of them. Host byte order throughout.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

/// Address family of a service or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, strum::Display)]
pub enum Family {
    #[strum(to_string = "IPv4")]
    V4,
    #[strum(to_string = "IPv6")]
    V6,
}

impl Family {
    /// The family `address` is of.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// A transport protocol the director balances.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[strum(serialize_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// The port of a virtual service on one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// Every port (port 0 in LVS); only with persistence.
    Any,
    Number(NonZeroU16),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// The ports one entry of a `match` list takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ports {
    Any,
    Range(PortRange),
}

impl From<Port> for Ports {
    fn from(port: Port) -> Self {
        match port {
            Port::Any => Self::Any,
            Port::Number(number) => Self::Range(PortRange { first: number, last: number }),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Range(range) => range.fmt(f),
        }
    }
}

/// Ports from `first` to `last`, both included; `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    pub first: NonZeroU16,
    pub last: NonZeroU16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// An Ethernet address, in the order of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether a single station can own the address: not a group address, and not all zeros.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six hexadecimal bytes separated by colons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address like 02:00:00:00:00:0b")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut groups = text.split(':');
        for byte in &mut bytes {
            let digits = groups.next().filter(|group| {
                (1..=2).contains(&group.len()) && group.bytes().all(|digit| digit.is_ascii_hexdigit())
            });
            *byte = digits
                .and_then(|group| u8::from_str_radix(group, 16).ok())
                .ok_or_else(|| MacError(text.to_owned()))?;
        }
        if groups.next().is_some() { Err(MacError(text.to_owned())) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_prints_as_it_reads() {
        for text in ["02:00:00:00:00:0b", "fe:dc:ba:98:76:54", "00:00:00:00:00:00"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), text);
        }
        assert_eq!("2:0:0:0:0:B".parse(), Ok(Mac([2, 0, 0, 0, 0, 11])));
    }

    #[test]
    fn what_is_not_six_hexadecimal_bytes_is_no_mac() {
        for text in
            ["", "02", "02:00:00:00:00", "02:00:00:00:00:0b:0c", "02:00:00:00:00:+b", "02-00-00-00-00-0b"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text:?} was taken for a MAC address");
        }
        assert!("02:00:00:00:00:100".parse::<Mac>().is_err());
        assert!("02:00:00::00:0b".parse::<Mac>().is_err());
    }

    #[test]
    fn only_an_address_one_station_can_own_is_unicast() {
        assert!(Mac([2, 0, 0, 0, 0, 11]).is_unicast());
        assert!(!Mac([0; 6]).is_unicast());
        assert!(!Mac([0xff; 6]).is_unicast());
        assert!(!Mac([1, 0, 0x5e, 0, 0, 1]).is_unicast());
    }
}
