//! UDP and GUE between the outer header and the packet.

use super::{Inner, outer::Outer};
use crate::{
    checksum,
    frame::{Frame, Room},
    parse::Packet,
    reply::pseudo,
    wire::{gue, udp},
};
use lb_common::{
    hash::stateless,
    net::proto,
    server::{Server, server_flag},
};

pub(super) const OVERHEAD: usize = udp::HEADER + gue::HEADER;

/// Source ports: the local port range, spread by a hash of the flow, so that receivers spread flows over queues
/// (`net.ipv4.ip_local_port_range`).
const FIRST_PORT: u64 = 32_768;
const LAST_PORT: u64 = 60_999;

/// Writes both headers. `sum`: of the packet inside, if there is a checksum.
#[inline(always)]
pub(super) fn write<R: Room>(
    frame: &mut Frame<R>,
    packet: &Packet,
    server: &Server,
    inner: &Inner,
    outer: &Outer,
    sum: u32,
) -> Option<()> {
    let at = outer.next;
    let hash = stateless(&packet.key.client, packet.key.client_port()) as u64;
    let source = ((FIRST_PORT + ((hash * (LAST_PORT - FIRST_PORT)) >> 32)) as u16).to_be();
    let destination = server.tunnel_port.to_wire();
    let length = outer.payload.to_be();
    let head = u16::from_be_bytes([0, inner.protocol()]).to_be();
    frame.write(at, source)?;
    frame.write(at + 2, destination)?;
    frame.write(at + 4, length)?;
    let sum = if server.has(server_flag::CHECKSUM) {
        let sum = sum + source as u32 + destination as u32 + length as u32 + head as u32;
        let whole = sum + pseudo(&outer.source, &server.rip, outer.payload, proto::UDP);
        // 0 on the wire says that there is no checksum (RFC 768).
        match !checksum::fold(whole) {
            0 => 0xffff,
            sum => sum,
        }
    } else {
        0
    };
    frame.write(at + udp::CHECKSUM, sum)?;
    frame.write(at + udp::HEADER, head)?;
    frame.write(at + udp::HEADER + 2, 0u16)
}
