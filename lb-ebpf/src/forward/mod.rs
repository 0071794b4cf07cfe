//! Step 5: on to the real server: time to live, size, and the headers its forwarding method wants.

mod gre;
mod gue;
mod outer;
mod size;

use crate::{
    checksum,
    flow::Way,
    frame::{Frame, Room},
    parse::Packet,
    reply,
    stage::Trip,
    tables::Tables,
    verdict::{Forwarded, Stop},
    wire::{eth, ipv4, ipv6},
};
use lb_common::{
    counters::Reason,
    net::proto,
    server::{Method, NO_VLAN, SERVICE_VLAN, Server, VLAN_ID, server_flag},
    settings::{Settings, feature},
};
use outer::Inner;

/// For `ok_or`: bytes that were there a moment ago, or headroom that the driver does not have.
const NO_ROOM: Stop = Stop::new(Reason::DroppedNoRoom);

/// True if the packet goes into a tunnel, which is a stage of its own. One of a flow that did so before its server was
/// changed to DR goes on as IPIP, which is what a tunnel is if nothing else is said.
#[inline(always)]
pub fn is_tunnel<T: Tables>(tables: &T, server: &Server, way: Way) -> bool {
    if tables.features() & feature::TUNNELS == 0 || server.has(server_flag::LOCAL) {
        return false;
    }
    way == Way::Tunnel || (way == Way::Server && server.method != Method::Dr as u8)
}

/// Direct routing.
#[inline(always)]
pub fn direct<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    packet: &Packet,
    server: &Server,
) -> Result<Forwarded, Stop> {
    if server.has(server_flag::LOCAL) {
        return Err(Reason::PassedLocal.into());
    }
    hop(frame, packet, server)?;
    if let Some(mtu) = size::exceeded(packet, server.mtu as u32)? {
        return Err(reply::too_big(packet, mtu));
    }
    link(frame, tables, packet, server, 0, None).ok_or(NO_ROOM)?;
    Ok(Forwarded { ifindex: server.ifindex })
}

/// Bytes of the largest packet a tunnel with a checksum holds, which is one of GRE in IPv4.
const LARGEST_SUMMED: u32 = u16::MAX as u32 - (ipv4::HEADER + gre::overhead(true)) as u32;

/// Sums the packet up as it will be inside the tunnel, one hop later. IPv4's header checksum makes up for the time
/// to live; IPv6 has none.
#[inline(always)]
pub fn sum<R: Room>(frame: &Frame<R>, trip: &mut Trip) -> Result<(), Stop> {
    let packet = &trip.packet;
    if packet.length > LARGEST_SUMMED {
        // The tunnel refuses it for its size.
        return Ok(());
    }
    trip.sum = checksum::of_frame(frame, packet.l3, packet.length as usize).ok_or(NO_ROOM)?;
    if packet.is_v6 {
        trip.sum += (!1u16).to_be() as u32;
    }
    Ok(())
}

/// Into the server's tunnel.
#[inline(always)]
pub fn tunnel<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    trip: &Trip,
    now: u32,
) -> Result<Forwarded, Stop> {
    let packet = &trip.packet;
    let server = tables.server(trip.server).ok_or(Reason::DroppedServerGone)?;
    hop(frame, packet, server)?;
    let overhead = overhead(server);
    if let Some(mtu) = size::exceeded(packet, size::in_tunnel(tables, server, overhead, now)?)? {
        return Err(reply::too_big(packet, mtu));
    }
    if packet.length as usize + overhead > u16::MAX as usize {
        // An ICMP error, which no MTU holds up; but headers count in 16 bits.
        return Err(Reason::DroppedTooBig.into());
    }
    encapsulate(frame, tables, settings, packet, server, overhead, trip.sum).ok_or(NO_ROOM)?;
    Ok(Forwarded { ifindex: server.ifindex })
}

/// One hop passed: the server can be reached and the packet has time left to live, which gets less.
#[inline(always)]
fn hop<R: Room>(frame: &mut Frame<R>, packet: &Packet, server: &Server) -> Result<(), Stop> {
    if !server.has(server_flag::REACHABLE) {
        return Err(Reason::DroppedUnreachable.into());
    }
    let ttl: u8 = frame.read(packet.l3 + ttl_at(packet)).ok_or(NO_ROOM)?;
    if ttl <= 1 {
        return Err(reply::time_exceeded(packet));
    }
    decrement(frame, packet, ttl).ok_or(NO_ROOM)
}

#[inline(always)]
fn ttl_at(packet: &Packet) -> usize {
    if packet.is_v6 { ipv6::HOP_LIMIT } else { ipv4::TTL }
}

