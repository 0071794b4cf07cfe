//! IPv4 (RFC 791 §3.1).

use crate::{
    checksum,
    frame::{Frame, Room},
};
use network_types::ip::Ipv4Hdr;

/// The header without options.
pub const HEADER: usize = Ipv4Hdr::LEN;
pub const TOS: usize = 1;
pub const LENGTH: usize = 2;
pub const ID: usize = 4;
pub const FRAGMENT: usize = 6;
pub const TTL: usize = 8;
pub const PROTOCOL: usize = 9;
pub const CHECKSUM: usize = 10;
pub const SOURCE: usize = 12;
pub const DESTINATION: usize = 16;

/// In the fragment word, host order.
pub const DONT_FRAGMENT: u16 = 0x4000;
pub const MORE_FRAGMENTS: u16 = 0x2000;
pub const OFFSET_MASK: u16 = 0x1fff;

/// A header without options, to be written.
pub struct Header {
    pub tos: u8,
    /// Header and payload, bytes.
    pub length: u16,
    /// As on the wire.
    pub id: u16,
    /// Flags and offset, host order.
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    /// As on the wire.
    pub source: u32,
    pub destination: u32,
}

impl Header {
    /// Writes the header with its checksum.
    #[inline(always)]
    pub fn write<R: Room>(&self, frame: &mut Frame<R>, at: usize) -> Option<()> {
        let first = u16::from_be_bytes([0x45, self.tos]).to_be();
        let length = self.length.to_be();
        let fragment = self.fragment.to_be();
        let life = u16::from_be_bytes([self.ttl, self.protocol]).to_be();
        let sum = first as u32
            + length as u32
            + self.id as u32
            + fragment as u32
            + life as u32
            + checksum::words(self.source)
            + checksum::words(self.destination);
        frame.write(at, first)?;
        frame.write(at + LENGTH, length)?;
        frame.write(at + ID, self.id)?;
        frame.write(at + FRAGMENT, fragment)?;
        frame.write(at + TTL, life)?;
        frame.write(at + CHECKSUM, !checksum::fold(sum))?;
        frame.write(at + SOURCE, self.source)?;
        frame.write(at + DESTINATION, self.destination)
    }
}
