//! UDP (RFC 768).

use network_types::udp::UdpHdr;

pub const HEADER: usize = UdpHdr::LEN;
pub const LENGTH: usize = 4;
pub const CHECKSUM: usize = 6;
