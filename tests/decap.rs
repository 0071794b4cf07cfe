//! The decapsulator, packet by packet: one table through the library and, with the rights of root (feature
//! `privileged`), through the loaded program.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use lb_common::decap::{Reason, Tunnels, method};
use lb_common::net::{Addr, Be16};
use lb_ebpf::decap::{Ends, Opened, decapsulate};
use lb_ebpf::frame::Buffer;
use lb_tests::packet::{Ip, eth};
use lb_userspace::realserver::decap::roles;

const RIP: &str = "10.0.0.11";
const RIP6: &str = "fd00::11";
const DIP: &str = "10.0.0.2";
const DIP6: &str = "fd00::2";
const CIP: &str = "198.51.100.10";
const CIP6: &str = "2001:db8:100::10";
const VIP: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";

const PORT: u16 = 6080;
const ALL: u32 = method::IPIP | method::GRE | method::GUE;

struct Case {
    sentence: &'static str,
    tunnels: Tunnels,
    frame: Vec<u8>,
    /// What it is counted under.
    reason: Reason,
    /// What comes out; `None`: what came in.
    out: Option<Vec<u8>>,
}

fn tunnels(methods: u32) -> Tunnels {
    Tunnels { methods, gue_port: Be16::from_host(PORT), pad: 0 }
}

/// Comes out as `out`.
fn opened(sentence: &'static str, frame: Vec<u8>, reason: Reason, out: Vec<u8>) -> Case {
    Case { sentence, tunnels: tunnels(ALL), frame, reason, out: Some(out) }
}

/// Is left as it is.
fn left(sentence: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    Case { sentence, tunnels: tunnels(ALL), frame, reason, out: None }
}

/// Outer headers.
fn v4() -> Ip {
    eth().ipv4(DIP, RIP).df(false)
}

fn v6() -> Ip {
    eth().ipv6(DIP6, RIP6)
}

/// The packet inside, as it is on the link without a tunnel and as a tunnel carries it.
fn plain(ip: Ip) -> (Vec<u8>, Vec<u8>) {
    let packet = ip.tcp(40_000, 80).syn().payload_len(101);
    (packet.build(), packet.ip_bytes())
}

fn changed(mut frame: Vec<u8>, at: usize, to: u8) -> Vec<u8> {
    assert_ne!(frame[at], to);
    frame[at] = to;
    frame
}

