//! Real servers that take packets out of tunnels with the kernel's own devices, set up by `lb real-server`.

use std::process::Command;

use lb_tests::director::{PATIENCE, lb};
use lb_tests::lab::Family::{self, V4, V6};
use lb_tests::lab::process::Process;
use lb_tests::lab::{Lab, RealServer, link, one_arm};
use serde_json::Value;

use super::{REQUESTS, Scene, Service};

/// A tunnel into a real server.
struct Way {
    sentence: &'static str,
    inner: Family,
    /// Keys of the server in the director's configuration.
    method: &'static str,
}

const fn way(sentence: &'static str, inner: Family, method: &'static str) -> Way {
    Way { sentence, inner, method }
}

#[test]
fn ipip() {
    let ways =
        [way("IPv4 in IPv4: tunl0", V4, "method: ipip"), way("IPv6 in IPv4: sit0", V6, "method: ipip")];
    answered_through("ipip", V4, &["tunl0", "sit0"], &ways);
}

#[test]
fn ipip_in_ipv6() {
    answered_through("ipip", V6, &["ip6tnl0"], &[way("IPv6 in IPv6: ip6tnl0", V6, "method: ipip")]);
}

#[test]
fn gre() {
    let ways = [way("GRE: gre0", V4, "method: gre"), way("IPv6 in GRE: gre0", V6, "method: gre")];
    answered_through("gre", V4, &["gre0"], &ways);
}

#[test]
fn gre_in_ipv6() {
    let ways = [
        way("IPv4 in GRE in IPv6: ip6gre0", V4, "method: gre"),
        way("IPv6 in GRE in IPv6: ip6gre0", V6, "method: gre"),
    ];
    answered_through("gre", V6, &["ip6gre0"], &ways);
}

#[test]
fn gre_with_a_checksum() {
    const METHOD: &str = "method: gre, tunnel: {checksum: true}";
    let lab = one_arm(2).build().unwrap();
    for RealServer { namespace, address, .. } in &lab.real_servers {
        // Not gre0, which takes only packets without.
        let device = format!("link add gre1 type gre local {} icsum", address.v4);
        namespace.ip([device.as_str(), "link set gre1 up"]).unwrap();
    }
    let ways =
        [way("GRE with a checksum: gre1", V4, METHOD), way("IPv6 in GRE with a checksum: gre1", V6, METHOD)];
    serve(lab, V4, &ways).every_service_works();
}

#[test]
fn gue() {
    let ways = [
        way("GUE: fou and tunl0", V4, "method: gue, tunnel: {port: 6080}"),
        way("GUE with a checksum: fou and tunl0", V4, "method: gue, tunnel: {port: 6080, checksum: true}"),
        way("IPv6 in GUE: fou and sit0", V6, "method: gue, tunnel: {port: 6080}"),
    ];
    answered_through("gue", V4, &["tunl0", "sit0"], &ways);
}

#[test]
fn what_no_device_takes_out_the_decapsulator_does() {
    let ways = [
        way("IPv4 in IPv6: decapsulator", V4, "method: ipip"),
        way("IPv4 in GUE in IPv6: decapsulator", V4, "method: gue, tunnel: {port: 6080}"),
    ];
    let lab = one_arm(2).bare_servers().build().unwrap();
    let about = About::new(&lab, "ipip", V6, &ways);
    let decapsulate = |server: &RealServer| {
        let (code, report) = about.tell(server, "setup");
        assert_eq!(code, NO, "{report:#}");
        assert!(problems(&report).any(|problem| problem == "no_tunnel"), "{report:#}");
        let mut decap = Command::new(lb().unwrap());
        decap.args(["real-server", "decap", "--interface=eth0", "--mode=native"]);
        decap.arg(format!("--vip={}", lab.vip(V4)));
        let decap = Process::spawn(&server.namespace, &mut decap).unwrap();
        decap.wait_for("decapsulating", PATIENCE).unwrap();
        assert_eq!(about.tell(server, "check").0, YES);
        decap
    };
    let decapsulators: Vec<Process> = lab.real_servers.iter().map(decapsulate).collect();
    let scene = serve(lab, V6, &ways);
    scene.every_service_works();
    for decapsulator in decapsulators {
        let (status, printed) = decapsulator.terminate(PATIENCE).unwrap();
        assert!(status.success(), "{printed}");
    }
}

