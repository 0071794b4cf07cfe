//! Addresses of a lab: everything in it has one of each family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Address family a test speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
}

/// The IPv4 and the IPv6 address of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dual {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Dual {
    /// The address in one family.
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// The address in one family, with a port in host order.
    pub fn socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(family), port)
    }
}

/// A network of each family, from which hosts take their number: host 11 of 10.0.0.0/24 and fd00::/64 is
/// 10.0.0.11 and fd00::11 (the decimal number is written as it stands, so that both read alike).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Net {
    v4: [u8; 3],
    v6: [u16; 4],
}

impl Net {
    pub(crate) const CLIENTS: Net = Net { v4: [198, 51, 100], v6: [0x2001, 0xdb8, 0x100, 0] };
    pub(crate) const VIPS: Net = Net { v4: [192, 0, 2], v6: [0x2001, 0xdb8, 0, 0] };
    /// Where the real servers are, in every lab.
    pub(crate) const SERVERS: Net = Net { v4: [10, 0, 0], v6: [0xfd00, 0, 0, 0] };
    /// Between router and director where that is another segment than the real servers'.
    pub(crate) const FRONT: Net = Net { v4: [10, 1, 0], v6: [0xfd00, 1, 0, 0] };
    pub(crate) const V4_BITS: u8 = 24;
    pub(crate) const V6_BITS: u8 = 64;

    pub(crate) fn host(self, number: u8) -> Dual {
        let [a, b, c] = self.v4;
        let [d, e, f, g] = self.v6;
        let as_read =
            u16::from(number / 100) << 8 | u16::from(number / 10 % 10) << 4 | u16::from(number % 10);
        Dual { v4: Ipv4Addr::new(a, b, c, number), v6: Ipv6Addr::new(d, e, f, g, 0, 0, 0, as_read) }
    }

    /// Both networks in the notation of `ip route`.
    pub(crate) fn prefixes(self) -> [String; 2] {
        let zero = self.host(0);
        [format!("{}/{}", zero.v4, Self::V4_BITS), format!("{}/{}", zero.v6, Self::V6_BITS)]
    }
}

/// Link-layer address, as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

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

#[cfg(test)]
mod tests {
    use super::{Dual, Net};

    #[test]
    fn both_addresses_of_a_host_end_in_the_same_number() {
        for (net, number, v4, v6) in [
            (Net::SERVERS, 1, "10.0.0.1", "fd00::1"),
            (Net::SERVERS, 11, "10.0.0.11", "fd00::11"),
            (Net::FRONT, 250, "10.1.0.250", "fd00:1::250"),
            (Net::CLIENTS, 10, "198.51.100.10", "2001:db8:100::10"),
            (Net::VIPS, 1, "192.0.2.1", "2001:db8::1"),
        ] {
            let expected = Dual { v4: v4.parse().unwrap(), v6: v6.parse().unwrap() };
            assert_eq!(net.host(number), expected);
        }
    }
}
