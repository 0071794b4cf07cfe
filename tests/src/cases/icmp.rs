//! ICMP errors: about flows, about the director's own tunnel packets.

use lb_common::counters::Reason;
use lb_common::server::server_flag;
use lb_common::settings::switch;

use super::flows::{three, with};
use super::forward::{data, one};
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, case, complaint, towards};
use crate::engine::{dr, gre, gue, ipip};
use crate::packet::{DIRECTOR_MAC, Eth, eth};

/// A router on the way to the client complains about the server's answer to a port of the client.
pub(super) fn about(kind: u8, code: u8, rest: u32, port: u16) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |link, ttl| {
        let answer = eth().ipv4(VIP, CLIENT).tcp(80, port).syn().ack(1001).ip_bytes();
        link.ipv4("198.18.0.1", VIP).ttl(ttl).icmp_error(kind, code, rest, &answer[..28]).build()
    }
}

pub(super) fn about6(kind: u8, rest: u32, port: u16) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |link, ttl| {
        let answer = eth().ipv6(VIP6, CLIENT6).tcp(80, port).syn().ack(1001).ip_bytes();
        link.ipv6("2001:db8:9::1", VIP6).ttl(ttl).icmp_error(kind, 0, rest, &answer).build()
    }
}

/// A router on the way to the server complains to the director about a tunnel packet.
fn about_tunnel(kind: u8, code: u8, rest: u32, outer: &[u8]) -> Vec<u8> {
    let eth = eth().from([2, 9, 9, 9, 9, 9]).to(DIRECTOR_MAC);
    eth.ipv4("10.0.0.254", "10.0.0.1").icmp_error(kind, code, rest, outer).build()
}

