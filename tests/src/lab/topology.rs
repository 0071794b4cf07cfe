//! The labs' topologies: which namespaces there are, how they are wired, which addresses they have.
//!
//! | network | IPv4 | IPv6 | hosts |
//! |---|---|---|---|
//! | clients | 198.51.100.0/24 | 2001:db8:100::/64 | router 1, client 10, 11 … |
//! | VIPs | 192.0.2.0/24 | 2001:db8::/64 | 1, 2 … on the loopback interface of director and real servers |
//! | servers | 10.0.0.0/24 | fd00::/64 | router (`routed`: gateway) 1, director 2 (not `routed`), real servers 11, 12 … |
//! | front (`two_arm`, `routed`) | 10.1.0.0/24 | fd00:1::/64 | router 1, director 2, gateway 3 |
//!
//! The router sends each VIP to the director. Real servers answer through their default gateway, the router or
//! `routed`'s gateway, never through the director. All segments are bridges in one namespace, the switch.

use std::collections::HashSet;
use std::net::IpAddr;

use super::LabError;
use super::address::{Dual, Family, Mac, Net};
use super::capture::Capture;
use super::client::Client;
use super::http::HttpServer;
use super::link::{self, ETHERNET_MTU, LinkCounters};
use super::site::{
    CLIENT_SYSCTLS, FORWARDING, GATEWAY, ROUTER, Segment, Site, become_real_server, connect_clients,
    default_routes, host_addresses, routes,
};
use super::trunk::Trunk;
use super::udp::UdpServer;
use crate::netns::{Namespace, unique_prefix};

const FIRST_CLIENT: u8 = 10;
const FIRST_REAL_SERVER: u8 = 11;
/// Most real servers, VIPs or client addresses, so that host numbers stay below 255.
const MOST: usize = 200;

/// Director, router and real servers on one segment; the director has one interface, `eth0`.
pub fn one_arm(real_servers: usize) -> Builder {
    Builder::new(Shape::OneArm, real_servers)
}

/// The director has an interface `front` towards the router and `back` towards the real servers; these answer through
/// a second leg of the router.
pub fn two_arm(real_servers: usize) -> Builder {
    Builder::new(Shape::TwoArm, real_servers)
}

/// The real servers are one router (the gateway) further from the director, whose one interface is `eth0`.
pub fn routed(real_servers: usize) -> Builder {
    Builder::new(Shape::Routed, real_servers)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    OneArm,
    TwoArm,
    Routed,
}

fn hosts(net: Net, first: u8, number: usize) -> Vec<Dual> {
    (first..).take(number).map(|host| net.host(host)).collect()
}

/// A lab to be built.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) shape: Shape,
    real_servers: usize,
    prefix: Option<String>,
    vips: usize,
    clients: usize,
    client_mtu: u32,
    server_mtu: u32,
    pub(super) vlans: Option<Vlans>,
    pub(super) bond: Option<&'static str>,
    bare_servers: bool,
}

/// VLAN ids of the director's tagged link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vlans {
    pub(super) front: u16,
    pub(super) back: u16,
}

impl Builder {
    fn new(shape: Shape, real_servers: usize) -> Self {
        Builder {
            shape,
            real_servers,
            prefix: None,
            vips: 1,
            clients: 1,
            client_mtu: ETHERNET_MTU,
            server_mtu: ETHERNET_MTU,
            vlans: None,
            bond: None,
            bare_servers: false,
        }
    }

    /// Names the namespaces `<prefix>-<role>` instead of `lb-<pid>-<n>-<role>`.
    pub fn named(self, prefix: impl Into<String>) -> Self {
        Builder { prefix: Some(prefix.into()), ..self }
    }

    /// This many VIPs instead of 1.
    pub fn vips(self, vips: usize) -> Self {
        Builder { vips, ..self }
    }

    /// This many client addresses instead of 1, all in the client's namespace.
    pub fn client_addresses(self, clients: usize) -> Self {
        Builder { clients, ..self }
    }

    /// MTU of every link but the client's, bytes, instead of 1500. A tunnel's outer header fits unfragmented when it is
    /// larger. From about 3500 on, frames reach XDP programs in several buffers.
    pub fn server_mtu(self, bytes: u32) -> Self {
        Builder { server_mtu: bytes, ..self }
    }

    /// MTU of the client's link, bytes, instead of 1500.
    pub fn client_mtu(self, bytes: u32) -> Self {
        Builder { client_mtu: bytes, ..self }
    }

    /// Tags the director's link with one VLAN id (`one_arm`, `routed`), 1 to 4094.
    ///
    /// The director's own network stack then hears nothing on it: there is no VLAN device, which the running kernel
    /// might not have. All neighbours the director needs, and the director at its neighbours, are entered as permanent
    /// ones, so that addresses and link-layer addresses are found where they are without tags.
    pub fn vlan(self, id: u16) -> Self {
        Builder { vlans: Some(Vlans { front: id, back: id }), ..self }
    }

