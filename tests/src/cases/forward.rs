//! Direct routing: the link layer, time to live, size, interfaces, tags.

use lb_common::counters::Reason;
use lb_common::server::{NO_VLAN, SERVICE_VLAN, server_flag};

use super::flows::{three, with};
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, back, case, complaint, complaint6, towards};
use crate::engine::{Fixture, Plan, Server, dr, tcp};
use crate::packet::{Eth, Packet, Tcp, eth};

/// One server.
pub(super) fn one(server: Server) -> Fixture {
    let fixture = Fixture::new().service(tcp(VIP, 80).plan(Plan::cycle(&[1])));
    fixture.service(tcp(VIP6, 80).plan(Plan::cycle(&[1]))).server(server)
}

pub(super) fn data(eth: Eth, ttl: u8, len: usize) -> Packet<Tcp> {
    eth.ipv4(CLIENT, VIP).ttl(ttl).tcp(40001, 80).syn().payload_len(len)
}

pub(super) fn data6(eth: Eth, ttl: u8, len: usize) -> Packet<Tcp> {
    eth.ipv6(CLIENT6, VIP6).ttl(ttl).tcp(40001, 80).syn().payload_len(len)
}

/// What the maps hold after one packet that opened a flow, with these lines more.
pub(super) fn opened(bytes: usize, more: &str) -> String {
    format!(
        "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
         load 1: 1 active
         server 1: 1 connections, 1 packets, {bytes} bytes
         {more}"
    )
}

pub(super) fn opened6(bytes: usize, more: &str) -> String {
    format!(
        "flow tcp [2001:db8:1::1]:40001 > [2001:db8:ff::1]:80: to 1, SYN_RECV, 60 s, active, half-open
         load 1: 1 active
         server 1: 1 connections, 1 packets, {bytes} bytes
         {more}"
    )
}

