//! The labs themselves, without a director program: what reaches whom, and by which way.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_tests::lab::capture::{Capture, Direction, Frame, RawLink};
use lb_tests::lab::client::{Client, ClientError, Load, tally};
use lb_tests::lab::http::{HttpServer, sha256};
use lb_tests::lab::udp::UdpServer;
use lb_tests::lab::xdp::{self, Verdict};
use lb_tests::lab::{Builder, Dual, Family, Lab, one_arm, routed, two_arm};

const PORT: u16 = 80;

/// Every kind of lab, with `n` real servers.
fn labs(n: usize) -> [(&'static str, Builder); 5] {
    [
        ("one arm", one_arm(n)),
        ("two arms", two_arm(n)),
        ("routed", routed(n)),
        ("one arm in a VLAN", one_arm(n).vlan(7)),
        ("a trunk of two VLANs", two_arm(n).trunk(10, 20)),
    ]
}

fn build(what: &str, builder: Builder) -> Lab {
    builder.build().unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn is(dual: Dual, address: IpAddr) -> bool {
    Family::BOTH.iter().any(|family| dual.of(*family) == address)
}

#[test]
fn the_client_reaches_every_real_server_by_its_rip() {
    for (what, builder) in labs(2) {
        let lab = build(what, builder);
        let servers = lab.http_servers(&[PORT, 8080]).unwrap();
        let _udp = lab.udp_servers(&[53]).unwrap();
        let client = lab.client().unwrap();
        let (vip_traffic, cip) = (lab.capture(&lab.director.front).unwrap(), lab.client_addresses[0]);
        for (server, family) in
            lab.real_servers.iter().zip(&servers).flat_map(|pair| Family::BOTH.map(|f| (pair, f)))
        {
            let (real, http) = server;
            for port in [PORT, 8080] {
                let before = http.requests();
                let answer = client.get(real.address.socket(family, port)).unwrap();
                assert_eq!(answer.server, real.name, "{what}");
                assert_eq!(answer.local, real.address.socket(family, port), "{what}");
                assert_eq!(answer.peer.ip(), cip.of(family), "{what}");
                assert_eq!(http.requests(), before + 1, "{what}");
            }
            let datagrams = client.udp(&Load::new(real.address.socket(family, 53), 3).body("hello"));
            assert_eq!(tally(&datagrams)[&real.name], 3, "{what}");
            assert_eq!(datagrams[0].result.as_ref().unwrap().sha256, sha256(b"hello"), "{what}");
        }
        let past_the_director = vip_traffic.finish().iter().filter(|frame| is_of_client(frame, cip)).count();
        assert_eq!(past_the_director, 0, "{what}: the director sees no conversation with a RIP");
    }
}

fn is_of_client(frame: &Frame, cip: Dual) -> bool {
    frame.addresses().is_some_and(|(source, destination)| is(cip, source) || is(cip, destination))
}

#[test]
fn the_vip_leads_to_the_director_and_nowhere_else() {
    for (what, builder) in [("one arm", one_arm(2)), ("two arms", two_arm(2)), ("routed", routed(2))] {
        let lab = build(what, builder.vips(2));
        let _servers = lab.http_servers(&[PORT]).unwrap();
        let client = lab.client().unwrap();
        for (vip, family) in lab.vips.iter().flat_map(|vip| Family::BOTH.map(|family| (vip, family))) {
            let target = vip.socket(family, PORT);
            match client.get(target) {
                Err(ClientError::Connect { source, .. }) => {
                    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused, "{what} {target}");
                }
                other => panic!("{what}: {target} without a server on the director gave {other:?}"),
            }
        }
        let _director = HttpServer::start(&lab.director.namespace, "director", &[PORT]).unwrap();
        for (vip, family) in lab.vips.iter().flat_map(|vip| Family::BOTH.map(|family| (vip, family))) {
            let answer = client.get(vip.socket(family, PORT)).unwrap();
            assert_eq!(
                (answer.server.as_str(), answer.local),
                ("director", vip.socket(family, PORT)),
                "{what}"
            );
        }
    }
}

#[test]
fn only_the_director_answers_arp_for_the_vip() {
    for (what, builder) in [("one arm", one_arm(3)), ("two arms", two_arm(3))] {
        let lab = build(what, builder);
        let (vip, back) = (lab.vips[0].v4, lab.director.back.mac.to_string());
        lab.router.ip([format!("route replace {vip}/32 dev servers")]).unwrap();
        let _director = HttpServer::start(&lab.director.namespace, "director", &[PORT]).unwrap();
        let _servers = lab.http_servers(&[PORT]).unwrap();
        assert_eq!(lab.client().unwrap().get((vip, PORT).into()).unwrap().server, "director", "{what}");
        let neighbours =
            lab.router.output(Command::new("ip").args(["neigh", "show", &vip.to_string()])).unwrap();
        assert!(neighbours.contains(&back), "{what}: {neighbours}");
    }
}

/// What an XDP program on the director will meet: frames no longer than a link allows, with their checksums complete.
#[test]
fn frames_to_the_director_are_as_a_nic_would_deliver_them() {
    for family in Family::BOTH {
        let lab = build("one arm", one_arm(1));
        let _director = HttpServer::start(&lab.director.namespace, "director", &[PORT]).unwrap();
        let client = lab.client().unwrap();
        client.get(lab.vips[0].socket(family, PORT)).unwrap();
        let body: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
        let before = lab.director_counters().unwrap();
        let capture = lab.capture(&lab.director.front).unwrap();
        let answer = client.upload(lab.vips[0].socket(family, PORT), body.clone()).unwrap();
        assert_eq!((answer.length, answer.sha256), (body.len() as u64, sha256(&body)));
        thread::sleep(Duration::from_millis(100));
        let (frames, after) = (capture.finish(), lab.director_counters().unwrap());
        let longest = frames.iter().map(|frame| frame.bytes.len()).max();
        assert_eq!(longest, Some(1514), "{family:?}");
        let wrong: Vec<_> = frames
            .iter()
            .filter(|frame| is_of_client(frame, lab.client_addresses[0]) && !tcp_checksum_is_right(frame))
            .collect();
        assert!(wrong.is_empty(), "{family:?}: {wrong:02x?}");
        let tcp = frames.iter().filter(|frame| tcp_checksum_is_right(frame)).count();
        let other = frames.iter().filter(|frame| !is_of_client(frame, lab.client_addresses[0])).count();
        assert_eq!(tcp + other, frames.len(), "{family:?}: every TCP checksum is right");
        assert!(tcp > body.len() / 1460, "{family:?}: {tcp} segments for {} bytes", body.len());
        // The far end of the cable sees what the counters count. (A router advertisement's age may pass in between.)
        let to_director = frames.iter().filter(|frame| frame.direction == Direction::Sent).count() as u64;
        let from_director = frames.len() as u64 - to_director;
        assert!(
            (after.rx_packets - before.rx_packets).abs_diff(to_director) <= 2,
            "{before:?} {after:?} {to_director}"
        );
        assert!(
            (after.tx_packets - before.tx_packets).abs_diff(from_director) <= 2,
            "{before:?} {after:?} {from_director}"
        );
    }
}

fn tcp_checksum_is_right(frame: &Frame) -> bool {
    let packet = SlicedPacket::from_ethernet(&frame.bytes).unwrap();
    let (Some(net), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport) else { return false };
    // What the checksum field should hold.
    let computed = match net {
        NetSlice::Ipv4(ip) => tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()),
        NetSlice::Ipv6(ip) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
        NetSlice::Arp(_) => return false,
    };
    // In ones' complement both are zero; Linux writes the latter when it completes a checksum.
    computed.is_ok_and(|right| right == tcp.checksum() || (right, tcp.checksum()) == (0, 0xffff))
}

