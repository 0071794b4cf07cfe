//! Building blocks of the topologies: segments, hosts, and what each role's kernel is told.

use super::LabError;
use super::address::{Dual, Mac, Net};
use super::link::{End, connect, connect_director};
use super::topology::{Builder, Director, Nic, RealServer, Shape, Vlans};
use super::trunk::Trunk;
use super::xdp::{self, Verdict};
use crate::netns::Namespace;

/// Host number of a segment's way out: the router, or the gateway in front of the real servers.
pub(super) const ROUTER: u8 = 1;
/// Host number of the director.
const DIRECTOR: u8 = 2;
/// Host number of `routed`'s gateway on the director's segment.
pub(super) const GATEWAY: u8 = 3;

/// Of every host: addresses usable at once (no duplicate address detection), no autoconfiguration, packets accepted
/// whichever way replies would go.
const HOST_SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];

/// Enough ports for tens of thousands of connections to one address.
pub(super) const CLIENT_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_local_port_range", "10000 65000"), ("net.ipv4.tcp_tw_reuse", "1")];

/// Routers forward, and do not tell hosts of shorter ways.
pub(super) const FORWARDING: [(&str, &str); 4] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
];

/// As for DR and TUN: nothing is forwarded by the stack.
const DIRECTOR_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_forward", "0"), ("net.ipv6.conf.all.forwarding", "0")];

/// ARP is answered for addresses of the receiving interface alone and sent with addresses of the sending one, so that
/// the VIP on `lo` stays unannounced. (IPv6 neighbour discovery behaves so by itself.)
const REAL_SERVER_SYSCTLS: [(&str, &str); 4] = [
    ("net.ipv4.conf.all.arp_ignore", "1"),
    ("net.ipv4.conf.default.arp_ignore", "1"),
    ("net.ipv4.conf.all.arp_announce", "2"),
    ("net.ipv4.conf.default.arp_announce", "2"),
];

/// The switch has no addresses of its own.
const SWITCH_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")];

/// Namespace-wide switches of br_netfilter, which would look into bridged frames; absent where that is not loaded.
const BRIDGE_NETFILTER: [(&str, &str); 3] = [
    ("net.bridge.bridge-nf-call-iptables", "0"),
    ("net.bridge.bridge-nf-call-ip6tables", "0"),
    ("net.bridge.bridge-nf-call-arptables", "0"),
];

/// A layer-2 segment: a bridge in the switch, and the networks used on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Name of the bridge, and of the routers' interfaces on it.
    pub(super) name: &'static str,
    pub(super) net: Net,
    /// Distinguishes the segments' link-layer addresses.
    number: u8,
}

impl Segment {
    pub(super) const SERVERS: Segment = Segment { name: "servers", net: Net::SERVERS, number: 0 };
    pub(super) const FRONT: Segment = Segment { name: "front", net: Net::FRONT, number: 1 };

    /// Locally administered, readable: 02:00:00:<segment>:00:<host>.
    fn mac(self, host: u8) -> Mac {
        Mac([2, 0, 0, self.number, 0, host])
    }

    /// Name of the switch's port for a role.
    fn port(self, role: &str) -> String {
        format!("{}-{role}", &self.name[..1])
    }
}

/// A host's place on a segment.
#[derive(Debug, Clone)]
pub(super) struct Station {
    namespace: String,
    interface: String,
    segment: Segment,
    address: Dual,
    mac: Mac,
}

/// A lab in the making.
pub(super) struct Site<'a> {
    prefix: &'a str,
    mtu: u32,
    pub(super) switch: Namespace,
    stations: Vec<Station>,
}

impl<'a> Site<'a> {
    pub(super) fn new(prefix: &'a str, mtu: u32) -> Result<Self, LabError> {
        let switch = Namespace::create(&format!("{prefix}-switch"))?;
        switch.sysctl(&SWITCH_SYSCTLS)?;
        if switch.run(|| std::path::Path::new("/proc/sys/net/bridge").exists())? {
            switch.sysctl(&BRIDGE_NETFILTER)?;
        }
        for Segment { name, .. } in [Segment::SERVERS, Segment::FRONT] {
            switch.ip([
                // Ports forward at once; snooping would hold neighbour discovery's multicasts back.
                format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
                format!("link set {name} up"),
            ])?;
        }
        Ok(Site { prefix, mtu, switch, stations: Vec::new() })
    }

    pub(super) fn namespace(&self, role: &str, sysctls: &[(&str, &str)]) -> Result<Namespace, LabError> {
        let namespace = Namespace::create(&format!("{}-{role}", self.prefix))?;
        namespace.sysctl(&HOST_SYSCTLS)?;
        namespace.sysctl(sysctls)?;
        Ok(namespace)
    }

    /// Gives a router a leg in a segment.
    pub(super) fn attach(
        &mut self,
        namespace: &Namespace,
        segment: Segment,
        host: u8,
    ) -> Result<Station, LabError> {
        self.cable(namespace, segment.name, segment, host)
    }

