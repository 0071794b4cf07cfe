//! UDP services.

use lb_tests::director::servers;
use lb_tests::lab::client::{Load, tally};
use lb_tests::lab::{Family, Lab, one_arm};

use super::{Scene, answers, configuration, of, sequence, service_at};

const DNS: u16 = 53;
const EVEN: [(usize, &str); 3] = [(1, ""), (2, ""), (3, "")];

fn dns(lab: &Lab, keys: &[&str]) -> String {
    let keys: Vec<&str> = ["protocol: udp", "scheduler: rr"].iter().chain(keys).copied().collect();
    let services =
        Family::BOTH.map(|family| service_at(lab, family, lab.vips[0], &DNS.to_string(), &keys, &EVEN));
    configuration(lab, &services)
}

#[test]
fn a_clients_port_stays_with_its_server() {
    let scene = Scene::running(one_arm(3), |lab| dns(lab, &[]));
    let _udp = scene.lab.udp_servers(&[DNS]).unwrap();
    for family in Family::BOTH {
        let (vip, client) = (scene.lab.vips[0].socket(family, DNS), scene.client_address(family));
        let datagrams = scene.client.udp(&Load::new(vip, 300).from_ports(client).body("who?"));
        assert_eq!(tally(&datagrams), of(&[("rs1", 100), ("rs2", 100), ("rs3", 100)]));
        for answer in answers(datagrams) {
            assert_eq!((answer.peer.ip(), answer.local, answer.length), (client.ip(), vip, 4));
        }
        let same = |_| tally(&scene.client.udp(&Load::new(vip, 5).from_port(client).concurrency(1)));
        let (first, again) = (same(()), same(()));
        assert_eq!(first.len(), 1, "one flow, one server: {first:?}");
        assert_eq!(first, again);
    }
    let status = scene.director.status().unwrap();
    for server in servers(&status) {
        assert_eq!((server.active, server.inactive), (0, 100), "UDP is never active");
    }
}

#[test]
fn with_one_packet_scheduling_every_datagram_is_on_its_own() {
    let mut scene = Scene::running(one_arm(3), |lab| dns(lab, &["one_packet: true"]));
    let _udp = scene.lab.udp_servers(&[DNS]).unwrap();
    for family in Family::BOTH {
        let (vip, client) = (scene.lab.vips[0].socket(family, DNS), scene.client_address(family));
        let turns = sequence(scene.client.udp(&Load::new(vip, 30).from_port(client).concurrency(1)));
        for turn in turns.chunks(3) {
            assert_eq!(turn, ["rs3", "rs2", "rs1"], "{family:?}");
        }
    }
    let status = scene.director.wait_for("nothing is left of them", |status| {
        servers(status).all(|server| server.active + server.inactive == 0)
    });
    assert!(servers(&status.unwrap()).all(|server| server.connections == 10), "counted by packet");
}

#[test]
fn datagrams_in_fragments_arrive_whole() {
    let scene = Scene::running(one_arm(3), |lab| dns(lab, &[]));
    let _udp = scene.lab.udp_servers(&[DNS]).unwrap();
    for family in Family::BOTH {
        let (vip, client) = (scene.lab.vips[0].socket(family, DNS), scene.client_address(family));
        // Six fragments each; one at a time, so that no queue is full.
        let load = Load::new(vip, 30).from_ports(client).body(vec![b'?'; 8000]).concurrency(1);
        let datagrams = scene.client.udp(&load);
        assert_eq!(tally(&datagrams), of(&[("rs1", 10), ("rs2", 10), ("rs3", 10)]));
        assert!(answers(datagrams).iter().all(|answer| answer.length == 8000));
    }
    let stats = scene.director.stats().unwrap();
    let packets = |name| stats.reasons.iter().find(|reason| reason.name == name).unwrap().packets;
    assert_eq!((packets("transmitted"), packets("dropped_fragment")), (2 * 30 * 6, 0), "{:?}", stats.reasons);
}