    /// Makes `two_arm`'s director one-legged: one tagged link `eth0` carries two VLANs, 1 to 4094, one towards the
    /// router and one towards the real servers. For the rest, see [`Builder::vlan`].
    pub fn trunk(self, front: u16, back: u16) -> Self {
        Builder { vlans: Some(Vlans { front, back }), ..self }
    }

    /// Makes the director's one link (`one_arm`, `routed`) two, a bond of this mode (`active-backup`, `802.3ad` …) at both
    /// ends: `bond0` of `eth0` and `eth1`, and the port of `port0` and `port1`. The kernel must have the module `bonding`.
    pub fn bond(self, mode: &'static str) -> Self {
        Builder { bond: Some(mode), ..self }
    }

    /// Leaves the real servers as machines are before they become real servers: without VIPs, ARP answered for every
    /// address.
    pub fn bare_servers(self) -> Self {
        Builder { bare_servers: true, ..self }
    }

    pub fn build(self) -> Result<Lab, LabError> {
        self.check()?;
        let prefix = self.prefix.clone().unwrap_or_else(unique_prefix);
        let front = if self.shape == Shape::OneArm { Segment::SERVERS } else { Segment::FRONT };
        let mut site = Site::new(&prefix, self.server_mtu)?;
        let vips = hosts(Net::VIPS, 1, self.vips);
        let client_addresses = hosts(Net::CLIENTS, FIRST_CLIENT, self.clients);

        let client = site.namespace("client", &CLIENT_SYSCTLS)?;
        let router = site.namespace("router", &FORWARDING)?;
        connect_clients(&client, &router, &client_addresses, self.client_mtu)?;
        site.attach(&router, front, ROUTER)?;
        let (director, trunk) = site.director(&self, front)?;
        director.namespace.ip(host_addresses(&vips))?;
        director.namespace.ip(default_routes(front.net.host(ROUTER)))?;
        for vip in &vips {
            router
                .ip(routes([format!("{}/32", vip.v4), format!("{}/128", vip.v6)], director.front.address))?;
        }

        let mut gateway = None;
        match self.shape {
            Shape::OneArm => {}
            Shape::TwoArm => drop(site.attach(&router, Segment::SERVERS, ROUTER)?),
            Shape::Routed => {
                let namespace = site.namespace("gateway", &FORWARDING)?;
                site.attach(&namespace, Segment::FRONT, GATEWAY)?;
                site.attach(&namespace, Segment::SERVERS, ROUTER)?;
                namespace.ip(default_routes(Segment::FRONT.net.host(ROUTER)))?;
                for neighbour in [&director.namespace, &router] {
                    neighbour.ip(routes(Net::SERVERS.prefixes(), Segment::FRONT.net.host(GATEWAY)))?;
                }
                gateway = Some(namespace);
            }
        }
        let real_servers = (1..=self.real_servers)
            .zip(FIRST_REAL_SERVER..)
            .map(|(number, host)| site.real_server(format!("rs{number}"), host))
            .collect::<Result<Vec<_>, _>>()?;
        if !self.bare_servers {
            real_servers.iter().try_for_each(|server| become_real_server(&server.namespace, &vips))?;
        }
        if self.vlans.is_some() {
            site.introduce(&director)?;
        }
        let Site { switch, .. } = site;
        Ok(Lab {
            trunk,
            client,
            client_addresses,
            director,
            real_servers,
            vips,
            router,
            gateway,
            switch,
            prefix,
        })
    }

    fn check(&self) -> Result<(), LabError> {
        let wrong = |option, got: String, accepted| Err(LabError::Option { option, got, accepted });
        for (option, number) in
            [("real servers", self.real_servers), ("vips", self.vips), ("client_addresses", self.clients)]
        {
            if !(1..=MOST).contains(&number) {
                return wrong(option, number.to_string(), "1 to 200 are");
            }
        }
        for (option, mtu) in [("client_mtu", self.client_mtu), ("server_mtu", self.server_mtu)] {
            if !(1280..=9216).contains(&mtu) {
                return wrong(option, mtu.to_string(), "1280 (IPv6's least) to 9216 are");
            }
        }
        if let Some(Vlans { front, back }) = self.vlans {
            if let Some(id) = [front, back].into_iter().find(|id| !(1..=4094).contains(id)) {
                return wrong("VLAN id", id.to_string(), "1 to 4094 are");
            }
            if (self.shape == Shape::TwoArm) != (front != back) {
                let accepted = "trunk with two ids for two_arm, vlan for the others";
                return wrong("VLANs", format!("{front} and {back} for {:?}", self.shape), accepted);
            }
        }
        if let Some(mode) = self.bond
            && (self.shape == Shape::TwoArm || self.vlans.is_some())
        {
            return wrong("bond", mode.to_owned(), "one_arm and routed without VLANs are");
        }
        Ok(())
    }
}