fn cases() -> Vec<Case> {
    use Reason::*;
    let (to4, in4) = plain(eth().ipv4(CIP, VIP));
    let (to6, in6) = plain(eth().ipv6(CIP6, VIP6));
    let wrong = |packet: Vec<u8>| {
        let last = packet.len() - 1;
        let flipped = packet[last] ^ 1;
        changed(packet, last, flipped)
    };
    let marked = |tos: u8| plain(eth().ipv4(CIP, VIP).tos(tos));
    let marked6 = |tos: u8| plain(eth().ipv6(CIP6, VIP6).tos(tos));
    let (ect0, in_ect0) = marked(0xba);
    let (ect1, _) = marked(0xb9);
    let (ce, _) = marked(0xbb);
    let (_, in_ect0_6) = marked6(0xba);
    let (ce6, _) = marked6(0xbb);
    let encapsulation_limit = [0, 0, 4, 1, 4, 1, 0, 0];
    let gue_with = |first: u8, protocol: u8, flags: u8| {
        let header = [first, protocol, flags, 0];
        v4().udp(40_000, PORT).payload(&[&header, in4.as_slice()].concat()).no_checksum().build()
    };
    let gre_with = |flags: [u8; 2], kind: [u8; 2]| {
        v4().protocol(47, &[&flags[..], &kind, &[0; 4], &in4].concat()).build()
    };
    let big = eth().ipv4(CIP, VIP).udp(40_000, 80).payload_len(8_900);
    let (big_out, big_in) = (big.build(), big.ip_bytes());
    let mut table = vec![
        opened("IPv4 in IPv4", v4().ipip(&in4).build(), DecapsulatedIpip, to4.clone()),
        opened("IPv6 in IPv4", v4().ipip(&in6).build(), DecapsulatedIpip, to6.clone()),
        opened("IPv4 in IPv6", v6().ipip(&in4).build(), DecapsulatedIpip, to4.clone()),
        opened("IPv6 in IPv6", v6().ipip(&in6).build(), DecapsulatedIpip, to6.clone()),
        opened("GRE in IPv4", v4().gre(&in4, false).build(), DecapsulatedGre, to4.clone()),
        opened("GRE in IPv4 with IPv6 inside", v4().gre(&in6, false).build(), DecapsulatedGre, to6.clone()),
        opened("GRE in IPv6", v6().gre(&in6, false).build(), DecapsulatedGre, to6.clone()),
        opened("GRE in IPv6 with IPv4 inside", v6().gre(&in4, false).build(), DecapsulatedGre, to4.clone()),
        opened("GRE with its checksum", v4().gre(&in4, true).build(), DecapsulatedGre, to4.clone()),
        opened("GRE with its checksum in IPv6", v6().gre(&in6, true).build(), DecapsulatedGre, to6.clone()),
        opened(
            "GUE in IPv4 without a checksum",
            v4().gue(40_000, PORT, &in4).no_checksum().build(),
            DecapsulatedGue,
            to4.clone(),
        ),
        opened("GUE in IPv4", v4().gue(40_000, PORT, &in4).build(), DecapsulatedGue, to4.clone()),
        opened(
            "GUE in IPv4 with IPv6 inside",
            v4().gue(40_000, PORT, &in6).build(),
            DecapsulatedGue,
            to6.clone(),
        ),
        opened("GUE in IPv6", v6().gue(40_000, PORT, &in6).build(), DecapsulatedGue, to6.clone()),
        opened(
            "GUE in IPv6 without a checksum, IPv4 inside",
            v6().gue(40_000, PORT, &in4).no_checksum().build(),
            DecapsulatedGue,
            to4.clone(),
        ),
        opened(
            "an outer IPv4 header with options",
            v4().options(&[1; 12]).gre(&in4, true).build(),
            DecapsulatedGre,
            to4.clone(),
        ),
        opened(
            "an outer IPv6 header with an encapsulation limit",
            v6().extension(60, &encapsulation_limit).ipip(&in4).build(),
            DecapsulatedIpip,
            to4.clone(),
        ),
        opened(
            "a tag stays in front of what comes out",
            eth().vlan(7).ipv4(DIP, RIP).ipip(&in6).build(),
            DecapsulatedIpip,
            plain(eth().vlan(7).ipv6(CIP6, VIP6)).0,
        ),
        opened(
            "two tags stay in front of what comes out",
            eth().service_vlan(7).vlan(8).ipv6(DIP6, RIP6).gue(40_000, PORT, &in4).build(),
            DecapsulatedGue,
            plain(eth().service_vlan(7).vlan(8).ipv4(CIP, VIP)).0,
        ),
        opened(
            "Ethernet's padding behind the outer packet is not covered by a checksum",
            [v4().gre(&in4, true).build(), vec![0xff; 9]].concat(),
            DecapsulatedGre,
            [to4.clone(), vec![0xff; 9]].concat(),
        ),
        opened(
            "the time to live inside is left alone, even at its end",
            v4().ttl(9).ipip(&plain(eth().ipv4(CIP, VIP).ttl(1)).1).build(),
            DecapsulatedIpip,
            plain(eth().ipv4(CIP, VIP).ttl(1)).0,
        ),
        opened(
            "congestion met in the tunnel is told to IPv4 inside",
            v4().tos(3).ipip(&in_ect0).build(),
            DecapsulatedIpip,
            ce.clone(),
        ),
        opened(
            "congestion met in the tunnel is told to IPv6 inside",
            v4().tos(3).gre(&in_ect0_6, true).build(),
            DecapsulatedGre,
            ce6,
        ),
        opened(
            "congestion met before the tunnel stays told",
            v6().tos(2).ipip(&marked(0xbb).1).build(),
            DecapsulatedIpip,
            ce,
        ),
        opened(
            "ECT(1) outside becomes that of ECT(0) inside",
            v6().tos(1).ipip(&in_ect0).build(),
            DecapsulatedIpip,
            ect1,
        ),
        opened("other marks stay outside", v4().tos(0xfe).ipip(&in_ect0).build(), DecapsulatedIpip, ect0),
        left(
            "congestion met by a packet whose sender takes no marks",
            v4().tos(3).ipip(&in4).build(),
            DroppedCongestion,
        ),
        left("a wrong GRE checksum", wrong(v4().gre(&in4, true).build()), DroppedChecksum),
        left("a wrong GRE checksum in IPv6", wrong(v6().gre(&in4, true).build()), DroppedChecksum),
        left(
            "a wrong UDP checksum around GUE",
            v4().gue(40_000, PORT, &in6).wrong_checksum().build(),
            DroppedChecksum,
        ),
        left("ARP", eth().other(0x0806, &[0; 28]), PassedNotIp),
        left("an ordinary packet for the VIP", to4.clone(), PassedNotTunnel),
        left("UDP to another port", v4().gue(40_000, PORT + 1, &in4).build(), PassedNotTunnel),
        left(
            "a tunnel that ends at another host",
            eth().ipv4(DIP, "10.0.0.12").ipip(&in4).build(),
            PassedNotEnd,
        ),
        left("a tunnel that ends at the VIP", eth().ipv4(DIP, VIP).ipip(&in4).build(), PassedNotEnd),
        left(
            "a packet inside for an address that is no VIP",
            v4().gre(&plain(eth().ipv4(CIP, "192.0.2.2")).1, false).build(),
            PassedNotVip,
        ),
        left("a packet inside for the RIP", v4().ipip(&plain(eth().ipv4(CIP, RIP)).1).build(), PassedNotVip),
        left(
            "the first fragment of a tunnel packet",
            v4().ipip(&in4).fragments(&[96]).remove(0),
            PassedFragment,
        ),
        left(
            "a later fragment of a tunnel packet",
            v4().ipip(&in4).fragments(&[96]).remove(1),
            PassedFragment,
        ),
        left("GRE with a key", gre_with([0x20, 0], [8, 0]), PassedUnsupported),
        left("GRE of version 1", gre_with([0, 1], [8, 0]), PassedUnsupported),
        left("GRE around MPLS", gre_with([0, 0], [0x88, 0x47]), PassedUnsupported),
        left("a GUE control message", gue_with(0x20, 4, 0), PassedUnsupported),
        left("GUE of version 1", gue_with(0x40, 4, 0), PassedUnsupported),
        left("GUE with an optional field", gue_with(1, 4, 0), PassedUnsupported),
        left("GUE with a flag", gue_with(0, 4, 0x80), PassedUnsupported),
        left("GUE around something else than IP", gue_with(0, 6, 0), PassedUnsupported),
        left("GRE that says IPv6 and holds IPv4", gre_with([0, 0], [0x86, 0xdd]), PassedMalformed),
        left(
            "a packet inside longer than the tunnel's",
            changed(v4().ipip(&in4).build(), 36, 9),
            PassedMalformed,
        ),
        left(
            "an outer packet longer than the frame",
            changed(v4().ipip(&in4).build(), 16, 9),
            PassedMalformed,
        ),
        left("an outer header shorter than any", changed(v4().ipip(&in4).build(), 14, 0x44), PassedMalformed),
        left(
            "a frame cut short in the header inside",
            v4().ipip(&in4).build()[..44].to_vec(),
            PassedMalformed,
        ),
    ];
    // Which tunnels are opened is configured.
    for (sentence, methods, frame) in [
        ("IPIP where only GRE and GUE are opened", method::GRE | method::GUE, v4().ipip(&in4).build()),
        ("GRE where only IPIP and GUE are opened", method::IPIP | method::GUE, v4().gre(&in4, true).build()),
        ("GUE where only IPIP and GRE are opened", method::IPIP | method::GRE, {
            v4().gue(40_000, PORT, &in4).build()
        }),
    ] {
        let tunnels = tunnels(methods);
        table.push(Case { sentence, tunnels, frame, reason: PassedNotTunnel, out: None });
    }
    table.extend([
        opened("a jumbo frame", v4().ipip(&big_in).build(), DecapsulatedIpip, big_out.clone()),
        opened("a jumbo frame in IPv6", v6().gre(&big_in, false).build(), DecapsulatedGre, big_out.clone()),
        opened("a jumbo frame's checksum", v4().gre(&big_in, true).build(), DecapsulatedGre, big_out.clone()),
        opened("a jumbo frame's UDP", v6().gue(40_000, PORT, &big_in).build(), DecapsulatedGue, big_out),
        left("a jumbo frame with a wrong checksum", wrong(v4().gre(&big_in, true).build()), DroppedChecksum),
    ]);
    table
}

