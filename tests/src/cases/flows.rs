//! The life of a flow: what opens one, where its packets go, what ends it.

use lb_common::counters::Reason;
use lb_common::server::server_flag;
use lb_common::settings::switch;

use super::{CLIENT, Case, VIP, case};
use crate::engine::{Fixture, Plan, dr, tcp};
use crate::packet::{Eth, Packet, Tcp, eth};

/// Three servers in turn.
pub(super) fn three() -> Fixture {
    let fixture = Fixture::new().service(tcp(VIP, 80).plan(Plan::cycle(&[1, 2, 3])));
    fixture.server(dr("10.0.1.1")).server(dr("10.0.1.2")).server(dr("10.0.1.3"))
}

fn from(eth: Eth, ttl: u8, port: u16) -> Packet<Tcp> {
    eth.ipv4(CLIENT, VIP).ttl(ttl).tcp(port, 80)
}

/// A TCP packet with these flags from a port of the client.
pub(super) fn with(flags: &'static str, port: u16) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |eth, ttl| from(eth, ttl, port).flags(flags).build()
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("SYNs of new flows go to the servers in turn", three())
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.2", with("S", 40002))
            .routes("10.0.1.3", with("S", 40003))
            .routes("10.0.1.1", with("S", 40004))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 3, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40004 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 2 active
                 load 2: 1 active
                 load 3: 1 active
                 reason transmitted 4
                 server 1: 2 connections, 2 packets, 80 bytes
                 server 2: 1 connections, 1 packets, 40 bytes
                 server 3: 1 connections, 1 packets, 40 bytes",
            ),
        case("an established flow keeps to its server and its packets are no new connections", three())
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.1", with("A", 40001))
            .routes("10.0.1.1", |eth, ttl| from(eth, ttl, 40001).psh().ack(7).payload_len(100).build())
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active
                 load 1: 1 active
                 reason transmitted 3
                 server 1: 1 connections, 3 packets, 220 bytes",
            ),
        case(
            "a FIN makes a flow inactive, and it still reaches its server until it is idle for 120 s",
            three(),
        )
        .routes("10.0.1.1", with("S", 40001))
        .routes("10.0.1.1", with("A", 40001))
        .routes("10.0.1.1", with("FA", 40001))
        .waits(100)
        .routes("10.0.1.1", with("A", 40001))
        .waits(119)
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, FIN_WAIT, 1 s
                 load 1: 1 inactive
                 reason transmitted 4
                 server 1: 1 connections, 4 packets, 160 bytes",
        ),
        case("a RST closes an established flow for 10 s", three())
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.1", with("A", 40001))
            .routes("10.0.1.1", with("R", 40001))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, CLOSE, 10 s
                 load 1: 1 inactive
                 reason transmitted 3
                 server 1: 1 connections, 3 packets, 120 bytes",
            ),
        case("a RST does not close a flow that is half open", three())
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.1", with("R", 40001))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason transmitted 2
                 server 1: 1 connections, 2 packets, 80 bytes",
            ),
        case("a flow that was idle for too long is gone, and its next packet is the stack's", three())
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.1", with("A", 40001))
            .waits(901)
            .passes(with("A", 40001)(eth(), 64), Reason::PassedNotOpening)
            .holds(
                "reason passed_not_opening 1
                 reason transmitted 2
                 server 1: 1 connections, 2 packets, 80 bytes",
            ),
        case("a packet in the middle of an unknown flow is the stack's", three())
            .passes(with("A", 40001)(eth(), 64), Reason::PassedNotOpening)
            .passes(with("FA", 40001)(eth(), 64), Reason::PassedNotOpening)
            .passes(with("R", 40001)(eth(), 64), Reason::PassedNotOpening)
            .passes(with("0", 40001)(eth(), 64), Reason::PassedNotOpening)
            .passes(with("SR", 40001)(eth(), 64), Reason::PassedNotOpening)
            .holds("reason passed_not_opening 5"),
        case("with sloppy_tcp a flow may begin in the middle", three().switch(switch::SLOPPY_TCP))
            .routes("10.0.1.1", with("A", 40001))
            .passes(with("R", 40002)(eth(), 64), Reason::PassedNotOpening)
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active
                 load 1: 1 active
                 reason passed_not_opening 1
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 40 bytes",
            ),
        case("a SYN and ACK opens a flow as a SYN does", three())
            .routes("10.0.1.1", with("SA", 40001))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
             load 1: 1 active
             reason transmitted 1
             server 1: 1 connections, 1 packets, 40 bytes",
            ),
        case("a SYN that reuses the ports of a closed flow is scheduled anew", three())
            .routes("10.0.1.1", with("S", 40001))
            .routes("10.0.1.1", with("A", 40001))
            .routes("10.0.1.1", with("R", 40001))
            .routes("10.0.1.2", with("S", 40001))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 2: 1 active
                 reason transmitted 4
                 server 1: 1 connections, 3 packets, 120 bytes
                 server 2: 1 connections, 1 packets, 40 bytes",
            ),
        case("packets of a removed server's flows are dropped, and new flows go elsewhere", three())
            .routes("10.0.1.1", with("S", 40001))
            .changes(|fixture| {
                fixture.servers[0].flags &= !server_flag::AVAILABLE;
                fixture.services[0].plan = Plan::cycle(&[2, 3]);
            })
            .drops(with("A", 40001)(eth(), 64), Reason::DroppedServerGone)
            .routes("10.0.1.3", with("S", 40002))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 3, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 load 3: 1 active
                 reason dropped_server_gone 1
                 reason transmitted 2
                 server 1: 1 connections, 1 packets, 40 bytes
                 server 3: 1 connections, 1 packets, 40 bytes",
            ),
        case(
            "with expire_nodest_conn a removed server's flows end with their next packet",
            three().switch(switch::EXPIRE_NODEST_CONN),
        )
        .routes("10.0.1.1", with("S", 40001))
        .routes("10.0.1.1", with("A", 40001))
        .changes(|fixture| {
            fixture.servers[0].flags &= !server_flag::AVAILABLE;
            fixture.services[0].plan = Plan::cycle(&[2, 3]);
        })
        .passes(with("A", 40001)(eth(), 64), Reason::PassedNotOpening)
        .routes("10.0.1.3", with("S", 40001))
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 3, SYN_RECV, 60 s, active, half-open
             load 3: 1 active
             reason passed_not_opening 1
             reason transmitted 3
             server 1: 1 connections, 2 packets, 80 bytes
             server 3: 1 connections, 1 packets, 40 bytes",
        ),
        case("a drained server keeps its flows and gets no new ones", three())
            .routes("10.0.1.1", with("S", 40001))
            .changes(|fixture| {
                fixture.servers[0].flags |= server_flag::DRAINED;
                fixture.servers[0].weight = 0;
                fixture.services[0].plan = Plan::cycle(&[2, 3]);
            })
            .routes("10.0.1.1", with("A", 40001))
            .routes("10.0.1.3", with("S", 40002))
            .routes("10.0.1.2", with("S", 40003))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 3, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 load 2: 1 active
                 load 3: 1 active
                 reason transmitted 4
                 server 1: 1 connections, 2 packets, 80 bytes
                 server 2: 1 connections, 1 packets, 40 bytes
                 server 3: 1 connections, 1 packets, 40 bytes",
            ),
        case("a server whose next hop is unknown gets nothing, not even packets of its flows", three())
            .routes("10.0.1.1", with("S", 40001))
            .changes(|fixture| fixture.servers[0].flags &= !server_flag::REACHABLE)
            .drops(with("A", 40001)(eth(), 64), Reason::DroppedUnreachable)
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active
                 load 1: 1 active
                 reason dropped_next_hop_unknown 1
                 reason transmitted 1
                 server 1: 1 connections, 2 packets, 80 bytes",
            ),
    ]
}
