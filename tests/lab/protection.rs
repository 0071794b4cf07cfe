//! Servers that take nobody: full, drained, none at all.

use std::io::ErrorKind;
use std::time::Duration;

use lb_common::counters::Reason;
use lb_tests::director::server;
use lb_tests::lab::client::{ClientError, Load, tally};
use lb_tests::lab::{Dual, Family, Lab, one_arm};

use super::{Held, Scene, configuration, converse, of, service, shares};

fn refused(answer: Result<impl std::fmt::Debug, ClientError>) {
    match answer {
        Err(ClientError::Connect { source, .. }) => assert_eq!(source.kind(), ErrorKind::ConnectionRefused),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_server_takes_nobody_until_there_is_room_again() {
    let mut scene = Scene::running(one_arm(2), |lab| {
        let full = [(1, "upper_threshold: 3, lower_threshold: 2"), (2, "upper_threshold: 2")];
        let services = [service(lab, Family::V4, &["scheduler: rr"], &full)];
        format!("timeouts: {{tcp_fin: 1s}}\n{}", configuration(lab, &services))
    });
    let vip = scene.vip(Family::V4);
    let [rs1, rs2] = [0, 1].map(|number: usize| scene.lab.real_servers[number].address.v4);
    let mut held = converse(&scene.client, vip, 5);
    assert_eq!(shares(&held), of(&[("rs1", 3), ("rs2", 2)]));
    let status = scene.director.status().unwrap();
    assert!(server(&status, rs1).overloaded && server(&status, rs2).overloaded);
    assert!(server(&status, rs1).eligible, "thresholds do not change the plan");
    // ICMP port unreachable, from the program itself.
    refused(scene.client.get(vip));
    held.iter_mut().for_each(Held::ask);

    // One less, and it is still not below the lower threshold.
    held.remove(held.iter().position(|held| held.server == "rs1").unwrap());
    let flows = |wanted| {
        move |status: &_| {
            let server = server(status, rs1);
            server.active + server.inactive == wanted
        }
    };
    scene.director.wait_for("the closed connection has expired", flows(2)).unwrap();
    refused(scene.client.get(vip));
    held.remove(held.iter().position(|held| held.server == "rs1").unwrap());
    let status = scene.director.wait_for("another one has expired", flows(1)).unwrap();
    assert!(!server(&status, rs1).overloaded && server(&status, rs2).overloaded);
    held.extend(converse(&scene.client, vip, 2));
    assert_eq!(shares(&held), of(&[("rs1", 3), ("rs2", 2)]));
    refused(scene.client.get(vip));
}

#[test]
fn a_drained_server_finishes_what_it_has() {
    let weights = |lab: &Lab, first: &str| {
        configuration(lab, &[service(lab, Family::V4, &["scheduler: wrr"], &[(1, first), (2, "")])])
    };
    let scene = Scene::running(one_arm(2), |lab| weights(lab, "weight: 1"));
    let vip = scene.vip(Family::V4);
    let mut held = converse(&scene.client, vip, 6);
    assert_eq!(shares(&held), of(&[("rs1", 3), ("rs2", 3)]));
    scene.reload(&weights(&scene.lab, "weight: 0"));
    assert_eq!(tally(&scene.client.http(&scene.load(Family::V4, 20, 0))), of(&[("rs2", 20)]));
    held.iter_mut().for_each(Held::ask);
    let status = scene.director.status().unwrap();
    let drained = server(&status, scene.lab.real_servers[0].address.v4);
    assert_eq!((drained.eligible, drained.why_not.as_deref()), (false, Some("its weight is 0")));
    assert_eq!(drained.active, 3);
    scene.reload(&weights(&scene.lab, "weight: 1"));
    assert_eq!(tally(&scene.client.http(&scene.load(Family::V4, 20, 20))), of(&[("rs1", 10), ("rs2", 10)]));
    held.iter_mut().for_each(Held::ask);
}

#[test]
fn without_a_server_the_client_is_told_at_once() {
    for family in Family::BOTH {
        let drained = |lab: &Lab| {
            let none = [(1, "weight: 0"), (2, "weight: 0")];
            configuration(lab, &[service(lab, family, &["scheduler: wlc"], &none)])
        };
        let scene = Scene::running(one_arm(2), drained);
        for _ in 0..3 {
            refused(scene.client.get(scene.vip(family)));
        }
        let stats = scene.director.stats().unwrap();
        let packets = |name| stats.reasons.iter().find(|reason| reason.name == name).unwrap().packets;
        // More than one for a client whose kernel was still inside `connect` when the answer came: it asks again.
        assert!((3..=6).contains(&packets("replied_no_destination")), "{:?}", stats.reasons);
        assert_eq!(packets("dropped_no_destination") + packets("transmitted"), 0, "{:?}", stats.reasons);

        // No server in the file at all is the same.
        let port = format!("port: {}", super::PORT);
        let empty = format!(
            "interfaces: [eth0]\nflows: 64K\nservices:\n  - address: \"{}\"\n    {port}\n",
            scene.vip(family).ip()
        );
        scene.reload(&empty);
        refused(scene.client.get(scene.vip(family)));
    }
}

#[test]
fn a_denied_client_gets_nowhere_and_others_do() {
    let file = |lab: &Lab, denied: &str| {
        let services =
            Family::BOTH.map(|family| service(lab, family, &["scheduler: rr"], &[(1, ""), (2, "")]));
        format!("admission: {{deny: [{denied}]}}\n{}", configuration(lab, &services))
    };
    let scene = Scene::running(one_arm(2).client_addresses(2), |lab| file(lab, ""));
    let [bad, good] = [0, 1].map(|number: usize| scene.lab.client_addresses[number]);
    for family in Family::BOTH {
        let answered = |from: Dual| {
            let load = Load::new(scene.vip(family), 4).from(from.of(family)).deadline(Duration::from_secs(1));
            scene.client.http(&load).iter().filter(|outcome| outcome.result.is_ok()).count()
        };
        let mut known = Held::open(&scene.client, scene.vip(family), Some(bad.socket(family, 9)));
        assert_eq!(answered(bad), 4);
        scene.reload(&file(&scene.lab, &format!("\"{}\"", bad.of(family))));
        assert_eq!((answered(bad), answered(good)), (0, 4));
        assert!(known.conversation.request().is_err(), "a flow from before is denied, too");
        scene.reload(&file(&scene.lab, ""));
        assert_eq!(answered(bad), 4);
    }
    let stats = scene.director.stats().unwrap();
    let denied = stats.reasons.iter().find(|reason| reason.name == Reason::DroppedDenied.name());
    assert!(denied.is_some_and(|reason| reason.packets >= 2 * 5), "{:?}", stats.reasons);
}
