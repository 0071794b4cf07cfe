//! Control-plane scenarios as text: configurations and what the network says go in, what the maps hold comes out.
//!
//! A scenario is a list of steps. A step begins with `== `, its text is the lines up to the next one:
//!
//! ```text
//! == config            put this configuration in force (interfaces: [eth0] goes without saying)
//! == refused           the same, but it is refused with this message
//! == silent ADDRESS    the real server's next hop is lost
//! == answers ADDRESS   … and found again
//! == restart           another daemon takes over the maps and the saved numbers
//! == pass SECONDS      time goes by in which nothing refers to removed servers
//! == held SECONDS      time goes by in which every removed server still has a flow
//! == steps N           the last step took so many map operations
//! == maps              what the maps hold now
//! ```
//!
//! `LB_BLESS=1 cargo test --test control` writes what comes out into the files, to be read before it is committed.

use lb_common::hash::Seed;
use lb_userspace::config;
use lb_userspace::maps::{Memory, read_contents};
use lb_userspace::model::Model;
use lb_userspace::neigh::{NextHop, NextHopTable, Unresolved};
use lb_userspace::reconcile::{Base, Reconciler};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BASE: Base = Base { seed: Seed([1, 2, 3, 4, 5, 6]), buckets: [10, 5, 5], hz: 250 };

struct World {
    reconciler: Option<Reconciler<Memory>>,
    silent: BTreeSet<IpAddr>,
    now: Instant,
    unix: u64,
    steps: usize,
}

fn model(yaml: &str) -> Arc<Model> {
    let text = format!("interfaces: [eth0]\n{yaml}");
    Arc::new(config::parse("scenario", &text).unwrap_or_else(|report| panic!("{report}")).model)
}

impl World {
    fn new() -> Self {
        Self { reconciler: None, silent: BTreeSet::new(), now: Instant::now(), unix: 1_000_000, steps: 0 }
    }

    fn reconciler(&mut self) -> &mut Reconciler<Memory> {
        self.reconciler.as_mut().expect("the first step is a configuration")
    }

    fn hops(&mut self) -> NextHopTable {
        let silent = self.silent.clone();
        let model = self.reconciler().model().clone();
        let servers = model.services.iter().flat_map(|service| &service.servers);
        let last = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        let hop = |address: IpAddr| NextHop {
            dmac: [2, 0, 0, 0, 0, last(address)],
            smac: [2, 0, 0, 0, 0, 0xff],
            ifindex: 2,
            vlan: Vec::new(),
            mtu: 1500,
            source: if address.is_ipv4() { IpAddr::from([10, 0, 0, 1]) } else { "fd00::1".parse().unwrap() },
            gateway: None,
            local: false,
        };
        let known = |address: IpAddr| match silent.contains(&address) {
            true => Err(Unresolved::NoRoute { address }),
            false => Ok(hop(address)),
        };
        servers.map(|server| (server.address, known(server.address))).collect()
    }

    fn settle(&mut self) {
        // Cells of replaced plans rest for a second.
        self.now += Duration::from_secs(2);
        let (hops, now) = (self.hops(), self.now);
        self.steps = self.reconciler().round(&hops, now).unwrap();
    }

    /// Does a step; what it says must come out, if it is one of those that tell.
    fn step(&mut self, step: &str, text: &str) -> Option<String> {
        let (verb, argument) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "config" => {
                let wanted = model(text);
                match &mut self.reconciler {
                    Some(reconciler) => reconciler.set_model(wanted).unwrap(),
                    None => {
                        self.reconciler =
                            Some(Reconciler::new(Memory::default(), BASE, None, wanted).unwrap());
                    }
                }
                self.settle();
            }
            "refused" => {
                let (yaml, _) = text.split_once("--\n").expect("a configuration, `--` and the message");
                let error = self.reconciler().set_model(model(yaml)).unwrap_err();
                return Some(format!("{yaml}--\n{error}\n"));
            }
            "silent" | "answers" => {
                let address = argument.parse().unwrap();
                let known =
                    if verb == "silent" { self.silent.insert(address) } else { self.silent.remove(&address) };
                assert!(known, "{step} says nothing new");
                self.settle();
            }
            "restart" => {
                let saved = serde_json::to_string(self.reconciler().ids()).unwrap();
                let wanted = self.reconciler().model().clone();
                let store = std::mem::take(self.reconciler().store_mut());
                let saved = serde_json::from_str(&saved).unwrap();
                self.reconciler = Some(Reconciler::new(store, BASE, Some(saved), wanted).unwrap());
                self.settle();
            }
            "pass" | "held" => {
                let seconds: u64 = argument.parse().unwrap();
                let now = self.unix;
                self.unix += seconds;
                let then = self.unix;
                self.reconciler().collect(now, |_| verb == "held");
                self.reconciler().collect(then, |_| verb == "held");
                self.settle();
            }
            "steps" => assert_eq!(self.steps.to_string(), argument, "map operations of the last step"),
            "maps" => {
                let held = read_contents(self.reconciler().store_mut()).unwrap();
                assert_eq!(self.reconciler().contents(), &held);
                return Some(held.to_string());
            }
            _ => panic!("no such step: {step}"),
        }
        None
    }
}

/// Comment, steps with their text.
fn parse(file: &str) -> (String, Vec<(String, String)>) {
    let mut comment = String::new();
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in file.lines() {
        match (line.strip_prefix("== "), steps.last_mut()) {
            (Some(step), _) => steps.push((step.to_owned(), String::new())),
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => comment += &format!("{line}\n"),
        }
    }
    (comment, steps)
}

#[test]
fn every_scenario_leaves_the_maps_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("control");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(files.len() >= 5, "only {} scenarios in {}", files.len(), folder.display());
    let bless = std::env::var_os("LB_BLESS").is_some();
    for path in files {
        let file = fs::read_to_string(&path).unwrap();
        let (comment, steps) = parse(&file);
        let mut world = World::new();
        let mut came_out = comment;
        for (step, text) in &steps {
            let told = world.step(step, text).unwrap_or_else(|| text.clone());
            came_out += &format!("== {step}\n{told}");
            if !bless {
                let (expected, got) = (text.trim_end(), told.trim_end());
                assert!(
                    expected == got,
                    "{}: == {step}\nexpected:\n{expected}\ncame out:\n{got}",
                    path.display()
                );
            }
        }
        if bless && came_out != file {
            fs::write(&path, came_out).unwrap();
        }
    }
}
