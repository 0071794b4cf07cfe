//! Every method, family inside and outside, tags it came with and goes with, each with one packet of every kind.

use lb_common::counters::Reason;
use lb_common::net::proto;
use lb_common::server::{NO_VLAN, SERVICE_VLAN};

use super::forward::quoted;
use super::icmp::{about, about6};
use super::tunnels::{self, RIP, RIP6, Tunnel};
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, back, case, towards};
use crate::engine::{Fixture, Plan, Server, Service, dr};
use crate::packet::{Eth, eth};

/// Bytes of the largest packet on every link.
const MTU: usize = 1500;

/// Tags of a link. The numbers differ from those a packet came with.
#[derive(Clone, Copy)]
enum Tags {
    None,
    One,
    Two,
}

impl Tags {
    const ALL: [(Self, &str); 3] = [(Self::None, "no tag"), (Self::One, "one tag"), (Self::Two, "two tags")];

    fn of_client(self, eth: Eth) -> Eth {
        match self {
            Self::None => eth,
            Self::One => eth.vlan(9),
            Self::Two => eth.service_vlan(100).vlan(9),
        }
    }

    fn of_server(self, eth: Eth) -> Eth {
        match self {
            Self::None => eth,
            Self::One => eth.vlan(5),
            Self::Two => eth.service_vlan(200).vlan(5),
        }
    }

    fn vlan(self) -> [u16; 2] {
        match self {
            Self::None => [NO_VLAN; 2],
            Self::One => [5, NO_VLAN],
            Self::Two => [200 | SERVICE_VLAN, 5],
        }
    }
}

/// How a packet goes to its server.
#[derive(Clone, Copy)]
struct Way {
    /// `None`: direct routing.
    tunnel: Option<Tunnel>,
    rip: &'static str,
    tags: Tags,
}

impl Way {
    fn server(self) -> Server {
        self.tunnel.map_or_else(|| dr(self.rip), |tunnel| tunnel.server(self.rip)).vlan(self.tags.vlan())
    }

    /// Bytes in front of the packet.
    fn overhead(self) -> usize {
        let header = if self.rip == RIP { 20 } else { 40 };
        self.tunnel.map_or(0, |tunnel| header + tunnel.header())
    }

    /// The frame a server gets.
    fn frame(self, packet: &Sent, id: u32) -> Vec<u8> {
        let link = self.tags.of_server(towards(self.rip));
        let Some(tunnel) = self.tunnel else { return (packet.frame)(link, 63) };
        let outer = tunnels::outer_on(link, self.rip, id, packet.has_df);
        tunnel.wrap_from(packet.port, outer, &packet.ip())
    }
}

/// A packet of a client.
struct Sent {
    frame: Box<dyn Fn(Eth, u8) -> Vec<u8> + Send + Sync>,
    /// IPv4's, which an outer header takes over.
    has_df: bool,
    /// The client's port as far as the packet shows it.
    port: u16,
}

impl Sent {
    fn new(has_df: bool, port: u16, frame: impl Fn(Eth, u8) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { frame: Box::new(frame), has_df, port }
    }

    /// The IP packet, a hop on.
    fn ip(&self) -> Vec<u8> {
        (self.frame)(eth(), 63)[14..].to_vec()
    }
}

/// Addresses of one family.
#[derive(Clone, Copy)]
struct Inside {
    name: &'static str,
    client: &'static str,
    vip: &'static str,
    header: usize,
}

const INSIDE: [Inside; 2] = [
    Inside { name: "IPv4", client: CLIENT, vip: VIP, header: 20 },
    Inside { name: "IPv6", client: CLIENT6, vip: VIP6, header: 40 },
];

impl Inside {
    fn is_v4(self) -> bool {
        self.vip == VIP
    }

    fn services(self) -> Fixture {
        let at = |protocol, port| Service::at(self.vip, protocol, port).plan(Plan::cycle(&[1]));
        Fixture::new().service(at(proto::TCP, 80)).service(at(proto::UDP, 53))
    }

    /// A SYN of so many bytes of IP.
    fn segment(self, port: u16, length: usize) -> Sent {
        Sent::new(self.is_v4(), port, move |eth, ttl| {
            let tcp = eth.ip(self.client, self.vip).ttl(ttl).tcp(port, 80).syn();
            tcp.payload_len(length - self.header - 20).build()
        })
    }

