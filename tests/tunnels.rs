//! Tunnels end to end: client, router, director, gateway and real servers whose kernel has no tunnel devices and which run
//! `lb real-server decap`. Real HTTP, real segments. Needs root and `cargo xtask build`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lb_tests::lab::client::{Client, Load, tally};
use lb_tests::lab::http::{HttpServer, sha256};
use lb_tests::lab::process::Process;
use lb_tests::lab::{Builder, Family, Lab, one_arm, routed};
use lb_userspace::api::types::Mode;
use lb_userspace::client::Client as Api;

/// How long anything may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
const GUE_PORT: u16 = 6080;

/// A way into a tunnel: what the service and its servers are told.
struct Way {
    sentence: &'static str,
    inner: Family,
    outer: Family,
    method: &'static str,
    /// Bytes in front of the packet.
    overhead: u32,
}

const fn way(
    sentence: &'static str,
    inner: Family,
    outer: Family,
    method: &'static str,
    overhead: u32,
) -> Way {
    Way { sentence, inner, outer, method, overhead }
}

use Family::{V4, V6};

/// Every method, with and without checksum, and every combination of families.
const WAYS: [Way; 12] = [
    way("IPv4 in IPv4", V4, V4, "method: ipip", 20),
    way("IPv6 in IPv4", V6, V4, "method: ipip", 20),
    way("IPv4 in IPv6", V4, V6, "method: ipip", 40),
    way("IPv6 in IPv6", V6, V6, "method: ipip", 40),
    way("GRE", V4, V4, "method: gre", 24),
    way("GRE with a checksum", V4, V4, "method: gre, tunnel: {checksum: true}", 28),
    way("IPv6 in GRE in IPv4 with a checksum", V6, V4, "method: gre, tunnel: {checksum: true}", 28),
    way("IPv4 in GRE in IPv6", V4, V6, "method: gre", 44),
    way("GUE", V4, V4, "method: gue, tunnel: {port: 6080}", 32),
    way("GUE with a checksum", V4, V4, "method: gue, tunnel: {port: 6080, checksum: true}", 32),
    way("IPv6 in GUE in IPv4", V6, V4, "method: gue, tunnel: {port: 6080}", 32),
    way(
        "IPv4 in GUE in IPv6 with a checksum",
        V4,
        V6,
        "method: gue, tunnel: {port: 6080, checksum: true}",
        52,
    ),
];

/// Port of the service that goes this way.
fn port(way: usize) -> u16 {
    8000 + way as u16
}

/// `lb` as `cargo xtask build` left it, beside the tests.
fn lb() -> Command {
    let tests = std::env::current_exe().unwrap();
    let lb = tests.ancestors().nth(2).unwrap().join("lb");
    assert!(lb.exists(), "{} is missing: cargo xtask build", lb.display());
    Command::new(lb)
}

/// A lab with everything running in it.
struct Site {
    // First, so that the processes end before their namespaces do.
    director: Process,
    decapsulators: Vec<Process>,
    servers: Vec<HttpServer>,
    client: Client,
    lab: Lab,
    folder: tempfile::TempDir,
    pin: PathBuf,
}

impl Site {
    fn new(builder: Builder) -> Self {
        let lab = builder.build().unwrap();
        let ports: Vec<u16> = (0..WAYS.len()).map(port).collect();
        let servers = lab.http_servers(&ports).unwrap();
        let decapsulate = |server: &lb_tests::lab::RealServer| {
            let mut command = lb();
            command.args(["real-server", "decap", "--interface", "eth0", "--mode", "native", "--json"]);
            command.arg("--gue-port").arg(GUE_PORT.to_string());
            for family in Family::BOTH {
                command.arg("--vip").arg(lab.vip(family).to_string());
            }
            let process = Process::spawn(&server.namespace, &mut command).unwrap();
            process.wait_for("decapsulating", PATIENCE).unwrap();
            process
        };
        let decapsulators = lab.real_servers.iter().map(decapsulate).collect();

        let folder = tempfile::tempdir().unwrap();
        let pin = PathBuf::from("/sys/fs/bpf").join(lab.prefix());
        let file = folder.path().join("lb.yaml");
        fs::write(&file, configuration(&lab, &folder.path().join("lb.sock"), &pin)).unwrap();
        let director =
            Process::spawn(&lab.director.namespace, lb().arg("run").arg("--config").arg(&file)).unwrap();
        let client = lab.client().unwrap();
        let site = Self { director, decapsulators, servers, client, lab, folder, pin };
        site.wait_until_eligible();
        site
    }

