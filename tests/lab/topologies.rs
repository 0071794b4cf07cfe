//! Direct routing where director and real servers are connected in other ways.

use std::time::Duration;

use lb_tests::lab::capture::Direction;
use lb_tests::lab::client::{Load, tally};
use lb_tests::lab::http::sha256;
use lb_tests::lab::{Builder, Family, Lab, one_arm, two_arm};
use lb_userspace::api::types::{Mode, Verdict};

use super::{Held, Scene, configuration, converse, of, service, uploads_arrive_whole};

const EVEN: [(usize, &str); 2] = [(1, ""), (2, "")];

/// With next hops by hand where the lab's links are tagged: the director has no device for the VLAN.
fn rr(lab: &Lab) -> String {
    let services = Family::BOTH.map(|family| service(lab, family, &["scheduler: rr"], &EVEN));
    let mut text = configuration(lab, &services);
    if let Some(vlan) = lab.director.back.vlan {
        text += "neighbours:\n";
        for real in &lab.real_servers {
            for address in Family::BOTH.map(|family| real.address.of(family)) {
                let (mac, interface) = (real.mac, &lab.director.back.interface);
                text += &format!(
                    "  - {{address: \"{address}\", mac: \"{mac}\", interface: {interface}, vlan: {vlan}}}\n"
                );
            }
        }
    }
    text
}

fn works(builder: Builder, verdict: Verdict) {
    let mut scene = Scene::running(builder, rr);
    let back = scene.lab.director.back.clone();
    let macs: Vec<[u8; 6]> = scene.lab.real_servers.iter().map(|real| real.mac.0).collect();
    for family in Family::BOTH {
        let capture = scene.lab.capture(&back).unwrap();
        let outcomes = scene.client.http(&scene.load(family, 200, 0));
        assert_eq!(tally(&outcomes), of(&[("rs1", 100), ("rs2", 100)]));
        let client = scene.client_address(family).ip();
        let mut forwarded = 0;
        for frame in capture.finish() {
            let Some((source, destination)) = frame.addresses() else { continue };
            assert_ne!(destination, client, "no reply comes by the director");
            if source == client && frame.direction == Direction::Received {
                assert_eq!(frame.vlan(), back.vlan);
                assert!(macs.contains(&frame.bytes[..6].try_into().unwrap()), "{:02x?}", frame.bytes);
                assert_eq!(frame.bytes[6..12], back.mac.0);
                forwarded += 1;
            }
        }
        assert!(forwarded >= 200 * 4, "{forwarded}");
    }
    // Large frames, and a daemon that crashes and comes back.
    uploads_arrive_whole(&scene);
    let vip = scene.vip(Family::V4);
    let mut held = converse(&scene.client, vip, 4);
    scene.director.kill().unwrap();
    held.iter_mut().for_each(Held::ask);
    scene.director.start_and_wait().unwrap();
    held.iter_mut().for_each(Held::ask);
    let stats = scene.director.stats().unwrap();
    let packets = |wanted: Verdict| {
        let reasons = stats.reasons.iter().filter(|reason| reason.verdict == wanted);
        reasons.map(|reason| reason.packets).sum::<u64>()
    };
    let to_servers: u64 = stats.servers.iter().map(|server| server.packets).sum();
    assert_eq!(packets(verdict), to_servers, "{:?}", stats.reasons);
    assert_eq!(packets(Verdict::Drop) + packets(Verdict::Reply), 0, "{:?}", stats.reasons);
}

/// Links of an MTU that takes several buffers a frame.
fn jumbo(builder: Builder) {
    let mut scene = Scene::running(builder.client_mtu(9000).server_mtu(9000), rr);
    let status = scene.director.status().unwrap();
    assert!(status.interfaces.iter().all(|interface| interface.mode == Mode::Native), "{status:#?}");
    let body: Vec<u8> = (0..100u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let hash = sha256(&body);
    for family in Family::BOTH {
        let load = Load::new(scene.vip(family), 1).path("/upload").body(body.clone());
        let outcome = scene.client.http(&load.deadline(Duration::from_secs(120))).remove(0);
        let answer = outcome.result.unwrap();
        assert_eq!((answer.length, answer.sha256.as_str()), (body.len() as u64, hash.as_str()));
    }
    let stats = scene.director.stats().unwrap();
    let (packets, bytes) =
        stats.servers.iter().fold((0, 0), |sum, server| (sum.0 + server.packets, sum.1 + server.bytes));
    assert!(bytes / packets > 6000, "{bytes} bytes in {packets} packets");
    scene.director.stop().unwrap();
}

#[test]
fn jumbo_frames_within_one_segment() {
    jumbo(one_arm(2));
}

#[test]
fn jumbo_frames_from_one_interface_to_another() {
    jumbo(two_arm(2));
}

#[test]
fn from_one_interface_to_another() {
    works(two_arm(2), Verdict::Redirect);
}

#[test]
fn within_a_vlan() {
    works(one_arm(2).vlan(7), Verdict::Transmit);
}

#[test]
fn from_one_vlan_to_another_on_a_trunk() {
    works(two_arm(2).trunk(10, 20), Verdict::Transmit);
}
