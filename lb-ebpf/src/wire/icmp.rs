//! ICMP (RFC 792) and ICMPv6 (RFC 4443).

use network_types::icmp::Icmpv4Hdr;

pub const HEADER: usize = Icmpv4Hdr::LEN;
pub const TYPE: usize = 0;
pub const CODE: usize = 1;
pub const CHECKSUM: usize = 2;
/// Four bytes whose meaning is the type's.
pub const REST: usize = 4;

/// ICMP types.
pub const UNREACHABLE: u8 = 3;
pub const SOURCE_QUENCH: u8 = 4;
pub const TIME_EXCEEDED: u8 = 11;
/// Codes of [`UNREACHABLE`].
pub const PORT_UNREACHABLE: u8 = 3;
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// ICMPv6 types; those below 128 are errors (RFC 4443 §2.1).
pub const V6_UNREACHABLE: u8 = 1;
pub const V6_PACKET_TOO_BIG: u8 = 2;
pub const V6_TIME_EXCEEDED: u8 = 3;
pub const V6_FIRST_INFORMATIONAL: u8 = 128;
/// Code of [`V6_UNREACHABLE`].
pub const V6_PORT_UNREACHABLE: u8 = 4;
