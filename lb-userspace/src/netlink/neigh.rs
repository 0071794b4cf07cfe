//! Neighbours: the kernel's ARP and NDP tables.

use std::net::IpAddr;

use libc::{EINVAL, ENOENT};
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};

use super::{Mac, Netlink, NetlinkError, collect};

/// What the kernel thinks of a neighbour's MAC: the states of RFC 4861 section 7.3.2 and Linux's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NeighState {
    /// An entry nobody has asked about.
    None,
    /// Asked for the first time, no answer yet.
    Incomplete,
    /// Confirmed within the last `base_reachable_time`.
    Reachable,
    /// Not confirmed lately, presumed right.
    Stale,
    /// As stale, and used: will be probed in `delay_first_probe_time`.
    Delay,
    /// Being asked again, at the MAC known so far.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution, such as a broadcast address.
    NoArp,
    /// Configured by the administrator, never asked about.
    Permanent,
}

/// An entry of the kernel's neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub ifindex: u32,
    pub address: IpAddr,
    /// `None` until it answered. The kernel may still tell a MAC in state `Failed`: it is not to be used.
    pub mac: Option<Mac>,
    pub state: NeighState,
}

impl Neighbour {
    /// `None` for what is no IP neighbour, such as a bridge's forwarding entry, and for proxy entries.
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        if message.header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        let (mut address, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => address = Some(IpAddr::V4(*a)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => address = Some(IpAddr::V6(*a)),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
                _ => {}
            }
        }
        let state = match message.header.state {
            NeighbourState::Incomplete => NeighState::Incomplete,
            NeighbourState::Reachable => NeighState::Reachable,
            NeighbourState::Stale => NeighState::Stale,
            NeighbourState::Delay => NeighState::Delay,
            NeighbourState::Probe => NeighState::Probe,
            NeighbourState::Failed => NeighState::Failed,
            NeighbourState::Noarp => NeighState::NoArp,
            NeighbourState::Permanent => NeighState::Permanent,
            _ => NeighState::None,
        };
        Some(Self { ifindex: message.header.ifindex, address: address?, mac, state })
    }
}

impl Netlink {
    /// All neighbours, both families.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let messages = collect(self.handle.neighbours().get().execute(), "list neighbours").await?;
        Ok(messages.iter().filter_map(Neighbour::from_message).collect())
    }

    /// One neighbour; `None` if the kernel has no entry for it.
    pub async fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Option<Neighbour>, NetlinkError> {
        let what = format!("look up neighbour {address} on interface {ifindex}");
        let request = RouteNetlinkMessage::GetNeighbour(entry(ifindex, address));
        match self.request(request, NLM_F_REQUEST, &what).await {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Neighbour::from_message(message),
                _ => None,
            })),
            Err(error) if error.errno() == Some(ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel find a neighbour's MAC, as if it had a packet to send (`ip neigh replace … use`): broadcast ARP
    /// or multicast NDP, three times a second apart by default, ending in `Reachable` or `Failed`. Does nothing while
    /// that is going on. A stale neighbour is confirmed, five seconds later.
    ///
    /// Not for `Permanent` neighbours: since Linux 5.16 it would make them ordinary. Needs `CAP_NET_ADMIN`.
    pub async fn solicit(&self, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let what = format!("ask for the MAC of {address} on interface {ifindex}");
        let mut message = entry(ifindex, address);
        message.header.flags = NeighbourFlags::Use;
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewNeighbour(message), flags, &what).await.map(drop)
    }

    /// Has the kernel confirm a neighbour at the MAC it knows, at once and by unicast (`nud probe`); the MAC stays
    /// in use meanwhile. Three unanswered probes end in `Failed`. If the kernel knows no MAC, as [`Self::solicit`].
    /// Needs `CAP_NET_ADMIN`.
    pub async fn probe(&self, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let what = format!("confirm the MAC of {address} on interface {ifindex}");
        let mut message = entry(ifindex, address);
        message.header.state = NeighbourState::Probe;
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE;
        match self.request(RouteNetlinkMessage::NewNeighbour(message), flags, &what).await {
            Ok(_) => Ok(()),
            // The entry went away, or has no MAC to ask at.
            Err(error) if matches!(error.errno(), Some(ENOENT | EINVAL)) => {
                self.solicit(ifindex, address).await
            }
            Err(error) => Err(error),
        }
    }
}

fn entry(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}