/// A built lab. Dropping it removes its namespaces and all that is in them.
#[derive(Debug)]
pub struct Lab {
    // First, so that it ends before its interfaces do.
    trunk: Option<(Namespace, Trunk)>,
    pub client: Namespace,
    pub client_addresses: Vec<Dual>,
    pub director: Director,
    pub real_servers: Vec<RealServer>,
    pub vips: Vec<Dual>,
    pub router: Namespace,
    /// Between director and real servers, in `routed` alone.
    pub gateway: Option<Namespace>,
    /// Holds the segments: the bridges `servers` and `front`, with a port `s-<role>` or `f-<role>` for each host.
    pub switch: Namespace,
    prefix: String,
}

/// The director's namespace. VIPs are on `lo`, forwarding is off, the default route leads to the router.
#[derive(Debug)]
pub struct Director {
    pub namespace: Namespace,
    /// Towards router and clients.
    pub front: Nic,
    /// Towards the real servers; the same as `front` where the director has one leg in one segment.
    pub back: Nic,
}

/// An interface of the director.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub interface: String,
    pub mac: Mac,
    /// DIP.
    pub address: Dual,
    /// Tag of frames on this interface.
    pub vlan: Option<u16>,
    /// Other end of the cable; in the switch's namespace, or the trunk's where there are VLANs.
    pub port: String,
}

#[derive(Debug)]
pub struct RealServer {
    /// `rs1`, `rs2` …
    pub name: String,
    pub namespace: Namespace,
    /// RIP.
    pub address: Dual,
    /// Of its interface `eth0`.
    pub mac: Mac,
}

impl Lab {
    /// What the namespaces' names start with; a `-` and the role follow.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The first VIP.
    pub fn vip(&self, family: Family) -> IpAddr {
        self.vips[0].of(family)
    }

    /// Leaves the namespaces in place when this value is dropped, for [`crate::netns::remove_prefixed`] to remove.
    /// A tagged link ends with this value all the same: it is carried by a thread.
    pub fn keep(&mut self) {
        let shared = [&mut self.client, &mut self.director.namespace, &mut self.router, &mut self.switch];
        let servers = self.real_servers.iter_mut().map(|server| &mut server.namespace);
        let rest = self.gateway.iter_mut().chain(self.trunk.iter_mut().map(|(namespace, _)| namespace));
        shared.into_iter().chain(servers).chain(rest).for_each(Namespace::keep);
    }

    /// A client in the client's namespace.
    pub fn client(&self) -> Result<Client, LabError> {
        Client::start(&self.client)
    }

    /// An HTTP server on each real server, in order, on each of `ports`.
    pub fn http_servers(&self, ports: &[u16]) -> Result<Vec<HttpServer>, LabError> {
        let start = |server: &RealServer| HttpServer::start(&server.namespace, &server.name, ports);
        self.real_servers.iter().map(start).collect()
    }

    /// A UDP server on each real server, in order, on RIP and VIPs, on each of `ports`.
    pub fn udp_servers(&self, ports: &[u16]) -> Result<Vec<UdpServer>, LabError> {
        let start = |server: &RealServer| {
            let hosts = self.vips.iter().chain([&server.address]);
            let addresses: Vec<_> = hosts
                .flat_map(|host| Family::BOTH.map(|family| (host, family)))
                .flat_map(|(host, family)| ports.iter().map(move |port| host.socket(family, *port)))
                .collect();
            UdpServer::start(&server.namespace, &server.name, &addresses)
        };
        self.real_servers.iter().map(start).collect()
    }

    /// Frames the director's interfaces have passed, all protocols, XDP's included.
    pub fn director_counters(&self) -> Result<LinkCounters, LabError> {
        let interfaces: HashSet<&str> = self.director_nics().map(|nic| nic.interface.as_str()).collect();
        let mut sum = LinkCounters { rx_packets: 0, tx_packets: 0 };
        for interface in interfaces {
            let one = link::counters(&self.director.namespace, interface)?;
            sum.rx_packets += one.rx_packets;
            sum.tx_packets += one.tx_packets;
        }
        Ok(sum)
    }

    /// Records frames at the far end of the cable of one of the director's interfaces: everything the director gets
    /// ([`Sent`](super::capture::Direction::Sent), as the other end sees it) or sends (`Received`), XDP's included. In
    /// the director's own namespace, frames XDP sends back or redirects are not to be seen.
    pub fn capture(&self, nic: &Nic) -> Result<Capture, LabError> {
        Capture::start(self.cable_end(), &nic.port)
    }

    /// The namespace that holds the other ends of the director's cables, [`Nic::port`].
    pub fn cable_end(&self) -> &Namespace {
        self.trunk.as_ref().map_or(&self.switch, |(namespace, _)| namespace)
    }

    fn director_nics(&self) -> impl Iterator<Item = &Nic> {
        [&self.director.front, &self.director.back].into_iter()
    }
}
