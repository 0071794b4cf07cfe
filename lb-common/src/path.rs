//! Path MTUs learned from ICMP errors about the director's own tunnel packets.

use crate::{limits::PATHS, net::Addr};

/// An entry of the direct-mapped cache at [`index`]. Written and read by the kernel only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PathMtu {
    pub rip: Addr,
    /// Bytes of the largest outer packet.
    pub mtu: u32,
    /// Jiffies; 10 minutes after it was learned (`net.ipv4.route.mtu_expires`).
    pub expires: u32,
}

/// The place of a real server's path.
#[inline(always)]
pub const fn index(rip: &Addr) -> u32 {
    (rip.fold().wrapping_mul(0x9e37_79b1) >> 20) & (PATHS - 1)
}

const _: () = assert!(PATHS == 1 << 12);