    fn api<T>(&self, ask: impl AsyncFnOnce(Api) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(Api::new(self.folder.path().join("lb.sock"))))
    }

    fn wait_until_eligible(&self) {
        self.director.wait_for("the director is ready", PATIENCE).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.api(async |api| api.status().await).unwrap();
            if status.services.iter().flat_map(|service| &service.servers).all(|server| server.eligible) {
                return;
            }
            assert!(Instant::now() < deadline, "{:#?}\n{}", status.services, self.director.printed());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn target(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.lab.vip(WAYS[number].inner), port(number))
    }

    /// Requests go round robin to every server.
    fn every_server_answers(&self, number: usize) {
        let requests = 10 * self.servers.len();
        let outcomes = self.client.http(&Load::new(self.target(number), requests).concurrency(2));
        let wanted: BTreeMap<String, usize> =
            self.servers.iter().map(|server| (server.name().to_owned(), 10)).collect();
        assert_eq!(tally(&outcomes), wanted, "{}", WAYS[number].sentence);
    }

    /// A body arrives whole.
    fn uploads(&self, number: usize, body: &Bytes, hash: &str) {
        let load = Load::new(self.target(number), 1).path("/upload").body(body.clone());
        let outcome = self.client.http(&load.deadline(Duration::from_secs(120))).remove(0);
        let answer = outcome.result.unwrap_or_else(|error| {
            panic!("{}: {error:?}\n{}", WAYS[number].sentence, self.director.printed())
        });
        assert_eq!(
            (answer.length, answer.sha256.as_str()),
            (body.len() as u64, hash),
            "{}",
            WAYS[number].sentence
        );
    }

    /// Packets by what became of them, over all the director has seen.
    fn packets(&self, reason: &str) -> u64 {
        let mut command = lb();
        command.args(["stats", "--json", "--socket"]).arg(self.folder.path().join("lb.sock"));
        let output = command.output().unwrap();
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        named(&stats, reason).unwrap_or_else(|| panic!("no {reason} in {stats:#}"))
    }

    /// Stops everything in order; what the decapsulators counted together.
    fn strike(self) -> BTreeMap<String, u64> {
        let (status, printed) = self.director.terminate(PATIENCE).unwrap();
        assert!(status.success(), "{printed}");
        assert!(!self.pin.exists());
        let mut counts = BTreeMap::new();
        for decapsulator in self.decapsulators {
            let (status, printed) = decapsulator.terminate(PATIENCE).unwrap();
            assert!(status.success(), "{printed}");
            let json = &printed[printed.find("[\n").unwrap_or_else(|| panic!("{printed}"))..];
            let json = &json[..json.find("\n]").unwrap() + 2];
            for line in serde_json::from_str::<Vec<serde_json::Value>>(json).unwrap() {
                let reason = line["reason"].as_str().unwrap().to_owned();
                *counts.entry(reason).or_default() += line["packets"].as_u64().unwrap();
            }
        }
        counts
    }
}

/// A counter by name, wherever it stands: `{"name": …, "packets": n}` or `{name: n}`.
fn named(value: &serde_json::Value, name: &str) -> Option<u64> {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            if let Some(count) = fields.get(name).and_then(Value::as_u64) {
                return Some(count);
            }
            if fields.values().any(|value| value.as_str() == Some(name)) {
                return fields.values().find_map(Value::as_u64);
            }
            fields.values().find_map(|value| named(value, name))
        }
        Value::Array(values) => values.iter().find_map(|value| named(value, name)),
        _ => None,
    }
}

