//! Plans, slot by slot, as the schedulers would have them.

use lb_common::counters::Reason;
use lb_common::flow::Thresholds;
use lb_common::plan::{PlanKind, cost, cycle, hash_detail, locality};
use lb_common::server::server_flag;

use super::flows::with;
use super::{CLIENT, Case, VIP, case, complaint};
use crate::engine::{Fixture, Place, Plan, Server, Service, dr, tcp};
use crate::packet::{Eth, eth};

const RIPS: [&str; 4] = ["", "10.0.1.1", "10.0.1.2", "10.0.1.3"];

fn planned(plan: Plan) -> Fixture {
    let fixture = Fixture::new().service(tcp(VIP, 80).plan(plan));
    (1..=3).fold(fixture, |fixture, id| fixture.server(dr(RIPS[id])))
}

/// SYNs from one port after the other go to these servers.
fn goes(case: Case, servers: &[usize]) -> Case {
    (40001..).zip(servers).fold(case, |case, (port, id)| case.routes(RIPS[*id], with("S", port)))
}

/// [`goes`], and what the maps then hold.
fn in_order(name: &str, fixture: Fixture, servers: &[usize]) -> Case {
    let mut state = format!("reason transmitted {}\n", servers.len());
    for (port, id) in (40001..).zip(servers) {
        let flow = format!("flow tcp 203.0.113.1:{port} > 192.0.2.1:80");
        state += &format!("{flow}: to {id}, SYN_RECV, 60 s, active, half-open\n");
    }
    for id in 1..=3 {
        match servers.iter().filter(|server| **server == id).count() {
            0 => {}
            n => {
                state += &format!("load {id}: {n} active\n");
                state += &format!("server {id}: {n} connections, {n} packets, {} bytes\n", 40 * n);
            }
        }
    }
    goes(case(name, fixture), servers).holds(&state)
}

fn least(rule: u8, slots: &[(u32, u32)]) -> Fixture {
    planned(Plan::of(PlanKind::Least, rule, slots))
}

/// A table of a hash plan whose slots lead to server 1, but for these.
fn hashed(detail: u8, len: u32, slots: &[(u32, (u32, u32))]) -> Fixture {
    let slot = |at| slots.iter().find(|(place, _)| *place == at).map_or((1, 1), |(_, slot)| *slot);
    planned(Plan::of(PlanKind::Hash, detail, &(0..len).map(slot).collect::<Vec<_>>()))
}

fn from(client: &'static str, port: u16) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |eth, ttl| eth.ipv4(client, VIP).ttl(ttl).tcp(port, 80).syn().build()
}

/// One SYN of 198.51.100.9, port 49153: in sh bucket 110 of 256 and with the port 53, in mh slot 667 of 4093.
fn hashes_to(name: &str, fixture: Fixture, id: usize) -> Case {
    case(name, fixture).routes(RIPS[id], from("198.51.100.9", 49153)).holds(&format!(
        "flow tcp 198.51.100.9:49153 > 192.0.2.1:80: to {id}, SYN_RECV, 60 s, active, half-open
         load {id}: 1 active
         reason transmitted 1
         server {id}: 1 connections, 1 packets, 40 bytes"
    ))
}

fn local(detail: u8) -> Fixture {
    let places = vec![Place::Within("192.0.2.0/24".parse().expect("a prefix"), 6, 80, 80)];
    let plan = Plan::of(PlanKind::Locality, detail, &[(1, 1), (2, 1), (3, 1)]);
    let fixture = Fixture::new().service(Service { places, ..tcp(VIP, 0) }.plan(plan));
    let server = |rip| -> Server { dr(rip) };
    (1..=3).fold(fixture, |fixture, id| fixture.server(server(RIPS[id])))
}

fn to(vip: &'static str, port: u16) -> impl Fn(Eth, u8) -> Vec<u8> {
    move |eth, ttl| eth.ipv4(CLIENT, vip).ttl(ttl).tcp(port, 80).syn().build()
}

