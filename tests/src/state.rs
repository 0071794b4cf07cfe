//! Everything an engine's maps hold after a test, as text: one line an entry, sorted, zeroes left out.
//!
//! ```text
//! fragment 203.0.113.1 > 192.0.2.1 id 7 protocol 17: to 1, 30 s
//! flow tcp 203.0.113.1:40000 > 192.0.2.1:80: to 1, ESTABLISHED, 900 s, active
//! load 1: 1 active, 2 inactive, 1 templates, overloaded
//! locality 192.0.2.1 of 0: 2, 1
//! note flows_spilled 1
//! path 10.0.1.1: 1400 bytes, 600 s
//! reason transmitted 3
//! server 1: 1 connections, 3 packets, 120 bytes
//! source 203.0.113.0: 4
//! spilled tcp 203.0.113.1:40000 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
//! template tcp 203.0.113.1:0 > 192.0.2.1:80: to 1, 360 s, timeout 360 s, 1 flows, assured
//! ```
//!
//! Seconds are those left; the datapath rounds idle times up by a fraction of one.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use lb_common::counters::{Counters, Note, Reason};
use lb_common::flow::{
    Buckets, Entry, FlowKey, Layout, Shared, Slab, Templates, V4, V6, WAYS, Words, control, counts,
    is_overloaded, load_word, meta,
};
use lb_common::locality::word;
use lb_common::net::proto;
use lb_common::{sctp, tcp};

use crate::engine::Engine;

/// What the maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub lines: BTreeSet<String>,
}

/// Server ids looked at.
const SERVERS: u32 = 300;

impl State {
    pub fn of<E: Engine>(engine: &E) -> Self {
        let mut state = Self::default();
        let clock = Clock { now: engine.now(), hz: engine.hz() };
        for (name, count) in Reason::ALL.iter().map(|reason| (reason.name(), engine.reason(*reason))) {
            state.count("reason", name, count);
        }
        for (name, count) in Note::ALL.iter().map(|note| (note.name(), engine.noted(*note))) {
            state.count("note", name, count);
        }
        for id in 0..SERVERS {
            let Counters { connections, packets, bytes } = engine.counters(id);
            if packets != 0 {
                state
                    .add(format!("server {id}: {connections} connections, {packets} packets, {bytes} bytes"));
            }
        }
        engine.with_tables(|tables| {
            for flow in flows(&tables.v4).into_iter().chain(flows(&tables.v6)) {
                state.add(format!("flow {}", flow.text(&clock)));
            }
            for bucket in (0..tables.templates.buckets()).filter_map(|index| tables.templates.bucket(index)) {
                for (entry, key) in (0..WAYS).filter_map(|way| Entry::<Templates, _>::at(bucket, way)) {
                    state.add(template(&entry, &key, &clock));
                }
            }
            for id in 0..SERVERS {
                tables
                    .load(id)
                    .and_then(|words| load(id, words))
                    .into_iter()
                    .for_each(|line| state.add(line));
            }
        });
        for (key, words) in engine.spills() {
            let flow = Flow::in_spill(key, &words);
            state.add(format!("spilled {}", flow.text(&clock)));
        }
        for (key, words) in engine.localities() {
            let count = words[word::COUNT as usize] as usize;
            let servers: Vec<String> =
                words[word::SERVERS as usize..][..count].iter().map(u32::to_string).collect();
            state.add(format!(
                "locality {} of {}: {}",
                key.destination.to_ip(),
                key.service,
                servers.join(", ")
            ));
        }
        for (key, route) in engine.fragments() {
            let ends = (key.source.to_ip(), key.destination.to_ip());
            let to = if route.server == 0 { "the stack".into() } else { route.server.to_string() };
            state.add(format!(
                "fragment {} > {} id {} protocol {}: to {to}, {}",
                ends.0,
                ends.1,
                if ends.0.is_ipv4() { u32::from(u16::from_be(key.id as u16)) } else { u32::from_be(key.id) },
                key.protocol,
                clock.left(route.expires)
            ));
        }
        for path in engine.paths() {
            state.add(format!("path {}: {} bytes, {}", path.rip.to_ip(), path.mtu, clock.left(path.expires)));
        }
        for (prefix, opened) in engine.sources().into_iter().filter(|(_, opened)| *opened != 0) {
            state.add(format!("source {}: {opened}", prefix.to_ip()));
        }
        state
    }

    /// A state from its lines; a line may be indented.
    pub fn expected(lines: &str) -> Self {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        Self { lines: lines.map(str::to_owned).collect() }
    }

    fn add(&mut self, line: String) {
        let is_new = self.lines.insert(line.clone());
        assert!(is_new, "twice in the maps: {line}");
    }

