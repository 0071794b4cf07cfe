//! Which service a packet is for, and what kinds of service there are.

use lb_common::counters::Reason;
use lb_common::net::proto;
use lb_common::plan::{PlanKind, hash_detail};
use lb_common::service::service_flag;

use super::protocols::{query, udp};
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, case, complaint, complaint6};
use crate::engine::{Fixture, Place, Plan, Service, dr, tcp};
use crate::packet::{Eth, eth};

fn to(vip: &'static str, port: u16) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |eth, ttl| eth.ipv4(CLIENT, vip).ttl(ttl).tcp(40001, port).syn().build()
}

/// A TCP packet of a client to port 80.
fn from(client: &'static str, port: u16, flags: &'static str) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |eth, ttl| eth.ipv4(client, VIP).ttl(ttl).tcp(port, 80).flags(flags).build()
}

fn within(prefix: &str, protocol: u8, from: u16, to: u16) -> Place {
    Place::Within(prefix.parse().expect("a prefix"), protocol, from, to)
}

/// Three services, each with a server of its own.
fn separate(services: [Service; 3]) -> Fixture {
    let mut fixture = Fixture::new();
    for (id, service) in (0..).zip(services) {
        let server = dr(["10.0.1.1", "10.0.1.2", "10.0.1.3"][id]).of_service(id as u16);
        fixture = fixture.service(service.plan(Plan::cycle(&[id as u32 + 1]))).server(server);
    }
    fixture
}

fn empty(flags: u32) -> Fixture {
    let service = |vip, protocol| Service::at(vip, protocol, 80).flags(flags);
    let fixture = Fixture::new().service(service(VIP, proto::TCP)).service(service(VIP6, proto::TCP));
    fixture.service(service(VIP, proto::UDP))
}

