//! `lb real-server` on machines with everything wrong that can be. Needs root and `cargo xtask build`.

use std::net::UdpSocket;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lb_tests::lab::process::Process;
use lb_tests::netns::{Namespace, unique_prefix};
use serde_json::Value;

const VIP: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";

/// `lb` as `cargo xtask build` left it, beside the tests.
fn lb() -> Command {
    let tests = std::env::current_exe().unwrap();
    let lb = tests.ancestors().nth(2).unwrap().join("lb");
    assert!(lb.exists(), "{} is missing: cargo xtask build", lb.display());
    Command::new(lb)
}

/// A machine to become a real server, with its router on the other end of the cable.
struct Machine {
    host: Namespace,
    router: Namespace,
}

impl Machine {
    fn new() -> Self {
        let prefix = unique_prefix();
        let [host, router] =
            ["host", "router"].map(|role| Namespace::create(&format!("{prefix}-{role}")).unwrap());
        host.sysctl(&[("net.ipv6.conf.all.accept_dad", "0"), ("net.ipv6.conf.default.accept_dad", "0")])
            .unwrap();
        // Defaults vary from one distribution to the next.
        for scope in ["all", "default", "lo"] {
            for name in ["arp_ignore", "arp_announce", "rp_filter"] {
                host.sysctl(&[(&format!("net.ipv4.conf.{scope}.{name}"), "0")]).unwrap();
            }
        }
        host.ip([format!("link add eth0 type veth peer name first netns {}", router.name())]).unwrap();
        host.ip([format!("link add eth1 type veth peer name second netns {}", router.name())]).unwrap();
        router.ip(["address add 10.0.0.1/24 dev first", "link set first up", "link set second up"]).unwrap();
        host.ip([
            "address add 10.0.0.11/24 dev eth0",
            "address add fd00::11/64 dev eth0 nodad",
            "link set eth0 up",
            "link set eth1 up",
            "route add default via 10.0.0.1",
            "route add default via fd00::1",
        ])
        .unwrap();
        Self { host, router }
    }

    /// As [`Machine::new`], set up by hand for direct routing.
    fn good() -> Self {
        let machine = Self::new();
        machine.sysctl("all", "arp_ignore", 1);
        machine.sysctl("all", "arp_announce", 2);
        machine.ip(&[&format!("address add {VIP}/32 dev lo"), &format!("address add {VIP6}/128 dev lo")]);
        machine.settle();
        machine
    }

    /// The kernel makes the route to a new IPv6 address a moment after the address.
    fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let route =
            || self.host.output(Command::new("ip").args(["-6", "route", "show", "table", "local", VIP6]));
        while !route().unwrap().contains(VIP6) {
            assert!(Instant::now() < deadline, "no route to {VIP6}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ip(&self, lines: &[&str]) {
        self.host.ip(lines).unwrap();
    }

    fn sysctl(&self, interface: &str, name: &str, value: u32) {
        let key = format!("net.ipv4.conf.{interface}.{name}");
        self.host.sysctl(&[(&key, &value.to_string())]).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = lb();
        command.arg("real-server").args(arguments).args(["--vip", VIP, "--vip", VIP6]);
        self.host.run(|| command.output()).unwrap().unwrap()
    }

    /// What is printed as JSON, and the exit status.
    fn ask(&self, arguments: &[&str]) -> (Value, i32) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"));
        (value, output.status.code().unwrap())
    }

    /// Names of the problems, and the exit status.
    fn check(&self, arguments: &[&str]) -> (Vec<String>, i32) {
        let (report, status) = self.ask(&[&["check"], arguments].concat());
        (problems(&report), status)
    }