/// More frames than a veth's ring holds (256), so that frames left waiting in it would be missed.
#[test]
fn what_xdp_sends_back_comes_out_of_every_director_cable() {
    const FRAMES: usize = 1000;
    const MARK: [u8; 2] = [0x88, 0xb5]; // Ethertype for local experiments (IEEE 802).
    for (what, builder) in labs(1) {
        let lab = build(what, builder);
        for nic in [&lab.director.front, &lab.director.back] {
            // `xdpdrv` refuses to replace a program: one interface may be both.
            let off = format!("link set {} xdpdrv off", nic.interface);
            lab.director.namespace.ip([off]).unwrap();
            xdp::attach(&lab.director.namespace, &nic.interface, Verdict::Tx).unwrap();
            let port = RawLink::open(lab.cable_end(), &nic.port).unwrap();
            let frame = [&nic.mac.0[..], &[2, 0, 0, 0, 9, 9], &MARK, &[0; 46]].concat();
            let capture = lab.capture(nic).unwrap();
            for number in 0..FRAMES {
                port.send(&frame).unwrap();
                if number % 50 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            thread::sleep(Duration::from_millis(50));
            let back = |frame: &&Frame| frame.direction == Direction::Received && frame.bytes[12..14] == MARK;
            let came_back = capture.finish().iter().filter(back).count();
            assert_eq!(came_back, FRAMES, "{what}: {}", nic.interface);
        }
    }
}

/// A director by direct routing in a few lines of userspace: it proves that the labs carry DR, tagged and untagged,
/// before any XDP program does.
struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<u64>>,
}

