//! Whether a packet fits on its way to the server.

use crate::{
    parse::{Fragment, Packet},
    tables::Tables,
    verdict::Stop,
};
use lb_common::{counters::Reason, server::Server};

/// Least that must be left inside a tunnel, in bytes: IPv4 (RFC 791 §3.2), IPv6 (RFC 8200 §5).
const LEAST_V4: u32 = 68;
const LEAST_V6: u32 = 1280;

/// Bytes of the largest packet that fits into the server's tunnel: the route's or, while it holds, the learned MTU less
/// the outer headers.
#[inline(always)]
pub(super) fn in_tunnel<T: Tables>(
    tables: &T,
    server: &Server,
    overhead: usize,
    now: u32,
) -> Result<u32, Stop> {
    let mut mtu = server.mtu as u32;
    if let Some(path) = tables.path(&server.rip)
        && path.rip == server.rip
        && path.expires.wrapping_sub(now) as i32 > 0
        && path.mtu < mtu
    {
        mtu = path.mtu;
    }
    mtu = mtu.saturating_sub(overhead as u32);
    let least = if server.rip.is_v4() { LEAST_V4 } else { LEAST_V6 };
    if mtu < least { Err(Reason::DroppedTooBig.into()) } else { Ok(mtu) }
}

/// `Some(mtu)` if the packet is larger than that and its sender can be told. An ICMP error is never refused (IPVS). A
/// packet without DF is refused too: XDP cannot make two packets of one, and a sender that is told a smaller size
/// makes the fragments itself.
#[inline(always)]
pub(super) fn exceeded(packet: &Packet, mtu: u32) -> Result<Option<u32>, Stop> {
    if packet.length <= mtu || packet.is_error {
        return Ok(None);
    }
    // Only what carries the ports can be quoted so that the sender knows what it is about.
    if packet.fragment == Fragment::Later {
        return Err(Reason::DroppedTooBig.into());
    }
    Ok(Some(mtu))
}
