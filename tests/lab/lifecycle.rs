//! Edits, crashes, stops and starts of the daemon while clients are served.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lb_tests::director::{PATIENCE, lb, server, servers};
use lb_tests::lab::client::{ClientError, tally};
use lb_tests::lab::{Family, Lab, one_arm};
use lb_userspace::api::types::Status;
use nix::sys::signal::Signal;

use super::{Held, Scene, configuration, converse, of, sequence, service, under_load};

const EVEN: [(usize, &str); 3] = [(1, ""), (2, ""), (3, "")];

fn rr(lab: &Lab) -> String {
    configuration(lab, &[service(lab, Family::V4, &["scheduler: rr"], &EVEN)])
}

fn keeping(yaml: &str) -> String {
    format!("on_exit: keep\n{yaml}")
}

fn connections(status: &Status) -> u64 {
    servers(status).map(|server| server.connections).sum()
}

/// Of an interface of the director, as the kernel sees it.
fn has_xdp(scene: &Scene) -> bool {
    let mut show = Command::new("ip");
    show.args(["link", "show", "dev", &scene.lab.director.front.interface]);
    scene.lab.director.namespace.output(&mut show).unwrap().contains("xdp")
}

/// The kernel takes a program off its interface a moment after its link has gone.
fn assert_detached(scene: &Scene) {
    let deadline = Instant::now() + PATIENCE;
    while has_xdp(scene) {
        assert!(Instant::now() < deadline, "the program is still attached");
        thread::sleep(Duration::from_millis(5));
    }
}