    /// Whether this machine answers the router's question who has the VIP.
    fn answers_arp(&self) -> bool {
        self.router
            .ip([format!("route replace {VIP}/32 dev first"), "neighbour flush dev first".to_owned()])
            .unwrap();
        // Any packet makes the router ask.
        self.router.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"?", (VIP, 9)).unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_millis(700);
        while Instant::now() < deadline {
            let known = self.router.output(Command::new("ip").args(["neighbour", "show", VIP])).unwrap();
            if known.contains("lladdr") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

fn problems(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["problem"].as_str().unwrap().to_owned()).collect()
}

fn outcomes(report: &Value) -> Vec<&str> {
    let done = report["done"].as_array().unwrap();
    done.iter().map(|did| did["outcome"].as_str().unwrap()).collect()
}

#[test]
fn setup_changes_what_is_missing_once_and_teardown_takes_it_back() {
    let machine = Machine::new();
    machine.ip(&[&format!("address add {VIP}/32 dev lo")]);
    assert!(machine.answers_arp(), "without setup a host answers for addresses on lo");
    machine.ip(&[&format!("address del {VIP}/32 dev lo")]);

    let (report, status) = machine.ask(&["setup"]);
    assert_eq!((outcomes(&report), status), (vec!["changed"; 4], 0), "{report:#}");
    assert_eq!(problems(&report), [""; 0]);
    assert!(!machine.answers_arp());

    let (report, status) = machine.ask(&["setup"]);
    assert_eq!((outcomes(&report), status), (vec!["unchanged"; 4], 0), "{report:#}");

    let (report, _) = machine.ask(&["teardown"]);
    assert_eq!(outcomes(&report), ["changed", "changed"], "{report:#}");
    let (found, status) = machine.check(&[]);
    assert_eq!((found, status), (vec!["vip_missing".into(), "vip_missing".into()], 1));
    let (report, _) = machine.ask(&["teardown", "--reset"]);
    assert_eq!(outcomes(&report), ["unchanged", "unchanged", "changed", "changed"], "{report:#}");
}

#[test]
fn teardown_leaves_silenced_what_other_vips_need() {
    let machine = Machine::good();
    machine.ip(&["address add 192.0.2.2/32 dev lo"]);
    let (report, _) = machine.ask(&["teardown", "--reset"]);
    assert_eq!(outcomes(&report), ["changed", "changed", "skipped", "skipped"], "{report:#}");
    assert!(report["done"][2]["why"].as_str().unwrap().contains("192.0.2.2"), "{report:#}");
}

#[test]
fn the_printed_commands_do_the_same() {
    let machine = Machine::new();
    for (arguments, missing) in [(["setup", "--print"], 0), (["teardown", "--print"], 2)] {
        let script = machine.run(&arguments).stdout;
        let script = String::from_utf8(script).unwrap();
        machine.host.output(Command::new("sh").args(["-ec", &script])).unwrap();
        if missing == 0 {
            machine.settle();
        }
        let (found, _) = machine.check(&[]);
        assert_eq!(found, vec!["vip_missing"; missing], "after\n{script}");
    }
}

#[test]
fn every_mistake_planted_is_named_and_no_other() {
    type Plant = fn(&Machine);
    let dr: &[&str] = &["--director", "10.0.0.2"];
    let cases: &[(&str, Plant, &[&str], &[&str])] = &[
        ("nothing is wrong", |_| {}, dr, &[]),
        (
            "the VIP is missing",
            |machine| machine.ip(&[&format!("address del {VIP}/32 dev lo")]),
            dr,
            &["vip_missing"],
        ),
        (
            "the VIP is on the network card too",
            |machine| machine.ip(&[&format!("address add {VIP}/24 dev eth0")]),
            dr,
            &["vip_answers_arp"],
        ),
        (
            "the VIP on lo takes a network with it",
            |machine| {
                machine
                    .ip(&[&format!("address del {VIP}/32 dev lo"), &format!("address add {VIP}/24 dev lo")]);
            },
            dr,
            &["vip_prefix"],
        ),
        (
            "the host route is missing",
            |machine| machine.ip(&[&format!("route del local {VIP} dev lo table local")]),
            dr,
            &["vip_route"],
        ),
        (
            "ARP is answered, on both cards",
            |machine| machine.sysctl("all", "arp_ignore", 0),
            dr,
            &["arp_ignore", "arp_ignore"],
        ),
        (
            "one card's own arp_ignore spoils it",
            |machine| machine.sysctl("eth1", "arp_ignore", 3),
            dr,
            &["arp_ignore"],
        ),
        (
            "VIPs are announced, on both cards",
            |machine| machine.sysctl("all", "arp_announce", 0),
            dr,
            &["arp_announce", "arp_announce"],
        ),
        (
            "the gateway is the director",
            |machine| machine.ip(&["route replace default via 10.0.0.2"]),
            dr,
            &["gateway_is_director"],
        ),
        (
            "there is no way back",
            |machine| machine.ip(&["route del default via 10.0.0.1"]),
            dr,
            &["no_way_back"],
        ),
        (
            "the reverse path filter is strict where packets come in",
            |machine| machine.sysctl("eth1", "rp_filter", 1),
            &["--interface", "eth1"],
            &["rp_filter"],
        ),
        (
            "the card takes no full-size packets",
            |machine| machine.ip(&["link set eth0 mtu 1400"]),
            dr,
            &["mtu"],
        ),
        (
            "there is no tunnel, and segments would not fit in one",
            |_| {},
            &["--method", "gre"],
            &["no_tunnel", "segment_size", "segment_size"],
        ),
        (
            "there is no tunnel, whose segments would fit",
            |machine| {
                machine.ip(&["route change default via 10.0.0.1 advmss 1432"]);
                machine.ip(&["route change default via fd00::1 mtu 1472"]);
            },
            &["--method", "gre"],
            &["no_tunnel"],
        ),
    ];
    for (sentence, plant, arguments, expected) in cases {
        let machine = Machine::good();
        plant(&machine);
        let (found, status) = machine.check(arguments);
        assert_eq!(found, *expected, "{sentence}");
        let warnings = ["arp_announce", "segment_size"];
        let fails = expected.iter().any(|problem| !warnings.contains(problem));
        assert_eq!(status, i32::from(fails), "{sentence}");
    }
}

#[test]
fn setup_mends_filters_and_spoilt_cards() {
    let machine = Machine::new();
    machine.sysctl("eth0", "arp_ignore", 3);
    machine.sysctl("eth1", "rp_filter", 1);
    let (report, status) = machine.ask(&["setup", "--interface", "eth1"]);
    assert_eq!((outcomes(&report), status), (vec!["changed"; 6], 0), "{report:#}");
    assert_eq!(problems(&report), [""; 0]);
    let (report, _) = machine.ask(&["setup", "--interface", "eth1"]);
    assert!(outcomes(&report).iter().all(|outcome| *outcome == "unchanged"), "{report:#}");
}

#[test]
fn without_tunnel_devices_setup_names_the_decapsulator_and_is_content_with_it() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let machine = Machine::new();
    machine.ip(&["link set eth0 mtu 1600"]);
    let method = ["--method", "gue", "--gue-port", "6081"];
    let (report, status) = machine.ask(&[&["setup"], method.as_slice()].concat());
    let here = machine.host.output(Command::new("ip").args(["-o", "link"])).unwrap();
    assert!(!here.contains("tunl0"), "this test is for a kernel without the devices: {here}");
    assert_eq!((problems(&report), status), (vec!["no_tunnel".into(), "no_tunnel".into()], 1), "{report:#}");
    let remedy = report["findings"][0]["remedy"].as_str().unwrap();
    let (_, command) = remedy.split_once("lb real-server ").unwrap();
    assert!(command.ends_with("--vip 192.0.2.1 --vip 2001:db8::1 --method gue --gue-port 6081"), "{remedy}");

    let mut decap = lb();
    decap.arg("real-server").args(command.split(' '));
    let process = Process::spawn(&machine.host, &mut decap).unwrap();
    process.wait_for("decapsulating", PATIENCE).unwrap();
    let (report, status) = machine.ask(&[&["setup"], method.as_slice()].concat());
    assert_eq!((problems(&report), status), (vec![], 0), "{report:#}");
    assert_eq!(outcomes(&report), ["unchanged"; 4], "{report:#}");
    let (status, printed) = process.terminate(PATIENCE).unwrap();
    assert!(status.success(), "{printed}");
    assert_eq!(machine.check(&method).0, ["no_tunnel", "no_tunnel"]);
}
