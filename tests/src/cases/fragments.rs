//! Fragments follow their first.

use lb_common::counters::Reason;

use super::protocols::udp;
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, case, complaint, towards};
use crate::engine::{Fixture, Plan, Service, dr, ipip};
use crate::packet::{Eth, Packet, Udp, eth};

fn query(eth: Eth, ttl: u8) -> Packet<Udp> {
    eth.ipv4(CLIENT, VIP).ttl(ttl).id(7).udp(40001, 53).payload_len(600)
}

/// The fragments of [`query`] as they come, and as they go to a server: 324, 220 and 124 bytes of IP.
fn three(rip: &str) -> [(Vec<u8>, Vec<u8>); 3] {
    let sizes = [304, 200];
    let sent = query(eth(), 64).fragments(&sizes).into_iter();
    let expected = query(towards(rip), 63).fragments(&sizes);
    let pairs: Vec<_> = sent.zip(expected).collect();
    pairs.try_into().expect("three fragments")
}

pub(super) fn cases() -> Vec<Case> {
    let [(first, first_sent), (second, second_sent), (last, last_sent)] = three("10.0.1.1");
    let flow = "flow udp 203.0.113.1:40001 > 192.0.2.1:53: to 1, UDP, 300 s, half-open
                load 1: 1 inactive\n";
    let route = "fragment 203.0.113.1 > 192.0.2.1 id 7 protocol 17: to 1, 30 s\n";
    let query6 = |eth: Eth, ttl| eth.ipv6(CLIENT6, VIP6).ttl(ttl).id(77).udp(40001, 53).payload_len(600);
    let six = |eth, ttl| query6(eth, ttl).fragments(&[304]);
    let over_ipip = |id: u32, ip: &[u8]| {
        towards("10.0.1.1").ipv4("10.0.0.1", "10.0.1.1").ttl(63).df(false).id(id).ipip(ip).build()
    };
    let to_stack = || {
        let mut fixture = udp();
        fixture.services[0].places = vec![crate::engine::Place::At(VIP.parse().expect("an address"), 17, 54)];
        fixture
    };
    vec![
        case("the fragments of a datagram go where its first goes", udp())
            .sends(first.clone(), first_sent.clone())
            .sends(second.clone(), second_sent.clone())
            .sends(last.clone(), last_sent.clone())
            .holds(&format!("{flow}{route}reason transmitted 3\nserver 1: 1 connections, 3 packets, 668 bytes")),
        case("a fragment that comes before its first is dropped", udp())
            .drops(last.clone(), Reason::DroppedFragment)
            .sends(first.clone(), first_sent.clone())
            .sends(last.clone(), last_sent.clone())
            .sends(second.clone(), second_sent.clone())
            .holds(&format!(
                "{flow}{route}reason dropped_fragment 1\nreason transmitted 3\nserver 1: 1 connections, 3 packets, 668 bytes"
            )),
        case("a fragment 30 s after its first is dropped", udp())
            .sends(first.clone(), first_sent.clone())
            .waits(29)
            .sends(second.clone(), second_sent.clone())
            .waits(2)
            .drops(last.clone(), Reason::DroppedFragment)
            .holds(
                "flow udp 203.0.113.1:40001 > 192.0.2.1:53: to 1, UDP, 269 s, half-open
                 load 1: 1 inactive
                 fragment 203.0.113.1 > 192.0.2.1 id 7 protocol 17: to 1, over
                 reason dropped_fragment 1
                 reason transmitted 2
                 server 1: 1 connections, 2 packets, 544 bytes",
            ),
        case("a fragment of another datagram does not follow", udp())
            .sends(first.clone(), first_sent.clone())
            .drops(
                eth().ipv4(CLIENT, VIP).id(8).udp(40001, 53).payload_len(600).fragments(&[304]).remove(1),
                Reason::DroppedFragment,
            )
            .drops(
                eth().ipv4("203.0.113.2", VIP).id(7).udp(40001, 53).payload_len(600).fragments(&[304]).remove(1),
                Reason::DroppedFragment,
            )
            .holds(&format!(
                "{flow}{route}reason dropped_fragment 2\nreason transmitted 1\nserver 1: 1 connections, 1 packets, 324 bytes"
            )),
        case("when the first goes up the stack the others do, though they are for a VIP", to_stack())
            .passes(first.clone(), Reason::PassedNoService)
            .passes(second.clone(), Reason::PassedFragment)
            .passes(last.clone(), Reason::PassedFragment)
            .holds(
                "fragment 203.0.113.1 > 192.0.2.1 id 7 protocol 17: to the stack, 30 s
                 reason passed_fragment 2
                 reason passed_no_service 1",
            ),
        case("fragments for an address that is no VIP are the stack's", udp())
            .passes(
                eth().ipv4(CLIENT, "192.0.2.9").udp(40001, 53).payload_len(600).fragments(&[304]).remove(1),
                Reason::PassedFragment,
            )
            .holds("reason passed_fragment 1"),
        case("IPv6 fragments follow by addresses and identification", {
            let service = Service::at(VIP6, 17, 53).plan(Plan::cycle(&[1]));
            Fixture::new().service(service).server(dr("fd00::1:1"))
        })
        .drops(six(eth(), 64).remove(1), Reason::DroppedFragment)
        .sends(six(eth(), 64).remove(0), six(towards("fd00::1:1"), 63).remove(0))
        .sends(six(eth(), 64).remove(1), six(towards("fd00::1:1"), 63).remove(1))
        .holds(
            "flow udp [2001:db8:1::1]:40001 > [2001:db8:ff::1]:53: to 1, UDP, 300 s, half-open
             load 1: 1 inactive
             fragment 2001:db8:1::1 > 2001:db8:ff::1 id 77 protocol 0: to 1, 30 s
             reason dropped_fragment 1
             reason transmitted 2
             server 1: 1 connections, 2 packets, 704 bytes",
        ),
        case("fragments go through tunnels as they are", {
            let mut fixture = udp();
            fixture.servers[0] = ipip("10.0.1.1");
            fixture
        })
        .sends_with_id(first.clone(), move |id| over_ipip(id, &query(eth(), 63).ip_fragments(&[304, 200])[0]))
        .sends_with_id(last.clone(), move |id| over_ipip(id, &query(eth(), 63).ip_fragments(&[304, 200])[2]))
        .holds(&format!("{flow}{route}reason transmitted 2\nserver 1: 1 connections, 2 packets, 448 bytes")),
        case("a later fragment larger than the path is dropped: nobody could tell what an answer is about", {
            let mut fixture = udp();
            fixture.servers[0] = dr("10.0.1.1").mtu(200);
            fixture
        })
        .replies(first.clone(), Reason::RepliedTooBig, |id| {
            complaint(id, 3, 4, 200, &query(eth(), 63).ip_fragments(&[304, 200])[0])
        })
        .drops(second.clone(), Reason::DroppedTooBig)
        .holds(&format!(
            "{flow}{route}reason dropped_too_big 1\nreason replied_too_big 1\nserver 1: 1 connections, 2 packets, 544 bytes"
        )),
    ]
}