/// The first bytes of a packet, as an ICMP error of either family quotes them.
pub(super) fn quoted(mut packet: Vec<u8>) -> Vec<u8> {
    packet.truncate(if packet[0] >> 4 == 4 { 548 } else { 1232 });
    packet
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "DR changes the addresses of the link layer and the time to live, whatever the packet",
            one(dr("10.0.1.1")),
        )
        .routes("10.0.1.1", |eth, ttl| {
            let ip = eth.ipv4(CLIENT, VIP).ttl(ttl).tos(0xb9).id(0xabcd).df(false);
            ip.tcp(40001, 80).syn().window(1).payload_len(1301).build()
        })
        .holds(&opened(1341, "reason transmitted 1")),
        case("DR of IPv6 leaves flow label and traffic class alone", one(dr("fd00::1:1")))
            .routes("fd00::1:1", |eth, ttl| {
                let ip = eth.ipv6(CLIENT6, VIP6).ttl(ttl).tos(0xb9).flow_label(0x12345);
                ip.tcp(40001, 80).syn().payload_len(7).build()
            })
            .holds(&opened6(67, "reason transmitted 1")),
        case("an IPv4 packet with its last hop behind it is answered: time exceeded", one(dr("10.0.1.1")))
            .replies(data(eth(), 1, 5).build(), Reason::RepliedTtl, |id| {
                complaint(id, 11, 0, 0, &data(eth(), 1, 5).ip_bytes())
            })
            .holds(&opened(45, "reason replied_ttl_exceeded 1")),
        case("a time to live of 0 is answered as one of 1 is", one(dr("10.0.1.1")))
            .replies(data(eth(), 0, 5).build(), Reason::RepliedTtl, |id| {
                complaint(id, 11, 0, 0, &data(eth(), 0, 5).ip_bytes())
            })
            .holds(&opened(45, "reason replied_ttl_exceeded 1")),
        case("a time to live of 2 is enough", one(dr("10.0.1.1")))
            .sends(data(eth(), 2, 5).build(), data(towards("10.0.1.1"), 1, 5).build())
            .holds(&opened(45, "reason transmitted 1")),
        case("an IPv6 packet with its last hop behind it is answered: time exceeded", one(dr("fd00::1:1")))
            .replies(data6(eth(), 1, 2000).build(), Reason::RepliedTtl, |_| {
                complaint6(3, 0, 0, &quoted(data6(eth(), 1, 2000).ip_bytes()))
            })
            .holds(&opened6(2060, "reason replied_ttl_exceeded 1")),
        case("a packet as large as the route's MTU fits", one(dr("10.0.1.1").mtu(1400)))
            .routes("10.0.1.1", |eth, ttl| data(eth, ttl, 1360).build())
            .holds(&opened(1400, "reason transmitted 1")),
        case(
            "a packet larger than the route's MTU is answered: fragmentation needed",
            one(dr("10.0.1.1").mtu(1400)),
        )
        .replies(data(eth(), 64, 1361).build(), Reason::RepliedTooBig, |id| {
            complaint(id, 3, 4, 1400, &quoted(data(eth(), 63, 1361).ip_bytes()))
        })
        .holds(&opened(1401, "reason replied_too_big 1")),
        case(
            "a large packet without DF is answered as well: its sender makes the fragments",
            one(dr("10.0.1.1").mtu(1400)),
        )
        .replies(
            eth().ipv4(CLIENT, VIP).df(false).tcp(40001, 80).syn().payload_len(1361).build(),
            Reason::RepliedTooBig,
            |id| {
                let packet = eth().ipv4(CLIENT, VIP).ttl(63).df(false).tcp(40001, 80).syn().payload_len(1361);
                complaint(id, 3, 4, 1400, &quoted(packet.ip_bytes()))
            },
        )
        .holds(&opened(1401, "reason replied_too_big 1")),
        case(
            "an IPv6 packet larger than the route's MTU is answered: packet too big",
            one(dr("fd00::1:1").mtu(1300)),
        )
        .replies(data6(eth(), 64, 1241).build(), Reason::RepliedTooBig, |_| {
            complaint6(2, 0, 1300, &quoted(data6(eth(), 63, 1241).ip_bytes()))
        })
        .holds(&opened6(1301, "reason replied_too_big 1")),
        case("a server behind another interface is reached by redirect", one(dr("10.0.1.1").behind(7)))
            .redirects(data(eth(), 64, 0).build(), 7, data(towards("10.0.1.1"), 63, 0).build())
            .holds(&opened(40, "reason redirected 1")),
        case(
            "a server that is the director itself gets its packets through the stack",
            one(dr("10.0.0.1").with(server_flag::LOCAL)),
        )
        .passes(data(eth(), 64, 0).build(), Reason::PassedLocal)
        .passes(data(eth(), 1, 0).build(), Reason::PassedLocal)
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 server 1: 1 connections, 2 packets, 80 bytes
                 reason passed_local_server 2",
        ),
        case(
            "a server whose next hop was never known gets nothing",
            one(dr("10.0.1.1").without(server_flag::REACHABLE)),
        )
        .drops(data(eth(), 64, 0).build(), Reason::DroppedUnreachable)
        .holds(&opened(40, "reason dropped_next_hop_unknown 1")),
        case("an answer goes back with the tags the packet came with", one(dr("10.0.1.1")))
            .replies(data(eth().service_vlan(100).vlan(7), 1, 600).build(), Reason::RepliedTtl, |id| {
                let eth = back().service_vlan(100).vlan(7);
                let ip = eth.ipv4(VIP, CLIENT).tos(0xc0).df(false).id(id);
                ip.icmp_error(11, 0, 0, &quoted(data(back(), 1, 600).ip_bytes())).build()
            })
            .holds(&opened(640, "reason replied_ttl_exceeded 1")),
        case("two tags are looked through, a third is not", three())
            .passes(with("S", 40001)(eth().vlan(1).vlan(2).vlan(3), 64), Reason::PassedNotIp)
            .sends(with("S", 40001)(eth().vlan(1).vlan(2), 64), with("S", 40001)(towards("10.0.1.1"), 63))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 server 1: 1 connections, 1 packets, 40 bytes
                 reason passed_not_ip 1
                 reason transmitted 1",
            ),
    ];
    type Tag = (&'static str, fn(Eth) -> Eth);
    let came: [Tag; 3] = [
        ("no tag", |eth| eth),
        ("a tag", |eth| eth.vlan(9)),
        ("two tags", |eth| eth.service_vlan(100).vlan(9)),
    ];
    let goes: [(Tag, [u16; 2]); 5] = [
        (("no tag", |eth| eth), [NO_VLAN; 2]),
        (("a tag", |eth| eth.vlan(5)), [5, NO_VLAN]),
        (("a service tag", |eth| eth.service_vlan(200)), [200 | SERVICE_VLAN, NO_VLAN]),
        (("two tags", |eth| eth.service_vlan(200).vlan(5)), [200 | SERVICE_VLAN, 5]),
        (("two ordinary tags", |eth| eth.vlan(200).vlan(4094)), [200, 4094]),
    ];
    for (with, tagged) in came {
        for ((as_with, retagged), vlan) in goes {
            let name = format!("a packet with {with} goes with {as_with} to a server behind such");
            let sent = data(retagged(towards("10.0.1.1")), 63, 33).build();
            cases.push(
                case(name, one(dr("10.0.1.1").vlan(vlan)))
                    .sends(data(tagged(eth()), 64, 33).build(), sent)
                    .holds(&opened(73, "reason transmitted 1")),
            );
        }
    }
    cases
}
