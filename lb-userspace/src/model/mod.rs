//! What the director is asked to do: the configuration after validation.
//!
//! Nothing in here needs parsing or checking again. Addresses are addresses, durations are durations, names from
//! a closed list are enums; the only strings left are names (of services and interfaces). Two models compare
//! equal exactly when they ask for the same thing, which is how a reload finds out that nothing changed.
//! A model is built by [`crate::config`] and never changed afterwards.

/// Makes an enum one of a closed list of words in the file: read and printed under the names strum's attributes give it,
/// with the `#[default]` that an absent key means.
macro_rules! choice {
    ($item:item) => {
        #[derive(
            Clone,
            Copy,
            Debug,
            Default,
            PartialEq,
            Eq,
            strum::Display,
            strum::EnumString,
            strum::IntoStaticStr,
            strum::VariantNames,
        )]
        $item
    };
}

mod general;
mod net;
mod service;

pub use general::{
    Admission, AttachMode, FlowTables, Interface, IpvsKnobs, OnExit, Overhead, PerSourceLimit,
    StaticNeighbour, Timeouts, TunnelSource, TunnelSources, VipOwner,
};
pub use net::{Family, Mac, MacError, Port, PortRange, Ports, Protocol};
pub use service::{
    ClientMask, MAX_THRESHOLD, MAX_WEIGHT, Match, Method, NoDestination, Persistence, Scheduler,
    SchedulerFlags, Selector, Server, Service,
};

use std::path::PathBuf;

/// The whole validated configuration of one director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Where the XDP program attaches: at least one, each name once, in the order of the file.
    pub interfaces: Vec<Interface>,
    /// What becomes of the attached program when the daemon is told to stop.
    pub on_exit: OnExit,
    /// Absolute path of the API's Unix socket, short enough for `sockaddr_un`.
    pub socket: PathBuf,
    /// Absolute path of the folder on a bpffs that holds maps, programs and links.
    pub pin: PathBuf,
    /// Who gives this host its VIPs.
    pub vips: VipOwner,
    /// Capacity of the flow tables.
    pub flows: FlowTables,
    /// Idle timeouts an operator may change.
    pub timeouts: Timeouts,
    /// Behaviour under the names of IPVS's sysctls.
    pub ipvs: IpvsKnobs,
    /// Which packets are turned away before they cost anything.
    pub admission: Admission,
    /// ICMP errors the director may send per second and CPU; 0 sends none.
    pub icmp_errors_per_second: u32,
    /// Next hops given by hand, which override what the kernel's neighbour table says; each (address, interface)
    /// once.
    pub neighbours: Vec<StaticNeighbour>,
    /// Source addresses of the tunnels' outer headers.
    pub tunnel_source: TunnelSources,
    /// Virtual services in the order of the file; names are unique and no two claim the same packets.
    pub services: Vec<Service>,
}