fn configuration(lab: &Lab, socket: &std::path::Path, pin: &std::path::Path) -> String {
    let mut text = format!(
        "interfaces: [{}]\nsocket: {}\npin: {}\nflows: 64K\nservices:\n",
        lab.director.front.interface,
        socket.display(),
        pin.display()
    );
    for (number, way) in WAYS.iter().enumerate() {
        let vip = lab.vip(way.inner);
        let port = port(number);
        writeln!(text, "  - address: \"{vip}\"\n    port: {port}\n    scheduler: rr\n    servers:").unwrap();
        for server in &lab.real_servers {
            let rip = server.address.of(way.outer);
            writeln!(text, "      - {{address: \"{rip}\", {}}}", way.method).unwrap();
        }
    }
    text
}

fn body(bytes: usize) -> (Bytes, String) {
    // No period that divides a segment's length, so that one in the wrong place shows.
    let body: Vec<u8> = (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let hash = sha256(&body);
    (body.into(), hash)
}

fn no_packet_was_dropped(counts: &BTreeMap<String, u64>) {
    let dropped: Vec<_> = counts.iter().filter(|(reason, _)| reason.starts_with("dropped")).collect();
    assert!(dropped.is_empty(), "{dropped:?}");
    for method in ["ipip", "gre", "gue"] {
        let packets = counts.get(&format!("decapsulated_{method}")).copied().unwrap_or(0);
        assert!(packets > 0, "{method}: {counts:?}");
    }
}

#[test]
fn a_hundred_megabytes_arrive_whole_through_every_tunnel_across_a_router() {
    // Room for the largest overhead: a full-size segment fits.
    let site = Site::new(routed(2).server_mtu(1600));
    let (body, hash) = body(100 << 20);
    for number in 0..WAYS.len() {
        site.every_server_answers(number);
        site.uploads(number, &body, &hash);
    }
    assert_eq!(site.packets("replied_too_big"), 0);
    no_packet_was_dropped(&site.strike());
}

#[test]
fn full_size_segments_find_their_way_where_the_tunnel_makes_them_too_big() {
    let site = Site::new(routed(2));
    let (body, hash) = body(4 << 20);
    let mut told = 0;
    for (number, way) in WAYS.iter().enumerate() {
        // The client forgets what it learned from the way before.
        for family in ["-4", "-6"] {
            let flush = ["ip", family, "route", "flush", "cache"];
            site.lab.client.output(Command::new(flush[0]).args(&flush[1..])).unwrap();
        }
        site.uploads(number, &body, &hash);
        let now = site.packets("replied_too_big");
        assert!(now > told, "{}: nobody was told", way.sentence);
        told = now;
        let vip = site.lab.vip(way.inner).to_string();
        let route = site.lab.client.output(Command::new("ip").args(["route", "get", &vip])).unwrap();
        let wanted = format!(" mtu {} ", 1500 - way.overhead);
        assert!(route.contains(&wanted), "{}: no{wanted}in {route}", way.sentence);
    }
    no_packet_was_dropped(&site.strike());
}

/// On links of this MTU a frame takes several buffers, at the director and at the decapsulators.
#[test]
fn a_hundred_megabytes_arrive_whole_in_jumbo_frames() {
    let site = Site::new(routed(2).client_mtu(9000).server_mtu(9100));
    let status = site.api(async |api| api.status().await).unwrap();
    assert_eq!(status.interfaces[0].mode, Mode::Native, "{:?}", status.interfaces[0]);
    let (body, hash) = body(100 << 20);
    for number in 0..WAYS.len() {
        site.uploads(number, &body, &hash);
    }
    let stats = site.api(async |api| api.stats().await).unwrap();
    let (packets, bytes) =
        stats.servers.iter().fold((0, 0), |sum, server| (sum.0 + server.packets, sum.1 + server.bytes));
    assert!(bytes / packets > 6000, "{bytes} bytes in {packets} packets");
    assert_eq!(site.packets("replied_too_big"), 0);
    no_packet_was_dropped(&site.strike());
}

#[test]
fn tunnels_work_on_one_segment_as_well() {
    let site = Site::new(one_arm(3).server_mtu(1600));
    for number in 0..WAYS.len() {
        site.every_server_answers(number);
    }
    no_packet_was_dropped(&site.strike());
}
