//! Who may open flows, how many, and what becomes of those there is no room for.

use lb_common::counters::Reason;
use lb_common::hash::stateless;
use lb_common::net::Addr;
use lb_common::settings::feature;

use super::flows::{three, with};
use super::forward::{data, one, opened};
use super::protocols::{query, udp};
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, case, complaint};
use crate::engine::{Fixture, Plan, dr};
use crate::packet::{Address, eth};

/// The server that a flow from this port has in a cycle of three while nothing is remembered.
fn by_hash(port: u16) -> &'static str {
    let hash = stateless(&Addr::from(CLIENT.address()), port);
    ["10.0.1.1", "10.0.1.2", "10.0.1.3"][hash as usize % 3]
}

/// A port from `from` on whose flow has this server by hash.
fn port_of(rip: &str, from: u16) -> u16 {
    (from..).find(|port| by_hash(*port) == rip).expect("every server has some")
}

/// Opens and establishes flows from these ports with the only server.
fn established(case: Case, ports: std::ops::Range<u16>) -> Case {
    ports
        .fold(case, |case, port| case.routes("10.0.1.1", with("S", port)).routes("10.0.1.1", with("A", port)))
}

pub(super) fn cases() -> Vec<Case> {
    let limited = |flows| Fixture { new_flows_per_second: flows, ..three() };
    let (third, other) = (port_of("10.0.1.3", 40003), port_of("10.0.1.3", 41000));
    vec![
        case("a denied prefix gets through to no service, and to everything else", three().deny("203.0.113.0/25"))
            .drops(with("S", 40001)(eth(), 64), Reason::DroppedDenied)
            .drops(with("A", 40001)(eth(), 64), Reason::DroppedDenied)
            .passes(eth().ipv4(CLIENT, "192.0.2.9").tcp(40001, 80).syn().build(), Reason::PassedNoService)
            .routes("10.0.1.1", |eth, ttl| {
                eth.ipv4("203.0.113.128", VIP).ttl(ttl).tcp(40001, 80).syn().build()
            })
            .holds(
                "flow tcp 203.0.113.128:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason dropped_denied 2
                 reason passed_no_service 1
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 40 bytes",
            ),
        case("a prefix that is denied loses its flows, and has them again when it is allowed", three())
            .routes("10.0.1.1", with("S", 40001))
            .changes(|fixture| fixture.denied.push("203.0.113.1/32".parse().expect("a prefix")))
            .drops(with("A", 40001)(eth(), 64), Reason::DroppedDenied)
            .changes(|fixture| fixture.denied.clear())
            .routes("10.0.1.1", with("A", 40001))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active
                 load 1: 1 active
                 reason dropped_denied 1
                 reason transmitted 2
                 server 1: 1 connections, 2 packets, 80 bytes",
            ),
        case("an IPv6 prefix is denied", one(dr("fd00::1:1")).deny("2001:db8:1::/48"))
            .drops(eth().ipv6(CLIENT6, VIP6).tcp(40001, 80).syn().build(), Reason::DroppedDenied)
            .holds("reason dropped_denied 1"),
        case("without the feature nobody is denied", Fixture { features: 0, ..three().deny("0.0.0.0/0") })
            .routes("10.0.1.1", with("S", 40001))
            .holds(&opened(40, "reason transmitted 1")),
        case("a network that opens more flows than allowed waits for the next second", {
            Fixture { features: feature::ALL, source_flows_per_second: 2, ..three() }
        })
        .routes("10.0.1.1", with("S", 40001))
        .routes("10.0.1.2", with("S", 40002))
        .drops(with("S", 40003)(eth(), 64), Reason::DroppedSourceLimit)
        .routes("10.0.1.1", with("A", 40001))
        .routes("10.0.1.3", |eth, ttl| eth.ipv4("203.0.114.1", VIP).ttl(ttl).tcp(40001, 80).syn().build())
        .waits(1)
        .routes("10.0.1.1", with("S", 40003))
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 899 s, active
             flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 2, SYN_RECV, 59 s, active, half-open
             flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
             flow tcp 203.0.114.1:40001 > 192.0.2.1:80: to 3, SYN_RECV, 59 s, active, half-open
             load 1: 2 active
             load 2: 1 active
             load 3: 1 active
             reason dropped_source_limit 1
             reason transmitted 5
             server 1: 2 connections, 3 packets, 120 bytes
             server 2: 1 connections, 1 packets, 40 bytes
             server 3: 1 connections, 1 packets, 40 bytes
             source 203.0.113.0: 1
             source 203.0.114.0: 1",
        ),
        case("flows over the admission limit are forwarded by hash, all of their packets, also when the flood is over", limited(2))
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.2", with("S", 40002))
            .routes("10.0.1.3", with("S", third))
            .routes("10.0.1.3", with("A", third))
            .waits(1)
            .routes("10.0.1.3", with("A", third))
            .routes("10.0.1.3", with("FA", third))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 59 s, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 2, SYN_RECV, 59 s, active, half-open
                 load 1: 1 active
                 load 2: 1 active
                 note flows_over_admission 1
                 reason transmitted 6
                 server 1: 1 connections, 1 packets, 40 bytes
                 server 2: 1 connections, 1 packets, 40 bytes
                 server 3: 1 connections, 4 packets, 160 bytes",
            ),
        case("a minute after a flood unknown flows are the stack's again", limited(1))
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.3", with("S", third))
            .waits(10)
            .routes("10.0.1.3", with("A", other))
            .waits(62)
            .passes(with("A", other)(eth(), 64), Reason::PassedNotOpening)
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, over, active, half-open
                 load 1: 1 active
                 note flows_over_admission 1
                 reason passed_not_opening 1
                 reason transmitted 3
                 server 1: 1 connections, 1 packets, 40 bytes
                 server 3: 1 connections, 2 packets, 80 bytes",
            ),
        case("answers over the ICMP limit are withheld until the next second", Fixture { icmp_per_second: 1, ..three() })
            .replies(data(eth(), 1, 0).build(), Reason::RepliedTtl, |id| {
                complaint(id, 11, 0, 0, &data(eth(), 1, 0).ip_bytes())
            })
            .drops(data(eth(), 1, 0).build(), Reason::DroppedTtl)
            .changes(|fixture| fixture.servers[0].mtu = 30)
            .drops(data(eth(), 9, 0).build(), Reason::DroppedTooBig)
            .changes(|fixture| fixture.services[0].plan = Plan::none())
            .drops(with("S", 40002)(eth(), 64), Reason::DroppedNoDestination)
            .waits(1)
            .replies(with("S", 40002)(eth(), 64), Reason::RepliedNoDestination, |id| {
                complaint(id, 3, 3, 0, &with("S", 40002)(eth(), 64)[14..])
            })
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 59 s, active, half-open
                 load 1: 1 active
                 reason dropped_no_destination 1
                 reason dropped_too_big 1
                 reason dropped_ttl_exceeded 1
                 reason replied_no_destination 1
                 reason replied_ttl_exceeded 1
                 server 1: 1 connections, 3 packets, 120 bytes",
            ),
        case("an ICMP limit of 0 is silence", Fixture { icmp_per_second: 0, ..three() })
            .drops(data(eth(), 1, 0).build(), Reason::DroppedTtl)
            .holds(&opened(40, "reason dropped_ttl_exceeded 1")),
        case("thresholds: a full server is passed by until it has fewer than its lower", {
            let mut fixture = udp();
            fixture.servers[0] = dr("10.0.1.1").thresholds(2, 2);
            fixture
        })
        .routes("10.0.1.1", query(40001))
        .routes("10.0.1.2", query(40002))
        .routes("10.0.1.1", query(40003))
        .routes("10.0.1.2", query(40004))
        .routes("10.0.1.2", query(40005))
        .routes("10.0.1.1", query(40003))
        .waits(301)
        .routes("10.0.1.1", query(40001))
        .routes("10.0.1.2", query(40006))
        .holds(
            "flow udp 203.0.113.1:40001 > 192.0.2.1:53: to 1, UDP, 300 s, half-open
             flow udp 203.0.113.1:40002 > 192.0.2.1:53: to 2, UDP, over, half-open
             flow udp 203.0.113.1:40003 > 192.0.2.1:53: to 1, UDP, over
             flow udp 203.0.113.1:40004 > 192.0.2.1:53: to 2, UDP, over, half-open
             flow udp 203.0.113.1:40005 > 192.0.2.1:53: to 2, UDP, over, half-open
             flow udp 203.0.113.1:40006 > 192.0.2.1:53: to 2, UDP, 300 s, half-open
             load 1: 2 inactive, overloaded
             load 2: 4 inactive
             reason transmitted 8
             server 1: 3 connections, 4 packets, 192 bytes
             server 2: 4 connections, 4 packets, 192 bytes",
        ),
        half_open(),
        spilled(),
    ]
}

