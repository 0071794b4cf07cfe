//! Step 1: bytes to a [`Packet`], the facts every later step needs.

use crate::{
    frame::{Frame, Room},
    tables::Tables,
    verdict::{MALFORMED, Stop},
    wire::{eth, ipv4, ipv6, sctp, tcp, udp},
};
use lb_common::{
    counters::Reason,
    flow::FlowKey,
    net::{Addr, proto},
    settings::feature,
};

/// Where in a fragmented datagram a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// Carries the ports; more follow.
    First,
    /// No ports: follows the first.
    Later,
}

/// What a packet is.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Client, VIP, ports and protocol. For an ICMP error, those of the flow it is about.
    pub key: FlowKey,
    /// Where the IP header and what follows it begin, in bytes from the start of the frame.
    pub l3: usize,
    pub l4: usize,
    /// Bytes from the IP header on, by the header's own account.
    pub length: u32,
    /// TCP: the flags. SCTP: the chunk type that counts. Else 0.
    pub event: u8,
    pub fragment: Fragment,
    /// Identification of the datagram the fragment belongs to, as on the wire.
    pub fragment_id: u32,
    pub is_v6: bool,
    /// An ICMP error about a flow rather than a packet of it.
    pub is_error: bool,
    /// What an ICMP error about this packet would quote: it, or for an error about one of the director's tunnel packets
    /// what was inside. From the start of the frame.
    pub quote: usize,
}

impl Packet {
    /// True for an ICMP error about one of the director's own tunnel packets.
    #[inline(always)]
    pub fn is_about_tunnel(&self) -> bool {
        self.quote != self.l3
    }
}

#[inline(always)]
pub fn packet<R: Room, T: Tables>(frame: &Frame<R>, tables: &T) -> Result<Packet, Stop> {
    let mut l3 = eth::HEADER;
    let mut ethertype = frame.read::<u16>(eth::TYPE).ok_or(MALFORMED)?;
    if tables.features() & feature::VLAN != 0 {
        // Two tags at most (802.1ad): an outer S-VLAN and an inner C-VLAN.
        let mut tags = 0;
        while tags < 2 && eth::is_vlan(ethertype) {
            ethertype = frame.read::<u16>(l3 + 2).ok_or(MALFORMED)?;
            l3 += eth::TAG;
            tags += 1;
        }
    }
    if ethertype == eth::IPV4 {
        v4(frame, l3)
    } else if ethertype == eth::IPV6 && tables.features() & feature::IPV6 != 0 {
        v6(frame, l3)
    } else {
        Err(Reason::PassedNotIp.into())
    }
}

#[inline(always)]
fn v4<R: Room>(frame: &Frame<R>, l3: usize) -> Result<Packet, Stop> {
    let first: u8 = frame.read(l3).ok_or(MALFORMED)?;
    let header = (first & 15) as usize * 4;
    if first >> 4 != 4 || header < ipv4::HEADER {
        return Err(MALFORMED);
    }
    let length = u16::from_be(frame.read(l3 + ipv4::LENGTH).ok_or(MALFORMED)?) as usize;
    if length < header || !frame.holds(l3 + length) {
        return Err(MALFORMED);
    }
    let offset = u16::from_be(frame.read(l3 + ipv4::FRAGMENT).ok_or(MALFORMED)?);
    let fragment = if offset & ipv4::OFFSET_MASK != 0 {
        Fragment::Later
    } else if offset & ipv4::MORE_FRAGMENTS != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    };
    let protocol: u8 = frame.read(l3 + ipv4::PROTOCOL).ok_or(MALFORMED)?;
    let mut packet = Packet {
        key: FlowKey {
            client: Addr::v4(frame.read(l3 + ipv4::SOURCE).ok_or(MALFORMED)?),
            vip: Addr::v4(frame.read(l3 + ipv4::DESTINATION).ok_or(MALFORMED)?),
            ports: 0,
            protocol: protocol as u32,
        },
        l3,
        l4: l3 + header,
        length: length as u32,
        event: 0,
        fragment,
        fragment_id: frame.read::<u16>(l3 + ipv4::ID).ok_or(MALFORMED)? as u32,
        is_v6: false,
        is_error: false,
        quote: l3,
    };
    transport(frame, &mut packet, protocol, proto::ICMP)?;
    Ok(packet)
}

#[inline(always)]
fn v6<R: Room>(frame: &Frame<R>, l3: usize) -> Result<Packet, Stop> {
    let first: u8 = frame.read(l3).ok_or(MALFORMED)?;
    let payload = u16::from_be(frame.read(l3 + ipv6::LENGTH).ok_or(MALFORMED)?) as usize;
    if first >> 4 != 6 || !frame.holds(l3 + ipv6::HEADER + payload) {
        return Err(MALFORMED);
    }
    let chain = ipv6::walk(frame, l3).ok_or(MALFORMED)?;
    let mut packet = Packet {
        key: FlowKey {
            client: Addr(frame.read(l3 + ipv6::SOURCE).ok_or(MALFORMED)?),
            vip: Addr(frame.read(l3 + ipv6::DESTINATION).ok_or(MALFORMED)?),
            ports: 0,
            protocol: chain.protocol as u32,
        },
        l3,
        l4: chain.l4,
        length: (ipv6::HEADER + payload) as u32,
        event: 0,
        fragment: chain.fragment,
        fragment_id: chain.fragment_id,
        is_v6: true,
        is_error: false,
        quote: l3,
    };
    transport(frame, &mut packet, chain.protocol, proto::ICMPV6)?;
    Ok(packet)
}

/// Ports and event of a transport header. A later fragment has none; ICMP is left to its own step.
#[inline(always)]
fn transport<R: Room>(frame: &Frame<R>, packet: &mut Packet, protocol: u8, icmp: u8) -> Result<(), Stop> {
    let is_transport = protocol == proto::TCP || protocol == proto::UDP || protocol == proto::SCTP;
    if !is_transport && protocol != icmp {
        return Err(Reason::PassedProtocol.into());
    }
    if packet.fragment == Fragment::Later || !is_transport {
        return Ok(());
    }
    // Behind the IP packet there may be padding, which is nobody's header.
    let header = match protocol {
        proto::TCP => tcp::HEADER,
        proto::UDP => udp::HEADER,
        _ => sctp::LEAST,
    };
    if packet.l4 - packet.l3 + header > packet.length as usize {
        return Err(MALFORMED);
    }
    packet.key.ports = frame.read(packet.l4).ok_or(MALFORMED)?;
    if protocol == proto::TCP {
        packet.event = frame.read(packet.l4 + tcp::FLAGS).ok_or(MALFORMED)?;
    } else if protocol == proto::SCTP {
        packet.event = sctp::event(frame, packet.l4).ok_or(MALFORMED)?;
    }
    Ok(())
}
