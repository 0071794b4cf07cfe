//! ICMP errors the director sends itself: the packet is turned around into one, as IPVS and the stack would word it.

use crate::{
    admit, checksum,
    frame::{Frame, Room},
    parse::Packet,
    service,
    stage::Trip,
    tables::{Allowance, Tables},
    verdict::{IcmpError, Stop},
    wire::{eth, icmp, ipv4, ipv6},
};
use lb_common::{
    counters::Reason,
    net::{Addr, Mac, proto},
    service::{FTP, Service, service_flag},
    settings::{Settings, feature},
};

/// Bytes of an IPv4 error: the least every host takes (RFC 1812 §4.3.2.3), so 548 of the packet.
const LARGEST_V4: usize = 576;
/// Bytes of an IPv6 error: the least MTU (RFC 4443 §2.4 c), so 1232 of the packet.
const LARGEST_V6: usize = 1280;

/// Time to live of what the director sends (`net.ipv4.ip_default_ttl`).
const TTL: u8 = 64;
/// Type of service of ICMP errors: internetwork control (RFC 1812 §4.3.2.5).
const TOS: u8 = 0xc0;

/// No server for the client: port unreachable, also for TCP (IPVS); or silence. A scheduled ICMP error gets no answer.
#[inline(always)]
pub fn no_destination(packet: &Packet, service: &Service) -> Stop {
    // FTP's data connections find the control connection's service and no persistence: the stack's (IPVS).
    if service.port.to_host() == FTP && packet.key.vip_port() != FTP {
        return Reason::PassedNotOpening.into();
    }
    if packet.is_error || service.has(service_flag::DROP_NO_DESTINATION) {
        return Reason::DroppedNoDestination.into();
    }
    let (kind, code) = if packet.is_v6 {
        (icmp::V6_UNREACHABLE, icmp::V6_PORT_UNREACHABLE)
    } else {
        (icmp::UNREACHABLE, icmp::PORT_UNREACHABLE)
    };
    Stop::reply(Reason::RepliedNoDestination, IcmpError { kind, code, rest: 0 })
}

/// Time to live used up. No error about an error (RFC 1122 §3.2.2).
#[inline(always)]
pub fn time_exceeded(packet: &Packet) -> Stop {
    if packet.is_error {
        return Reason::DroppedTtl.into();
    }
    let kind = if packet.is_v6 { icmp::V6_TIME_EXCEEDED } else { icmp::TIME_EXCEEDED };
    Stop::reply(Reason::RepliedTtl, IcmpError { kind, code: 0, rest: 0 })
}

/// Larger than what gets through to the server, which is `mtu` bytes.
#[inline(always)]
pub fn too_big(packet: &Packet, mtu: u32) -> Stop {
    let (kind, code) = if packet.is_v6 {
        (icmp::V6_PACKET_TOO_BIG, 0)
    } else {
        (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED)
    };
    Stop::reply(Reason::RepliedTooBig, IcmpError { kind, code, rest: mtu.to_be() })
}

/// Turns the packet into the error its trip stopped with, if the allowance grants it. The reason it is counted under.
#[inline(always)]
pub fn send<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    trip: &Trip,
    now: u32,
) -> Reason {
    let (packet, stop) = (&trip.packet, trip.stop);
    if !tables.allow(Allowance::Icmp, settings.icmp_per_second, admit::second(settings, now)) {
        return withheld(stop.reason);
    }
    match about(frame, tables, settings, packet, stop.error) {
        Some(()) => stop.reason,
        None => Reason::DroppedNoRoom,
    }
}

/// What an error that may not be sent is counted under.
#[inline(always)]
const fn withheld(reason: Reason) -> Reason {
    match reason {
        Reason::RepliedTtl => Reason::DroppedTtl,
        Reason::RepliedTooBig => Reason::DroppedTooBig,
        Reason::RepliedTunnelError => Reason::DroppedTunnelError,
        _ => Reason::DroppedNoDestination,
    }
}