/// In a full bucket the oldest half-open flow gives way, and no established one.
fn half_open() -> Case {
    let name = "when the tables are full the oldest half-open flow gives way to a new one";
    let mut case = established(case(name, one(dr("10.0.1.1"))).in_tiny_tables(), 40001..40007);
    case = case.routes("10.0.1.1", with("S", 40007)).waits(5).routes("10.0.1.1", with("S", 40008));
    let mut state = String::from(
        "flow tcp 203.0.113.1:40008 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
         flow tcp 203.0.113.1:40009 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
         load 1: 8 active
         note flows_evicted_half_open 1
         reason transmitted 15
         server 1: 9 connections, 15 packets, 600 bytes\n",
    );
    for port in 40001..40007 {
        let flow = format!("flow tcp 203.0.113.1:{port} > 192.0.2.1:80");
        state += &format!("{flow}: to 1, ESTABLISHED, 895 s, active\n");
    }
    case.routes("10.0.1.1", with("S", 40009)).holds(&state)
}

/// Eight established flows fill the bucket, sixteen more the spill map, and the rest is forwarded without memory.
fn spilled() -> Case {
    let name = "flows beyond full tables spill, those beyond that are forwarded without being remembered";
    let mut case = established(case(name, one(dr("10.0.1.1"))).in_tiny_tables(), 40001..40026);
    let mut state = String::from(
        "load 1: 23 active
         load 1: 1 inactive
         note flows_spilled 16
         note flows_not_remembered 1
         reason transmitted 51
         server 1: 25 connections, 51 packets, 2040 bytes\n",
    );
    state = state.replace("load 1: 23 active\n         load 1: 1 inactive", "load 1: 23 active, 1 inactive");
    for port in 40001..40025 {
        let place = if port < 40009 { "flow" } else { "spilled" };
        let (flow, is_closing) = (format!("{place} tcp 203.0.113.1:{port} > 192.0.2.1:80"), port == 40024);
        let how = if is_closing { "FIN_WAIT, 120 s" } else { "ESTABLISHED, 900 s, active" };
        state += &format!("{flow}: to 1, {how}\n");
    }
    case = case.routes("10.0.1.1", with("FA", 40024));
    case.holds(&state)
}
