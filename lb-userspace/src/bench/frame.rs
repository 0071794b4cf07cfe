//! The packet of a benchmark: a client's TCP segment over IPv4 or IPv6, 64 bytes or the least IPv6 needs.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::bench::{HEADERS, HEADERS_V4, HEADERS_V6, Reset, client};
use lb_common::net::Mac;
use lb_common::tcp::flag;

/// Of the router the client is behind, and of the director's interface.
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
pub(super) const DIRECTOR: Mac = Mac([2, 0, 0, 0, 0, 1]);

pub(super) const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const OTHER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9);
pub(super) const PORT: u16 = 80;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const TTL: u8 = 64;

/// Bytes behind the TCP header, so that a frame over IPv4 has 64.
const PAYLOAD: usize = 10;
const TCP_HEADER: usize = 20;

/// What kind of segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Syn,
    Ack,
}

/// From client `number`, see [`client`], to port 80 of an address.
pub(super) fn v4(number: u32, to: Ipv4Addr, segment: Segment) -> Vec<u8> {
    let (from, port) = client(number);
    let mut header = vec![0x45, 0];
    header.extend(((20 + TCP_HEADER + PAYLOAD) as u16).to_be_bytes());
    // Identification 0, do not fragment; the checksum is filled in below.
    header.extend([0, 0, 0x40, 0, TTL, TCP, 0, 0]);
    header.extend(from.to_ne_bytes());
    header.extend(to.octets());
    let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame(IPV4, header, port.to_host(), segment)
}

/// From one client to port 80 of [`VIP6`].
pub(super) fn v6(segment: Segment) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(((TCP_HEADER + PAYLOAD) as u16).to_be_bytes());
    header.extend([TCP, TTL]);
    header.extend(CLIENT6.octets());
    header.extend(VIP6.octets());
    frame(IPV6, header, 0x8000, segment)
}

fn frame(ethertype: u16, ip: Vec<u8>, port: u16, segment: Segment) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(DIRECTOR.0);
    frame.extend(ROUTER.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(ip);
    frame.extend(port.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    let flags = match segment {
        Segment::Syn => flag::SYN,
        Segment::Ack => flag::ACK,
    };
    // Sequence and acknowledgement, five words of header, window. No checksum: the director does not look at it.
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend([0; PAYLOAD]);
    frame
}

/// How a wrapper makes this frame anew, for one flow.
pub(super) fn reset(frame: &[u8]) -> Reset {
    let mut header = [0; HEADERS];
    let used = if frame[12..14] == IPV4.to_be_bytes() { HEADERS_V4 } else { HEADERS_V6 };
    header[..used].copy_from_slice(&frame[..used]);
    Reset { header, length: frame.len() as u32, flows: 1, next: 1, every: 1, turn: 0, random: 1, picked: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_hold_all_that_a_wrapper_writes() {
        let (v4, v6) = (v4(1, VIP4, Segment::Ack), v6(Segment::Ack));
        assert_eq!((v4.len(), v6.len()), (64, 84));
        assert_eq!(reset(&v4).header[..HEADERS_V4], v4[..HEADERS_V4]);
        assert_eq!(reset(&v6).header[..HEADERS_V6], v6[..HEADERS_V6]);
        // Behind the headers there is payload only.
        assert!(v4[HEADERS_V4..].iter().chain(&v6[HEADERS_V6..]).all(|byte| *byte == 0));
    }

    #[test]
    fn the_header_checksum_is_right() {
        let frame = v4(77, VIP4, Segment::Syn);
        let words = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
