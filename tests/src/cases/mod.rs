//! The datapath's cases: one table, run through both engines, each row a sentence. A row says everything: what becomes
//! of every frame, byte for byte, and at its end all that the maps hold.
//!
//! Frames, sent and expected, come from [`crate::packet`]. State is compared as [`State`] writes it.

mod flows;
mod forward;
mod fragments;
mod icmp;
mod jumbo;
mod limits;
mod matrix;
mod parse;
mod persistence;
mod protocols;
mod schedulers;
mod services;
mod tunnels;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use lb_common::counters::{Reason, Verdict};

use lb_userspace::xdp::Sizes;

use crate::engine::{Engine, Fixture, INGRESS, Output, SIZES};
use crate::packet::{DIRECTOR_MAC, Eth, ROUTER_MAC, eth, server_mac};
use crate::random::Event;
use crate::state::State;

/// A client, another one of its network, and one of another network.
const CLIENT: &str = "203.0.113.1";
const VIP: &str = "192.0.2.1";
const CLIENT6: &str = "2001:db8:1::1";
const VIP6: &str = "2001:db8:ff::1";

/// Every case of every topic.
pub fn all() -> Vec<Case> {
    let cases = [
        parse::cases(),
        flows::cases(),
        protocols::cases(),
        forward::cases(),
        tunnels::cases(),
        services::cases(),
        schedulers::cases(),
        persistence::cases(),
        limits::cases(),
        icmp::cases(),
        fragments::cases(),
        jumbo::cases(),
        matrix::cases(),
    ]
    .concat();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    cases
}

/// One row of the table.
#[derive(Clone)]
pub struct Case {
    /// A sentence.
    pub name: String,
    pub fixture: Fixture,
    /// Of the flow tables.
    pub sizes: Sizes,
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Packet { frame: Vec<u8>, reason: Reason, egress: Option<u32>, becomes: Becomes },
    Wait(Duration),
    Change(fn(&mut Fixture)),
    Holds(State),
}

/// What a frame is expected to be afterwards.
#[derive(Clone)]
enum Becomes {
    /// As it was.
    Itself,
    This(Vec<u8>),
    /// What this builds for the identification the frame has: IPv4 headers that may be fragmented get a random one.
    WithId(std::sync::Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>),
    /// Nobody sees a dropped frame.
    Whatever,
}

fn case(name: impl Into<String>, fixture: Fixture) -> Case {
    Case { name: name.into(), fixture, sizes: SIZES, steps: Vec::new() }
}

/// The link layer of a frame from the director back to the router.
fn back() -> Eth {
    eth().from(DIRECTOR_MAC).to(ROUTER_MAC)
}

/// An ICMP error as the director words it, about a client's packet to [`VIP`]. `rest`: the header's second word, host
/// order.
fn complaint(id: u32, kind: u8, code: u8, rest: u32, quoted: &[u8]) -> Vec<u8> {
    let ip = back().ipv4(VIP, CLIENT).ttl(64).tos(0xc0).df(false).id(id);
    ip.icmp_error(kind, code, rest, quoted).build()
}

/// As [`complaint`], to [`VIP6`].
fn complaint6(kind: u8, code: u8, rest: u32, quoted: &[u8]) -> Vec<u8> {
    back().ipv6(VIP6, CLIENT6).ttl(64).icmp_error(kind, code, rest, quoted).build()
}

/// The link layer of a frame from the director to a server.
fn towards(rip: &str) -> Eth {
    eth().from(DIRECTOR_MAC).to(server_mac(rip.parse().expect("an address")))
}

impl Case {
    fn packet(mut self, frame: Vec<u8>, reason: Reason, egress: Option<u32>, becomes: Becomes) -> Self {
        self.steps.push(Step::Packet { frame, reason, egress, becomes });
        self
    }

    /// Tables of one bucket: eight flows of a family, eight templates, sixteen flows in the spill map.
    fn in_tiny_tables(mut self) -> Self {
        self.sizes = Sizes { v4: 1, v6: 1, templates: 1 };
        self
    }

    /// Direct routing: the packet goes to the server with a hop less to live. `build` makes the frame for a link layer
    /// and a time to live.
    fn routes(self, rip: &str, build: impl Fn(Eth, u8) -> Vec<u8>) -> Self {
        self.sends(build(eth(), 64), build(towards(rip), 63))
    }

    /// The frame leaves as this one by the interface it came in by.
    fn sends(self, frame: Vec<u8>, becomes: Vec<u8>) -> Self {
        self.packet(frame, Reason::Transmitted, Some(INGRESS), Becomes::This(becomes))
    }

    /// As [`Case::sends`], for a frame whose outer IPv4 identification is random.
    fn sends_with_id(self, frame: Vec<u8>, becomes: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let becomes = Becomes::WithId(std::sync::Arc::new(becomes));
        self.packet(frame, Reason::Transmitted, Some(INGRESS), becomes)
    }

    /// The frame leaves as this one by another interface.
    fn redirects(self, frame: Vec<u8>, egress: u32, becomes: Vec<u8>) -> Self {
        self.packet(frame, Reason::Redirected, Some(egress), Becomes::This(becomes))
    }

