//! Clients that keep to their server.

use lb_common::counters::Reason;
use lb_common::server::server_flag;
use lb_common::settings::switch;

use super::flows::{three, with};
use super::{CLIENT6, Case, VIP, VIP6, case};
use crate::engine::{Fixture, Place, Plan, Service, dr, tcp};
use crate::packet::{Eth, eth};

fn sticky(mask: &str) -> Fixture {
    let mut fixture = three();
    fixture.services[0] = fixture.services[0].clone().persistent(360, mask);
    fixture
}

fn from(client: &'static str, port: u16, flags: &'static str) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |eth, ttl| eth.ipv4(client, VIP).ttl(ttl).tcp(port, 80).flags(flags).build()
}

pub(super) fn cases() -> Vec<Case> {
    let of_net = "255.255.255.0";
    let many = || {
        let places = vec![
            Place::At(VIP.parse().expect("an address"), 6, 80),
            Place::At(VIP.parse().expect("an address"), 6, 443),
        ];
        let service = Service { places, ..tcp(VIP, 0) }.persistent(360, "255.255.255.255");
        let fixture = Fixture::new().service(service.plan(Plan::cycle(&[1, 2])));
        fixture.server(dr("10.0.1.1")).server(dr("10.0.1.2"))
    };
    vec![
        case("a client keeps to its server, other clients go to others", sticky("255.255.255.255"))
            .routes("10.0.1.1", from("203.0.113.1", 40001, "S"))
            .routes("10.0.1.2", from("203.0.113.2", 40001, "S"))
            .routes("10.0.1.1", from("203.0.113.1", 40002, "S"))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 flow tcp 203.0.113.2:40001 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open, with a template
                 load 1: 2 active, 1 templates
                 load 2: 1 active, 1 templates
                 reason transmitted 3
                 server 1: 2 connections, 2 packets, 80 bytes
                 server 2: 1 connections, 1 packets, 40 bytes
                 template tcp 203.0.113.1:0 > 192.0.2.1:80: to 1, 360 s, timeout 360 s, 2 flows
                 template tcp 203.0.113.2:0 > 192.0.2.1:80: to 2, 360 s, timeout 360 s, 1 flows",
            ),
        case("a network of clients keeps to one server", sticky(of_net))
            .routes("10.0.1.1", from("203.0.113.1", 40001, "S"))
            .routes("10.0.1.1", from("203.0.113.2", 40001, "S"))
            .routes("10.0.1.2", from("203.0.114.1", 40001, "S"))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 flow tcp 203.0.113.2:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 flow tcp 203.0.114.1:40001 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open, with a template
                 load 1: 2 active, 1 templates
                 load 2: 1 active, 1 templates
                 reason transmitted 3
                 server 1: 2 connections, 2 packets, 80 bytes
                 server 2: 1 connections, 1 packets, 40 bytes
                 template tcp 203.0.113.0:0 > 192.0.2.1:80: to 1, 360 s, timeout 360 s, 2 flows
                 template tcp 203.0.114.0:0 > 192.0.2.1:80: to 2, 360 s, timeout 360 s, 1 flows",
            ),
        case("the template of an established flow is assured", sticky(of_net))
            .routes("10.0.1.1", from("203.0.113.1", 40001, "S"))
            .routes("10.0.1.1", from("203.0.113.1", 40001, "A"))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active, with a template
                 load 1: 1 active, 1 templates
                 reason transmitted 2
                 server 1: 1 connections, 2 packets, 80 bytes
                 template tcp 203.0.113.0:0 > 192.0.2.1:80: to 1, 360 s, timeout 360 s, 1 flows, assured",
            ),
        case("a template that ended under live flows goes on by the minute", sticky(of_net))
            .routes("10.0.1.1", from("203.0.113.1", 40001, "S"))
            .routes("10.0.1.1", from("203.0.113.1", 40001, "A"))
            .waits(361)
            .routes("10.0.1.1", from("203.0.113.1", 40002, "S"))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 539 s, active, with a template
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 load 1: 2 active, 1 templates
                 reason transmitted 3
                 server 1: 2 connections, 3 packets, 120 bytes
                 template tcp 203.0.113.0:0 > 192.0.2.1:80: to 1, 60 s, timeout 60 s, 2 flows, assured",
            ),
        case("persistence ignores weight 0", sticky(of_net))
            .routes("10.0.1.1", from("203.0.113.1", 40001, "S"))
            .changes(drain_the_first)
            .routes("10.0.1.1", from("203.0.113.1", 40002, "S"))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 load 1: 2 active, 1 templates
                 reason transmitted 2
                 server 1: 2 connections, 2 packets, 80 bytes
                 template tcp 203.0.113.0:0 > 192.0.2.1:80: to 1, 360 s, timeout 360 s, 2 flows",
            ),
        case(
            "with expire_quiescent_template a drained server loses its clients",
            sticky(of_net).switch(switch::EXPIRE_QUIESCENT_TEMPLATE),
        )
        .routes("10.0.1.1", from("203.0.113.1", 40001, "S"))
        .changes(drain_the_first)
        .routes("10.0.1.3", from("203.0.113.1", 40002, "S"))
        .routes("10.0.1.1", from("203.0.113.1", 40001, "A"))
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active, with a template
             flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 3, SYN_RECV, 60 s, active, half-open, with a template
             load 1: 1 active
             load 3: 1 active, 1 templates
             reason transmitted 3
             server 1: 1 connections, 2 packets, 80 bytes
             server 3: 1 connections, 1 packets, 40 bytes
             template tcp 203.0.113.0:0 > 192.0.2.1:80: to 3, 360 s, timeout 360 s, 1 flows, assured",
        ),
        case("a removed server loses its clients", sticky(of_net))
            .routes("10.0.1.1", from("203.0.113.1", 40001, "S"))
            .changes(|fixture| {
                fixture.servers[0].flags &= !server_flag::AVAILABLE;
                fixture.services[0].plan = Plan::cycle(&[2, 3]);
            })
            .routes("10.0.1.3", from("203.0.113.1", 40002, "S"))
            .drops(with("A", 40001)(eth(), 64), Reason::DroppedServerGone)
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 3, SYN_RECV, 60 s, active, half-open, with a template
                 load 1: 1 active
                 load 3: 1 active, 1 templates
                 reason dropped_server_gone 1
                 reason transmitted 2
                 server 1: 1 connections, 1 packets, 40 bytes
                 server 3: 1 connections, 1 packets, 40 bytes
                 template tcp 203.0.113.0:0 > 192.0.2.1:80: to 3, 360 s, timeout 360 s, 1 flows",
            ),
        case("a service over several ports has one template for them", many())
            .routes("10.0.1.1", |eth, ttl| eth.ipv4("203.0.113.1", VIP).ttl(ttl).tcp(40001, 80).syn().build())
            .routes("10.0.1.1", |eth, ttl| eth.ipv4("203.0.113.1", VIP).ttl(ttl).tcp(40001, 443).syn().build())
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:443: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
                 load 1: 2 active, 1 templates
                 reason transmitted 2
                 server 1: 2 connections, 2 packets, 80 bytes
                 template any 203.0.113.1:0 > [::]:0: to 1, 360 s, timeout 360 s, 2 flows",
            ),
        case("IPv6 clients keep to their server by prefix", {
            let service = tcp(VIP6, 80).persistent(360, "ffff:ffff:ffff:ffff::").plan(Plan::cycle(&[1, 2]));
            Fixture::new().service(service).server(dr("fd00::1:1")).server(dr("fd00::1:2"))
        })
        .routes("fd00::1:1", |eth, ttl| eth.ipv6(CLIENT6, VIP6).ttl(ttl).tcp(40001, 80).syn().build())
        .routes("fd00::1:1", |eth, ttl| eth.ipv6("2001:db8:1::2", VIP6).ttl(ttl).tcp(40001, 80).syn().build())
        .routes("fd00::1:2", |eth, ttl| eth.ipv6("2001:db8:1:1::1", VIP6).ttl(ttl).tcp(40001, 80).syn().build())
        .holds(
            "flow tcp [2001:db8:1:1::1]:40001 > [2001:db8:ff::1]:80: to 2, SYN_RECV, 60 s, active, half-open, with a template
             flow tcp [2001:db8:1::1]:40001 > [2001:db8:ff::1]:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
             flow tcp [2001:db8:1::2]:40001 > [2001:db8:ff::1]:80: to 1, SYN_RECV, 60 s, active, half-open, with a template
             load 1: 2 active, 1 templates
             load 2: 1 active, 1 templates
             reason transmitted 3
             server 1: 2 connections, 2 packets, 120 bytes
             server 2: 1 connections, 1 packets, 60 bytes
             template tcp [2001:db8:1:1::]:0 > [2001:db8:ff::1]:80: to 2, 360 s, timeout 360 s, 1 flows
             template tcp [2001:db8:1::]:0 > [2001:db8:ff::1]:80: to 1, 360 s, timeout 360 s, 2 flows",
        ),
    ]
}

fn drain_the_first(fixture: &mut Fixture) {
    fixture.servers[0].flags |= server_flag::DRAINED;
    fixture.servers[0].weight = 0;
    fixture.services[0].plan = Plan::cycle(&[2, 3]);
}
