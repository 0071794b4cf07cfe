//! Ethernet (IEEE 802.3) and VLAN tags (802.1Q, 802.1ad).

use network_types::eth::{EthHdr, EtherType};

pub const HEADER: usize = EthHdr::LEN;
pub const DESTINATION: usize = 0;
pub const SOURCE: usize = 6;
pub const TYPE: usize = 12;

/// A VLAN tag: two bytes of control information, two of the type that follows.
pub const TAG: usize = 4;

/// Types as they stand on the wire.
pub const IPV4: u16 = EtherType::Ipv4 as u16;
pub const IPV6: u16 = EtherType::Ipv6 as u16;
pub const VLAN: u16 = EtherType::Ieee8021q as u16;
pub const VLAN_SERVICE: u16 = EtherType::Ieee8021ad as u16;

#[inline(always)]
pub const fn is_vlan(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == VLAN_SERVICE
}
