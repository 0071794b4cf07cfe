//! IPv6 (RFC 8200) and its extension headers.

use crate::{
    frame::{Frame, Room},
    parse::Fragment,
};
use lb_common::net::Addr;
use network_types::ip::Ipv6Hdr;

pub const HEADER: usize = Ipv6Hdr::LEN;
pub const LENGTH: usize = 4;
pub const NEXT_HEADER: usize = 6;
pub const HOP_LIMIT: usize = 7;
pub const SOURCE: usize = 8;
pub const DESTINATION: usize = 24;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers walked: each kind once, destination options twice (RFC 8200 §4.1).
const MAX_EXTENSIONS: usize = 6;

/// What stands at the end of the extension headers.
pub struct Chain {
    pub protocol: u8,
    /// Where it begins, from the start of the frame.
    pub l4: usize,
    pub fragment: Fragment,
    /// Identification as on the wire.
    pub fragment_id: u32,
}

/// Follows the extension headers of the IPv6 header at `l3`. `None` if the packet ends before they do. Past the
/// bound the protocol is that of the header it stopped at, which nobody balances.
#[inline(always)]
pub fn walk<R: Room>(frame: &Frame<R>, l3: usize) -> Option<Chain> {
    let mut chain = Chain {
        protocol: frame.read(l3 + NEXT_HEADER)?,
        l4: l3 + HEADER,
        fragment: Fragment::Whole,
        fragment_id: 0,
    };
    let mut i = 0;
    while i < MAX_EXTENSIONS {
        i += 1;
        let length = match chain.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (frame.read::<u8>(chain.l4 + 1)? as usize + 1) * 8,
            AUTHENTICATION => (frame.read::<u8>(chain.l4 + 1)? as usize + 2) * 4,
            FRAGMENT => {
                let offset = u16::from_be(frame.read(chain.l4 + 2)?);
                chain.fragment_id = frame.read(chain.l4 + 4)?;
                // Thirteen bits of offset, two reserved, one for more to come (RFC 8200 §4.5).
                if offset & 0xfff8 != 0 {
                    chain.fragment = Fragment::Later;
                } else if offset & 1 != 0 {
                    chain.fragment = Fragment::First;
                }
                8
            }
            _ => return Some(chain),
        };
        chain.protocol = frame.read(chain.l4)?;
        chain.l4 += length;
        if chain.fragment == Fragment::Later {
            // What follows is payload.
            return Some(chain);
        }
    }
    Some(chain)
}

/// A header to be written; flow label 0.
pub struct Header {
    pub traffic_class: u8,
    /// Payload, bytes.
    pub length: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: Addr,
    pub destination: Addr,
}

impl Header {
    #[inline(always)]
    pub fn write<R: Room>(&self, frame: &mut Frame<R>, at: usize) -> Option<()> {
        let class = self.traffic_class;
        frame.write(at, [0x60 | class >> 4, class << 4, 0, 0])?;
        frame.write(at + LENGTH, self.length.to_be())?;
        frame.write(at + NEXT_HEADER, self.next_header)?;
        frame.write(at + HOP_LIMIT, self.hop_limit)?;
        frame.write(at + SOURCE, self.source.0)?;
        frame.write(at + DESTINATION, self.destination.0)
    }
}
