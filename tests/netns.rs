//! Namespaces and what runs in them: that nothing is left behind, and that what goes wrong is said.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lb_tests::lab::process::{Process, ProcessError};
use lb_tests::lab::{Family, one_arm, routed, two_arm};
use lb_tests::netns::{self, Namespace};

const PORT: u16 = 80;

#[test]
fn nothing_is_left_after_a_lab_is_dropped() {
    for (what, builder) in
        [("two arms", two_arm(2)), ("routed", routed(2)), ("a trunk", two_arm(2).trunk(10, 20))]
    {
        let lab = builder.build().unwrap();
        let prefix = format!("{}-", lab.prefix());
        assert!(netns::names(&prefix).unwrap().len() >= 6, "{what}");
        let servers = lab.http_servers(&[PORT]).unwrap();
        let client = lab.client().unwrap();
        client.get(lab.real_servers[0].address.socket(Family::V4, PORT)).unwrap();
        drop((servers, client, lab));
        assert_eq!(netns::names(&prefix).unwrap(), [""; 0], "{what}");
    }
}

#[test]
fn nothing_is_left_after_a_test_panics() {
    let mut prefix = String::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let lab = one_arm(1).build().unwrap();
        prefix = format!("{}-", lab.prefix());
        let _servers = lab.http_servers(&[PORT]).unwrap();
        let _sleeper = Process::spawn(&lab.director.namespace, Command::new("sleep").arg("1000")).unwrap();
        lab.director.namespace.run(|| panic!("as a failed assertion does")).unwrap();
    }));
    assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"as a failed assertion does"));
    assert!(!prefix.is_empty());
    assert_eq!(netns::names(&prefix).unwrap(), [""; 0]);
}

#[test]
fn a_kept_lab_stays_until_removed_by_its_prefix() {
    let prefix = format!("lbkept-{}", std::process::id());
    let mut lab = one_arm(1).named(&prefix).build().unwrap();
    lab.keep();
    drop(lab);
    let director = Namespace::open(&format!("{prefix}-director")).unwrap();
    let mut sleeper = Process::spawn(&director, Command::new("sleep").arg("1000")).unwrap();
    let kept = netns::names(&format!("{prefix}-")).unwrap();
    assert_eq!(netns::remove_prefixed(&format!("{prefix}-")).unwrap(), kept);
    assert_eq!(kept.len(), 5, "{kept:?}");
    assert_eq!(netns::names(&prefix).unwrap(), [""; 0]);
    assert!(sleeper.wait(Duration::from_secs(5)).unwrap().is_some(), "its processes are gone too");
}

#[test]
fn what_a_dead_process_left_is_removed() {
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let name = format!("lb-{}-0-director", dead.id());
    let mut left = Namespace::create(&name).unwrap();
    left.keep();
    let mut sleeper = left.spawn(Command::new("sleep").arg("1000").stdout(Stdio::null())).unwrap();
    let of_the_living = Namespace::create(&format!("{}-director", netns::unique_prefix())).unwrap();
    netns::remove_leftovers().unwrap();
    assert!(!Path::new("/run/netns").join(&name).exists());
    assert!(!sleeper.wait().unwrap().success(), "killed");
    of_the_living.run(|| ()).unwrap();
}

#[test]
fn a_program_runs_in_the_namespace_and_ends_in_order() {
    let lab = one_arm(1).build().unwrap();
    let script = "trap 'echo stopping; exit 3' TERM; echo ready; cat /proc/net/dev; echo warned >&2; \
                  while :; do sleep 0.05; done";
    let spawn = |script: &str| {
        Process::spawn(&lab.director.namespace, Command::new("sh").args(["-c", script])).unwrap()
    };
    let process = spawn(script);
    let patience = Duration::from_secs(10);
    process.wait_for("ready\n", patience).unwrap();
    process.wait_for("warned\n", patience).unwrap();
    process.wait_for("eth0:", patience).unwrap();
    match process.wait_for("never", Duration::from_millis(50)) {
        Err(ProcessError::Silent { output, .. }) => assert!(output.contains("ready\n"), "{output}"),
        other => panic!("waited for what is not printed: {other:?}"),
    }
    let (status, printed) = process.terminate(patience).unwrap();
    assert_eq!(status.code(), Some(3));
    assert!(printed.ends_with("stopping\n"), "{printed}");

    match spawn("echo early").wait_for("never", patience) {
        Err(ProcessError::Ended { output, .. }) => assert_eq!(output, "early\n"),
        other => panic!("waited for a program that ended: {other:?}"),
    }
    let deaf = spawn("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    deaf.wait_for("ready", patience).unwrap();
    match deaf.terminate(Duration::from_millis(200)) {
        Err(ProcessError::Stubborn { .. }) => {}
        other => panic!("a program deaf to SIGTERM: {other:?}"),
    }
}

#[test]
fn errors_say_what_was_attempted() {
    let name = format!("{}-one", netns::unique_prefix());
    let namespace = Namespace::create(&name).unwrap();
    let again = Namespace::create(&name).unwrap_err().to_string();
    assert!(
        again.starts_with(&format!("`ip netns add {name}` failed")) && again.contains("File exists"),
        "{again}"
    );
    let wrong = namespace.ip(["link set nothing up"]).unwrap_err().to_string();
    assert!(wrong.contains("link set nothing up") && wrong.contains("Cannot find device"), "{wrong}");
    let absent = Namespace::open("lb-absent").unwrap_err().to_string();
    assert_eq!(absent, "cannot enter network namespace lb-absent");
    let program = namespace.spawn(&mut Command::new("/no/such/program")).unwrap_err().to_string();
    assert_eq!(program, "cannot start `/no/such/program` (is it installed?)");
    for (builder, expected) in [
        (one_arm(0), "real servers: 0 is not possible here, 1 to 200 are"),
        (one_arm(1).vips(201), "vips: 201 is not possible here, 1 to 200 are"),
        (one_arm(1).vlan(4095), "VLAN id: 4095 is not possible here, 1 to 4094 are"),
        (
            two_arm(1).trunk(10, 10),
            "VLANs: 10 and 10 for TwoArm is not possible here, trunk with two ids for two_arm, vlan for the others",
        ),
        (
            two_arm(1).bond("802.3ad"),
            "bond: 802.3ad is not possible here, one_arm and routed without VLANs are",
        ),
        (routed(1).server_mtu(500), "server_mtu: 500 is not possible here, 1280 (IPv6's least) to 9216 are"),
    ] {
        assert_eq!(builder.build().unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_taken_port_is_an_error_with_its_address() {
    let lab = one_arm(1).build().unwrap();
    let _first = lab.http_servers(&[PORT]).unwrap();
    let error = lab.http_servers(&[PORT]).unwrap_err().to_string();
    let address: SocketAddr = ([0, 0, 0, 0], PORT).into();
    assert!(error.starts_with(&format!("cannot listen on {address} in network namespace lb-")), "{error}");
}
