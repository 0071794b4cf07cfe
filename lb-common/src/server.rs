//! Real servers as the datapath sees them.

use crate::net::{Addr, Be16, Mac};

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// Direct routing: a new destination MAC, nothing else.
    #[default]
    Dr = 0,
    /// IP in IP (RFC 2003, RFC 2473).
    Ipip = 1,
    /// GRE (RFC 2784).
    Gre = 2,
    /// Generic UDP encapsulation, version 0.
    Gue = 3,
}

/// One real server of one virtual service. 64 bytes, one cache line; index: the server's id, 0 is no server.
/// Written by the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Server {
    /// Next hop towards the RIP.
    pub dmac: Mac,
    /// The egress interface's own address.
    pub smac: Mac,
    /// The egress interface. Packets that came in there leave by TX, others are redirected.
    pub ifindex: u32,
    /// [`Method`] as a number.
    pub method: u8,
    /// See [`server_flag`].
    pub flags: u8,
    /// Largest IP packet towards the RIP, in bytes: the route's or the device's MTU.
    pub mtu: u16,
    /// The service it belongs to.
    pub service: u16,
    /// GUE: UDP destination port.
    pub tunnel_port: Be16,
    pub weight: u32,
    /// VLAN tags to send with, outermost first, host order: a number, with [`SERVICE_VLAN`] or without, or [`NO_VLAN`].
    pub vlan: [u16; 2],
    pub rip: Addr,
    /// Outer source address of tunnels.
    pub source: Addr,
}

/// In [`Server::vlan`]: no tag.
pub const NO_VLAN: u16 = 0xffff;
/// In [`Server::vlan`], added to the number: a service tag (802.1ad), not an ordinary one (802.1Q).
pub const SERVICE_VLAN: u16 = 0x8000;
/// In [`Server::vlan`]: the bits of the number.
pub const VLAN_ID: u16 = 0xfff;

pub mod server_flag {
    /// In the configuration. Cleared when it is removed; its flows are then dropped, or expired (IPVS: AVAILABLE).
    pub const AVAILABLE: u8 = 1;
    /// The next hop is known.
    pub const REACHABLE: u8 = 1 << 1;
    /// Weight 0: drained.
    pub const DRAINED: u8 = 1 << 2;
    /// GRE and GUE with a checksum.
    pub const CHECKSUM: u8 = 1 << 3;
    /// The RIP is an address of the director: packets go up the local stack.
    pub const LOCAL: u8 = 1 << 4;
    /// Has connection thresholds.
    pub const THRESHOLDS: u8 = 1 << 5;
    /// Vary the low bits of the outer source address by flow.
    pub const VARY_SOURCE: u8 = 1 << 6;
}

impl Server {
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Both addresses as they stand at the beginning of a frame to the server.
    #[inline(always)]
    pub const fn macs(&self) -> [u32; 3] {
        let (d, s) = (&self.dmac.0, &self.smac.0);
        [
            u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
            u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
            u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
        ]
    }
}

const _: () = assert!(size_of::<Server>() == 64);
