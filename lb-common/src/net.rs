//! Addresses and protocols as they cross the map ABI. Network byte order lives in this file.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A 16-bit field in network byte order, such as a port as it stands on the wire.
/// No arithmetic: a host integer cannot slip into a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    #[inline(always)]
    pub const fn from_host(value: u16) -> Self {
        Self(value.to_be())
    }

    #[inline(always)]
    pub const fn to_host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes as they were read from memory, without a conversion.
    #[inline(always)]
    pub const fn from_wire(raw: u16) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub const fn to_wire(self) -> u16 {
        self.0
    }
}

/// An IPv4 or IPv6 address in network byte order. IPv4 is held as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), so that
/// one map key serves both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Addr(pub [u32; 4]);

/// The third word of an IPv4-mapped address: `00 00 ff ff` on the wire.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Addr {
    /// From an IPv4 address in network byte order.
    #[inline(always)]
    pub const fn v4(wire: u32) -> Self {
        Self([0, 0, MAPPED, wire])
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// The IPv4 address in network byte order; meaningless unless [`Addr::is_v4`].
    #[inline(always)]
    pub const fn to_v4(&self) -> u32 {
        self.0[3]
    }

    /// What every IPVS hash starts from: the exclusive or of the 32-bit words of the address, read as a
    /// host-order integer. For IPv4 that is the address itself.
    #[inline(always)]
    pub const fn fold(&self) -> u32 {
        if self.is_v4() {
            u32::from_be(self.0[3])
        } else {
            u32::from_be(self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3])
        }
    }

    /// Bitwise and, for persistence masks.
    #[inline(always)]
    pub const fn masked(&self, mask: &Addr) -> Self {
        Self([self.0[0] & mask.0[0], self.0[1] & mask.0[1], self.0[2] & mask.0[2], self.0[3] & mask.0[3]])
    }

    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from(u32::from_be(self.0[3])))
        } else {
            let mut bytes = [0u8; 16];
            for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => {
                let mut words = [0; 4];
                for (word, chunk) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
                    *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
                }
                Self(words)
            }
        }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

/// IP protocol numbers (IANA) the director knows by name.
pub mod proto {
    pub const ICMP: u8 = 1;
    pub const IPIP: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const GRE: u8 = 47;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["192.0.2.1", "2001:db8::1", "::", "255.255.255.255"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Addr::from(ip).to_ip(), ip);
        }
    }

    #[test]
    fn fold_is_the_one_ipvs_uses() {
        let fold = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap()).fold();
        assert_eq!(fold("192.0.2.1"), 0xc000_0201);
        assert_eq!(fold("2001:db8::1"), 0x2001_0db9);
    }
}
