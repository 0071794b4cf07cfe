//! The link layer: Ethernet II and VLAN tags, and the addresses every test network uses.

use std::net::IpAddr;

use etherparse::{EtherType, Ethernet2Header, SingleVlanHeader, VlanId, VlanPcp};

use super::{Address, Ip};

/// An Ethernet address, first byte first as on the wire.
pub type Mac = [u8; 6];

/// The director's interface.
pub const DIRECTOR_MAC: Mac = [2, 0, 0, 0, 0, 1];

/// The router every client sits behind.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 0xfe];

/// The address a real server has on the segment: 02:01 and the IPv4 address, or 02:06 and the last four bytes
/// of the IPv6 address.
pub fn server_mac(rip: IpAddr) -> Mac {
    match rip {
        IpAddr::V4(rip) => {
            let [a, b, c, d] = rip.octets();
            [2, 1, a, b, c, d]
        }
        IpAddr::V6(rip) => {
            let [.., a, b, c, d] = rip.octets();
            [2, 6, a, b, c, d]
        }
    }
}

/// Starts a frame from the router to the director, untagged.
pub fn eth() -> Eth {
    Eth { from: ROUTER_MAC, to: DIRECTOR_MAC, tags: Vec::new() }
}

/// The link layer of a frame.
#[derive(Clone, Debug)]
pub struct Eth {
    from: Mac,
    to: Mac,
    /// Tag protocol and VLAN number, outermost first.
    tags: Vec<(EtherType, u16)>,
}

impl Eth {
    pub fn from(mut self, mac: Mac) -> Self {
        self.from = mac;
        self
    }

    pub fn to(mut self, mac: Mac) -> Self {
        self.to = mac;
        self
    }

    /// Adds an 802.1Q tag inside those already there. `id` is 0..=4095.
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push((EtherType::VLAN_TAGGED_FRAME, id));
        self
    }

    /// Adds an 802.1ad service tag inside those already there. `id` is 0..=4095.
    pub fn service_vlan(mut self, id: u16) -> Self {
        self.tags.push((EtherType::PROVIDER_BRIDGING, id));
        self
    }

    /// An IPv4 packet from `src` to `dst`.
    pub fn ipv4(self, src: impl Address, dst: impl Address) -> Ip {
        let ip = self.ip(src, dst);
        assert!(ip.is_v4(), "ipv4() with IPv6 addresses");
        ip
    }

    /// An IPv6 packet from `src` to `dst`.
    pub fn ipv6(self, src: impl Address, dst: impl Address) -> Ip {
        let ip = self.ip(src, dst);
        assert!(!ip.is_v4(), "ipv6() with IPv4 addresses");
        ip
    }

    /// An IP packet of the addresses' family.
    pub fn ip(self, src: impl Address, dst: impl Address) -> Ip {
        Ip::new(self, src.address(), dst.address())
    }

    /// A frame of any other kind.
    pub fn other(&self, ether_type: u16, body: &[u8]) -> Vec<u8> {
        self.frame(EtherType(ether_type), body)
    }

    pub(super) fn frame(&self, ether_type: EtherType, body: &[u8]) -> Vec<u8> {
        // A tag says what follows it, so the types are shifted by one against the tags.
        let types: Vec<EtherType> = self.tags.iter().map(|tag| tag.0).chain([ether_type]).collect();
        let header = Ethernet2Header { source: self.from, destination: self.to, ether_type: types[0] };
        let mut frame = header.to_bytes().to_vec();
        for (&(_, id), &next) in self.tags.iter().zip(&types[1..]) {
            let tag = SingleVlanHeader {
                pcp: VlanPcp::ZERO,
                drop_eligible_indicator: false,
                vlan_id: VlanId::try_new(id).expect("a VLAN number is at most 4095"),
                ether_type: next,
            };
            frame.extend(tag.to_bytes());
        }
        frame.extend(body);
        frame
    }
}