    /// Packet `number` of a datagram that fits, or of one in two fragments, the first of 304 bytes.
    fn datagram(self, is_whole: bool, number: usize) -> Sent {
        let port = if number == 0 { 40001 } else { 0 };
        Sent::new(false, port, move |eth, ttl| {
            let udp = eth.ip(self.client, self.vip).ttl(ttl).id(7).udp(40001, 53).payload_len(601);
            let sizes: &[usize] = if is_whole { &[] } else { &[304] };
            udp.fragments(sizes).swap_remove(number)
        })
    }

    /// A router's complaint about an answer on the flow of port 40001.
    fn complaint(self) -> Sent {
        if self.is_v4() {
            Sent::new(false, 40001, about(3, 1, 0, 40001))
        } else {
            Sent::new(false, 40001, about6(1, 0, 40001))
        }
    }

    /// The answer to a packet larger than `mtu`.
    fn too_big(self, link: Eth, id: u32, mtu: usize, packet: Vec<u8>) -> Vec<u8> {
        let ip = link.ip(self.vip, self.client).ttl(64).id(id);
        if self.is_v4() {
            return ip.tos(0xc0).df(false).icmp_error(3, 4, mtu as u32, &quoted(packet)).build();
        }
        ip.icmp_error(2, 0, mtu as u32, &quoted(packet)).build()
    }

    /// All kinds of packets, one after the other.
    fn case(self, name: String, came: Tags, way: Way) -> Case {
        let mtu = MTU - way.overhead();
        let small = [
            self.segment(40001, mtu),
            self.datagram(true, 0),
            self.complaint(),
            self.datagram(false, 0),
            self.datagram(false, 1),
        ];
        let large = self.segment(40002, mtu + 1);
        let bytes = small.iter().chain([&large]).map(|packet| packet.ip().len()).sum::<usize>();
        let mut case = case(name, self.services().server(way.server()));
        for packet in small {
            let frame = (packet.frame)(came.of_client(eth()), 64);
            case = case.sends_with_id(frame, move |id| way.frame(&packet, id));
        }
        let frame = (large.frame)(came.of_client(eth()), 64);
        case = case.replies(frame, Reason::RepliedTooBig, move |id| {
            self.too_big(came.of_client(back()), id, mtu, large.ip())
        });
        let socket = |address: &str, port| {
            if self.is_v4() { format!("{address}:{port}") } else { format!("[{address}]:{port}") }
        };
        let (from, to) = (|port| socket(self.client, port), |port| socket(self.vip, port));
        case.holds(&format!(
            "flow tcp {} > {}: to 1, SYN_RECV, 60 s, active, half-open
             flow tcp {} > {}: to 1, SYN_RECV, 60 s, active, half-open
             flow udp {} > {}: to 1, UDP, 300 s
             load 1: 2 active, 1 inactive
             fragment {} > {} id 7 protocol {}: to 1, 30 s
             reason replied_too_big 1
             reason transmitted 5
             server 1: 3 connections, 6 packets, {bytes} bytes",
            from(40001),
            to(80),
            from(40002),
            to(80),
            from(40001),
            to(53),
            self.client,
            self.vip,
            if self.is_v4() { proto::UDP } else { 0 },
        ))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let tunnels = tunnels::ALL.map(|(tunnel, name)| (Some(tunnel), name));
    let mut cases = Vec::new();
    for (tunnel, method) in [(None, "DR")].into_iter().chain(tunnels) {
        for inside in INSIDE {
            for (rip, outside) in [(RIP, "IPv4"), (RIP6, "IPv6")] {
                // Direct routing has no outside.
                if tunnel.is_none() && inside.name != outside {
                    continue;
                }
                for (came, with) in Tags::ALL {
                    for (tags, to) in Tags::ALL {
                        let name = format!(
                            "{method} over {outside} to {to} takes every kind of {} with {with}",
                            inside.name
                        );
                        cases.push(inside.case(name, came, Way { tunnel, rip, tags }));
                    }
                }
            }
        }
    }
    cases
}
