//! The kernel's routing decision.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH};
use rtnetlink::{
    packet_core::NLM_F_REQUEST,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
    },
};

use super::{Netlink, NetlinkError};

/// Where a packet of the director's own to some address would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of an interface.
    Unicast(Via),
    /// Nowhere: it is an address of the director.
    Local(Via),
    /// No route matches.
    None,
    /// A route says `unreachable`.
    Unreachable,
    /// A route says `blackhole`.
    Blackhole,
    /// A route says `prohibit`.
    Prohibited,
    /// A route that a plain Ethernet frame cannot follow; says why, as in "it is a multicast route".
    Unusable(String),
}

/// The way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    pub ifindex: u32,
    /// Router to hand the packet to; `None` if the destination is on the interface's own link. May be IPv6 for an
    /// IPv4 destination (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// Source the kernel would give the packet; `None` if it has no address of that family.
    pub source: Option<IpAddr>,
    /// The route's own limit in bytes of IP packet, configured or learnt by path MTU discovery.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// The kernel's route to `destination`, through `oif` if given (as a socket bound to that interface would be
    /// routed). Of several next hops of equal cost it is the one the kernel picks for traffic between the director
    /// and `destination`.
    ///
    /// IPv4 answers for a forbidden destination with an errno, IPv6 with a route of that type; both are told alike.
    pub async fn route(&self, destination: IpAddr, oif: Option<u32>) -> Result<Route, NetlinkError> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        message.attributes.extend(oif.map(RouteAttribute::Oif));

        let what = format!("look up the route to {destination}");
        match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST, &what).await {
            Ok(answers) => answers
                .into_iter()
                .find_map(|answer| match answer {
                    RouteNetlinkMessage::NewRoute(route) => Some(Route::from_message(&route)),
                    _ => None,
                })
                .flatten()
                .ok_or(NetlinkError::Incomplete { what, missing: "route with an interface" }),
            Err(error) => match error.errno() {
                Some(ENETUNREACH) => Ok(Route::None),
                Some(EHOSTUNREACH) => Ok(Route::Unreachable),
                Some(EINVAL) => Ok(Route::Blackhole),
                Some(EACCES) => Ok(Route::Prohibited),
                _ => Err(error),
            },
        }
    }
}

impl Route {
    fn from_message(message: &RouteMessage) -> Option<Self> {
        let kind = message.header.kind;
        match kind {
            RouteType::Unreachable => return Some(Self::Unreachable),
            RouteType::BlackHole => return Some(Self::Blackhole),
            RouteType::Prohibit => return Some(Self::Prohibited),
            RouteType::Unicast | RouteType::Local => {}
            other => return Some(Self::Unusable(format!("it is a {other:?} route").to_lowercase())),
        }
        let mut ifindex = None;
        let (mut gateway, mut source, mut mtu) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::Gateway(address) => gateway = ip(address),
                RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
                RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::EncapType(encapsulation) => {
                    return Some(Self::Unusable(
                        format!("it encapsulates ({encapsulation:?})").to_lowercase(),
                    ));
                }
                _ => {}
            }
        }
        let via = Via { ifindex: ifindex?, gateway, source, mtu: mtu.filter(|&mtu| mtu != 0) };
        Some(if kind == RouteType::Local { Self::Local(via) } else { Self::Unicast(via) })
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) if *a != Ipv4Addr::UNSPECIFIED => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) if *a != Ipv6Addr::UNSPECIFIED => Some(IpAddr::V6(*a)),
        _ => None,
    }
}
