//! GRE between the outer header and the packet.

use super::Inner;
use crate::{
    checksum,
    frame::{Frame, Room},
    wire::{eth, gre},
};

/// Bytes of the header.
#[inline(always)]
pub(super) const fn overhead(has_checksum: bool) -> usize {
    if has_checksum { gre::HEADER + gre::CHECKSUM } else { gre::HEADER }
}

/// Writes the header at `at`. `sum`: of the packet inside, if there is a checksum.
#[inline(always)]
pub(super) fn write<R: Room>(
    frame: &mut Frame<R>,
    at: usize,
    inner: &Inner,
    has_checksum: bool,
    sum: u32,
) -> Option<()> {
    let ethertype = if inner.is_v6() { eth::IPV6 } else { eth::IPV4 };
    let flags = if has_checksum { gre::CHECKSUM_PRESENT.to_be() } else { 0 };
    frame.write(at, flags)?;
    frame.write(at + 2, ethertype)?;
    if has_checksum {
        frame.write(at + gre::HEADER, !checksum::fold(sum + flags as u32 + ethertype as u32))?;
        frame.write(at + gre::HEADER + 2, 0u16)?;
    }
    Some(())
}
