//! What is not the director's: it goes up the stack, untouched, whatever it is.

use lb_common::counters::Reason;
use lb_common::settings::feature;

use super::flows::{three, with};
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, case};
use crate::engine::{Fixture, Plan, dr, tcp};
use crate::packet::{Eth, eth};

fn both() -> Fixture {
    let plan = || Plan::cycle(&[1]);
    let fixture =
        Fixture::new().service(tcp(VIP, 80).plan(plan())).service(tcp(VIP6, 80).plan(Plan::cycle(&[2])));
    fixture.server(dr("10.0.1.1")).server(dr("fd00::1:1").of_service(1))
}

/// Every shorter form of a frame that still has an Ethernet header.
fn cut_short(case: Case, frame: &[u8]) -> Case {
    (14..frame.len()).fold(case, |case, len| case.passes(frame[..len].to_vec(), Reason::PassedMalformed))
}

/// A frame with one byte changed.
fn with_byte(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

pub(super) fn cases() -> Vec<Case> {
    let syn = with("S", 40001)(eth(), 64);
    let options = eth().ipv4(CLIENT, VIP).options(&[7, 7, 4, 0, 0, 0, 0, 0]).tcp(40001, 80).syn().build();
    let syn6 = eth().ipv6(CLIENT6, VIP6).hop_by_hop().tcp(40001, 80).syn().build();
    vec![
        case("ARP and other frames that are not IP are the stack's", both())
            .passes(eth().other(0x0806, &[0; 28]), Reason::PassedNotIp)
            .passes(eth().other(0x88cc, &[]), Reason::PassedNotIp)
            .passes(eth().other(0x0600, &[0x45; 40]), Reason::PassedNotIp)
            .holds("reason passed_not_ip 3"),
        case("a packet for an address that is no VIP is the stack's", both())
            .passes(eth().ipv4(CLIENT, "192.0.2.9").tcp(40001, 80).syn().build(), Reason::PassedNoService)
            .passes(eth().ipv6(CLIENT6, "2001:db8:ff::9").tcp(40001, 80).syn().build(), Reason::PassedNoService)
            .holds("reason passed_no_service 2"),
        case("a packet for another port or protocol of a VIP is the stack's", both())
            .passes(eth().ipv4(CLIENT, VIP).tcp(40001, 81).syn().build(), Reason::PassedNoService)
            .passes(eth().ipv4(CLIENT, VIP).udp(40001, 80).build(), Reason::PassedNoService)
            .passes(eth().ipv4(CLIENT, VIP).protocol(50, &[0; 16]).build(), Reason::PassedProtocol)
            .passes(eth().ipv4(CLIENT, VIP).protocol(47, &[0, 0, 8, 0]).build(), Reason::PassedProtocol)
            .passes(eth().ipv6(CLIENT6, VIP6).protocol(59, &[]).build(), Reason::PassedProtocol)
            .holds("reason passed_no_service 2\nreason passed_protocol 3"),
        cut_short(case("an IPv4 frame cut short anywhere is the stack's", both()), &syn)
            .holds("reason passed_malformed 40"),
        cut_short(case("an IPv4 frame with options cut short anywhere is the stack's", both()), &options)
            .holds("reason passed_malformed 48"),
        cut_short(case("an IPv6 frame with extension headers cut short anywhere is the stack's", both()), &syn6)
            .holds("reason passed_malformed 68"),
        case("headers that contradict themselves are the stack's", both())
            .passes(with_byte(syn.clone(), 14, 0x55), Reason::PassedMalformed)
            .passes(with_byte(syn.clone(), 14, 0x44), Reason::PassedMalformed)
            .passes(with_byte(syn.clone(), 17, 19), Reason::PassedMalformed)
            .passes(with_byte(syn6.clone(), 14, 0x40), Reason::PassedMalformed)
            .holds("reason passed_malformed 4"),
        case("ports that would stand in the padding behind an IP packet are not read", both())
            .passes(with_byte(syn.clone(), 17, 20), Reason::PassedMalformed)
            .passes(with_byte(syn.clone(), 17, 33), Reason::PassedMalformed)
            .passes(with_byte(syn6.clone(), 19, 8), Reason::PassedMalformed)
            .passes(with_byte(syn6.clone(), 19, 21), Reason::PassedMalformed)
            .holds("reason passed_malformed 4"),
        case("padding behind a packet is neither counted nor in the way", three())
            .routes("10.0.1.1", |eth, ttl| [with("S", 40001)(eth, ttl), vec![0; 6]].concat())
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 40 bytes",
            ),
        case("IP options and TCP options do not hide the ports", three())
            .routes("10.0.1.1", |eth: Eth, ttl| {
                let ip = eth.ipv4(CLIENT, VIP).ttl(ttl).options(&[7, 7, 4, 0, 0, 0, 0, 0]);
                ip.tcp(40001, 80).syn().tcp_options(&[2, 4, 5, 0xb4]).build()
            })
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 52 bytes",
            ),
        case("IPv6 extension headers are followed to the ports", both())
            .routes("fd00::1:1", |eth: Eth, ttl| {
                let ip = eth.ipv6(CLIENT6, VIP6).ttl(ttl).hop_by_hop().destination_options();
                ip.extension(43, &[0, 0, 4, 0, 0, 0, 0, 0]).tcp(40001, 80).syn().build()
            })
            .holds(
                "flow tcp [2001:db8:1::1]:40001 > [2001:db8:ff::1]:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 2: 1 active
                 reason transmitted 1
                 server 2: 1 connections, 1 packets, 84 bytes",
            ),
        case("more extension headers than a packet may have are the stack's", both())
            .passes(
                (0..7).fold(eth().ipv6(CLIENT6, VIP6), |ip, _| ip.destination_options()).tcp(40001, 80).syn().build(),
                Reason::PassedProtocol,
            )
            .holds("reason passed_protocol 1"),
        case("without the feature IPv6 is the stack's", Fixture { features: 0, ..both() })
            .passes(syn6, Reason::PassedNotIp)
            .routes("10.0.1.1", with("S", 40001))
            .passes(eth().vlan(7).ipv4(CLIENT, VIP).tcp(40001, 80).syn().build(), Reason::PassedNotIp)
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason passed_not_ip 2
                 reason transmitted 1
                 server 1: 1 connections, 1 packets, 40 bytes",
            ),
        case("one feature alone is one alone", Fixture { features: feature::IPV6, ..both() })
            .passes(eth().vlan(7).ipv6(CLIENT6, VIP6).tcp(40001, 80).syn().build(), Reason::PassedNotIp)
            .routes("fd00::1:1", |eth, ttl| eth.ipv6(CLIENT6, VIP6).ttl(ttl).tcp(40001, 80).syn().build())
            .holds(
                "flow tcp [2001:db8:1::1]:40001 > [2001:db8:ff::1]:80: to 2, SYN_RECV, 60 s, active, half-open
                 load 2: 1 active
                 reason passed_not_ip 1
                 reason transmitted 1
                 server 2: 1 connections, 1 packets, 60 bytes",
            ),
    ]
}