    fn count(&mut self, what: &str, name: &str, count: u64) {
        if count != 0 {
            self.add(format!("{what} {name} {count}"));
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

struct Clock {
    now: u32,
    hz: u32,
}

impl Clock {
    /// Seconds left until `expires`. The datapath rounds up by at most 64 jiffies, which is two thirds of a second at
    /// HZ 100; a quarter of a second is left for the packet that took its time.
    fn left(&self, expires: u32) -> String {
        let left = expires.wrapping_sub(self.now) as i32;
        let seconds = (left + self.hz as i32 / 4).div_euclid(self.hz as i32);
        if left <= 0 { "over".into() } else { format!("{seconds} s") }
    }
}

/// A flow as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub key: FlowKey,
    pub server: u32,
    pub state: u8,
    /// Jiffies.
    pub expires: u32,
    pub control: u32,
    /// Server, protocol and flags, see [`meta`].
    pub meta: u32,
}

/// Every live flow of a table, expired or not.
pub fn flows<L: Layout>(slab: &Slab<'_, L>) -> Vec<Flow> {
    let buckets = (0..slab.buckets()).filter_map(|index| slab.bucket(index));
    buckets
        .flat_map(|bucket| (0..WAYS).filter_map(move |way| Entry::<L, _>::at(bucket, way)))
        .map(of)
        .collect()
}

fn of<L: Layout>((entry, key): (Entry<L, Shared<'_>>, FlowKey)) -> Flow {
    Flow {
        key,
        server: meta::server(entry.meta),
        state: control::state(entry.control),
        expires: entry.expires(),
        control: entry.control,
        meta: entry.meta,
    }
}

impl Flow {
    /// The flow in a value of the spill map.
    pub fn in_spill(key: FlowKey, words: &[u32]) -> Self {
        let words: Vec<_> = words.iter().map(|word| lb_common::flow::AtomicU32::new(*word)).collect();
        let words = Shared(&words);
        let found = if key.client.is_v4() {
            Entry::<V4, _>::in_spill(words).map(|entry| of((entry, key)))
        } else {
            Entry::<V6, _>::in_spill(words).map(|entry| of((entry, key)))
        };
        found.expect("what is in the spill map is live")
    }

    /// The state's name as IPVS prints it.
    pub fn state_name(&self) -> &'static str {
        let names: &[&str] = match self.key.protocol as u8 {
            proto::TCP => &tcp::state::NAMES,
            proto::SCTP => &sctp::state::NAMES,
            _ => &["UDP"],
        };
        names[self.state as usize]
    }

    fn text(&self, clock: &Clock) -> String {
        let mut text = format!(
            "{}: to {}, {}, {}",
            ends(&self.key),
            self.server,
            self.state_name(),
            clock.left(self.expires)
        );
        for (is_so, word) in [
            (self.control & control::ACTIVE != 0, "active"),
            (control::is_half_open(self.control), "half-open"),
            (self.meta & meta::PARENT != 0, "with a template"),
        ] {
            if is_so {
                text += &format!(", {word}");
            }
        }
        text
    }
}

fn ends(key: &FlowKey) -> String {
    let protocol = match key.protocol as u8 {
        proto::TCP => "tcp".into(),
        proto::UDP => "udp".into(),
        proto::SCTP => "sctp".into(),
        0 => "any".into(),
        other => other.to_string(),
    };
    let end = |address: IpAddr, port: u16| match address {
        IpAddr::V4(v4) => format!("{v4}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}]:{port}"),
    };
    let client = end(key.client.to_ip(), key.client_port());
    format!("{protocol} {client} > {}", end(key.vip.to_ip(), key.vip_port()))
}

fn template(entry: &Entry<Templates, Shared<'_>>, key: &FlowKey, clock: &Clock) -> String {
    let assured = if entry.meta & meta::ASSURED != 0 { ", assured" } else { "" };
    format!(
        "template {}: to {}, {}, timeout {} s, {} flows{assured}",
        ends(key),
        meta::server(entry.meta),
        clock.left(entry.expires()),
        entry.extra(Templates::TIMEOUT) / clock.hz,
        entry.extra(Templates::CHILDREN),
    )
}

fn load(id: u32, words: Shared<'_>) -> Option<String> {
    let (active, inactive) = counts(words);
    let templates = words.load(load_word::PERSISTENT);
    let mut parts = Vec::new();
    for (count, what) in [(active, "active"), (inactive, "inactive"), (templates, "templates")] {
        if count != 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if is_overloaded(words) {
        parts.push("overloaded".into());
    }
    if parts.is_empty() { None } else { Some(format!("load {id}: {}", parts.join(", "))) }
}