    /// The sender gets this frame with a random IPv4 identification.
    fn replies(
        self,
        frame: Vec<u8>,
        reason: Reason,
        becomes: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        self.packet(frame, reason, Some(INGRESS), Becomes::WithId(std::sync::Arc::new(becomes)))
    }

    /// The frame goes up the local stack, untouched.
    fn passes(self, frame: Vec<u8>, reason: Reason) -> Self {
        self.packet(frame, reason, None, Becomes::Itself)
    }

    fn drops(self, frame: Vec<u8>, reason: Reason) -> Self {
        self.packet(frame, reason, None, Becomes::Whatever)
    }

    fn waits(mut self, seconds: u64) -> Self {
        self.steps.push(Step::Wait(Duration::from_secs(seconds)));
        self
    }

    /// The control plane writes another configuration.
    fn changes(mut self, change: fn(&mut Fixture)) -> Self {
        self.steps.push(Step::Change(change));
        self
    }

    /// All that the maps hold now; see [`State`] for the lines. The last step of every case.
    fn holds(mut self, lines: &str) -> Self {
        self.steps.push(Step::Holds(State::expected(lines)));
        self
    }

    /// Every frame of the case.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match step {
            Step::Packet { frame, .. } => Some(frame.as_slice()),
            _ => None,
        })
    }

    /// Its frames and waits.
    pub fn life(&self) -> Vec<Event> {
        let event = |step: &Step| match step {
            Step::Packet { frame, .. } => Some(Event::Frame(frame.clone())),
            Step::Wait(time) => Some(Event::Wait(*time)),
            Step::Change(_) | Step::Holds(_) => None,
        };
        self.steps.iter().filter_map(event).collect()
    }

    /// What its packets end for.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.steps.iter().filter_map(|step| match step {
            Step::Packet { reason, .. } => Some(*reason),
            _ => None,
        })
    }

    /// Plays the case on an engine of its features; what went wrong, with the step it went wrong at.
    ///
    /// # Errors
    /// Every expectation that was not met.
    pub fn run<E: Engine>(&self, engine: &mut E) -> Result<(), String> {
        assert!(
            matches!(self.steps.last(), Some(Step::Holds(_))),
            "{}: a case ends with all that the maps hold",
            self.name
        );
        engine.clear();
        let mut fixture = self.fixture.clone();
        fixture.write(engine, None);
        let mut wrong = String::new();
        for (number, step) in (1..).zip(&self.steps) {
            let failure = match step {
                Step::Packet { frame, reason, egress, becomes } => {
                    judge(frame, *reason, *egress, becomes, &engine.run(frame))
                }
                Step::Wait(time) => {
                    engine.advance(*time);
                    None
                }
                Step::Change(change) => {
                    let before = fixture.clone();
                    change(&mut fixture);
                    fixture.write(engine, Some(&before));
                    None
                }
                Step::Holds(expected) => difference(expected, &State::of(engine)),
            };
            if let Some(failure) = failure {
                let _ = writeln!(
                    wrong,
                    "{} on the {} engine, step {number}: {failure}",
                    self.name,
                    engine.name()
                );
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

fn judge(
    frame: &[u8],
    reason: Reason,
    egress: Option<u32>,
    becomes: &Becomes,
    output: &Output,
) -> Option<String> {
    if output.reason != reason {
        return Some(format!("{} and not {}", output.reason.name(), reason.name()));
    }
    // The kernel does not say where it redirects to.
    let is_told = reason.verdict() != Verdict::Redirect || output.egress.is_some();
    if is_told && output.egress != egress {
        return Some(format!("leaves by {:?} and not by {egress:?}", output.egress));
    }
    let expected = match becomes {
        Becomes::Itself => frame.to_vec(),
        Becomes::This(bytes) => bytes.clone(),
        Becomes::WithId(build) => build(outer_id(&output.bytes)),
        Becomes::Whatever => return None,
    };
    if expected == output.bytes {
        return None;
    }
    Some(format!("the frame is\n  {}\nand not\n  {}", hex(&output.bytes), hex(&expected)))
}

/// The identification of the first IPv4 header, behind tags; 0 without one.
fn outer_id(frame: &[u8]) -> u32 {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8])) {
        at += 4;
    }
    match (frame.get(at..at + 2), frame.get(at + 6..at + 8)) {
        (Some([8, 0]), Some(id)) => u32::from(u16::from_be_bytes([id[0], id[1]])),
        _ => 0,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(2)
        .map(|pair| pair.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + " ")
        .collect()
}

fn difference(expected: &State, found: &State) -> Option<String> {
    if expected == found {
        return None;
    }
    let only = |mark, these: &State, those: &State| -> String {
        these.lines.difference(&those.lines).map(|line| format!("\n  {mark} {line}")).collect()
    };
    Some(format!(
        "the maps hold (+) what they should not, or not (-) what they should:{}{}",
        only('-', expected, found),
        only('+', found, expected)
    ))
}
