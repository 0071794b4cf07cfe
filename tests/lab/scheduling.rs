//! Who gets the next conversation, for every scheduler that does not hash.

use lb_tests::director::{server, servers};
use lb_tests::lab::{Family, one_arm};

use super::{Held, Scene, configuration, converse, of, sequence, service, shares};

const WEIGHTED: [(usize, &str); 3] = [(1, "weight: 3"), (2, "weight: 2"), (3, "weight: 1")];

fn scheduled(scheduler: &str, family: Family, real_servers: &[(usize, &str)]) -> Scene {
    Scene::running(one_arm(3), |lab| {
        configuration(lab, &[service(lab, family, &[&format!("scheduler: {scheduler}")], real_servers)])
    })
}

#[test]
fn wrr_gives_each_period_its_exact_shares() {
    for family in Family::BOTH {
        let scene = scheduled("wrr", family, &WEIGHTED);
        let sequence = sequence(scene.client.http(&scene.load(family, 120, 0).concurrency(1)));
        for period in sequence.chunks(6) {
            // As IPVS after adding the servers one by one: from the head of the list, at the level the first had alone.
            assert_eq!(period, ["rs3", "rs2", "rs1", "rs1", "rs2", "rs1"], "{family:?}");
        }
    }
}

#[test]
fn rr_takes_turns_from_the_last_server_of_the_file() {
    let scene = scheduled("rr", Family::V4, &WEIGHTED);
    let sequence = sequence(scene.client.http(&scene.load(Family::V4, 30, 0).concurrency(1)));
    for turn in sequence.chunks(3) {
        assert_eq!(turn, ["rs3", "rs2", "rs1"]);
    }
}

/// Twelve conversations that last, and then as many as one server lost.
#[test]
fn live_connections_decide() {
    for (scheduler, real_servers, expected) in [
        ("lc", [(1, ""), (2, ""), (3, "")], [4, 4, 4]),
        ("wlc", WEIGHTED, [6, 4, 2]),
        ("sed", WEIGHTED, [6, 4, 2]),
        ("nq", WEIGHTED, [6, 4, 2]),
    ] {
        let mut scene = scheduled(scheduler, Family::V4, &real_servers);
        let vip = scene.vip(Family::V4);
        let addresses: Vec<_> = scene.lab.real_servers.iter().map(|real| real.address.v4).collect();
        let expected_shares = of(&[("rs1", expected[0]), ("rs2", expected[1]), ("rs3", expected[2])]);

        let mut held = converse(&scene.client, vip, 12);
        assert_eq!(shares(&held), expected_shares, "{scheduler}");
        let status = scene.director.status().unwrap();
        for (address, expected) in addresses.iter().zip(expected) {
            let shown = server(&status, *address);
            assert_eq!((shown.active as usize, shown.inactive), (expected, 0), "{scheduler} {address}");
        }

        held.retain(|held| held.server != "rs1");
        let status = scene
            .director
            .wait_for("rs1 has no active connection", |status| server(status, addresses[0]).active == 0);
        assert_eq!(server(&status.unwrap(), addresses[0]).inactive as usize, expected[0], "{scheduler}");

        // They are cheapest where the conversations ended.
        held.extend(converse(&scene.client, vip, expected[0]));
        assert_eq!(shares(&held), expected_shares, "{scheduler}, again");
        held.iter_mut().for_each(Held::ask);
        let json = scene.director.lb(&["status", "--json"]).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        let active: Vec<_> =
            shown["services"][0]["servers"].as_array().unwrap().iter().map(|s| s["active"].clone()).collect();
        assert_eq!(active, expected, "{scheduler}: in the order of the file");
        drop(held);
        let all_closed = |status: &_| servers(status).all(|server| server.active == 0);
        scene.director.wait_for("all connections are closed", all_closed).unwrap();
    }
}