struct Host {
    tunnels: Tunnels,
    addresses: HashMap<Addr, u32>,
    opened: Cell<Option<&'static Opened>>,
}

fn addresses() -> HashMap<IpAddr, u32> {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let vips = BTreeSet::from([ip(VIP), ip(VIP6)]);
    roles(&vips, [RIP, RIP6, VIP, VIP6, "127.0.0.1"].map(ip)).into_iter().collect()
}

impl Ends for Host {
    fn tunnels(&self) -> Option<&Tunnels> {
        Some(&self.tunnels)
    }

    fn roles(&self, address: &Addr) -> u32 {
        self.addresses.get(address).copied().unwrap_or(0)
    }

    fn leave(&self, opened: &Opened) {
        // A few bytes a case, for as long as the test runs.
        self.opened.set(Some(Box::leak(Box::new(*opened))));
    }

    fn opened(&self) -> Option<&Opened> {
        self.opened.get()
    }
}

fn expect(case: &Case, reason: Reason, bytes: &[u8]) {
    assert_eq!(reason, case.reason, "{}", case.sentence);
    let out = case.out.as_ref().unwrap_or(&case.frame);
    assert_eq!(bytes, out, "{}", case.sentence);
}

#[test]
fn packets_for_vips_come_out_of_their_tunnels_and_nothing_else_is_touched() {
    for case in cases() {
        let addresses = addresses().into_iter().map(|(address, roles)| (Addr::from(address), roles));
        let host = Host { tunnels: case.tunnels, addresses: addresses.collect(), opened: Cell::new(None) };
        let mut buffer = Buffer::new(&case.frame);
        let reason = buffer.lend(|frame| decapsulate(frame, &host));
        expect(&case, reason, buffer.bytes());
    }
}