    /// A cable from a host's new interface to a new port of the segment's bridge.
    fn cable(
        &mut self,
        namespace: &Namespace,
        interface: &str,
        segment: Segment,
        host: u8,
    ) -> Result<Station, LabError> {
        let role = namespace.name().rsplit('-').next().unwrap_or_default();
        let (port, mac) = (segment.port(role), segment.mac(host));
        let connect = if host == DIRECTOR { connect_director } else { connect };
        connect(
            &End { namespace, interface, mac: Some(mac) },
            &End { namespace: &self.switch, interface: &port, mac: None },
            self.mtu,
        )?;
        self.switch.ip([format!("link set {port} master {}", segment.name)])?;
        self.station(namespace, interface, segment, host, mac)
    }

    /// Gives an interface its address in a segment.
    fn station(
        &mut self,
        namespace: &Namespace,
        interface: &str,
        segment: Segment,
        host: u8,
        mac: Mac,
    ) -> Result<Station, LabError> {
        let address = segment.net.host(host);
        namespace.ip(interface_addresses(interface, &[address]))?;
        let (namespace, interface) = (namespace.name().to_owned(), interface.to_owned());
        let station = Station { namespace, interface, segment, address, mac };
        self.stations.push(station.clone());
        Ok(station)
    }

    /// The director with its interfaces, and the trunk that carries them if tagged.
    pub(super) fn director(
        &mut self,
        builder: &Builder,
        front: Segment,
    ) -> Result<(Director, Option<(Namespace, Trunk)>), LabError> {
        let namespace = self.namespace("director", &DIRECTOR_SYSCTLS)?;
        let segments = match builder.shape {
            Shape::OneArm | Shape::Routed => vec![front],
            Shape::TwoArm => vec![Segment::FRONT, Segment::SERVERS],
        };
        let (nics, trunk) = match (builder.vlans, builder.bond) {
            (None, None) => (self.untagged(&namespace, &segments)?, None),
            (None, Some(mode)) => (vec![self.bonded(&namespace, front, mode)?], None),
            (Some(Vlans { front, back }), _) => {
                let legs: Vec<_> = segments.into_iter().zip([front, back]).collect();
                let (nics, trunk) = self.tagged(&namespace, &legs)?;
                (nics, Some(trunk))
            }
        };
        let nic = |position: Option<&Nic>| position.cloned().expect("every shape has a segment");
        let (front, back) = (nic(nics.first()), nic(nics.last()));
        Ok((Director { namespace, front, back }, trunk))
    }

    fn untagged(&mut self, namespace: &Namespace, segments: &[Segment]) -> Result<Vec<Nic>, LabError> {
        let names = if segments.len() == 1 { ["eth0", ""] } else { ["front", "back"] };
        let mut nics = Vec::new();
        for (segment, interface) in segments.iter().zip(names) {
            let station = self.cable(namespace, interface, *segment, DIRECTOR)?;
            nics.push(station.nic(None, segment.port("director")));
        }
        Ok(nics)
    }

    /// Two cables between bonds.
    fn bonded(
        &mut self,
        director: &Namespace,
        segment: Segment,
        mode: &'static str,
    ) -> Result<Nic, LabError> {
        let (interface, mac, port) = ("bond0", segment.mac(DIRECTOR), segment.port("director"));
        // The link is watched closely, so that the other member takes over within some of a test's milliseconds.
        let bond = |name: &str| format!("link add {name} type bond mode {mode} miimon 20");
        director.ip([bond(interface), format!("link set {interface} address {mac}")])?;
        self.switch.ip([bond(&port)])?;
        for member in 0..2 {
            let members = [format!("eth{member}"), format!("port{member}")];
            connect(
                &End { namespace: director, interface: &members[0], mac: None },
                &End { namespace: &self.switch, interface: &members[1], mac: None },
                self.mtu,
            )?;
            for ((namespace, bond), member) in
                [(director, interface), (&self.switch, &port)].into_iter().zip(&members)
            {
                namespace
                    .ip([format!("link set {member} down"), format!("link set {member} master {bond}")])?;
            }
        }
        director.ip([format!("link set {interface} up")])?;
        self.switch
            .ip([format!("link set {port} master {}", segment.name), format!("link set {port} up")])?;
        // As `connect_director` does; the bond hands the program down to its members.
        xdp::attach(&self.switch, &port, Verdict::Pass)?;
        Ok(self.station(director, interface, segment, DIRECTOR, mac)?.nic(None, port))
    }

