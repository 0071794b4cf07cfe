//! Everything that is not a virtual service: where the program runs, its capacity, its limits.
//! `Default` is what an absent key means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use ipnet::IpNet;

use super::Mac;

/// A network interface the XDP program attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// A name the kernel accepts: 1 to 15 bytes.
    pub name: String,
    pub mode: AttachMode,
}

choice! {
    /// How the program attaches to an interface.
    #[strum(serialize_all = "lowercase")]
    pub enum AttachMode {
        /// In the driver, or, with a warning, in the generic hook if the driver cannot.
        #[default]
        Auto,
        /// In the driver or not at all.
        Native,
        /// In the generic hook, after the kernel has built its packet buffer.
        Generic,
    }
}

choice! {
    /// What SIGTERM does to the attached program.
    #[strum(serialize_all = "lowercase")]
    pub enum OnExit {
        /// Detach it and remove the pins: balancing stops with the daemon.
        #[default]
        Detach,
        /// Leave it attached and pinned: the datapath goes on from the last plan.
        Keep,
    }
}

choice! {
    /// Who gives this host its VIPs.
    #[strum(serialize_all = "lowercase")]
    pub enum VipOwner {
        /// Somebody else: keepalived, BIRD, the network configuration, an upstream route.
        #[default]
        External,
        /// The daemon: it adds the VIPs to an interface, announces them, and removes them again.
        Manage,
    }
}

/// How many flows the tables can hold, in ways; powers of two from [`FlowTables::MIN`] to [`FlowTables::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTables {
    pub ipv4: u32,
    pub ipv6: u32,
}

impl FlowTables {
    pub const MIN: u32 = 1 << 10;
    pub const MAX: u32 = 1 << 26;
}

impl Default for FlowTables {
    fn default() -> Self {
        Self { ipv4: 1 << 20, ipv6: 1 << 17 }
    }
}

/// Idle timeouts that `ipvsadm --set` may change; whole seconds, 1 second to 31 days. All other states keep the
/// timeouts built into IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub tcp: Duration,
    /// TCP FIN_WAIT.
    pub tcp_fin: Duration,
    pub udp: Duration,
}

impl Default for Timeouts {
    /// IPVS's: 900, 120 and 300 seconds.
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(900),
            tcp_fin: Duration::from_secs(120),
            udp: Duration::from_secs(300),
        }
    }
}

/// The `net.ipv4.vs.*` sysctls that mean something to this director, under their own names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpvsKnobs {
    /// A TCP packet that is neither SYN nor RST may open a flow.
    pub sloppy_tcp: bool,
    /// An SCTP packet whose first chunk is neither INIT nor ABORT may open a flow.
    pub sloppy_sctp: bool,
    /// When a SYN that hits an existing flow is scheduled anew; 0 to 3. Not 0: if the flow is in TIME_WAIT or
    /// CLOSE. Bit 1: also in FIN_WAIT when the replies are not seen, which is always so for DR and TUN.
    pub conn_reuse_mode: u8,
    /// A flow whose server is removed (or, on a SYN, drained) is forgotten instead of dropped silently.
    pub expire_nodest_conn: bool,
    /// A persistence template whose server is drained is not used any more.
    pub expire_quiescent_template: bool,
    /// An ICMP error about an unknown flow may open it.
    pub schedule_icmp: bool,
    /// Tunnel headers copy DF. A packet too big for the path is answered with an ICMP error in any case.
    pub pmtu_disc: bool,
    /// The stricter TCP transitions: 3 in the file; `false` is 0. The automatic modes do not exist here.
    pub secure_tcp: bool,
    /// After how long unused a destination of an `lblc` service is forgotten; whole seconds, 1 s to 31 days.
    pub lblc_expiration: Duration,
    /// As `lblc_expiration`, for `lblcr`; also how often the busiest server leaves a destination's set.
    pub lblcr_expiration: Duration,
    /// The cost function of lc, wlc, lblc, lblcr and twos.
    pub overhead: Overhead,
}

impl Default for IpvsKnobs {
    fn default() -> Self {
        Self {
            sloppy_tcp: false,
            sloppy_sctp: false,
            conn_reuse_mode: 1,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            schedule_icmp: false,
            pmtu_disc: true,
            secure_tcp: false,
            lblc_expiration: Duration::from_secs(86_400),
            lblcr_expiration: Duration::from_secs(86_400),
            overhead: Overhead::Classic,
        }
    }
}

choice! {
    /// What a server's flows cost, as kernels before and after mid-2026 compute it.
    pub enum Overhead {
        /// `256 * active + inactive`.
        #[default]
        #[strum(serialize = "classic")]
        Classic,
        /// `257 * active + inactive`.
        #[strum(serialize = "2026")]
        Since2026,
    }
}

/// Which packets are turned away early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// New flows per second and CPU that are remembered; above it they are forwarded by plan without a flow.
    /// `None` is no limit.
    pub new_flows_per_second: Option<NonZeroU32>,
    /// Limit for each source prefix; `None` is off.
    pub per_source: Option<PerSourceLimit>,
    /// Sources whose packets to a VIP are dropped; no host bits set, each prefix once.
    pub deny: Vec<IpNet>,
}

/// How many new flows the clients of one prefix may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSourceLimit {
    /// Bits of an IPv4 source that count as one source; 1 to 32.
    pub prefix4: u8,
    /// Bits of an IPv6 source that count as one source; 1 to 128.
    pub prefix6: u8,
    pub new_flows_per_second: NonZeroU32,
}

/// A next hop given by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNeighbour {
    /// Unicast address of the next hop, usually a real server's.
    pub address: IpAddr,
    /// Unicast.
    pub mac: Mac,
    /// Interface the next hop is behind.
    pub interface: String,
    /// VLAN tag the frame needs, 1 to 4094; `None` is untagged.
    pub vlan: Option<NonZeroU16>,
}

/// Source addresses of the tunnels' outer headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelSources {
    pub ipv4: TunnelSource<Ipv4Addr>,
    pub ipv6: TunnelSource<Ipv6Addr>,
    /// The last bits of the address differ from flow to flow, so that the servers' NICs spread the tunnel over
    /// their queues.
    pub vary: bool,
}

/// Source address of the outer header for one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelSource<A> {
    /// What the kernel chooses for the route to the server.
    #[default]
    Auto,
    /// This unicast address.
    Address(A),
}
