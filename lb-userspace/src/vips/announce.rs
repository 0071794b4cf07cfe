//! Gratuitous ARP and unsolicited neighbour advertisements.

use crate::netlink::Mac;
use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, PacketBuilder};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

const BROADCAST: Mac = [0xff; 6];
/// Every node of the link, and its Ethernet address (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// Only neighbours may tell of neighbours (RFC 4861 §7.1.2).
const HOP_LIMIT: u8 = 255;
/// Option: target's link-layer address, in one unit of eight bytes (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER: [u8; 2] = [2, 1];

/// The frame that tells everybody on the link that `vip` is at `mac`: an ARP announcement (RFC 5227 §2.3), or a neighbour
/// advertisement that overrides what was known (RFC 4861 §7.2.6).
pub fn frame(vip: IpAddr, mac: Mac) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a vector fails only for lengths no header can say; these are fixed and small.
    match vip {
        IpAddr::V4(vip) => {
            let vip = vip.octets();
            let (ethernet, ipv4) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
            let arp = ArpPacket::new(ethernet, ipv4, ArpOperation::REQUEST, &mac, &vip, &[0; 6], &vip);
            let arp = arp.expect("addresses of 6 and 4 bytes fit");
            PacketBuilder::ethernet2(mac, BROADCAST).arp(arp).write(&mut bytes).expect("written to memory");
        }
        IpAddr::V6(vip) => {
            let flags = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
            let body = [&vip.octets()[..], &TARGET_LINK_LAYER, &mac].concat();
            PacketBuilder::ethernet2(mac, ALL_NODES_MAC)
                .ipv6(vip.octets(), ALL_NODES.octets(), HOP_LIMIT)
                .icmpv6(Icmpv6Type::NeighborAdvertisement(flags))
                .write(&mut bytes, &body)
                .expect("written to memory");
        }
    }
    bytes
}

/// A socket for whole frames on one interface, for sending alone.
pub(super) struct Wire(OwnedFd);

impl Wire {
    /// Needs `CAP_NET_RAW`.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        let address = getifaddrs()?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .ok_or(io::ErrorKind::NotFound)?;
        // No protocol: nothing is received.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self(socket))
    }

    pub(super) fn send(&self, frames: &[Vec<u8>]) -> io::Result<()> {
        for frame in frames {
            send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_arp_announcement_asks_everybody_for_its_own_address() {
        let expected = [
            &[0xff; 6][..],
            &MAC,
            // ARP, Ethernet, IPv4, lengths, request.
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC,
            &[192, 0, 2, 1],
            &[0; 6],
            &[192, 0, 2, 1],
        ];
        assert_eq!(frame("192.0.2.1".parse().unwrap(), MAC), expected.concat());
    }

    #[test]
    fn a_neighbour_advertisement_overrides_and_is_unsolicited() {
        let vip: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let bytes = frame(vip.into(), MAC);
        let head =
            [&[0x33, 0x33, 0, 0, 0, 1][..], &MAC, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]].concat();
        assert_eq!(bytes[..head.len()], head);
        assert_eq!(bytes[22..38], vip.octets());
        assert_eq!(bytes[38..54], ALL_NODES.octets());
        // Type, code; behind the checksum the override flag alone.
        assert_eq!((&bytes[54..56], &bytes[58..62]), (&[136, 0][..], &[0x20, 0, 0, 0][..]));
        assert_eq!(bytes[62..78], vip.octets());
        assert_eq!(bytes[78..], [&[2, 1], &MAC[..]].concat());
        let words = bytes[22..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        // With length and next header, the rest of the pseudo-header, everything sums up to nothing.
        let sum = words.sum::<u32>() + 32 + 58;
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
