//! What the director says when it cannot do as it is told, and what goes on meanwhile.

use std::process::Command;

use lb_tests::director::{Director, Said, server, servers};
use lb_tests::lab::client::tally;
use lb_tests::lab::{Family, Lab, one_arm};
use nix::sys::signal::Signal;

use super::{Scene, configuration, of, service};

const EVEN: [(usize, &str); 2] = [(1, ""), (2, "")];

fn rr(lab: &Lab) -> String {
    configuration(lab, &[service(lab, Family::V4, &["scheduler: rr"], &EVEN)])
}

/// Exit status 2, and every one of these in what was printed.
fn assert_says(said: &Said, texts: &[&str]) {
    let printed = format!("{}{}", said.stdout, said.stderr);
    assert_eq!(said.code, Some(2), "{printed}");
    for text in texts {
        assert!(printed.contains(text), "{text:?} is not in:\n{printed}");
    }
}

fn start_in_vain(director: &Director) -> Said {
    director.start_in_vain(&mut director.command().unwrap()).unwrap()
}

fn assert_works(scene: &Scene, already: usize) {
    let shares = tally(&scene.client.http(&scene.load(Family::V4, 10, already)));
    assert_eq!(shares, of(&[("rs1", 5), ("rs2", 5)]));
}

const INVALID: &str = "interfaces: [eth0]
services:
  - address: 192.0.2.1
    port: 80
    scheduler: fastest
    servers:
      - {address: 10.0.0.11, wieght: 3}
";

#[test]
fn an_invalid_file_starts_nothing() {
    let scene = Scene::set(one_arm(2));
    let director = &scene.director;
    director.configure(INVALID).unwrap();
    let said = start_in_vain(director);
    let file = director.configuration.display();
    assert_says(&said, &[&format!("{file}:5:16"), "fastest", &format!("{file}:7:30"), "wieght"]);
    assert!(!director.pin.exists() && !director.socket.exists());

    std::fs::remove_file(&director.configuration).unwrap();
    assert_says(&start_in_vain(director), &[&file.to_string(), "No such file"]);
}

#[test]
fn an_invalid_reload_changes_nothing() {
    let scene = Scene::running(one_arm(2), rr);
    let director = &scene.director;
    let before = director.status().unwrap();
    director.configure(INVALID).unwrap();
    let said = director.lb(&["reload"]).unwrap();
    let place = format!("{}:5:16", director.configuration.display());
    // Asked in order, and the answer is no.
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains(&place) && said.stderr.contains("wieght"), "{said:?}");
    director.signal(Signal::SIGHUP);
    director.wait_for_log("the configuration is not valid; what was in force still is").unwrap();
    director.wait_for_log(&place).unwrap();
    let after = director.status().unwrap();
    assert_eq!(after.config_loaded, before.config_loaded);
    assert_eq!(after.services, before.services);
    assert_works(&scene, 0);

    // What only a restart can change is refused too, with the rest of the file.
    director.configure(&rr(&scene.lab).replace("flows: 64K", "flows: 128K")).unwrap();
    let said = director.lb(&["reload"]).unwrap();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stderr.contains("flows.ipv4 65536 → 131072")
            && said.stderr.contains("cannot change while the director runs; nothing was changed"),
        "{said:?}"
    );
    // And an interface that does not exist.
    director.configure(&rr(&scene.lab).replace("[eth0]", "[eth0, eth7]")).unwrap();
    let said = director.lb(&["reload"]).unwrap();
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("eth7") && said.stderr.contains("lo"), "{said:?}");
    assert_works(&scene, 10);
}

#[test]
fn an_unknown_interface_is_named_with_those_there_are() {
    let scene = Scene::set(one_arm(2));
    scene.director.configure(&rr(&scene.lab).replace("eth0", "eth7")).unwrap();
    let said = start_in_vain(&scene.director);
    assert_says(&said, &["lb: there is no interface eth7; there are ", "eth0"]);
    assert!(!scene.director.pin.exists() && !scene.director.socket.exists());
}

