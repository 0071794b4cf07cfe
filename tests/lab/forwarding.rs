//! Direct routing as seen from both ends.

use lb_common::counters::Reason;
use lb_tests::director::{server, servers};
use lb_tests::lab::capture::Direction;
use lb_tests::lab::client::tally;
use lb_tests::lab::http::HttpServer;
use lb_tests::lab::{Family, one_arm};
use lb_userspace::api::types::Verdict;

use super::{PORT, Scene, answers, configuration, of, service, uploads_arrive_whole};

const EVEN: [(usize, &str); 3] = [(1, ""), (2, ""), (3, "")];

#[test]
fn ten_thousand_requests_are_answered_and_spread_evenly() {
    let mut scene = Scene::running(one_arm(3), |lab| {
        configuration(lab, &[service(lab, Family::V4, &["scheduler: rr"], &EVEN)])
    });
    let outcomes = scene.client.http(&scene.load(Family::V4, 10_000, 0));
    assert_eq!(tally(&outcomes), of(&[("rs1", 3333), ("rs2", 3333), ("rs3", 3334)]));
    // The last of the list is the first of IPVS's, and so is the one to get the odd request.
    let answered: Vec<u64> = scene.http.iter().map(|server| server.connections()).collect();
    assert_eq!(answered, [3333, 3333, 3334]);

    let status = scene.director.wait_for("all connections are closed", |status| {
        status.services[0].servers.iter().all(|server| server.active == 0)
    });
    let status = status.unwrap();
    for (number, real) in scene.lab.real_servers.iter().enumerate() {
        let shown = server(&status, real.address.v4);
        assert_eq!((shown.connections, shown.inactive), (answered[number], answered[number] as u32));
    }
    let stats = scene.director.stats().unwrap();
    let to_servers: u64 = stats.servers.iter().map(|server| server.packets).sum();
    let of_verdict = |wanted| {
        let reasons = stats.reasons.iter().filter(|reason| reason.verdict == wanted);
        reasons.map(|reason| reason.packets).sum::<u64>()
    };
    assert_eq!(of_verdict(Verdict::Transmit), to_servers, "{:?}", stats.reasons);
    assert_eq!(of_verdict(Verdict::Drop) + of_verdict(Verdict::Reply), 0, "{:?}", stats.reasons);
}

#[test]
fn the_real_server_sees_the_client_and_replies_pass_the_director_by() {
    for family in Family::BOTH {
        let scene = Scene::running(one_arm(3), |lab| {
            configuration(lab, &[service(lab, family, &["scheduler: rr"], &EVEN)])
        });
        let nic = &scene.lab.director.front;
        let (client, vip) = (scene.client_address(family), scene.vip(family));
        let capture = scene.lab.capture(nic).unwrap();
        let answers = answers(scene.client.http(&scene.load(family, 300, 0).concurrency(1)));
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!((answer.peer.ip(), answer.local), (client.ip(), vip));
            assert_eq!(usize::from(answer.peer.port()), usize::from(client.port()) + number);
        }
        let servers: Vec<_> = scene.lab.real_servers.iter().map(|real| real.mac.0).collect();
        let (mut got, mut sent) = (0, 0);
        for frame in capture.finish() {
            let Some((source, destination)) = frame.addresses() else { continue };
            if source != client.ip() && destination != client.ip() {
                continue;
            }
            assert_eq!((source, destination), (client.ip(), vip.ip()), "a reply at the director");
            match frame.direction {
                Direction::Sent => got += 1,
                Direction::Received => {
                    assert!(servers.contains(&frame.bytes[..6].try_into().unwrap()), "{:02x?}", frame.bytes);
                    assert_eq!(frame.bytes[6..12], nic.mac.0);
                    sent += 1;
                }
            }
        }
        assert_eq!(got, sent, "every packet from the client goes on to a server");
        assert!(got >= 300 * 4, "{got}");
    }
}

/// IPVS's local node: the director is one of the real servers.
#[test]
fn the_director_itself_serves_its_share() {
    let mut scene = Scene::running(one_arm(1), |lab| {
        let services = Family::BOTH.map(|family| {
            let own = lab.director.back.address.of(family);
            service(lab, family, &["scheduler: rr"], &EVEN[..1])
                + &format!("      - {{address: \"{own}\"}}\n")
        });
        configuration(lab, &services)
    });
    let own = HttpServer::start(&scene.lab.director.namespace, "director", &[PORT]).unwrap();
    for family in Family::BOTH {
        let outcomes = scene.client.http(&scene.load(family, 100, 0));
        assert_eq!(tally(&outcomes), of(&[("director", 50), ("rs1", 50)]));
    }
    assert_eq!(own.connections(), 100);
    let closed = scene.director.wait_for("all connections are closed", |status| {
        servers(status).all(|server| server.connections == 50 && server.active == 0)
    });
    closed.unwrap();
    let stats = scene.director.stats().unwrap();
    let address = &scene.lab.director.back.address;
    let to_itself =
        stats.servers.iter().filter(|of| Family::BOTH.map(|family| address.of(family)).contains(&of.server));
    let to_itself: u64 = to_itself.map(|server| server.packets).sum();
    let local = stats.reasons.iter().find(|reason| reason.name == Reason::PassedLocal.name());
    assert_eq!(local.map(|reason| reason.packets), Some(to_itself), "{:?}", stats.reasons);
    assert!(to_itself >= 100 * 4, "{to_itself}");
}

#[test]
fn a_large_upload_arrives_whole() {
    let scene = Scene::running(one_arm(2), |lab| {
        let services = Family::BOTH.map(|family| service(lab, family, &["scheduler: rr"], &EVEN[..2]));
        configuration(lab, &services)
    });
    uploads_arrive_whole(&scene);
}