/// Bare machines become real servers by `lb real-server setup`, answer through every way, by these devices, and are bare
/// again after `teardown`.
fn answered_through(method: &str, outer: Family, devices: &[&str], ways: &[Way]) {
    let lab = one_arm(2).bare_servers().build().unwrap();
    let about = About::new(&lab, method, outer, ways);
    for server in &lab.real_servers {
        // As some distributions have it: what counts is the greater of this and the device's own.
        server.namespace.sysctl(&[("net.ipv4.conf.all.rp_filter", "1")]).unwrap();
        assert_eq!(about.tell(server, "check").0, NO, "a bare machine is no real server");
        let (code, report) = about.tell(server, "setup");
        assert_eq!(code, YES, "{report:#}");
        // A warning: the director has to tell clients what fits.
        assert!(problems(&report).all(|problem| problem == "segment_size"), "{report:#}");
        assert_eq!(about.tell(server, "check").0, YES);
    }
    let scene = serve(lab, outer, ways);
    scene.every_service_works();
    assert!(scene.packets("replied_too_big") > 0, "clients are told what fits into the tunnel");
    for server in &scene.lab.real_servers {
        for device in devices {
            let got = link::counters(&server.namespace, device).unwrap().rx_packets;
            // A request is a handshake, the request itself and a farewell.
            assert!(got >= 4 * REQUESTS as u64, "{got} packets by {device} of {}", server.name);
        }
        let (code, report) = about.tell(server, "teardown");
        assert_eq!(code, YES, "{report:#}");
        let (code, report) = about.tell(server, "check");
        assert_eq!(code, NO, "{report:#}");
        assert!(problems(&report).any(|problem| problem == "tunnel_down"), "{report:#}");
    }
}

/// A director with a service for each way.
fn serve(lab: Lab, outer: Family, ways: &[Way]) -> Scene {
    let service = |way: &Way| Service {
        sentence: way.sentence,
        family: way.inner,
        servers: lab.real_servers.iter().map(|server| server.address.of(outer).to_string()).collect(),
        method: way.method,
    };
    let services = ways.iter().map(service).collect();
    let interface = lab.director.front.interface.clone();
    Scene::start(lab, &interface, services)
}

/// Exit statuses of `lb real-server`.
const YES: i32 = 0;
const NO: i32 = 1;

/// What `lb real-server` is told of the machine it runs on.
struct About(Vec<String>);

impl About {
    fn new(lab: &Lab, method: &str, outer: Family, ways: &[Way]) -> Self {
        let outer = if outer == V4 { "ipv4" } else { "ipv6" };
        let mut words = vec!["--json".to_owned(), format!("--method={method}"), format!("--outer={outer}")];
        let served = |family: &Family| ways.iter().any(|way| way.inner == *family);
        for family in Family::BOTH.into_iter().filter(served) {
            words.push(format!("--vip={}", lab.vip(family)));
            words.push(format!("--director={}", lab.director.front.address.of(family)));
        }
        Self(words)
    }

    /// Exit status and report of a subcommand.
    fn tell(&self, server: &RealServer, subcommand: &str) -> (i32, Value) {
        let mut command = Command::new(lb().unwrap());
        command.args(["real-server", subcommand]).args(&self.0);
        let output = server.namespace.run(|| command.output()).unwrap().unwrap();
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{subcommand} {:?}: {error}: {output:?}", self.0));
        (output.status.code().unwrap(), report)
    }
}

fn problems(report: &Value) -> impl Iterator<Item = &str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["problem"].as_str().unwrap())
}
