//! UDP and SCTP.

use lb_common::counters::Reason;
use lb_common::net::proto;
use lb_common::settings::switch;

use super::{CLIENT, Case, VIP, case};
use crate::engine::{Fixture, Plan, Service, dr};
use crate::packet::{Eth, eth};

pub(super) fn udp() -> Fixture {
    let fixture = Fixture::new().service(Service::at(VIP, proto::UDP, 53).plan(Plan::cycle(&[1, 2])));
    fixture.server(dr("10.0.1.1")).server(dr("10.0.1.2"))
}

pub(super) fn query(port: u16) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |eth, ttl| eth.ipv4(CLIENT, VIP).ttl(ttl).udp(port, 53).payload_len(20).build()
}

fn sctp() -> Fixture {
    let fixture = Fixture::new().service(Service::at(VIP, proto::SCTP, 80).plan(Plan::cycle(&[1, 2])));
    fixture.server(dr("10.0.1.1")).server(dr("10.0.1.2"))
}

/// SCTP from a port of the client with these chunks: type, flags, length and value each.
fn chunks(port: u16, chunks: &'static [u8]) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |eth, ttl| {
        let [a, b] = port.to_be_bytes();
        let body = [&[a, b, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0], chunks].concat();
        eth.ipv4(CLIENT, VIP).ttl(ttl).protocol(proto::SCTP, &body).build()
    }
}

const INIT: &[u8] = &[1, 0, 0, 4];
const DATA: &[u8] = &[0, 3, 0, 4];
const ABORT: &[u8] = &[6, 0, 0, 4];
const COOKIE_ECHO: &[u8] = &[10, 0, 0, 4];
const COOKIE_ECHO_AND_ABORT: &[u8] = &[10, 0, 0, 6, 1, 1, 0, 0, 6, 0, 0, 4];
const SHUTDOWN: &[u8] = &[7, 0, 0, 4];

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("UDP flows are inactive, half-open until their second packet, and idle after 300 s", udp())
            .routes("10.0.1.1", query(40001))
            .routes("10.0.1.2", query(40002))
            .routes("10.0.1.1", query(40001))
            .waits(200)
            .routes("10.0.1.1", query(40001))
            .waits(101)
            .routes("10.0.1.1", query(40002))
            .holds(
                "flow udp 203.0.113.1:40001 > 192.0.2.1:53: to 1, UDP, 199 s
                 flow udp 203.0.113.1:40002 > 192.0.2.1:53: to 1, UDP, 300 s, half-open
                 load 1: 2 inactive
                 reason transmitted 5
                 server 1: 2 connections, 4 packets, 192 bytes
                 server 2: 1 connections, 1 packets, 48 bytes",
            ),
        case("a UDP packet without a checksum stays without", udp())
            .routes("10.0.1.1", |eth, ttl| {
                eth.ipv4(CLIENT, VIP).ttl(ttl).udp(40001, 53).payload_len(3).no_checksum().build()
            })
            .holds(
                "flow udp 203.0.113.1:40001 > 192.0.2.1:53: to 1, UDP, 300 s, half-open
                 load 1: 1 inactive
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 31 bytes",
            ),
        case("a wrong transport checksum is the server's to find", udp())
            .routes("10.0.1.1", |eth, ttl| {
                eth.ipv4(CLIENT, VIP).ttl(ttl).udp(40001, 53).payload_len(3).wrong_checksum().build()
            })
            .holds(
                "flow udp 203.0.113.1:40001 > 192.0.2.1:53: to 1, UDP, 300 s, half-open
                 load 1: 1 inactive
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 31 bytes",
            ),
        case("an SCTP association opens with INIT and is active once established", sctp())
            .passes(chunks(40001, DATA)(eth(), 64), Reason::PassedNotOpening)
            .routes("10.0.1.1", chunks(40001, INIT))
            .routes("10.0.1.2", chunks(40002, INIT))
            .routes("10.0.1.1", chunks(40001, COOKIE_ECHO))
            .routes("10.0.1.1", chunks(40001, DATA))
            .holds(
                "flow sctp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active
                 flow sctp 203.0.113.1:40002 > 192.0.2.1:80: to 2, INIT1, 4 s, half-open
                 load 1: 1 active
                 load 2: 1 inactive
                 reason passed_not_opening 1
                 reason transmitted 4
                 server 1: 1 connections, 3 packets, 108 bytes
                 server 2: 1 connections, 1 packets, 36 bytes",
            ),
        case("an SCTP ABORT closes, also bundled behind a COOKIE ECHO", sctp())
            .routes("10.0.1.1", chunks(40001, INIT))
            .routes("10.0.1.1", chunks(40001, COOKIE_ECHO_AND_ABORT))
            .routes("10.0.1.2", chunks(40002, INIT))
            .routes("10.0.1.2", chunks(40002, COOKIE_ECHO))
            .routes("10.0.1.2", chunks(40002, ABORT))
            .passes(chunks(40003, ABORT)(eth(), 64), Reason::PassedNotOpening)
            .holds(
                "flow sctp 203.0.113.1:40001 > 192.0.2.1:80: to 1, CLOSED, 61 s
                 flow sctp 203.0.113.1:40002 > 192.0.2.1:80: to 2, CLOSED, 61 s
                 load 1: 1 inactive
                 load 2: 1 inactive
                 reason passed_not_opening 1
                 reason transmitted 5
                 server 1: 1 connections, 2 packets, 80 bytes
                 server 2: 1 connections, 3 packets, 108 bytes",
            ),
        case("an SCTP shutdown makes the association inactive", sctp())
            .routes("10.0.1.1", chunks(40001, INIT))
            .routes("10.0.1.1", chunks(40001, COOKIE_ECHO))
            .routes("10.0.1.1", chunks(40001, SHUTDOWN))
            .holds(
                "flow sctp 203.0.113.1:40001 > 192.0.2.1:80: to 1, S-RECEIVED, 61 s
                 load 1: 1 inactive
                 reason transmitted 3
                 server 1: 1 connections, 3 packets, 108 bytes",
            ),
        case("with sloppy_sctp an association may begin in the middle", sctp().switch(switch::SLOPPY_SCTP))
            .routes("10.0.1.1", chunks(40001, DATA))
            .holds(
                "flow sctp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active
                 load 1: 1 active
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 36 bytes",
            ),
    ]
}