/// Takes one from the time to live. IPv4 has a header checksum to keep true.
#[inline(always)]
fn decrement<R: Room>(frame: &mut Frame<R>, packet: &Packet, ttl: u8) -> Option<()> {
    let l3 = packet.l3;
    if !packet.is_v6 {
        let protocol: u8 = frame.read(l3 + ipv4::PROTOCOL)?;
        let sum: u16 = frame.read(l3 + ipv4::CHECKSUM)?;
        let old = u16::from_be_bytes([ttl, protocol]).to_be();
        let new = u16::from_be_bytes([ttl - 1, protocol]).to_be();
        frame.write(l3 + ipv4::CHECKSUM, checksum::replace(sum, old, new))?;
    }
    frame.write(l3 + ttl_at(packet), ttl - 1)
}

/// Bytes the forwarding method puts in front of the packet.
#[inline(always)]
fn overhead(server: &Server) -> usize {
    let header = if server.rip.is_v4() { ipv4::HEADER } else { ipv6::HEADER };
    if server.method == Method::Gre as u8 {
        header + gre::overhead(server.has(server_flag::CHECKSUM))
    } else if server.method == Method::Gue as u8 {
        header + gue::OVERHEAD
    } else {
        header
    }
}

/// Writes the link header in front of `overhead` bytes for outer headers, tags included. `outer_type`: the type of what
/// follows, `None` for the packet as it came. Where what follows begins.
#[inline(always)]
fn link<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    packet: &Packet,
    server: &Server,
    overhead: usize,
    outer_type: Option<u16>,
) -> Option<usize> {
    let mut l2 = packet.l3;
    let has_vlan = tables.features() & feature::VLAN != 0;
    if has_vlan {
        l2 = eth::HEADER;
        if server.vlan[0] != NO_VLAN {
            l2 += eth::TAG;
            if server.vlan[1] != NO_VLAN {
                l2 += eth::TAG;
            }
        }
    }
    frame.grow_front((l2 + overhead) as i32 - packet.l3 as i32)?;
    frame.write(eth::DESTINATION, server.dmac)?;
    frame.write(eth::SOURCE, server.smac)?;
    if has_vlan {
        let plain = if packet.is_v6 { eth::IPV6 } else { eth::IPV4 };
        tags(frame, server, outer_type.unwrap_or(plain))?;
    } else if let Some(ethertype) = outer_type {
        frame.write(eth::TYPE, ethertype)?;
    }
    Some(l2)
}

/// Writes the tags the server is behind, and the type behind them.
#[inline(always)]
fn tags<R: Room>(frame: &mut Frame<R>, server: &Server, ethertype: u16) -> Option<()> {
    let [first, second] = server.vlan;
    if first == NO_VLAN {
        return frame.write(eth::TYPE, ethertype);
    }
    tag(frame, eth::TYPE, first)?;
    if second == NO_VLAN {
        return frame.write(eth::TYPE + eth::TAG, ethertype);
    }
    tag(frame, eth::TYPE + eth::TAG, second)?;
    frame.write(eth::TYPE + 2 * eth::TAG, ethertype)
}

/// Writes a tag of priority 0: its type, its number.
#[inline(always)]
fn tag<R: Room>(frame: &mut Frame<R>, at: usize, vlan: u16) -> Option<()> {
    frame.write(at, if vlan & SERVICE_VLAN != 0 { eth::VLAN_SERVICE } else { eth::VLAN })?;
    frame.write(at + 2, (vlan & VLAN_ID).to_be())
}

/// Puts the packet into a tunnel. IPIP has nothing between the outer header and the packet.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn encapsulate<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    server: &Server,
    overhead: usize,
    sum: u32,
) -> Option<()> {
    let inner = Inner::read(frame, packet)?;
    let outer_type = if server.rip.is_v4() { eth::IPV4 } else { eth::IPV6 };
    let l2 = link(frame, tables, packet, server, overhead, Some(outer_type))?;
    let protocol = if server.method == Method::Gre as u8 {
        proto::GRE
    } else if server.method == Method::Gue as u8 {
        proto::UDP
    } else {
        inner.protocol()
    };
    let outer = outer::write(frame, tables, settings, packet, server, &inner, protocol, l2, overhead)?;
    if protocol == proto::GRE {
        gre::write(frame, outer.next, &inner, server.has(server_flag::CHECKSUM), sum)
    } else if protocol == proto::UDP {
        gue::write(frame, packet, server, &inner, &outer, sum)
    } else {
        Some(())
    }
}
