//! The whole director, end to end: `lb run` in a lab, real HTTP and UDP through XDP to real servers.

mod counts;
mod flood;
mod forwarding;
mod lifecycle;
mod protection;
mod refusals;
mod scheduling;
mod topologies;
mod udp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lb_tests::director::Director;
use lb_tests::lab::client::{Client, Conversation, Load, Outcome, nth_port};
use lb_tests::lab::http::{Answer, HttpServer, sha256};
use lb_tests::lab::{Builder, Dual, Family, Lab};

const PORT: u16 = 80;
/// Client ports count up from here. A port used again within two minutes would belong to a flow that is closing.
const FIRST_PORT: u16 = 1024;

/// A lab with HTTP servers on its real servers and a director to be configured.
struct Scene {
    // In the order of their end.
    director: Director,
    client: Client,
    http: Vec<HttpServer>,
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Scene {
    fn set(builder: Builder) -> Self {
        let lab = builder.build().unwrap();
        let http = lab.http_servers(&[PORT, 8080]).unwrap();
        let client = lab.client().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let director = Director::new(&lab, folder.path()).unwrap();
        Scene { director, client, http, lab, folder }
    }

    /// Set, configured, started, and every server in use.
    fn running(builder: Builder, yaml: impl FnOnce(&Lab) -> String) -> Self {
        let mut scene = Self::set(builder);
        scene.director.configure(&yaml(&scene.lab)).unwrap();
        scene.director.start_and_wait().unwrap();
        scene
    }

    fn vip(&self, family: Family) -> SocketAddr {
        self.lab.vips[0].socket(family, PORT)
    }

    fn client_address(&self, family: Family) -> SocketAddr {
        self.lab.client_addresses[0].socket(family, FIRST_PORT)
    }

    /// `requests` requests to the VIP from successive ports, `already` of which were used.
    fn load(&self, family: Family, requests: usize, already: usize) -> Load {
        Load::new(self.vip(family), requests).from_ports(nth_port(self.client_address(family), already))
    }

    /// Puts a configuration in force.
    fn reload(&self, yaml: &str) {
        self.director.configure(yaml).unwrap();
        self.director.reload().unwrap();
    }
}

/// A conversation and the server it is with.
struct Held<'a> {
    conversation: Conversation<'a>,
    server: String,
    asked: u64,
}

impl<'a> Held<'a> {
    fn open(client: &'a Client, target: SocketAddr, source: Option<SocketAddr>) -> Self {
        let mut conversation = client.converse(target, source).unwrap();
        let server = conversation.request().unwrap().server;
        Held { conversation, server, asked: 1 }
    }

    /// Asks again: the same server answers on the same connection.
    fn ask(&mut self) {
        let answer = self.conversation.request().unwrap_or_else(|error| panic!("{}: {error}", self.server));
        assert_eq!((&answer.server, answer.earlier), (&self.server, self.asked));
        self.asked += 1;
    }
}

/// Opens conversations and asks once on each, so that each is known to have a server.
fn converse(client: &Client, target: SocketAddr, number: usize) -> Vec<Held<'_>> {
    (0..number).map(|_| Held::open(client, target, None)).collect()
}

/// How many of the conversations each server has, by its name.
fn shares(held: &[Held<'_>]) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for held in held {
        *shares.entry(held.server.clone()).or_default() += 1;
    }
    shares
}

/// A tally to compare with: `of(&[("rs1", 5)])`.
fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect()
}

/// Names of the servers in the order they answered.
///
/// # Panics
/// When a request failed.
fn sequence(outcomes: Vec<Outcome>) -> Vec<String> {
    answers(outcomes).into_iter().map(|answer| answer.server).collect()
}

fn answers(outcomes: Vec<Outcome>) -> Vec<Answer> {
    outcomes.into_iter().map(|outcome| outcome.result.unwrap()).collect()
}

/// Requests to the lab's IPv4 VIP without pause while `work` runs; what became of them, and what `work` said.
fn under_load<T>(client: &Client, lab: &Lab, already: usize, work: impl FnOnce() -> T) -> (Vec<Outcome>, T) {
    const BATCH: usize = 40;
    /// Says so also when `work` panics, or the load would go on for ever.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let target = lab.vips[0].socket(Family::V4, PORT);
            let first = lab.client_addresses[0].socket(Family::V4, FIRST_PORT);
            let mut outcomes = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let from = nth_port(first, already + outcomes.len());
                outcomes.extend(client.http(&Load::new(target, BATCH).concurrency(4).from_ports(from)));
                // On a fast machine the load would reach the ports the kernel gives the held conversations.
                thread::sleep(Duration::from_millis(15));
            }
            outcomes
        });
        let end = End(&ends);
        let done = work();
        drop(end);
        (load.join().unwrap(), done)
    })
}

/// A hundred megabytes to the VIP of each family arrive as they were sent.
fn uploads_arrive_whole(scene: &Scene) {
    // No period that divides a segment's length, so that one in the wrong place shows.
    let body: Vec<u8> = (0..100 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (length, hash) = (body.len() as u64, sha256(&body));
    let body = bytes::Bytes::from(body);
    for family in Family::BOTH {
        let load = Load::new(scene.vip(family), 1).path("/upload").body(body.clone());
        let outcomes = scene.client.http(&load.deadline(Duration::from_secs(120)));
        for answer in answers(outcomes) {
            assert_eq!((answer.length, &answer.sha256), (length, &hash), "{family:?}");
        }
    }
}

/// A configuration with the services given.
fn configuration(lab: &Lab, services: &[String]) -> String {
    let (front, back) = (&lab.director.front.interface, &lab.director.back.interface);
    let interfaces = if front == back { front.clone() } else { format!("{front}, {back}") };
    format!("interfaces: [{interfaces}]\nflows: 64K\nservices:\n{}", services.concat())
}

/// A service of the lab's first VIP with the servers of these numbers, counted from 1; each with more keys, `weight: 3`.
fn service(lab: &Lab, family: Family, keys: &[&str], servers: &[(usize, &str)]) -> String {
    service_at(lab, family, lab.vips[0], &PORT.to_string(), keys, servers)
}

fn service_at(
    lab: &Lab,
    family: Family,
    vip: Dual,
    port: &str,
    keys: &[&str],
    servers: &[(usize, &str)],
) -> String {
    let mut text = format!("  - address: \"{}\"\n    port: {port}\n", vip.of(family));
    for key in keys {
        text += &format!("    {key}\n");
    }
    text += "    servers:\n";
    for (number, more) in servers {
        let address = lab.real_servers[number - 1].address.of(family);
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        text += &format!("      - {{address: \"{address}\"{more}}}\n");
    }
    text
}