/// Whatever is cut off, the rest passes or is dropped; it never comes out as if it were whole.
#[test]
fn no_length_of_a_tunnel_packet_is_read_past_its_end() {
    for case in cases().iter().filter(|case| case.out.is_some()) {
        let addresses = addresses().into_iter().map(|(address, roles)| (Addr::from(address), roles));
        let host = Host { tunnels: case.tunnels, addresses: addresses.collect(), opened: Cell::new(None) };
        let padding = if case.sentence.contains("padding") { 9 } else { 0 };
        for length in 14..case.frame.len() - padding {
            let mut buffer = Buffer::new(&case.frame[..length]);
            let reason = buffer.lend(|frame| decapsulate(frame, &host));
            assert_eq!(reason, Reason::PassedMalformed, "{}, cut to {length} bytes", case.sentence);
            assert_eq!(buffer.bytes(), &case.frame[..length], "{}", case.sentence);
        }
    }
}

#[cfg(feature = "privileged")]
mod kernel {
    use super::*;
    use aya::programs::{TestRun, TestRunOptions};
    use lb_common::counters::Verdict;
    use lb_userspace::realserver::decap::Decapsulator;

    #[test]
    fn the_loaded_program_does_the_same() {
        // Loading takes longer than all the packets together.
        let mut loaded: HashMap<u32, Decapsulator> = HashMap::new();
        for case in &cases() {
            let decapsulator = loaded.entry(case.tunnels.methods).or_insert_with(|| {
                let mut decapsulator = Decapsulator::load(case.tunnels).expect("cargo xtask build, and root");
                decapsulator.set_addresses(&addresses().into_iter().collect()).unwrap();
                decapsulator
            });
            let before = decapsulator.counts().unwrap();
            let mut out = vec![0; case.frame.len() + 64];
            let options =
                TestRunOptions { data_in: Some(&case.frame), data_out: Some(&mut out), ..Default::default() };
            let result = decapsulator.program().unwrap().test_run(options).expect(case.sentence);
            out.truncate(result.data_size_out as usize);
            let after = decapsulator.counts().unwrap();
            let counted =
                before.iter().zip(after).map(|((reason, before), (_, after))| (*reason, after - before));
            let counted: Vec<_> = counted.filter(|(_, packets)| *packets > 0).collect();
            assert_eq!(counted, [(case.reason, 1)], "{}", case.sentence);
            expect(case, case.reason, &out);
            let verdict = if case.reason.verdict() == Verdict::Drop { 1 } else { 2 };
            assert_eq!(result.return_value, verdict, "{}", case.sentence);
        }
    }

    #[test]
    fn addresses_come_and_go() {
        let mut decapsulator = Decapsulator::load(tunnels(ALL)).expect("cargo xtask build, and root");
        let (_, inner) = plain(eth().ipv4(CIP, VIP));
        let frame = v4().ipip(&inner).build();
        let mut ask = |addresses: HashMap<IpAddr, u32>| {
            decapsulator.set_addresses(&addresses.into_iter().collect()).unwrap();
            let mut out = vec![0; 1500];
            let options =
                TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..Default::default() };
            decapsulator.program().unwrap().test_run(options).unwrap().data_size_out as usize
        };
        assert_eq!(ask(addresses()), frame.len() - 20);
        assert_eq!(ask(HashMap::new()), frame.len());
        assert_eq!(ask(addresses()), frame.len() - 20);
    }
}