impl Relay {
    /// Sends every frame for a VIP to the real server `to`, with the tag of the segment it is in.
    fn start(lab: &Lab, to: usize) -> Self {
        let director = &lab.director;
        for Dual { v4, v6 } in &lab.vips {
            let quiet = [format!("addr del {v4}/32 dev lo"), format!("addr del {v6}/128 dev lo")];
            director.namespace.ip(quiet).unwrap();
        }
        let [front, back] = [&director.front, &director.back]
            .map(|nic| RawLink::open(&director.namespace, &nic.interface).unwrap());
        let (vips, vlan) = (lab.vips.clone(), [director.front.vlan, director.back.vlan]);
        let (source, target) = (director.back.mac, lab.real_servers[to].mac);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let relay = move || {
            let mut forwarded = 0;
            while !stopped.load(Ordering::Relaxed) {
                let Some(frame) = front.receive(Duration::from_millis(20)).unwrap() else { continue };
                let for_vip = |(_, destination)| vips.iter().any(|vip| is(*vip, destination));
                if frame.direction == Direction::Received && frame.addresses().is_some_and(for_vip) {
                    assert_eq!(frame.vlan(), vlan[0]);
                    let mut out = frame.with_vlan(vlan[1]);
                    out.bytes[..6].copy_from_slice(&target.0);
                    out.bytes[6..12].copy_from_slice(&source.0);
                    back.send(&out.bytes).unwrap();
                    forwarded += 1;
                }
            }
            forwarded
        };
        Relay { stop, thread: Some(thread::spawn(relay)) }
    }

