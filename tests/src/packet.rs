//! Builds the frames tests send and expect, on `etherparse`: a second opinion on every header and checksum, so
//! that a mistake in the datapath's own wire types cannot hide behind the same mistake in its tests.
//!
//! ```
//! use lb_tests::packet::eth;
//!
//! let syn = eth().vlan(7).ipv4("203.0.113.1", "192.0.2.1").ttl(9).tcp(40000, 80).syn().build();
//! assert_eq!(syn.len(), 14 + 4 + 20 + 20);
//! let halves = eth().ipv4("203.0.113.1", "192.0.2.1").udp(40000, 53).payload_len(600).fragments(&[304]);
//! assert_eq!(halves.len(), 2);
//! let inner = eth().ipv6("2001:db8::1", "2001:db8:ff::1").hop_by_hop().tcp(40000, 80).syn().ip_bytes();
//! let wanted = eth().ipv4("10.0.0.1", "10.0.1.1").df(false).gre(&inner, false).build();
//! assert_eq!(wanted.len(), 14 + 20 + 4 + inner.len());
//! ```
//!
//! What is not said is what a plain Linux host would send: TTL 64, no TOS, DF on unfragmented TCP only, right
//! checksums. Impossible requests (an IPv4 option list of 3 bytes, mixed address families) panic: they are
//! mistakes of the test.

mod eth;
mod ip;
mod l4;
mod tunnel;

pub use eth::{DIRECTOR_MAC, Eth, Mac, ROUTER_MAC, eth, server_mac};
pub use ip::{Address, Ip, Packet, Transport};
pub use l4::{Icmp, Other, Tcp, Udp, filler, tcp_flags};

#[cfg(test)]
mod tests;
