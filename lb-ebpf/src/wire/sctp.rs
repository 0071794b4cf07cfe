//! SCTP (RFC 9260 §3).

use crate::frame::{Frame, Room};
use lb_common::sctp::chunk;

const HEADER: usize = 12;
/// The header and that of a chunk.
pub const LEAST: usize = HEADER + 4;

/// Type of the chunk that moves the association: the first, or an ABORT bundled behind a COOKIE-ECHO or COOKIE-ACK.
#[inline(always)]
pub fn event<R: Room>(frame: &Frame<R>, l4: usize) -> Option<u8> {
    let first: u8 = frame.read(l4 + HEADER)?;
    if first != chunk::COOKIE_ECHO && first != chunk::COOKIE_ACK {
        return Some(first);
    }
    let length = u16::from_be(frame.read(l4 + HEADER + 2)?) as usize;
    // Chunks are padded to four bytes.
    let next = l4 + HEADER + ((length + 3) & 0x7fc);
    match frame.read::<u8>(next) {
        Some(chunk::ABORT) if length >= 4 => Some(chunk::ABORT),
        _ => Some(first),
    }
}
