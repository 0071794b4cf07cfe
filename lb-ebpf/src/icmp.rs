//! ICMP errors: those about a flow follow the flow; those about our own tunnel packets are told on to the client.

pub mod tunnel;

use crate::{
    frame::{Frame, Room},
    parse::{Fragment, Packet},
    tables::Tables,
    verdict::Stop,
    wire::{icmp, ipv4, ipv6},
};
use lb_common::{
    counters::Reason,
    flow::FlowKey,
    net::{Addr, proto},
    settings::{Settings, feature, switch},
};

#[inline(always)]
pub fn is_icmp(packet: &Packet) -> bool {
    packet.key.protocol == proto::ICMP as u32 || packet.key.protocol == proto::ICMPV6 as u32
}

/// Makes an ICMP error a packet of the flow it is about: a server sent something as the VIP, and somebody on the way
/// to the client complains, so the embedded packet's source is the VIP and its destination the client. Whatever else
/// ICMP says, such as an echo request to a VIP, is the local stack's.
#[inline(always)]
pub fn subject<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    packet: &mut Packet,
    now: u32,
) -> Result<(), Stop> {
    let stack = Stop::new(Reason::PassedProtocol);
    let kind: u8 = frame.read(packet.l4).ok_or(stack)?;
    let is_error = if packet.is_v6 {
        // A fragmented error is not worth reassembling (IPVS drops it); the stack sees to it.
        kind < icmp::V6_FIRST_INFORMATIONAL && packet.fragment == Fragment::Whole
    } else {
        kind == icmp::UNREACHABLE || kind == icmp::SOURCE_QUENCH || kind == icmp::TIME_EXCEEDED
    };
    if !is_error {
        return Err(stack);
    }
    let unknown = Stop::new(Reason::PassedIcmp);
    let inner = packet.l4 + icmp::HEADER;
    if packet.is_v6 {
        packet.key = embedded_v6(frame, inner).ok_or(unknown)?;
    } else {
        packet.key = if tables.features() & feature::TUNNELS != 0
            && let Some(tunnel) = tunnel::find(frame, tables, inner)
        {
            tunnel::learn(frame, tables, settings, packet, &tunnel, now);
            packet.quote = tunnel.inner;
            tunnel::inner_key(frame, tunnel.inner).ok_or(Stop::new(Reason::DroppedTunnelError))?
        } else {
            embedded_v4(frame, inner).ok_or(unknown)?
        };
    }
    packet.event = 0;
    packet.is_error = true;
    Ok(())
}

/// With `schedule_icmp` an error about an unknown flow opens it.
#[inline(always)]
pub fn may_open(settings: &Settings) -> Result<(), Stop> {
    if settings.is_on(switch::SCHEDULE_ICMP) { Ok(()) } else { Err(Reason::PassedIcmp.into()) }
}

/// Key of the flow whose answer is embedded at `at`: seen from the client, so with the ends exchanged.
#[inline(always)]
fn embedded_v4<R: Room>(frame: &Frame<R>, at: usize) -> Option<FlowKey> {
    let first: u8 = frame.read(at)?;
    let fragment = u16::from_be(frame.read(at + ipv4::FRAGMENT)?);
    let header = (first & 15) as usize * 4;
    if first >> 4 != 4 || header < ipv4::HEADER || fragment & ipv4::OFFSET_MASK != 0 {
        return None;
    }
    let protocol: u8 = frame.read(at + ipv4::PROTOCOL)?;
    Some(FlowKey {
        client: Addr::v4(frame.read(at + ipv4::DESTINATION)?),
        vip: Addr::v4(frame.read(at + ipv4::SOURCE)?),
        ports: exchanged_ports(frame, at + header, protocol)?,
        protocol: protocol as u32,
    })
}

#[inline(always)]
fn embedded_v6<R: Room>(frame: &Frame<R>, at: usize) -> Option<FlowKey> {
    let first: u8 = frame.read(at)?;
    if first >> 4 != 6 {
        return None;
    }
    let chain = ipv6::walk(frame, at)?;
    if chain.fragment == Fragment::Later {
        return None;
    }
    Some(FlowKey {
        client: Addr(frame.read(at + ipv6::DESTINATION)?),
        vip: Addr(frame.read(at + ipv6::SOURCE)?),
        ports: exchanged_ports(frame, chain.l4, chain.protocol)?,
        protocol: chain.protocol as u32,
    })
}

#[inline(always)]
fn exchanged_ports<R: Room>(frame: &Frame<R>, at: usize, protocol: u8) -> Option<u32> {
    if protocol != proto::TCP && protocol != proto::UDP && protocol != proto::SCTP {
        return None;
    }
    let ports: u32 = frame.read(at)?;
    Some(ports.rotate_left(16))
}
