//! `vips: manage` in the kernel: addresses come and go, and neighbours believe the announcement. Needs root.

use std::process::Command;
use std::time::{Duration, Instant};

use lb_tests::lab::link::index;
use lb_tests::lab::runtime::NsRuntime;
use lb_tests::netns::{Namespace, unique_prefix};
use lb_userspace::config;
use lb_userspace::model::Model;
use lb_userspace::netlink::Netlink;
use lb_userspace::vips::Vips;

const MAC: &str = "02:00:00:00:00:02";
/// Where the neighbour believes the VIPs to be, at first.
const OTHER: &str = "02:00:00:00:00:99";
const VIPS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// A director with one interface, and a neighbour that knew another director.
struct Link {
    director: Namespace,
    neighbour: Namespace,
    runtime: NsRuntime,
}

impl Link {
    fn new() -> Self {
        let prefix = unique_prefix();
        let [director, neighbour] =
            ["director", "neighbour"].map(|role| Namespace::create(&format!("{prefix}-{role}")).unwrap());
        for namespace in [&director, &neighbour] {
            namespace.sysctl(&[("net.ipv6.conf.default.accept_dad", "0")]).unwrap();
        }
        director
            .ip([
                &format!("link add eth0 address {MAC} type veth peer name eth0 netns {}", neighbour.name()),
                "address add 10.0.0.2/24 dev eth0",
                "link set eth0 up",
            ])
            .unwrap();
        neighbour.ip(["address add 10.0.0.1/24 dev eth0", "link set eth0 up"]).unwrap();
        let runtime = NsRuntime::start(&director).unwrap();
        let link = Self { director, neighbour, runtime };
        link.settle();
        link
    }

