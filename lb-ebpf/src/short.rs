//! The short way, for what nearly every packet is: whole, IPv4 without options, TCP or UDP, of a flow that is known and
//! that it does not change.
//!
//! Nothing here is decided otherwise than on the long way through [`crate::parse`], [`crate::flow`] and
//! [`crate::forward`]: whatever is not plain is left to that, untouched. Apart from it, this is a third of the
//! instructions, because all that is in question fits into registers.

use crate::{
    checksum,
    flow::Way,
    forward,
    frame::{Frame, Room},
    parse::{Fragment, Packet},
    settle,
    stage::{Next, Stage, Trip},
    state,
    tables::Tables,
    verdict::Forwarded,
    wire::{eth, ipv4, tcp, udp},
};
use lb_common::{
    flow::{self, FlowKey, V4, control, is_past, meta},
    net::{Addr, proto},
    server::{NO_VLAN, Server, server_flag},
    settings::feature,
    tcp::{self as transitions, flag},
};

const L3: usize = eth::HEADER;
const L4: usize = L3 + ipv4::HEADER;

/// Up to where the short way looks: the flags of a TCP header. A UDP datagram may be shorter, but no frame of Ethernet.
const HEAD: usize = L4 + tcp::FLAGS + 1;

/// Version 4, five words of header.
const PLAIN: u8 = 0x45;

/// What became of a packet that goes the short way; `None` for one that does not, and has not been touched.
#[inline(always)]
pub fn go<R: Room, T: Tables>(frame: &mut Frame<R>, tables: &T) -> Option<Next> {
    let features = tables.features();
    let length = frame.len();
    let mut head = frame.head::<HEAD>()?;
    if head.read::<u16, { eth::TYPE }>() != eth::IPV4 || head.read::<u8, L3>() != PLAIN {
        return None;
    }
    let packet_length = u16::from_be(head.read::<u16, { L3 + ipv4::LENGTH }>()) as usize;
    let fragment = u16::from_be(head.read::<u16, { L3 + ipv4::FRAGMENT }>());
    let protocol = head.read::<u8, { L3 + ipv4::PROTOCOL }>();
    let is_tcp = protocol == proto::TCP;
    let header = if is_tcp { tcp::HEADER } else { udp::HEADER };
    if packet_length < ipv4::HEADER + header
        || L3 + packet_length > length
        || fragment & (ipv4::OFFSET_MASK | ipv4::MORE_FRAGMENTS) != 0
        || (!is_tcp && protocol != proto::UDP)
    {
        return None;
    }
    let flags = if is_tcp { head.read::<u8, { L4 + tcp::FLAGS }>() } else { 0 };
    let key = FlowKey {
        client: Addr::v4(head.read::<u32, { L3 + ipv4::SOURCE }>()),
        vip: Addr::v4(head.read::<u32, { L3 + ipv4::DESTINATION }>()),
        ports: head.read::<u32, L4>(),
        protocol: protocol as u32,
    };
    let packet_length = packet_length as u32;
    if features & feature::FLOWS == 0 {
        let id = head.read::<u16, { L3 + ipv4::ID }>();
        return Some(go_on(tables, packet(key, packet_length, flags, id), 0, Way::Server, Stage::Open));
    }

    let settings = tables.settings()?;
    let now = tables.now();
    let home = flow::home::<V4>(&settings.seed, &key, settings.buckets[0]);
    let Some(entry) = flow::lookup::<V4, T>(tables, &home, &key) else {
        if tables.spilled() != 0 {
            return None;
        }
        let id = head.read::<u16, { L3 + ipv4::ID }>();
        return Some(go_on(tables, packet(key, packet_length, flags, id), 0, Way::Server, Stage::Open));
    };
    let current = control::state(entry.control);
    if control::is_half_open(entry.control) || is_past(entry.expires(), now) || flags & flag::SYN != 0 {
        return None;
    }
    if is_tcp && transitions::next(current, flags, false) != current {
        return None;
    }
    let id = meta::server(entry.meta);
    let server = tables.server(id)?;
    let way = Way::of(entry.meta);
    let is_tunnel = forward::is_tunnel(tables, server, way);
    let ttl = head.read::<u8, { L3 + ipv4::TTL }>();
    let is_denied = features & feature::DENY != 0 && tables.is_denied(&key.client);
    if is_denied
        || !server.has(server_flag::AVAILABLE)
        || (!is_tunnel && !is_plain(server, features, packet_length, ttl))
    {
        return None;
    }

    entry.set_expires(state::expiry(settings, protocol, current, now));
    tables.account(id, false, packet_length);
    if is_tunnel {
        let stage = if server.has(server_flag::CHECKSUM) { Stage::Sum } else { Stage::Tunnel };
        let packet = packet(key, packet_length, flags, head.read::<u16, { L3 + ipv4::ID }>());
        return Some(go_on(tables, packet, id, way, stage));
    }
    let sum = head.read::<u16, { L3 + ipv4::CHECKSUM }>();
    let old = u16::from_be_bytes([ttl, protocol]).to_be();
    let new = u16::from_be_bytes([ttl - 1, protocol]).to_be();
    head.write::<_, { L3 + ipv4::CHECKSUM }>(checksum::replace(sum, old, new));
    head.write::<_, { L3 + ipv4::TTL }>(ttl - 1);
    head.write::<_, 0>(server.macs());
    Some(Next::Forwarded(Forwarded { ifindex: server.ifindex }))
}

/// True if nothing keeps a packet from being routed directly to the server, and the link header stays as long as it is.
#[inline(always)]
fn is_plain(server: &Server, features: u32, length: u32, ttl: u8) -> bool {
    server.has(server_flag::REACHABLE)
        && !server.has(server_flag::LOCAL)
        && ttl > 1
        && length <= server.mtu as u32
        && (features & feature::VLAN == 0 || server.vlan[0] == NO_VLAN)
}

#[inline(always)]
fn packet(key: FlowKey, length: u32, event: u8, id: u16) -> Packet {
    Packet {
        key,
        l3: L3,
        l4: L4,
        length,
        event,
        fragment: Fragment::Whole,
        fragment_id: id as u32,
        is_v6: false,
        is_error: false,
        quote: L3,
    }
}

/// On with a stage of the long way.
#[inline(always)]
fn go_on<T: Tables>(tables: &T, packet: Packet, server: u32, way: Way, stage: Stage) -> Next {
    let mut trip = Trip::new(packet);
    trip.server = server;
    trip.way = way;
    settle(tables, &mut trip, Ok(Next::Stage(stage)))
}