fn assert_refused(scene: &Scene) {
    match scene.client.get(scene.vip(Family::V4)) {
        Err(ClientError::Connect { source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        other => panic!("without a director: {other:?}"),
    }
}

/// VIPs the director gave itself, beside those the lab's hosts have on `lo`, outlive it as the datapath does; and whatever
/// became of it, the next one knows them for its own.
#[test]
fn vips_of_the_director_s_own_are_known_across_its_ends() {
    let managing = |lab: &Lab, families: &[Family]| {
        let services: Vec<_> =
            families.iter().map(|family| service(lab, *family, &["scheduler: rr"], &EVEN)).collect();
        keeping(&format!("vips: manage\n{}", configuration(lab, &services)))
    };
    let mut scene = Scene::running(one_arm(3), |lab| managing(lab, &Family::BOTH));
    let has = |scene: &Scene, wanted: &[Family]| {
        let mut show = Command::new("ip");
        show.args(["-o", "address", "show", "dev", "eth0"]);
        let shown = scene.lab.director.namespace.output(&mut show).unwrap();
        for family in Family::BOTH {
            let is_there = shown.contains(&format!(" {}/", scene.lab.vip(family)));
            assert_eq!(is_there, wanted.contains(&family), "{shown}");
        }
    };
    has(&scene, &Family::BOTH);
    scene.director.stop().unwrap();
    has(&scene, &Family::BOTH);

    scene.director.configure(&managing(&scene.lab, &[Family::V4])).unwrap();
    scene.director.start_and_wait().unwrap();
    has(&scene, &[Family::V4]);
    scene.director.kill().unwrap();
    has(&scene, &[Family::V4]);

    let detaching = managing(&scene.lab, &[Family::V4]).replace("on_exit: keep", "on_exit: detach");
    scene.director.configure(&detaching).unwrap();
    scene.director.start_and_wait().unwrap();
    scene.director.stop().unwrap();
    has(&scene, &[]);
}

/// The edits of a working week, a hundred of them, by `lb reload`, the API and SIGHUP in turns: weights change, a third server
/// comes, is drained, and leaves when its last connection has ended.
#[test]
fn a_hundred_reloads_under_load_lose_no_request() {
    let with = |lab: &Lab, weights: [u32; 2], third: Option<u32>| {
        let [first, second] = weights.map(|weight| format!("weight: {weight}"));
        let third = third.map(|weight| format!("weight: {weight}"));
        let mut servers = vec![(1, first.as_str()), (2, second.as_str())];
        servers.extend(third.as_deref().map(|weight| (3, weight)));
        configuration(lab, &[service(lab, Family::V4, &["scheduler: wlc"], &servers)])
    };
    let mut scene = Scene::running(one_arm(3), |lab| with(lab, [1, 1], None));
    let vip = scene.vip(Family::V4);
    let Scene { director, client, lab, .. } = &mut scene;
    let mut held = converse(client, vip, 6);
    let drained = lab.real_servers[2].address.v4;
    let (outcomes, ()) = under_load(client, lab, 0, || {
        for round in 0..100_u32 {
            let weights = [1 + round % 4, 1 + round / 4 % 3];
            let third = match round % 5 {
                0 | 4 => None,
                1 => Some(1),
                2 => Some(2 + round % 3),
                _ => Some(0),
            };
            if round % 5 == 4 {
                let none_active = |status: &Status| server(status, drained).active == 0;
                director.wait_for("the drained server's connections have ended", none_active).unwrap();
            }
            director.configure(&with(lab, weights, third)).unwrap();
            match round % 3 {
                0 => assert_eq!(director.lb(&["reload"]).unwrap().code, Some(0)),
                1 => drop(director.reload().unwrap()),
                _ => director.signal(Signal::SIGHUP),
            }
            let expected: Vec<u32> = weights.into_iter().chain(third).collect();
            let as_edited =
                |status: &Status| servers(status).map(|server| server.weight).eq(expected.clone());
            director.wait_for(&format!("edit {round} is in force"), as_edited).unwrap();
            held.iter_mut().for_each(Held::ask);
        }
    });
    let tally = tally(&outcomes);
    assert_eq!(tally.len(), 3, "the third server had its share: {tally:?}");
    let status = director.status().unwrap();
    assert!(servers(&status).all(|server| server.eligible));
}

/// Without draining: conversations with the server that was taken out are lost, as with IPVS, and no others.
#[test]
fn a_server_taken_out_harms_only_its_own_conversations() {
    let two = |lab: &Lab| configuration(lab, &[service(lab, Family::V4, &["scheduler: rr"], &EVEN[..2])]);
    let scene = Scene::running(one_arm(3), rr);
    let mut held = converse(&scene.client, scene.vip(Family::V4), 9);
    scene.reload(&two(&scene.lab));
    let (lost, mut kept): (Vec<Held<'_>>, Vec<Held<'_>>) =
        held.drain(..).partition(|held| held.server == "rs3");
    assert_eq!((lost.len(), kept.len()), (3, 6));
    kept.iter_mut().for_each(Held::ask);
    let gone = |scene: &Scene| {
        let stats = scene.director.stats().unwrap();
        stats.reasons.iter().find(|reason| reason.name == "dropped_server_gone").unwrap().packets
    };
    assert_eq!(gone(&scene), 0);
    for mut held in lost {
        let answer = held.conversation.send("/", "", Duration::from_millis(300));
        assert!(matches!(answer, Err(ClientError::TimedOut { .. })), "{answer:?}");
    }
    assert!(gone(&scene) >= 3);

    // It comes back, and with it what its flows lead to.
    scene.reload(&rr(&scene.lab));
    kept.iter_mut().for_each(Held::ask);
    let answers = sequence(scene.client.http(&scene.load(Family::V4, 9, 0).concurrency(1)));
    assert_eq!(answers.iter().filter(|server| *server == "rs3").count(), 3);
}

#[test]
fn a_crash_is_not_noticed_by_clients() {
    let mut scene = Scene::running(one_arm(3), rr);
    let vip = scene.vip(Family::V4);
    let Scene { director, client, lab, .. } = &mut scene;
    let mut held = converse(client, vip, 6);
    let (outcomes, ()) = under_load(client, lab, 0, || {
        for _ in 0..3 {
            director.kill().unwrap();
            // Nobody sweeps, nobody plans; the datapath goes on.
            thread::sleep(Duration::from_millis(300));
            held.iter_mut().for_each(Held::ask);
            director.start_and_wait().unwrap();
            held.iter_mut().for_each(Held::ask);
        }
    });
    let shares = tally(&outcomes);
    let total: usize = shares.values().sum();
    assert!(shares.values().max().unwrap() - shares.values().min().unwrap() <= 1, "{shares:?}");
    assert_eq!(shares.len(), 3);
    let status = director.wait_for("only the held conversations are active", |status| {
        servers(status).all(|server| server.active == 2)
    });
    let status = status.unwrap();
    assert_eq!(connections(&status), (total + held.len()) as u64, "counters are kept");
    held.iter_mut().for_each(Held::ask);
}

#[test]
fn the_next_daemon_goes_on_where_the_last_one_ended() {
    let mut scene = Scene::running(one_arm(3), |lab| keeping(&rr(lab)));
    let turns = ["rs3", "rs2", "rs1", "rs3", "rs2", "rs1", "rs3", "rs2", "rs1", "rs3"];
    let mut asked = 0;
    let mut ask = |scene: &Scene, requests: usize| {
        let servers = sequence(scene.client.http(&scene.load(Family::V4, requests, asked).concurrency(1)));
        assert_eq!(servers, turns[asked..asked + requests]);
        asked += requests;
    };
    ask(&scene, 2);
    scene.director.kill().unwrap();
    ask(&scene, 2);
    scene.director.start_and_wait().unwrap();
    ask(&scene, 1);
    scene.director.stop().unwrap();
    ask(&scene, 2);
    scene.director.start_and_wait().unwrap();
    ask(&scene, 3);
    let ids: Vec<u32> = servers(&scene.director.status().unwrap()).map(|server| server.id).collect();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(connections(&scene.director.status().unwrap()), 10);
}

#[test]
fn sigterm_detaches_and_leaves_nothing() {
    let mut scene = Scene::running(one_arm(3), rr);
    scene.client.get(scene.vip(Family::V4)).unwrap();
    assert!(has_xdp(&scene) && scene.director.pin.exists() && scene.director.socket.exists());
    scene.director.stop().unwrap();
    assert!(!scene.director.pin.exists() && !scene.director.socket.exists());
    assert_detached(&scene);
    assert_refused(&scene);
    // From nothing again, and at once after the end.
    scene.director.start_and_wait().unwrap();
    scene.director.stop().unwrap();
    let status = scene.director.start_and_wait().unwrap();
    assert_eq!(connections(&status), 0);
    scene.client.get(scene.vip(Family::V4)).unwrap();
}

#[test]
fn on_exit_keep_leaves_the_datapath_to_the_next_daemon() {
    let mut scene = Scene::running(one_arm(3), |lab| keeping(&rr(lab)));
    let vip = scene.vip(Family::V4);
    let Scene { director, client, lab, .. } = &mut scene;
    let mut held = converse(client, vip, 3);
    let (outcomes, ()) = under_load(client, lab, 0, || {
        director.stop().unwrap();
        assert!(director.pin.exists() && !director.socket.exists());
        held.iter_mut().for_each(Held::ask);
        // Edited while no daemon ran: the third server is drained, the second one doubled.
        let edited = [(1, ""), (2, "weight: 2"), (3, "weight: 0")];
        let edited = configuration(lab, &[service(lab, Family::V4, &["scheduler: wrr"], &edited)]);
        director.configure(&edited).unwrap();
        director.start_and_wait().unwrap();
        held.iter_mut().for_each(Held::ask);
    });
    let already = tally(&outcomes).values().sum();
    held.iter_mut().for_each(Held::ask);
    drop(held);
    let shares = tally(&scene.client.http(&scene.load(Family::V4, 30, already)));
    assert_eq!(shares, of(&[("rs1", 10), ("rs2", 20)]));
    // The new file says detach.
    scene.director.stop().unwrap();
    assert!(!scene.director.pin.exists());
    assert_detached(&scene);
    assert_refused(&scene);
}

#[test]
fn a_benchmark_beside_a_running_director_leaves_it_alone() {
    let scene = Scene::running(one_arm(3), rr);
    let mut held = converse(&scene.client, scene.vip(Family::V4), 6);
    let sent = || {
        let stats = scene.director.stats().unwrap();
        stats
            .reasons
            .iter()
            .filter(|reason| reason.name == "transmitted")
            .map(|reason| reason.packets)
            .sum::<u64>()
    };
    let (pinned, before) = (std::fs::read_dir(&scene.director.pin).unwrap().count(), sent());
    let mut bench = Command::new(lb().unwrap());
    bench.args(["bench", "--quick", "--rounds", "1", "--json", "--filter", "dr_10k"]);
    let report = scene.lab.director.namespace.output(&mut bench).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let case = &report["cases"][0];
    assert_eq!((case["name"].as_str(), case["flows"].as_u64()), (Some("dr_10k"), Some(10_000)), "{report:#}");
    assert!(case["net_ns_median"].as_f64().unwrap() > 0.0, "{report:#}");
    // Far fewer than the benchmark's: what the clients' connections still had to say.
    assert!(sent() - before < 100);
    assert_eq!(std::fs::read_dir(&scene.director.pin).unwrap().count(), pinned);
    assert_eq!(scene.director.status().unwrap().flow_tables.spilled, 0);
    held.iter_mut().for_each(Held::ask);
}