pub(super) fn cases() -> Vec<Case> {
    let any_port = || separate([tcp(VIP, 80), tcp(VIP, 0), Service::at(VIP, proto::UDP, 0)]);
    let prefixes = || {
        let many = |places: &[Place]| Service { places: places.to_vec(), ..tcp(VIP, 0) };
        separate([
            tcp(VIP, 80),
            many(&[within("192.0.2.0/24", 6, 80, 89), within("2001:db8:ff::/48", 6, 80, 80)]),
            many(&[within("192.0.0.0/16", 0, 0, 65535), within("192.0.2.128/25", 17, 53, 53)]),
        ])
    };
    let stateless = || {
        let slots: Vec<(u32, u32)> = (0..256).map(|at| if at == 110 { (2, 1) } else { (1, 1) }).collect();
        let plan = Plan::of(PlanKind::Hash, hash_detail::SH, &slots);
        let fixture = Fixture::new().service(tcp(VIP, 80).plan(plan).flags(service_flag::STATELESS));
        fixture.server(dr("10.0.1.1")).server(dr("10.0.1.2"))
    };
    vec![
        case("a service for any port takes what no other takes", any_port())
            .routes("10.0.1.1", to(VIP, 80))
            .routes("10.0.1.2", to(VIP, 81))
            .routes("10.0.1.2", to(VIP, 65535))
            .routes("10.0.1.3", |eth, ttl| eth.ipv4(CLIENT, VIP).ttl(ttl).udp(40001, 80).build())
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:65535: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40001 > 192.0.2.1:81: to 2, SYN_RECV, 60 s, active, half-open
                 flow udp 203.0.113.1:40001 > 192.0.2.1:80: to 3, UDP, 300 s, half-open
                 load 1: 1 active
                 load 2: 2 active
                 load 3: 1 inactive
                 reason transmitted 4
                 server 1: 1 connections, 1 packets, 40 bytes
                 server 2: 2 connections, 2 packets, 80 bytes
                 server 3: 1 connections, 1 packets, 28 bytes",
            ),
        case("without the feature there is no service for any port", Fixture { features: 0, ..any_port() })
            .routes("10.0.1.1", to(VIP, 80))
            .passes(to(VIP, 81)(eth(), 64), Reason::PassedNoService)
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason passed_no_service 1
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 40 bytes",
            ),
        case("the exact address comes before prefixes, the longer prefix before the shorter", prefixes())
            .routes("10.0.1.1", to(VIP, 80))
            .routes("10.0.1.2", to(VIP, 81))
            .routes("10.0.1.2", to("192.0.2.200", 80))
            .routes("10.0.1.3", to("192.0.2.200", 443))
            .routes("10.0.1.3", to("192.0.77.1", 80))
            .passes(to("192.1.0.1", 80)(eth(), 64), Reason::PassedNoService)
            .routes("10.0.1.2", |eth, ttl| {
                eth.ipv6(CLIENT6, "2001:db8:ff:1::1").ttl(ttl).tcp(40001, 80).syn().build()
            })
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40001 > 192.0.2.1:81: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40001 > 192.0.2.200:443: to 3, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40001 > 192.0.2.200:80: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40001 > 192.0.77.1:80: to 3, SYN_RECV, 60 s, active, half-open
                 flow tcp [2001:db8:1::1]:40001 > [2001:db8:ff:1::1]:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 load 2: 3 active
                 load 3: 2 active
                 reason passed_no_service 1
                 reason transmitted 6
                 server 1: 1 connections, 1 packets, 40 bytes
                 server 2: 3 connections, 3 packets, 140 bytes
                 server 3: 2 connections, 2 packets, 80 bytes",
            ),
        case("a removed prefix is nobody's", prefixes())
            .routes("10.0.1.3", to("192.0.77.1", 80))
            .changes(|fixture| fixture.services[2].places.truncate(0))
            .passes(to("192.0.77.2", 80)(eth(), 64), Reason::PassedNoService)
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.77.1:80: to 3, SYN_RECV, 60 s, active, half-open
                 load 3: 1 active
                 reason passed_no_service 1
                 reason transmitted 1
                 server 3: 1 connections, 1 packets, 40 bytes",
            ),
        case("a service without servers answers: port unreachable, also for TCP", empty(0))
            .replies(to(VIP, 80)(eth(), 64), Reason::RepliedNoDestination, |id| {
                complaint(id, 3, 3, 0, &eth().ipv4(CLIENT, VIP).tcp(40001, 80).syn().ip_bytes())
            })
            .replies(
                eth().ipv4(CLIENT, VIP).udp(40001, 80).payload_len(1000).build(),
                Reason::RepliedNoDestination,
                |id| {
                    let packet = eth().ipv4(CLIENT, VIP).udp(40001, 80).payload_len(1000).ip_bytes();
                    complaint(id, 3, 3, 0, &packet[..548])
                },
            )
            .replies(
                eth().ipv6(CLIENT6, VIP6).tcp(40001, 80).syn().payload_len(1301).build(),
                Reason::RepliedNoDestination,
                |_| {
                    let packet = eth().ipv6(CLIENT6, VIP6).tcp(40001, 80).syn().payload_len(1301).ip_bytes();
                    complaint6(1, 4, 0, &packet[..1232])
                },
            )
            .passes(from(CLIENT, 40001, "A")(eth(), 64), Reason::PassedNotOpening)
            .holds("reason passed_not_opening 1\nreason replied_no_destination 3"),
        case("an odd packet is quoted to its last byte, and padding is not", empty(0))
            .replies(
                [eth().ipv4(CLIENT, VIP).udp(40001, 80).payload_len(1).build(), vec![7; 17]].concat(),
                Reason::RepliedNoDestination,
                |id| complaint(id, 3, 3, 0, &eth().ipv4(CLIENT, VIP).udp(40001, 80).payload_len(1).ip_bytes()),
            )
            .holds("reason replied_no_destination 1"),
        case("a service told to be silent without servers drops", empty(service_flag::DROP_NO_DESTINATION))
            .drops(to(VIP, 80)(eth(), 64), Reason::DroppedNoDestination)
            .holds("reason dropped_no_destination 1"),
        case("a one-packet service schedules every packet and remembers none", {
            let mut fixture = udp();
            fixture.services[0].flags |= service_flag::ONE_PACKET;
            fixture
        })
        .routes("10.0.1.1", query(40001))
        .routes("10.0.1.2", query(40001))
        .routes("10.0.1.1", query(40001))
        .holds(
            "reason transmitted 3
             server 1: 2 connections, 2 packets, 96 bytes
             server 2: 1 connections, 1 packets, 48 bytes",
        ),
        case("a stateless service forwards every packet by hash and remembers none", stateless())
            .routes("10.0.1.2", from("198.51.100.9", 40001, "S"))
            .routes("10.0.1.2", from("198.51.100.9", 40001, "A"))
            .routes("10.0.1.1", from(CLIENT, 40001, "FA"))
            .passes(from(CLIENT, 40001, "R")(eth(), 64), Reason::PassedNotOpening)
            .holds(
                "reason passed_not_opening 1
                 reason transmitted 3
                 server 1: 0 connections, 1 packets, 40 bytes
                 server 2: 1 connections, 2 packets, 80 bytes",
            ),
        case("FTP's passive data finds its control connection's service, its active data none", {
            let mut fixture = Fixture::new().service(tcp(VIP, 21).persistent(300, "255.255.255.255"));
            fixture.services[0].plan = Plan::cycle(&[1, 2]);
            fixture.server(dr("10.0.1.1")).server(dr("10.0.1.2"))
        })
        .routes("10.0.1.1", to(VIP, 21))
        .routes("10.0.1.1", to(VIP, 50000))
        .passes(to(VIP, 1023)(eth(), 64), Reason::PassedNoService)
        .passes(eth().ipv4(CLIENT, VIP).tcp(20, 21).syn().build(), Reason::PassedFtpData)
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:21: to 1, SYN_RECV, 60 s, active, half-open, with a template
             flow tcp 203.0.113.1:40001 > 192.0.2.1:50000: to 1, SYN_RECV, 60 s, active, half-open, with a template
             load 1: 2 active, 1 templates
             reason passed_ftp_data 1
             reason passed_no_service 1
             reason transmitted 2
             server 1: 2 connections, 2 packets, 80 bytes
             template tcp 203.0.113.1:0 > 192.0.2.1:0: to 1, 300 s, timeout 300 s, 2 flows",
        ),
    ]
}