/// What [`complaint`] says, sent to where the error came from: the client is behind the same router.
fn told(id: u32, kind: u8, code: u8, rest: u32, quoted: &[u8]) -> Vec<u8> {
    let mut frame = complaint(id, kind, code, rest, quoted);
    frame[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    frame
}

pub(super) fn cases() -> Vec<Case> {
    let open = "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                load 1: 1 active\n";
    let inner = || data(eth(), 63, 0).ip_bytes();
    let sent = || eth().ipv4("10.0.0.1", "10.0.1.1").ttl(62).df(true).id(0);
    let through_ipip = || sent().ipip(&inner()).ip_bytes();
    let opened = |name, server| {
        let case = case(name, one(server));
        case.sends(data(eth(), 64, 0).build(), {
            towards("10.0.1.1").ipv4("10.0.0.1", "10.0.1.1").ttl(63).df(true).id(0).ipip(&inner()).build()
        })
    };
    vec![
        case("echo requests to a VIP are the stack's, and replies", three())
            .passes(eth().ipv4(CLIENT, VIP).icmp_echo(1, 1).payload_len(56).build(), Reason::PassedProtocol)
            .passes(eth().ipv4(CLIENT, VIP).icmp_echo_reply(1, 1).build(), Reason::PassedProtocol)
            .passes(eth().ipv6(CLIENT6, VIP6).icmp_echo(1, 1).payload_len(56).build(), Reason::PassedProtocol)
            .passes(eth().ipv4(CLIENT, VIP).icmp(5, 1, 0).payload_len(28).build(), Reason::PassedProtocol)
            .passes(eth().ipv4(CLIENT, VIP).icmp(12, 0, 0).payload_len(28).build(), Reason::PassedProtocol)
            .passes(eth().ipv6("fe80::1", "fe80::2").icmp(135, 0, 0).payload_len(16).build(), Reason::PassedProtocol)
            .holds("reason passed_protocol 6"),
        case("an ICMP error about a flow goes to the flow's server and does nothing to the flow", three())
            .routes("10.0.1.1", with("S", 40001))
            .waits(10)
            .routes("10.0.1.1", about(3, 4, 1400, 40001))
            .routes("10.0.1.1", about(11, 0, 0, 40001))
            .routes("10.0.1.1", about(4, 0, 0, 40001))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 50 s, active, half-open
                 load 1: 1 active
                 reason transmitted 4
                 server 1: 1 connections, 4 packets, 208 bytes",
            ),
        case("an ICMPv6 error about a flow goes to the flow's server", one(dr("fd00::1:1")))
            .routes("fd00::1:1", |eth, ttl| eth.ipv6(CLIENT6, VIP6).ttl(ttl).tcp(40001, 80).syn().build())
            .routes("fd00::1:1", about6(2, 1280, 40001))
            .routes("fd00::1:1", about6(1, 0, 40001))
            .routes("fd00::1:1", about6(3, 0, 40001))
            .holds(
                "flow tcp [2001:db8:1::1]:40001 > [2001:db8:ff::1]:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason transmitted 4
                 server 1: 1 connections, 4 packets, 384 bytes",
            ),
        case("an ICMP error goes through the tunnel of the flow's server", one(ipip("10.0.1.1")))
            .sends(data(eth(), 64, 0).build(), {
                towards("10.0.1.1").ipv4("10.0.0.1", "10.0.1.1").ttl(63).df(true).id(0).ipip(&inner()).build()
            })
            .sends_with_id(about(3, 1, 0, 40001)(eth(), 64), |id| {
                let outer = towards("10.0.1.1").ipv4("10.0.0.1", "10.0.1.1").ttl(63).df(false).id(id);
                outer.ipip(&about(3, 1, 0, 40001)(eth(), 63)[14..]).build()
            })
            .holds(&format!("{open}reason transmitted 2\nserver 1: 1 connections, 2 packets, 96 bytes")),
        case("an ICMP error about an unknown flow is the stack's", three())
            .passes(about(3, 4, 1400, 40001)(eth(), 64), Reason::PassedIcmp)
            .passes(about6(2, 1280, 40001)(eth(), 64), Reason::PassedIcmp)
            .passes(
                eth().ipv4(CLIENT, VIP).icmp_error(3, 1, 0, &eth().ipv4(VIP, CLIENT).tcp(80, 1).ip_bytes()[..20]).build(),
                Reason::PassedIcmp,
            )
            .passes(
                eth().ipv4(CLIENT, VIP).icmp_error(3, 1, 0, &eth().ipv4(VIP, CLIENT).icmp_echo(8, 1).ip_bytes()).build(),
                Reason::PassedIcmp,
            )
            .holds("reason passed_icmp 4"),
        case("an ICMP error with its last hop behind it gets no answer", three())
            .routes("10.0.1.1", with("S", 40001))
            .drops(about(3, 4, 1400, 40001)(eth(), 1), Reason::DroppedTtl)
            .holds(&format!(
                "{open}reason dropped_ttl_exceeded 1\nreason transmitted 1\nserver 1: 1 connections, 2 packets, 96 bytes"
            )),
        case("an ICMP error larger than the path is forwarded all the same", one(dr("10.0.1.1").mtu(50)))
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.1", about(3, 4, 1400, 40001))
            .holds(&format!("{open}reason transmitted 2\nserver 1: 1 connections, 2 packets, 96 bytes")),
        case("with schedule_icmp an error about an unknown flow opens it", three().switch(switch::SCHEDULE_ICMP))
            .routes("10.0.1.1", about(3, 4, 1400, 40001))
            .routes("10.0.1.1", with("S", 40001))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason transmitted 2
                 server 1: 1 connections, 2 packets, 96 bytes",
            ),
        opened("too big in a tunnel: the client is told what is left, and the path is remembered", ipip("10.0.1.1"))
            .replies(about_tunnel(3, 4, 1400, &through_ipip()), Reason::RepliedTunnelError, move |id| {
                told(id, 3, 4, 1380, &inner())
            })
            .replies(data(eth(), 64, 1341).build(), Reason::RepliedTooBig, |id| {
                complaint(id, 3, 4, 1380, &data(eth(), 63, 1341).ip_bytes()[..548])
            })
            .waits(601)
            .sends(data(eth(), 64, 1341).build(), {
                let outer = towards("10.0.1.1").ipv4("10.0.0.1", "10.0.1.1").ttl(63).df(true).id(0);
                outer.ipip(&data(eth(), 63, 1341).ip_bytes()).build()
            })
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 path 10.0.1.1: 1400 bytes, over
                 reason replied_too_big 1
                 reason replied_tunnel_error 1
                 reason transmitted 2
                 server 1: 2 connections, 3 packets, 2802 bytes",
            ),
        opened("other errors about a tunnel packet are told on to the client as they are", ipip("10.0.1.1"))
            .replies(about_tunnel(3, 1, 0, &through_ipip()), Reason::RepliedTunnelError, move |id| {
                told(id, 3, 1, 0, &inner())
            })
            .replies(about_tunnel(11, 0, 0, &through_ipip()), Reason::RepliedTunnelError, move |id| {
                told(id, 11, 0, 0, &inner())
            })
            .holds(&format!(
                "{open}reason replied_tunnel_error 2\nreason transmitted 1\nserver 1: 1 connections, 1 packets, 40 bytes"
            )),
        opened("an error that quotes too little of a tunnel packet is noted and dropped", ipip("10.0.1.1"))
            .drops(about_tunnel(3, 4, 1400, &through_ipip()[..28]), Reason::DroppedTunnelError)
            .holds(&format!(
                "{open}path 10.0.1.1: 1400 bytes, 600 s
                 reason dropped_tunnel_error 1\nreason transmitted 1\nserver 1: 1 connections, 1 packets, 40 bytes"
            )),
        opened("an error that reports less than any path has is not believed", ipip("10.0.1.1"))
            .replies(about_tunnel(3, 4, 551, &through_ipip()), Reason::RepliedTunnelError, move |id| {
                told(id, 3, 4, 531, &inner())
            })
            .holds(&format!(
                "{open}reason replied_tunnel_error 1\nreason transmitted 1\nserver 1: 1 connections, 1 packets, 40 bytes"
            )),
        case("an error about a GRE tunnel packet is told on", one(gre("10.0.1.1").with(server_flag::CHECKSUM)))
            .sends(data(eth(), 64, 0).build(), {
                towards("10.0.1.1").ipv4("10.0.0.1", "10.0.1.1").ttl(63).df(true).id(0).gre(&inner(), true).build()
            })
            .replies(
                about_tunnel(3, 4, 1400, &sent().gre(&inner(), true).ip_bytes()),
                Reason::RepliedTunnelError,
                move |id| told(id, 3, 4, 1372, &inner()),
            )
            .holds(&format!(
                "{open}path 10.0.1.1: 1400 bytes, 600 s
                 reason replied_tunnel_error 1\nreason transmitted 1\nserver 1: 1 connections, 1 packets, 40 bytes"
            )),
        case("an error about a GUE tunnel packet of an unknown flow is dropped", one(gue("10.0.1.1")))
            .drops(about_tunnel(3, 1, 0, &sent().gue(40000, 6080, &inner()).ip_bytes()), Reason::DroppedTunnelError)
            .passes(about_tunnel(3, 1, 0, &sent().gue(40000, 6081, &inner()).ip_bytes()), Reason::PassedIcmp)
            .holds("reason dropped_tunnel_error 1\nreason passed_icmp 1"),
    ]
}
