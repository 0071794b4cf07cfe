//! GRE (RFC 2784): two bytes of flags, the type of what follows, and with [`CHECKSUM_PRESENT`] four bytes more.

use super::eth;
use crate::frame::{Frame, Room};

pub const HEADER: usize = 4;
/// Checksum and two reserved bytes.
pub const CHECKSUM: usize = 4;
/// In the flags, host order.
pub const CHECKSUM_PRESENT: u16 = 0x8000;

/// Length of a header that has no field but a checksum and is followed by IPv4.
#[inline(always)]
pub fn length_v4<R: Room>(frame: &Frame<R>, at: usize) -> Option<usize> {
    let flags = u16::from_be(frame.read(at)?);
    if flags & !CHECKSUM_PRESENT != 0 || frame.read::<u16>(at + 2)? != eth::IPV4 {
        return None;
    }
    Some(if flags & CHECKSUM_PRESENT != 0 { HEADER + CHECKSUM } else { HEADER })
}