    /// A new interface hears multicasts only once its routes are there.
    fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let show = ["-6", "route", "show", "table", "local", "dev", "eth0"];
        let routes = || self.neighbour.output(Command::new("ip").args(show)).unwrap();
        while !(routes().contains("multicast ff00::/8") && routes().contains("local fe80:")) {
            assert!(Instant::now() < deadline, "{}", routes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn misled(&self) {
        for vip in VIPS {
            self.neighbour
                .ip([format!("neighbour replace {vip} lladdr {OTHER} nud stale dev eth0")])
                .unwrap();
        }
    }

    /// Link-layer address the neighbour believes the VIP to have.
    fn believed(&self, vip: &str) -> String {
        self.neighbour.output(Command::new("ip").args(["neighbour", "show", vip])).unwrap()
    }

    fn is_told(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        for vip in VIPS {
            while !self.believed(vip).contains(MAC) {
                assert!(Instant::now() < deadline, "{vip} is believed at {}", self.believed(vip));
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// VIPs on `eth0`.
    fn has(&self) -> Vec<&'static str> {
        self.has_on("eth0")
    }

    fn has_on(&self, interface: &str) -> Vec<&'static str> {
        let show = ["-o", "address", "show", interface];
        let shown = self.director.output(Command::new("ip").args(show)).unwrap();
        let whole = |vip: &&str| format!(" {vip}/{} ", if vip.contains(':') { 128 } else { 32 });
        VIPS.into_iter().filter(|vip| shown.contains(&whole(vip))).collect()
    }

    /// A daemon's life, after that of one that was attached to `before`; what it had to add and to remove.
    fn keep(&self, before: &[&str], model: &Model, withdraw: bool) -> (usize, usize) {
        let model = model.clone();
        let before: Vec<u32> = before.iter().map(|name| index(&self.director, name).unwrap()).collect();
        self.runtime.block_on(async move {
            let mut vips = Vips::new(Netlink::open().unwrap(), before);
            let diff = vips.keep(&model).await.unwrap();
            let again = vips.keep(&model).await.unwrap();
            assert_eq!((again.add.len(), again.remove.len()), (0, 0), "nothing is left to do");
            if withdraw {
                vips.withdraw().await.unwrap();
            }
            (diff.add.len(), diff.remove.len())
        })
    }
}

fn model(owner: &str, vips: &[&str]) -> Model {
    model_on("eth0", owner, vips)
}

fn model_on(interface: &str, owner: &str, vips: &[&str]) -> Model {
    let mut text = format!("interfaces: [{interface}]\nvips: {owner}\nservices:\n");
    for vip in vips {
        for port in [80, 443] {
            text += &format!("  - {{address: \"{vip}\", port: {port}, servers: []}}\n");
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    config::load(file.path()).unwrap_or_else(|report| panic!("{report}")).model
}

#[test]
fn vips_are_added_announced_and_withdrawn() {
    let link = Link::new();
    link.misled();
    assert_eq!(link.keep(&[], &model("manage", &VIPS), false), (2, 0));
    assert_eq!(link.has(), VIPS);
    link.is_told();

    // The next daemon takes over what this one left, and tells everybody once more.
    link.misled();
    assert_eq!(link.keep(&[], &model("manage", &VIPS), false), (0, 0));
    link.is_told();

    // One service fewer.
    assert_eq!(link.keep(&[], &model("manage", &VIPS[..1]), false), (0, 1));
    assert_eq!(link.has(), VIPS[..1]);

    assert_eq!(link.keep(&[], &model("manage", &VIPS), true), (1, 0));
    assert_eq!(link.has(), [""; 0]);
}

#[test]
fn an_announcement_that_was_missed_is_repeated() {
    let link = Link::new();
    let model = model("manage", &VIPS);
    link.misled();
    link.runtime.spawn(async move {
        let mut vips = Vips::new(Netlink::open().unwrap(), []);
        vips.keep(&model).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    });
    link.is_told();
    link.misled();
    link.is_told();
}

#[test]
fn what_somebody_else_added_stays() {
    let link = Link::new();
    link.director.ip([format!("address add {}/32 dev eth0", VIPS[0])]).unwrap();
    assert_eq!(link.keep(&[], &model("manage", &VIPS), true), (1, 0));
    assert_eq!(link.has(), VIPS[..1]);
    // Ours that somebody removed and gave back is theirs.
    assert_eq!(link.keep(&[], &model("manage", &VIPS), false), (1, 0));
    for change in ["delete", "add"] {
        link.director.ip([format!("address {change} {}/128 dev eth0", VIPS[1])]).unwrap();
    }
    assert_eq!(link.keep(&[], &model("manage", &[]), true), (0, 0));
    assert_eq!(link.has(), VIPS);
}

#[test]
fn vips_move_with_the_first_interface_and_those_of_another_director_stay() {
    let link = Link::new();
    link.director.ip(["link add eth1 type veth peer name eth2", "link set eth1 up"]).unwrap();
    assert_eq!(link.keep(&[], &model_on("eth1", "manage", &VIPS[..1]), false), (1, 0));
    assert_eq!(link.keep(&[], &model("manage", &VIPS), false), (2, 0), "another director's");
    assert_eq!((link.has(), link.has_on("eth1")), (VIPS.to_vec(), VIPS[..1].to_vec()));
    assert_eq!(link.keep(&["eth1"], &model("manage", &VIPS), false), (0, 1), "the one that eth1 was left by");
    assert_eq!((link.has(), link.has_on("eth1")), (VIPS.to_vec(), vec![]));
}

#[test]
fn with_external_nothing_is_added_and_what_was_ours_goes() {
    let link = Link::new();
    link.misled();
    assert_eq!(link.keep(&[], &model("external", &VIPS), false), (0, 0));
    assert_eq!(link.has(), [""; 0]);
    assert!(link.believed(VIPS[0]).contains(OTHER));
    assert_eq!(link.keep(&[], &model("manage", &VIPS), false), (2, 0));
    assert_eq!(link.keep(&["eth0"], &model("external", &VIPS), false), (0, 2));
    assert_eq!(link.has(), [""; 0]);
}
