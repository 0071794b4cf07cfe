//! What the director's own network stack answers to a packet for one of its addresses that nothing listens for: the
//! other half of "passed to the stack", which a recording cannot tell from an answer of IPVS itself.
//!
//! Modelled is what recordings show: whole packets without TOS, options or extension headers. The rest is
//! [`Answer::Unknown`].

use std::net::IpAddr;

use etherparse::{IpNumber, NetSlice, SlicedPacket, TcpSlice, TransportSlice};

use crate::packet::{DIRECTOR_MAC, Ip, ROUTER_MAC, eth};

/// Bytes of a packet an ICMP error quotes: what fits 576 bytes of IPv4.
pub const QUOTE_V4: usize = 576 - 20 - 8;
/// Bytes of a packet an ICMPv6 error quotes: what fits 1280 bytes of IPv6.
pub const QUOTE_V6: usize = 1280 - 40 - 8;

/// The stack's answer to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A frame to the router. What a kernel draws at random (the identification, the IPv6 flow label) is 0.
    Frame(Vec<u8>),
    Nothing,
    /// Recordings do not show it.
    Unknown,
}

/// The answer to a frame whose destination is an address of the director's.
pub fn answer(frame: &[u8]) -> Answer {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return Answer::Unknown };
    let (Some(net), true) = (&sliced.net, sliced.link_exts.is_empty()) else { return Answer::Unknown };
    let Some((src, dst, protocol, plain)) = plain(net) else { return Answer::Unknown };
    if !plain {
        return Answer::Unknown;
    }
    // From the address the packet was for, back to where it came from; identification and flow label are random.
    let back = || eth().from(DIRECTOR_MAC).to(ROUTER_MAC).ip(dst, src).id(0);
    let packet = &frame[14..];
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => reset(tcp, src, dst, back()),
        Some(TransportSlice::Udp(udp)) => {
            let sum = match (src, dst, udp.checksum()) {
                (_, _, 0) if src.is_ipv4() => Ok(0),
                (IpAddr::V4(src), IpAddr::V4(dst), _) => {
                    udp.to_header().calc_checksum_ipv4_raw(src.octets(), dst.octets(), udp.payload())
                }
                (IpAddr::V6(src), IpAddr::V6(dst), _) => {
                    udp.to_header().calc_checksum_ipv6_raw(src.octets(), dst.octets(), udp.payload())
                }
                _ => return Answer::Unknown,
            };
            if sum != Ok(udp.checksum()) {
                return Answer::Nothing;
            }
            unreachable(back(), if src.is_ipv4() { 3 } else { 4 }, packet)
        }
        Some(TransportSlice::Icmpv4(icmp)) if icmp.type_u8() == 8 && icmp.code_u8() == 0 => {
            echo(back().icmp(0, 0, u32::from_be_bytes(icmp.bytes5to8())), icmp.payload())
        }
        Some(TransportSlice::Icmpv6(icmp)) if icmp.type_u8() == 128 && icmp.code_u8() == 0 => {
            echo(back().icmp(129, 0, u32::from_be_bytes(icmp.bytes5to8())), icmp.payload())
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => Answer::Nothing,
        // A host that was recorded takes GRE and drops what no tunnel of its own is for.
        _ if protocol == IpNumber::GRE => Answer::Nothing,
        _ if src.is_ipv4() => unreachable(back(), 2, packet),
        _ => Answer::Unknown,
    }
}

/// Source, destination, protocol, and whether there is nothing unusual about the header.
fn plain(net: &NetSlice<'_>) -> Option<(IpAddr, IpAddr, IpNumber, bool)> {
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let plain = header.options().is_empty()
                && !header.is_fragmenting_payload()
                && header.dcp().value() == 0
                && header.ecn().value() == 0;
            Some((header.source_addr().into(), header.destination_addr().into(), header.protocol(), plain))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let plain = ip.extensions().is_empty() && header.traffic_class() == 0;
            Some((header.source_addr().into(), header.destination_addr().into(), header.next_header(), plain))
        }
        NetSlice::Arp(_) => None,
    }
}

/// RFC 9293 section 3.5.2: what is acknowledged continues, else all of the segment is acknowledged; never in answer to
/// a reset.
fn reset(tcp: &TcpSlice<'_>, src: IpAddr, dst: IpAddr, back: Ip) -> Answer {
    let header = tcp.to_header();
    let sum = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), tcp.payload())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), tcp.payload())
        }
        _ => return Answer::Unknown,
    };
    if header.rst || sum != Ok(header.checksum) {
        return Answer::Nothing;
    }
    let answer = back.df(true).tcp(header.destination_port, header.source_port).window(0).rst();
    let length = tcp.payload().len() as u32 + u32::from(header.syn) + u32::from(header.fin);
    let answer = match header.ack {
        true => answer.seq(header.acknowledgment_number),
        false => answer.seq(0).ack(header.sequence_number.wrapping_add(length)),
    };
    Answer::Frame(answer.build())
}

fn unreachable(back: Ip, code: u8, packet: &[u8]) -> Answer {
    let error = if back.is_v4() {
        back.tos(0xc0).icmp_error(3, code, 0, &packet[..packet.len().min(QUOTE_V4)])
    } else {
        back.icmp_error(1, code, 0, &packet[..packet.len().min(QUOTE_V6)])
    };
    Answer::Frame(error.build())
}

fn echo(reply: crate::packet::Packet<crate::packet::Icmp>, body: &[u8]) -> Answer {
    Answer::Frame(reply.payload(body).build())
}