/// Makes the frame an ICMP error that quotes as much of the packet as an error may; for an error about a tunnel packet,
/// of the packet inside. The frame goes back to where it came from, with the tags it came with.
#[inline(always)]
fn about<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    error: IcmpError,
) -> Option<()> {
    let l3 = packet.l3;
    let at = packet.quote;
    let length = (l3 + packet.length as usize).checked_sub(at)?;
    let (mut from, to) = (packet.key.vip, packet.key.client);
    // The source has to be an address of the sender's (RFC 4443 §2.2). A VIP is; what merely matches a prefix need not be.
    if packet.is_v6
        && tables.features() & feature::PREFIXES != 0
        && settings.own_v6 != Addr::default()
        && !service::is_exact(tables, &from)
    {
        from = settings.own_v6;
    }
    let (header, largest) =
        if packet.is_v6 { (ipv6::HEADER, LARGEST_V6) } else { (ipv4::HEADER, LARGEST_V4) };
    let room = largest - header - icmp::HEADER;
    let quoted = if length < room { length } else { room };
    frame.adjust_end((at + quoted) as i32 - frame.total() as i32)?;
    // Of several buffers the first has to hold it. Verifier: a sum over all of them and what comes after it here are too
    // much together. (rejected on 6.1)
    let sum = checksum::of_first(frame, at, quoted)?;

    let link = Link::read(frame, l3)?;
    frame.grow_front((l3 + header + icmp::HEADER) as i32 - at as i32)?;
    link.write_back(frame, l3)?;

    let l4 = l3 + header;
    let length = (icmp::HEADER + quoted) as u16;
    let head = u16::from_be_bytes([error.kind, error.code]).to_be();
    let mut sum = sum + head as u32 + checksum::words(error.rest);
    if packet.is_v6 {
        let header = ipv6::Header {
            traffic_class: 0,
            length,
            next_header: proto::ICMPV6,
            hop_limit: TTL,
            source: from,
            destination: to,
        };
        header.write(frame, l3)?;
        sum += pseudo(&from, &to, length, proto::ICMPV6);
    } else {
        let header = ipv4::Header {
            tos: TOS,
            length: length + ipv4::HEADER as u16,
            id: tables.random() as u16,
            fragment: 0,
            ttl: TTL,
            protocol: proto::ICMP,
            source: from.to_v4(),
            destination: to.to_v4(),
        };
        header.write(frame, l3)?;
    }
    frame.write(l4 + icmp::TYPE, head)?;
    frame.write(l4 + icmp::CHECKSUM, !checksum::fold(sum))?;
    frame.write(l4 + icmp::REST, error.rest)
}

/// A link header that goes back.
struct Link {
    destination: Mac,
    source: Mac,
    /// Tags and type.
    words: [u16; LINK_WORDS],
}

/// Two tags and the type, in 16-bit words.
const LINK_WORDS: usize = (2 * eth::TAG + 2) / 2;

impl Link {
    #[inline(always)]
    fn read<R: Room>(frame: &Frame<R>, l3: usize) -> Option<Self> {
        let mut words = [0; LINK_WORDS];
        let mut i = 0;
        while i < LINK_WORDS {
            if eth::TYPE + 2 * i < l3 {
                words[i] = frame.read(eth::TYPE + 2 * i)?;
            }
            i += 1;
        }
        Some(Self { destination: frame.read(eth::DESTINATION)?, source: frame.read(eth::SOURCE)?, words })
    }

    /// Writes the header with its ends exchanged.
    #[inline(always)]
    fn write_back<R: Room>(&self, frame: &mut Frame<R>, l3: usize) -> Option<()> {
        frame.write(eth::DESTINATION, self.source)?;
        frame.write(eth::SOURCE, self.destination)?;
        let mut i = 0;
        while i < LINK_WORDS {
            if eth::TYPE + 2 * i < l3 {
                frame.write(eth::TYPE + 2 * i, self.words[i])?;
            }
            i += 1;
        }
        Some(())
    }
}

/// Sum of a pseudo-header of either family (RFC 793 §3.1, RFC 8200 §8.1): both are addresses, length and protocol.
/// `length` in host order.
#[inline(always)]
pub fn pseudo(source: &Addr, destination: &Addr, length: u16, protocol: u8) -> u32 {
    let sum = length.to_be() as u32 + (protocol as u16).to_be() as u32;
    sum + words(source) + words(destination)
}

#[inline(always)]
fn words(address: &Addr) -> u32 {
    if address.is_v4() {
        return checksum::words(address.to_v4());
    }
    let [a, b, c, d] = address.0;
    checksum::words(a) + checksum::words(b) + checksum::words(c) + checksum::words(d)
}
