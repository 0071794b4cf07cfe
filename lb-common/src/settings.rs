//! What is one for the whole director: times, limits, switches. Map of one entry; written by the control plane.

use crate::hash::Seed;
use crate::net::Addr;

/// Index of a state's timeout in [`Settings::timeouts`].
pub mod timeout {
    use crate::net::proto;

    pub const TCP: u32 = 0;
    pub const UDP: u32 = 11;
    pub const SCTP: u32 = 16;

    #[inline(always)]
    pub const fn index(protocol: u8, state: u8) -> u32 {
        match protocol {
            proto::TCP => TCP + state as u32,
            proto::SCTP => SCTP + state as u32,
            _ => UDP,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Of the flow tables and the template table; never changes while the tables live.
    pub seed: Seed,
    /// Idle timeouts in jiffies, see [`timeout`].
    pub timeouts: [u32; 32],
    /// Buckets of the IPv4 flows, the IPv6 flows and the templates.
    pub buckets: [u32; 3],
    /// Jiffies in a second.
    pub hz: u32,
    /// See [`switch`].
    pub switches: u32,
    /// `conn_reuse_mode`, 0 to 3.
    pub conn_reuse_mode: u32,
    /// Jiffies after which lblc and lblcr forget or thin out.
    pub lblc_expiration: u32,
    pub lblcr_expiration: u32,
    /// ICMP errors a CPU may send in a second; 0: none.
    pub icmp_per_second: u32,
    /// New flows a CPU may remember in a second; counts only in a program loaded with `feature::ADMISSION`.
    pub new_flows_per_second: u32,
    /// New flows a source prefix may open in a second.
    pub source_flows_per_second: u32,
    /// Prefixes that new flows are limited by, as masks.
    pub source_mask_v4: Addr,
    pub source_mask_v6: Addr,
    /// The director's own IPv6 address: where errors about packets for a prefix come from, of whose addresses none need be
    /// the director's. Zero if it has none.
    pub own_v6: Addr,
    pub pad: u32,
}

/// Switches with the names and meanings of `net.ipv4.vs`.
pub mod switch {
    pub const SLOPPY_TCP: u32 = 1;
    pub const SLOPPY_SCTP: u32 = 1 << 1;
    pub const EXPIRE_NODEST_CONN: u32 = 1 << 2;
    pub const EXPIRE_QUIESCENT_TEMPLATE: u32 = 1 << 3;
    pub const SCHEDULE_ICMP: u32 = 1 << 4;
    pub const PMTU_DISC: u32 = 1 << 5;
    pub const SECURE_TCP: u32 = 1 << 6;
    /// Load as kernels since mid-2026 compute it, see [`crate::plan::overhead`].
    pub const OVERHEAD_2026: u32 = 1 << 7;
    /// There is no virtual service at all: IPVS then leaves every packet alone, those of flows it remembers included.
    pub const NO_SERVICES: u32 = 1 << 8;
}

impl Settings {
    #[inline(always)]
    pub const fn is_on(&self, switch: u32) -> bool {
        self.switches & switch != 0
    }
}

/// What the loaded program is compiled to do: a read-only word, so the verifier removes what is off.
pub mod feature {
    /// Services for any port.
    pub const ANY_PORT: u32 = 1;
    /// Services over prefixes and port ranges.
    pub const PREFIXES: u32 = 1 << 1;
    /// A CIDR deny list.
    pub const DENY: u32 = 1 << 2;
    /// A limit of new flows per source prefix.
    pub const SOURCE_LIMIT: u32 = 1 << 3;
    /// A limit of new flows per CPU.
    pub const ADMISSION: u32 = 1 << 4;
    pub const IPV6: u32 = 1 << 5;
    pub const PERSISTENCE: u32 = 1 << 6;
    pub const TUNNELS: u32 = 1 << 7;
    /// VLAN tags on either side.
    pub const VLAN: u32 = 1 << 8;
    pub const LOCALITY: u32 = 1 << 9;
    /// Thresholds on some server.
    pub const THRESHOLDS: u32 = 1 << 10;
    /// A TCP service on port 21.
    pub const FTP: u32 = 1 << 11;
    /// Services that remember flows: every one that is not declared stateless.
    pub const FLOWS: u32 = 1 << 12;
    pub const ALL: u32 = (1 << 13) - 1;
}
