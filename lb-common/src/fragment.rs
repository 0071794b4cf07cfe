//! Fragments follow their first: where it went, by the datagram's identity (RFC 791 §3.2, RFC 8200 §4.5).

use crate::net::Addr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    pub source: Addr,
    pub destination: Addr,
    /// Identification as on the wire; 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// Value of the fragment map. Written and read by the kernel only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentRoute {
    pub server: u32,
    /// Jiffies; 30 s after the first fragment, as the kernel's reassembly (`ipfrag_time`).
    pub expires: u32,
}
