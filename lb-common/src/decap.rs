//! What the decapsulator on a real server is told, and what it counts.
//!
//! Its maps, beside those of the director: `TUNNELS`, an array of one [`Tunnels`]; `TUNNEL_ADDRESSES`, a hash from
//! address to [`role`] bits; both written by `lb real-server decap`. `DECAPSULATED`, a per-CPU array of packets by
//! [`Reason`], written by the datapath.

use crate::counters::reasons;
use crate::net::Be16;

/// Addresses the decapsulator can know: VIPs and those of the host.
pub const ADDRESSES: u32 = 8192;

/// Which tunnels are opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tunnels {
    /// Bits of [`method`].
    pub methods: u32,
    /// GUE: UDP destination port.
    pub gue_port: Be16,
    pub pad: u16,
}

pub mod method {
    pub const IPIP: u32 = 1;
    pub const GRE: u32 = 1 << 1;
    pub const GUE: u32 = 1 << 2;
}

/// What an address is, as bits.
pub mod role {
    /// Of the host: a tunnel may end there.
    pub const END: u32 = 1;
    /// A VIP: what comes out of a tunnel may be for it.
    pub const VIP: u32 = 1 << 1;
}

reasons! {
    /// Out of an IP-in-IP tunnel, on to the stack.
    DecapsulatedIpip = Pass "decapsulated_ipip",
    /// Out of a GRE tunnel, on to the stack.
    DecapsulatedGre = Pass "decapsulated_gre",
    /// Out of a GUE tunnel, on to the stack.
    DecapsulatedGue = Pass "decapsulated_gue",

    /// Neither IPv4 nor IPv6.
    PassedNotIp = Pass "passed_not_ip",
    /// In none of the tunnels that are opened.
    PassedNotTunnel = Pass "passed_not_tunnel",
    /// In a tunnel that does not end at this host.
    PassedNotEnd = Pass "passed_tunnel_of_others",
    /// In a tunnel, but for no VIP.
    PassedNotVip = Pass "passed_not_vip",
    /// A fragment of a tunnel packet: the stack's to reassemble.
    PassedFragment = Pass "passed_fragment",
    /// Cut short or contradicting itself; the stack's to judge.
    PassedMalformed = Pass "passed_malformed",
    /// GRE with a key, a sequence number or routing, GUE with optional fields or a control message, or something else
    /// than IP inside.
    PassedUnsupported = Pass "passed_unsupported",

    /// The checksum of GRE or UDP is wrong.
    DroppedChecksum = Drop "dropped_checksum",
    /// Marked as having met congestion, with a packet inside whose sender does not take such marks (RFC 6040 §4.2).
    DroppedCongestion = Drop "dropped_congestion",
    /// The driver could not move the packet's front.
    DroppedNoRoom = Drop "dropped_no_room",
    /// A part of the program was missing.
    DroppedNoStep = Drop "dropped_program_incomplete",
}