pub(super) fn cases() -> Vec<Case> {
    let fixed = Plan { detail: cycle::FIXED, ..Plan::cycle(&[2, 1]) };
    let mut failing = planned(fixed.clone());
    failing.servers[1] = dr(RIPS[2]).thresholds(2, 2);
    let mut crowded = planned(Plan::cycle(&[1, 2, 3]));
    crowded.servers[1] = dr(RIPS[2]).thresholds(1, 1);
    vec![
        in_order(
            "a cycle of weights is gone through slot by slot",
            planned(Plan::cycle(&[1, 1, 2, 1, 3])),
            &[1, 1, 2, 1, 3, 1, 1, 2],
        ),
        case("an overloaded server is skipped, and its turn is not anybody's twice", crowded)
            .routes(RIPS[1], with("S", 40001))
            .routes(RIPS[2], with("S", 40002))
            .routes(RIPS[3], with("S", 40003))
            .routes(RIPS[1], with("S", 40004))
            .routes(RIPS[3], with("S", 40005))
            .routes(RIPS[1], with("S", 40006))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 3, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40004 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40005 > 192.0.2.1:80: to 3, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40006 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 3 active
                 load 2: 1 active, overloaded
                 load 3: 2 active
                 reason transmitted 6
                 server 1: 3 connections, 3 packets, 120 bytes
                 server 2: 1 connections, 1 packets, 40 bytes
                 server 3: 2 connections, 2 packets, 80 bytes",
            ),
        in_order("fo: the first server gets everything", planned(fixed), &[2, 2, 2]),
        case("fo: the next server gets what the first has no room for", failing)
            .routes(RIPS[2], with("S", 40001))
            .routes(RIPS[2], with("S", 40002))
            .routes(RIPS[1], with("S", 40003))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 load 2: 2 active, overloaded
                 reason transmitted 3
                 server 1: 1 connections, 1 packets, 40 bytes
                 server 2: 2 connections, 2 packets, 80 bytes",
            ),
        in_order(
            "lc: the fewest flows, the first of equals",
            least(cost::LC, &[(1, 1), (2, 9)]),
            &[1, 2, 1, 2],
        ),
        in_order(
            "wlc: the fewest flows for its weight",
            least(cost::WLC, &[(1, 1), (2, 2)]),
            &[1, 2, 2, 1, 2, 2],
        ),
        in_order("sed: the new flow counts too", least(cost::SED, &[(1, 1), (2, 2)]), &[2, 1, 2, 2, 1]),
        in_order("nq: an idle server first", least(cost::NQ, &[(1, 1), (2, 2)]), &[1, 2, 2, 2, 1]),
        in_order(
            "ovf: the highest weight that is not full",
            least(cost::OVF, &[(1, 1), (2, 2)]),
            &[2, 2, 2, 1, 1],
        ),
        in_order("twos with one candidate draws it", least(cost::TWOS, &[(2, 5)]), &[2, 2]),
        in_order("a candidate of weight 0 gets nothing", least(cost::WLC, &[(1, 0), (2, 1)]), &[2, 2]),
        case("inactive flows count little", least(cost::WLC, &[(1, 1), (2, 1)]))
            .routes(RIPS[1], with("S", 40001))
            .routes(RIPS[1], with("A", 40001))
            .routes(RIPS[1], with("FA", 40001))
            .routes(RIPS[2], with("S", 40002))
            .routes(RIPS[1], with("S", 40003))
            .routes(RIPS[2], with("S", 40004))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, FIN_WAIT, 120 s
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40004 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active, 1 inactive
                 load 2: 2 active
                 reason transmitted 6
                 server 1: 2 connections, 4 packets, 160 bytes
                 server 2: 2 connections, 2 packets, 80 bytes",
            ),
        case("candidates that are all overloaded are none", {
            let mut fixture = least(cost::WLC, &[(1, 1)]);
            fixture.servers[0].thresholds = Thresholds { upper: 1, lower: 0 };
            fixture.servers[0].flags |= server_flag::THRESHOLDS;
            fixture
        })
        .routes(RIPS[1], with("S", 40001))
        .replies(with("S", 40002)(eth(), 64), Reason::RepliedNoDestination, |id| {
            complaint(id, 3, 3, 0, &with("S", 40002)(eth(), 64)[14..])
        })
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
             load 1: 1 active, overloaded
             reason replied_no_destination 1
             reason transmitted 1
             server 1: 1 connections, 1 packets, 40 bytes",
        ),
        hashes_to(
            "sh: the bucket of the client's address",
            hashed(hash_detail::SH, 256, &[(110, (2, 1))]),
            2,
        ),
        hashes_to(
            "sh-port: the bucket of the client's address and port",
            hashed(hash_detail::SH | hash_detail::PORT, 256, &[(53, (3, 1))]),
            3,
        ),
        hashes_to("dh: the bucket of the VIP", hashed(hash_detail::DH, 256, &[(50, (2, 1))]), 2),
        hashes_to("mh: the slot of the client's address", hashed(hash_detail::MH, 4093, &[(667, (2, 1))]), 2),
        hashes_to(
            "sh-fallback: the bucket of the bucket's place when its server is drained",
            hashed(hash_detail::SH | hash_detail::FALLBACK, 256, &[(110, (2, 0)), (220, (3, 1))]),
            3,
        ),
        case(
            "sh: a bucket whose server is drained has nobody",
            hashed(hash_detail::SH, 256, &[(110, (2, 0))]),
        )
        .replies(from("198.51.100.9", 49153)(eth(), 64), Reason::RepliedNoDestination, |id| {
            let ip = super::back().ipv4(VIP, "198.51.100.9").tos(0xc0).df(false).id(id);
            ip.icmp_error(3, 3, 0, &from("198.51.100.9", 49153)(eth(), 64)[14..]).build()
        })
        .holds("reason replied_no_destination 1"),
        case("lblc: an address keeps its server, another goes to the least loaded", local(0))
            .routes(RIPS[1], to("192.0.2.1", 40001))
            .routes(RIPS[1], to("192.0.2.1", 40002))
            .routes(RIPS[2], to("192.0.2.2", 40003))
            .routes(RIPS[3], to("192.0.2.3", 40004))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.2:80: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40004 > 192.0.2.3:80: to 3, SYN_RECV, 60 s, active, half-open
                 load 1: 2 active
                 load 2: 1 active
                 load 3: 1 active
                 locality 192.0.2.1 of 0: 1
                 locality 192.0.2.2 of 0: 2
                 locality 192.0.2.3 of 0: 3
                 reason transmitted 4
                 server 1: 2 connections, 2 packets, 80 bytes
                 server 2: 1 connections, 1 packets, 40 bytes
                 server 3: 1 connections, 1 packets, 40 bytes",
            ),
        case("lblc: an address moves from a crowded server while another is idle", local(0))
            .routes(RIPS[1], to("192.0.2.1", 40001))
            .routes(RIPS[1], to("192.0.2.1", 40002))
            .routes(RIPS[2], to("192.0.2.1", 40003))
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 1: 2 active
                 load 2: 1 active
                 locality 192.0.2.1 of 0: 2
                 reason transmitted 3
                 server 1: 2 connections, 2 packets, 80 bytes
                 server 2: 1 connections, 1 packets, 40 bytes",
            ),
        case(
            "lblcr: a crowded address gets a second server, the newest first in its set",
            local(locality::REPLICATE),
        )
        .routes(RIPS[1], to("192.0.2.1", 40001))
        .routes(RIPS[1], to("192.0.2.1", 40002))
        .routes(RIPS[2], to("192.0.2.1", 40003))
        .routes(RIPS[2], to("192.0.2.1", 40004))
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 flow tcp 203.0.113.1:40004 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 1: 2 active
                 load 2: 2 active
                 locality 192.0.2.1 of 0: 2, 1
                 reason transmitted 4
                 server 1: 2 connections, 2 packets, 80 bytes
                 server 2: 2 connections, 2 packets, 80 bytes",
        ),
        case(
            "lblcr: a set that did not change for a day loses its most loaded server",
            local(locality::REPLICATE),
        )
        .routes(RIPS[1], to("192.0.2.1", 40001))
        .routes(RIPS[1], to("192.0.2.1", 40002))
        .routes(RIPS[2], to("192.0.2.1", 40003))
        .waits(86_402)
        .routes(RIPS[2], to("192.0.2.1", 40004))
        .holds(
            "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, over, active, half-open
                 flow tcp 203.0.113.1:40002 > 192.0.2.1:80: to 1, SYN_RECV, over, active, half-open
                 flow tcp 203.0.113.1:40003 > 192.0.2.1:80: to 2, SYN_RECV, over, active, half-open
                 flow tcp 203.0.113.1:40004 > 192.0.2.1:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 1: 2 active
                 load 2: 2 active
                 locality 192.0.2.1 of 0: 2
                 reason transmitted 4
                 server 1: 2 connections, 2 packets, 80 bytes
                 server 2: 2 connections, 2 packets, 80 bytes",
        ),
    ]
}
