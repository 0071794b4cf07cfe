//! The decapsulator's cases: one table, run through the library and through the loaded program.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use lb_common::decap::{Reason, Tunnels, method};
use lb_common::net::{Addr, Be16};
use lb_ebpf::decap::{Ends, Opened, decapsulate};
use lb_ebpf::frame::Buffer;
use lb_userspace::realserver::decap::roles;

use crate::packet::{Ip, eth};

const RIP: &str = "10.0.0.11";
const RIP6: &str = "fd00::11";
const DIP: &str = "10.0.0.2";
const DIP6: &str = "fd00::2";
const CIP: &str = "198.51.100.10";
const CIP6: &str = "2001:db8:100::10";
const VIP: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";

const PORT: u16 = 6080;
/// Every method there is.
pub const ALL: u32 = method::IPIP | method::GRE | method::GUE;

pub struct Case {
    pub sentence: &'static str,
    pub tunnels: Tunnels,
    pub frame: Vec<u8>,
    /// What it is counted under.
    pub reason: Reason,
    /// What comes out; `None`: what came in.
    pub out: Option<Vec<u8>>,
}

/// These methods, with the port GUE has in the cases.
pub fn tunnels(methods: u32) -> Tunnels {
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

pub fn cases() -> Vec<Case> {
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

/// A real server over memory: tunnels that are opened, and addresses.
pub struct Host {
    tunnels: Tunnels,
    addresses: HashMap<Addr, u32>,
    opened: OnceCell<Opened>,
}

/// Roles of the addresses the cases use.
pub fn addresses() -> HashMap<IpAddr, u32> {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let vips = BTreeSet::from([ip(VIP), ip(VIP6)]);
    roles(&vips, [RIP, RIP6, VIP, VIP6, "127.0.0.1"].map(ip)).into_iter().collect()
}

impl Host {
    pub fn new(tunnels: Tunnels) -> Self {
        let addresses = addresses().into_iter().map(|(address, roles)| (Addr::from(address), roles));
        Self { tunnels, addresses: addresses.collect(), opened: OnceCell::new() }
    }

    /// Takes in a packet: what it is counted under, and what it is afterwards.
    pub fn run(&mut self, frame: &[u8]) -> (Reason, Vec<u8>) {
        self.opened.take();
        let mut buffer = Buffer::new(frame);
        let reason = buffer.lend(|frame| decapsulate(frame, self));
        (reason, buffer.bytes())
    }
}

impl Ends for Host {
    fn tunnels(&self) -> Option<&Tunnels> {
        Some(&self.tunnels)
    }

    fn roles(&self, address: &Addr) -> u32 {
        self.addresses.get(address).copied().unwrap_or(0)
    }

    fn leave(&self, opened: &Opened) {
        self.opened.set(*opened).expect("a packet is left for another step once");
    }

    fn opened(&self) -> Option<&Opened> {
        self.opened.get()
    }
}
