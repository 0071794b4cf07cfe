//! Persistence, and that what is counted is what there is.

use std::thread;
use std::time::Duration;

use lb_tests::director::{server, servers};
use lb_tests::lab::client::{Load, tally};
use lb_tests::lab::{Family, one_arm};

use super::{PORT, Scene, configuration, converse, of, service, service_at, shares};

/// Addresses of two more prefixes, which the client has too.
const ELSEWHERE: [[u8; 4]; 4] = [[203, 0, 113, 5], [203, 0, 113, 77], [198, 18, 7, 1], [198, 18, 7, 200]];

fn live_elsewhere(scene: &Scene) {
    let lab = &scene.lab;
    for [a, b, c, d] in ELSEWHERE {
        lab.client.ip([format!("address add {a}.{b}.{c}.{d}/32 dev lo")]).unwrap();
        lab.router.ip([format!("route add {a}.{b}.{c}.{d}/32 via {}", lab.client_addresses[0].v4)]).unwrap();
    }
}

#[test]
fn a_clients_prefix_stays_with_one_server_on_every_port() {
    let mut scene = Scene::running(one_arm(3), |lab| {
        let keys = ["scheduler: rr", "persistence: {timeout: 60, netmask: 255.255.255.0}"];
        let all = [(1, ""), (2, ""), (3, "")];
        configuration(lab, &[service_at(lab, Family::V4, lab.vips[0], "any", &keys, &all)])
    });
    live_elsewhere(&scene);
    let vip = scene.lab.vips[0];
    let mut of_prefix = Vec::new();
    for pair in ELSEWHERE.chunks(2) {
        let mut servers: Vec<String> = Vec::new();
        for (address, port) in pair.iter().flat_map(|address| [PORT, 8080].map(|port| (*address, port))) {
            let load = Load::new(vip.socket(Family::V4, port), 6).from(address.into());
            servers.extend(tally(&scene.client.http(&load)).into_keys());
        }
        servers.dedup();
        assert_eq!(servers.len(), 1, "{pair:?} on one server: {servers:?}");
        of_prefix.extend(servers);
    }
    assert_ne!(of_prefix[0], of_prefix[1], "the next prefix gets the next server");
    let status = scene
        .director
        .wait_for("all connections are closed", |status| servers(status).all(|server| server.active == 0));
    let status = status.unwrap();
    let persistent: Vec<u32> = servers(&status).map(|server| server.persistent).collect();
    assert_eq!(persistent.iter().sum::<u32>(), 2, "a template for each prefix: {persistent:?}");
    let templates = scene.director.lb(&["flows", "--json"]).unwrap().stdout;
    assert!(templates.contains("203.0.113.0:0") && templates.contains("198.18.7.0:0"), "{templates}");
    // A crash forgets neither.
    scene.director.kill().unwrap();
    scene.director.start_and_wait().unwrap();
    for (pair, server) in ELSEWHERE.chunks(2).zip(&of_prefix) {
        let load = Load::new(vip.socket(Family::V4, PORT), 6).from(pair[1].into());
        assert_eq!(tally(&scene.client.http(&load)), of(&[(server, 6)]));
    }
}

/// Requests come and go faster than the daemon can look; afterwards its counts are exactly the flows there are.
#[test]
fn counts_stay_right_under_a_changing_load() {
    let mut scene = Scene::running(one_arm(3), |lab| {
        let weighted = [(1, "weight: 3"), (2, "weight: 2"), (3, "weight: 1")];
        configuration(lab, &[service(lab, Family::V4, &["scheduler: wlc"], &weighted)])
    });
    let held = converse(&scene.client, scene.vip(Family::V4), 12);
    let mut sent = 0;
    for requests in [500, 3000, 200, 4000] {
        let outcomes = scene.client.http(&scene.load(Family::V4, requests, sent).concurrency(32));
        assert_eq!(tally(&outcomes).values().sum::<usize>(), requests);
        sent += requests;
        thread::sleep(Duration::from_millis(200));
    }
    let held_by = shares(&held);
    let addresses: Vec<_> = scene.lab.real_servers.iter().map(|real| real.address.v4).collect();
    let status = scene.director.wait_for("what is active is what is held", |status| {
        let active = |number: usize| server(status, addresses[number]).active as usize;
        (0..3).all(|number| active(number) == held_by[&format!("rs{}", number + 1)])
    });
    let status = status.unwrap();
    for (real, http) in scene.lab.real_servers.iter().zip(&scene.http) {
        let shown = server(&status, real.address.v4);
        assert_eq!(u64::from(shown.active + shown.inactive), http.connections(), "{}", real.name);
        assert_eq!(shown.connections, http.connections(), "{}", real.name);
    }
    assert_eq!(status.sweep.corrected, 0, "nothing was wrong, so nothing was to be put right");
}