    /// One interface `eth0`, its cable's other end `trunk` in a namespace of the trunk's own, and from there an access
    /// link to each segment.
    fn tagged(
        &mut self,
        director: &Namespace,
        legs: &[(Segment, u16)],
    ) -> Result<(Vec<Nic>, (Namespace, Trunk)), LabError> {
        const TAG_BYTES: u32 = 4;
        let trunk = Namespace::create(&format!("{}-trunk", self.prefix))?;
        trunk.sysctl(&SWITCH_SYSCTLS)?;
        let mac = legs.first().map(|(segment, _)| segment.mac(DIRECTOR));
        connect_director(
            &End { namespace: director, interface: "eth0", mac },
            &End { namespace: &trunk, interface: "trunk", mac: None },
            self.mtu + TAG_BYTES,
        )?;
        director.ip([format!("link set eth0 mtu {}", self.mtu)])?;
        let (mut nics, mut access) = (Vec::new(), Vec::new());
        for (segment, vlan) in legs {
            let (port, interface) = (segment.port("director"), format!("vlan{vlan}"));
            connect(
                &End { namespace: &trunk, interface: &interface, mac: None },
                &End { namespace: &self.switch, interface: &port, mac: None },
                self.mtu,
            )?;
            self.switch.ip([format!("link set {port} master {}", segment.name)])?;
            let mac = mac.expect("there is a first leg");
            let station = self.station(director, "eth0", *segment, DIRECTOR, mac)?;
            nics.push(station.nic(Some(*vlan), "trunk".to_owned()));
            access.push((*vlan, interface));
        }
        let carrier = Trunk::start(&trunk, "trunk", &access)?;
        Ok((nics, (trunk, carrier)))
    }

    /// A host among the real servers, without VIPs.
    pub(super) fn real_server(&mut self, name: String, host: u8) -> Result<RealServer, LabError> {
        let namespace = self.namespace(&name, &[])?;
        let station = self.cable(&namespace, "eth0", Segment::SERVERS, host)?;
        namespace.ip(default_routes(Segment::SERVERS.net.host(ROUTER)))?;
        Ok(RealServer { name, namespace, address: station.address, mac: station.mac })
    }

    /// Makes director and the hosts on its segments permanent neighbours of each other.
    pub(super) fn introduce(&self, director: &Director) -> Result<(), LabError> {
        let is_director = |station: &&Station| station.namespace == director.namespace.name();
        for nic in self.stations.iter().filter(is_director) {
            let others =
                self.stations.iter().filter(|other| other.segment == nic.segment && !is_director(other));
            for other in others {
                for (at, of) in [(nic, other), (other, nic)] {
                    Namespace::open(&at.namespace)?.ip(neighbour(&at.interface, of))?;
                }
            }
        }
        Ok(())
    }
}

impl Station {
    fn nic(&self, vlan: Option<u16>, port: String) -> Nic {
        Nic { interface: self.interface.clone(), mac: self.mac, address: self.address, vlan, port }
    }
}

/// ARP is silenced before there are VIPs to answer for: the order every LVS manual gives.
pub(super) fn become_real_server(host: &Namespace, vips: &[Dual]) -> Result<(), LabError> {
    host.sysctl(&REAL_SERVER_SYSCTLS)?;
    host.ip(host_addresses(vips))?;
    Ok(())
}

/// The client's network: a cable between client and router.
pub(super) fn connect_clients(
    client: &Namespace,
    router: &Namespace,
    addresses: &[Dual],
    mtu: u32,
) -> Result<(), LabError> {
    connect(
        &End { namespace: client, interface: "eth0", mac: None },
        &End { namespace: router, interface: "clients", mac: None },
        mtu,
    )?;
    let gateway = Net::CLIENTS.host(ROUTER);
    router.ip(interface_addresses("clients", &[gateway]))?;
    client.ip(interface_addresses("eth0", addresses))?;
    client.ip(default_routes(gateway))?;
    Ok(())
}

fn interface_addresses(interface: &str, addresses: &[Dual]) -> Vec<String> {
    let (bits4, bits6) = (Net::V4_BITS, Net::V6_BITS);
    let add = |Dual { v4, v6 }: &Dual| {
        [
            format!("address add {v4}/{bits4} dev {interface}"),
            format!("address add {v6}/{bits6} dev {interface} nodad"),
        ]
    };
    addresses.iter().flat_map(add).collect()
}

/// Addresses of the host itself, on `lo`.
pub(super) fn host_addresses(addresses: &[Dual]) -> Vec<String> {
    let add = |Dual { v4, v6 }: &Dual| {
        [format!("address add {v4}/32 dev lo"), format!("address add {v6}/128 dev lo nodad")]
    };
    addresses.iter().flat_map(add).collect()
}

/// Routes to an IPv4 and an IPv6 prefix, or to `default`, through the neighbour's address of the same family.
pub(super) fn routes([v4, v6]: [String; 2], via: Dual) -> [String; 2] {
    [format!("route add {v4} via {}", via.v4), format!("route add {v6} via {}", via.v6)]
}

pub(super) fn default_routes(via: Dual) -> [String; 2] {
    routes(["default".to_owned(), "default".to_owned()], via)
}

fn neighbour(interface: &str, station: &Station) -> [String; 2] {
    let Station { address: Dual { v4, v6 }, mac, .. } = station;
    [
        format!("neighbour replace {v4} lladdr {mac} dev {interface} nud permanent"),
        format!("neighbour replace {v6} lladdr {mac} dev {interface} nud permanent"),
    ]
}
