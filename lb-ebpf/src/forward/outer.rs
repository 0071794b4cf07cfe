//! The outer IP header of a tunnel, as IPVS words it.

use crate::{
    frame::{Frame, Room},
    parse::Packet,
    tables::Tables,
    wire::{ipv4, ipv6},
};
use lb_common::{
    hash::stateless,
    net::{Addr, proto},
    server::{Server, server_flag},
    settings::{Settings, switch},
};

/// What the outer header takes from the packet inside, read after its time to live was decremented.
pub(super) struct Inner {
    is_v6: bool,
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    /// Bytes.
    pub length: u16,
}

impl Inner {
    #[inline(always)]
    pub(super) fn read<R: Room>(frame: &Frame<R>, packet: &Packet) -> Option<Self> {
        let l3 = packet.l3;
        let length = packet.length as u16;
        if packet.is_v6 {
            let word = u16::from_be(frame.read(l3)?);
            let ttl = frame.read(l3 + ipv6::HOP_LIMIT)?;
            return Some(Self { is_v6: true, tos: (word >> 4) as u8, ttl, dont_fragment: false, length });
        }
        let fragment = u16::from_be(frame.read(l3 + ipv4::FRAGMENT)?);
        Some(Self {
            is_v6: false,
            tos: frame.read(l3 + ipv4::TOS)?,
            ttl: frame.read(l3 + ipv4::TTL)?,
            dont_fragment: fragment & ipv4::DONT_FRAGMENT != 0,
            length,
        })
    }

    /// Number of the inner protocol, for IPIP and GUE.
    #[inline(always)]
    pub(super) fn protocol(&self) -> u8 {
        if self.is_v6 { proto::IPV6 } else { proto::IPIP }
    }

    #[inline(always)]
    pub(super) fn is_v6(&self) -> bool {
        self.is_v6
    }

    /// DSCP and ECN are copied, but congestion met before the tunnel becomes ECT(0) outside (RFC 3168 §9.1.1, full
    /// functionality).
    #[inline(always)]
    fn outer_tos(&self) -> u8 {
        if self.tos & 3 == 3 { self.tos & !1 } else { self.tos }
    }
}

/// What the header behind the outer one needs to know of it.
pub(super) struct Outer {
    pub source: Addr,
    /// Where the next header begins.
    pub next: usize,
    /// Bytes behind the outer header.
    pub payload: u16,
}

/// Writes the outer header at `at`. `overhead`: bytes between the link header and the packet.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn write<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    server: &Server,
    inner: &Inner,
    protocol: u8,
    at: usize,
    overhead: usize,
) -> Option<Outer> {
    let mut source = server.source;
    if server.has(server_flag::VARY_SOURCE) {
        let hash = stateless(&packet.key.client, packet.key.client_port());
        source.0[3] ^= (hash & 0xffff).to_be();
    }
    let whole = inner.length.wrapping_add(overhead as u16);
    if !server.rip.is_v4() {
        let payload = whole.wrapping_sub(ipv6::HEADER as u16);
        let header = ipv6::Header {
            traffic_class: inner.outer_tos(),
            length: payload,
            next_header: protocol,
            hop_limit: inner.ttl,
            source,
            destination: server.rip,
        };
        header.write(frame, at)?;
        return Some(Outer { source, next: at + ipv6::HEADER, payload });
    }
    let dont_fragment = inner.dont_fragment && settings.is_on(switch::PMTU_DISC);
    let header = ipv4::Header {
        tos: inner.outer_tos(),
        length: whole,
        // An identification matters only where fragments may be made (RFC 6864 §4).
        id: if dont_fragment { 0 } else { tables.random() as u16 },
        fragment: if dont_fragment { ipv4::DONT_FRAGMENT } else { 0 },
        ttl: inner.ttl,
        protocol,
        source: source.to_v4(),
        destination: server.rip.to_v4(),
    };
    header.write(frame, at)?;
    Some(Outer { source, next: at + ipv4::HEADER, payload: whole.wrapping_sub(ipv4::HEADER as u16) })
}
