//! Generic UDP encapsulation (draft-ietf-intarea-gue), version 0, behind its UDP header.

use super::udp;
use crate::frame::{Frame, Room};
use lb_common::net::proto;

/// Version, control flag and length of the optional fields; the protocol; two bytes of flags.
pub const HEADER: usize = 4;

/// Length of the UDP and GUE headers of a data packet that carries IPv4. Of one cut off behind the UDP header, the
/// shortest there is.
#[inline(always)]
pub fn length_v4<R: Room>(frame: &Frame<R>, at: usize) -> Option<usize> {
    let first: u8 = frame.read(at + udp::HEADER).unwrap_or(0);
    let protocol: u8 = frame.read(at + udp::HEADER + 1).unwrap_or(proto::IPIP);
    if first & 0xe0 != 0 || protocol != proto::IPIP {
        return None;
    }
    Some(udp::HEADER + HEADER + (first & 0x1f) as usize * 4)
}