    /// Frames forwarded.
    fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn direct_routing_works_and_replies_bypass_the_director() {
    for (what, builder) in labs(2) {
        if what == "routed" {
            continue; // No real server is on the director's segment.
        }
        let lab = build(what, builder.client_addresses(2));
        let _servers = lab.http_servers(&[PORT]).unwrap();
        let _udp = lab.udp_servers(&[53]).unwrap();
        let client = lab.client().unwrap();
        let relay = Relay::start(&lab, 1);
        let captures = [&lab.director.front, &lab.director.back].map(|nic| lab.capture(nic).unwrap());
        for family in Family::BOTH {
            let target = lab.vips[0].socket(family, PORT);
            let cip = lab.client_addresses[1].of(family);
            let outcomes = client.http(&Load::new(target, 20).from(cip));
            assert_eq!(tally(&outcomes), [("rs2".to_owned(), 20)].into(), "{what}");
            for outcome in &outcomes {
                let answer = outcome.result.as_ref().unwrap();
                assert_eq!((answer.peer.ip(), answer.local), (cip, target), "{what}");
            }
            let answer = client.upload(target, vec![7; 300_000]).unwrap();
            assert_eq!((answer.length, answer.sha256), (300_000, sha256(&[7; 300_000])), "{what}");
            let datagrams = client.udp(&Load::new(lab.vips[0].socket(family, 53), 20));
            assert_eq!(tally(&datagrams), [("rs2".to_owned(), 20)].into(), "{what}");
        }
        let forwarded = relay.finish();
        let frames = captures.map(Capture::finish).concat();
        let vip = |address| is(lab.vips[0], address);
        let replies = frames.iter().filter(|frame| frame.addresses().is_some_and(|(source, _)| vip(source)));
        assert_eq!(replies.count(), 0, "{what}: replies bypass the director");
        let requests = frames.iter().filter(|frame| {
            frame.direction == Direction::Received && frame.addresses().is_some_and(|(_, to)| vip(to))
        });
        // One leg is captured twice where it is both front and back.
        let times = if lab.director.front.port == lab.director.back.port { 2 } else { 1 };
        assert_eq!(requests.count() as u64, forwarded * times, "{what}");
        // The director's own stack, which knows nothing of tags, may say things of its own.
        let vlans = [lab.director.front.vlan, lab.director.back.vlan];
        let mut of_vip = frames.iter().filter(|frame| frame.addresses().is_some_and(|(_, to)| vip(to)));
        assert!(of_vip.all(|frame| vlans.contains(&frame.vlan())), "{what}");
    }
}

#[test]
fn a_conversation_keeps_its_connection_and_its_source_port() {
    let lab = build("one arm", one_arm(1).client_addresses(2));
    let servers = lab.http_servers(&[PORT]).unwrap();
    let client = lab.client().unwrap();
    let source = lab.client_addresses[1].socket(Family::V4, 4000);
    let mut conversation =
        client.converse(lab.real_servers[0].address.socket(Family::V4, PORT), Some(source)).unwrap();
    for earlier in 0..3 {
        let answer = conversation.request().unwrap();
        assert_eq!((answer.earlier, answer.peer), (earlier, source));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((servers[0].connections(), servers[0].open_connections(), servers[0].requests()), (1, 1, 3));
    let held = Instant::now();
    conversation.send("/hold?ms=200", "", Duration::from_secs(5)).unwrap();
    assert!(held.elapsed() >= Duration::from_millis(200));
    match conversation.send("/hold?ms=5000", "", Duration::from_millis(100)) {
        Err(ClientError::TimedOut { .. }) => {}
        other => panic!("an answer before its time: {other:?}"),
    }
    drop(conversation);
    let deadline = Instant::now() + Duration::from_secs(5);
    while servers[0].open_connections() != 0 {
        assert!(Instant::now() < deadline, "the client closed the connection");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_stopped_server_refuses_and_a_sick_one_says_so() {
    let lab = build("one arm", one_arm(2));
    let mut servers = lab.http_servers(&[PORT]).unwrap();
    let client = lab.client().unwrap();
    let target = |server: usize| lab.real_servers[server].address.socket(Family::V6, PORT);
    servers[0].set_health(hyper::StatusCode::SERVICE_UNAVAILABLE);
    match client.http(&Load::new(target(0), 1).path("/health")).remove(0).result {
        Err(ClientError::Status { status, .. }) => assert_eq!(status, hyper::StatusCode::SERVICE_UNAVAILABLE),
        other => panic!("a sick server gave {other:?}"),
    }
    drop(servers.remove(1));
    let refused = client.http(&Load::new(target(1), 3).concurrency(3));
    assert!(refused.iter().all(|outcome| matches!(outcome.result, Err(ClientError::Connect { .. }))));
    assert_eq!(client.get(target(0)).unwrap().server, "rs1");
}

#[test]
fn a_larger_server_mtu_carries_larger_frames() {
    let lab = build("routed", routed(1).server_mtu(1600));
    let rip = lab.real_servers[0].address.socket(Family::V4, 53);
    let _server = UdpServer::start(&lab.real_servers[0].namespace, "rs1", &[rip]).unwrap();
    let capture = lab.capture(&lab.director.back).unwrap();
    let from_director = Client::start(&lab.director.namespace).unwrap();
    let answers = from_director.udp(&Load::new(rip, 1).body(vec![0; 1572]));
    assert_eq!(answers[0].result.as_ref().unwrap().length, 1572);
    let longest = capture.finish().iter().map(|frame| frame.bytes.len()).max();
    assert_eq!(longest, Some(14 + 20 + 8 + 1572));
}