#[test]
fn a_server_that_does_not_answer_is_left_out_and_named() {
    let mut scene = Scene::set(one_arm(2));
    let absent: std::net::Ipv4Addr = "10.0.0.99".parse().unwrap();
    let yaml = rr(&scene.lab) + &format!("      - {{address: {absent}}}\n");
    scene.director.configure(&yaml).unwrap();
    scene.director.start().unwrap();
    let status = scene.director.wait_for("it is known that the server does not answer", |status| {
        let absent = server(status, absent);
        !absent.eligible && absent.why_not.as_ref().is_some_and(|why| why.contains("10.0.0.99"))
    });
    let why = server(&status.unwrap(), absent).why_not.clone().unwrap();
    let shown = scene.director.lb(&["status"]).unwrap();
    assert!(shown.stdout.contains("2 eligible") && shown.stdout.contains("10.0.0.99"), "{why}\n{shown:?}");
    assert_works(&scene, 0);

    // It appears, and gets its share.
    scene.lab.real_servers[1].namespace.ip(["address add 10.0.0.99/24 dev eth0"]).unwrap();
    scene.director.wait_until_ready().unwrap();
    let shares = tally(&scene.client.http(&scene.load(Family::V4, 9, 100)));
    assert_eq!(shares, of(&[("rs1", 3), ("rs2", 6)]), "rs2 under both of its addresses");
}

#[test]
fn without_privileges_it_says_what_it_needs() {
    let scene = Scene::set(one_arm(2));
    scene.director.configure(&rr(&scene.lab)).unwrap();
    let lb = scene.director.command().unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]).arg(lb.get_program()).args(lb.get_args());
    let said = scene.director.start_in_vain(&mut command).unwrap();
    assert_says(&said, &["lb: ", "NET_ADMIN", "run as root"]);
    assert!(!scene.director.pin.exists() && !scene.director.socket.exists());
}

#[test]
fn a_second_director_is_turned_away() {
    let scene = Scene::running(one_arm(2), rr);
    let first = &scene.director;
    // The same configuration: the same maps.
    let said = start_in_vain(first);
    assert_says(&said, &[&format!("lb: another lb is running with the maps in {}", first.pin.display())]);
    assert!(first.socket.exists());

    // Other maps, the same interface.
    let mut second = Director::second(&scene.lab, scene.folder.path()).unwrap();
    second.configure(&rr(&scene.lab)).unwrap();
    assert_says(
        &start_in_vain(&second),
        &["another XDP program is attached to eth0", "ip link set eth0 xdp off"],
    );
    assert!(!second.pin.exists() && !second.socket.exists());

    // Other maps, the same socket.
    second.socket.clone_from(&first.socket);
    second.configure(&rr(&scene.lab)).unwrap();
    let said = start_in_vain(&second);
    assert_says(&said, &[&format!("a director already answers on {}", first.socket.display())]);
    assert!(!second.pin.exists() && first.socket.exists());

    let status = first.status().unwrap();
    assert!(servers(&status).all(|server| server.eligible));
    assert_works(&scene, 0);
}

#[test]
fn a_vip_the_director_does_not_have_is_warned_of() {
    let mut scene = Scene::set(one_arm(2));
    let vip = scene.lab.vips[0].v4;
    scene.lab.director.namespace.ip([format!("address del {vip}/32 dev lo")]).unwrap();
    scene.director.configure(&rr(&scene.lab)).unwrap();
    scene.director.start_and_wait().unwrap();
    scene.director.wait_for_log("the director is ready").unwrap();
    let printed = scene.director.printed();
    let warning = printed.lines().find(|line| line.contains("not addresses of this host"));
    assert!(
        warning.is_some_and(|line| line.contains("WARN") && line.contains(&vip.to_string())),
        "{printed}"
    );
    // XDP forwards all the same: it does not ask the stack whose address it is.
    assert_works(&scene, 0);

    scene.lab.director.namespace.ip([format!("address add {vip}/32 dev lo")]).unwrap();
    scene.director.stop().unwrap();
    scene.director.start_and_wait().unwrap();
    scene.director.wait_for_log("the director is ready").unwrap();
    assert!(!scene.director.printed().contains("not addresses of this host"));
}

#[test]
fn asking_where_nobody_answers_is_an_error() {
    let scene = Scene::set(one_arm(1));
    for question in [["status"], ["services"], ["reload"], ["flows"], ["stats"]] {
        let said = scene.director.lb(&question).unwrap();
        assert_says(&said, &["lb: no director answers on ", "is `lb run` running?"]);
    }
    let said = scene.director.lb(&["no-such-thing"]).unwrap();
    assert_eq!(said.code, Some(64), "{said:?}");
}
