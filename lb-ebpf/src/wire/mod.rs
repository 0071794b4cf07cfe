//! Header layouts: offsets from the header's start in bytes, and constants as they stand on the wire.

pub mod eth;
pub mod gre;
pub mod gue;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod sctp;
pub mod tcp;
pub mod udp;
