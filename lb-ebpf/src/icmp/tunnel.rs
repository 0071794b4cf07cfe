//! Errors about the director's own tunnel packets, addressed to the director. Whoever complains about the outer packet
//! means the client's: what it needs to know is told on, with the MTU that is left for it. IPv4 outside and inside
//! only, as in IPVS.

use crate::{
    frame::{Frame, Room},
    parse::Packet,
    tables::Tables,
    verdict::{IcmpError, Stop},
    wire::{gre, gue, icmp, ipv4},
};
use lb_common::{
    counters::Reason,
    flow::FlowKey,
    net::{Addr, Be16, proto},
    path::PathMtu,
    server::server_flag,
    service::{ServiceKey, key_kind},
    settings::Settings,
};

/// How long a learned path MTU holds, in seconds (`net.ipv4.route.mtu_expires`).
const PATH_SECONDS: u32 = 600;

/// Least path MTU believed, in bytes (`net.ipv4.route.min_pmtu`): a forged error cannot choke a tunnel.
const LEAST_PATH: u32 = 552;

/// A tunnel packet of ours in an ICMP error.
pub struct Tunnel {
    rip: Addr,
    /// Where the packet inside begins, from the start of the frame.
    pub inner: usize,
}

/// The tunnel the packet embedded at `outer` went through, if it is one of ours.
#[inline(always)]
pub fn find<R: Room, T: Tables>(frame: &Frame<R>, tables: &T, outer: usize) -> Option<Tunnel> {
    let first: u8 = frame.read(outer)?;
    let protocol: u8 = frame.read(outer + ipv4::PROTOCOL)?;
    let fragment = u16::from_be(frame.read(outer + ipv4::FRAGMENT)?);
    if first >> 4 != 4 || fragment & ipv4::OFFSET_MASK != 0 {
        return None;
    }
    let rip = Addr::v4(frame.read(outer + ipv4::DESTINATION)?);
    let header = outer + (first & 15) as usize * 4;
    let mut key = ServiceKey { address: rip, port: Be16::from_host(0), protocol, kind: key_kind::TUNNEL };
    let inner = if protocol == proto::IPIP {
        header
    } else if protocol == proto::GRE {
        header + gre::length_v4(frame, header)?
    } else if protocol == proto::UDP {
        key.port = Be16::from_wire(frame.read(header + 2)?);
        header + gue::length_v4(frame, header)?
    } else {
        return None;
    };
    let server = tables.server(tables.service_at(&key)?)?;
    let source = Addr::v4(frame.read(outer + ipv4::SOURCE)?);
    if !server.has(server_flag::VARY_SOURCE) && server.source != source {
        return None;
    }
    Some(Tunnel { rip, inner })
}

/// Key of the client's packet at `at`.
#[inline(always)]
pub fn inner_key<R: Room>(frame: &Frame<R>, at: usize) -> Option<FlowKey> {
    let first: u8 = frame.read(at)?;
    let header = (first & 15) as usize * 4;
    if first >> 4 != 4 || header < ipv4::HEADER {
        return None;
    }
    Some(FlowKey {
        client: Addr::v4(frame.read(at + ipv4::SOURCE)?),
        vip: Addr::v4(frame.read(at + ipv4::DESTINATION)?),
        ports: frame.read(at + header)?,
        protocol: frame.read::<u8>(at + ipv4::PROTOCOL)? as u32,
    })
}

/// Remembers the path MTU an error reports, for the packets to come.
#[inline(always)]
pub fn learn<R: Room, T: Tables>(
    frame: &Frame<R>,
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    tunnel: &Tunnel,
    now: u32,
) {
    let Some(error) = read(frame, packet) else { return };
    let mtu = reported_mtu(&error);
    if mtu >= LEAST_PATH {
        let expires = now.wrapping_add(PATH_SECONDS * settings.hz);
        tables.set_path(&PathMtu { rip: tunnel.rip, mtu, expires });
    }
}

/// What the client of a known flow is told. A reported MTU shrinks by the tunnel's headers and is told only to who set
/// DF; everything else is passed on as it is.
#[inline(always)]
pub fn tell<R: Room>(frame: &Frame<R>, packet: &Packet) -> Stop {
    let dropped = Stop::new(Reason::DroppedTunnelError);
    let Some(mut error) = read(frame, packet) else { return dropped };
    if is_too_big(&error) {
        let Some(fragment) = frame.read(packet.quote + ipv4::FRAGMENT) else { return dropped };
        let overhead = (packet.quote - packet.l4 - icmp::HEADER) as u32;
        let mtu = reported_mtu(&error);
        if u16::from_be(fragment) & ipv4::DONT_FRAGMENT == 0 || mtu <= overhead {
            return dropped;
        }
        error.rest = (mtu - overhead).to_be();
    }
    Stop::reply(Reason::RepliedTunnelError, error)
}

#[inline(always)]
fn read<R: Room>(frame: &Frame<R>, packet: &Packet) -> Option<IcmpError> {
    Some(IcmpError {
        kind: frame.read(packet.l4 + icmp::TYPE)?,
        code: frame.read(packet.l4 + icmp::CODE)?,
        rest: frame.read(packet.l4 + icmp::REST)?,
    })
}

#[inline(always)]
fn is_too_big(error: &IcmpError) -> bool {
    error.kind == icmp::UNREACHABLE && error.code == icmp::FRAGMENTATION_NEEDED
}

/// Bytes; 0 for an error that reports none.
#[inline(always)]
fn reported_mtu(error: &IcmpError) -> u32 {
    if is_too_big(error) { u32::from_be(error.rest) & 0xffff } else { 0 }
}
