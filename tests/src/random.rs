//! Packets nobody thought of: random bytes, and the cases' frames with random changes, against a configuration that
//! has everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use lb_common::counters::{Reason, Verdict};
use lb_common::flow::{Templates, counts, load_word, meta};
use lb_common::net::proto;
use lb_common::plan::{PlanKind, cost, hash_detail, locality};
use lb_common::server::server_flag;
use lb_common::service::service_flag;
use lb_common::settings::{feature, switch};
use proptest::collection::vec;
use proptest::prelude::*;

use lb_common::flow::Words;
use lb_common::flow::{Slab, control};

use crate::cases;
use crate::engine::{Engine, Fixture, Output, Place, Plan, Service, dr, gre, gue, ipip, tcp};
use crate::state::{Flow, flows};

/// The frames of every case, each once.
pub static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let cases = cases::all();
    let frames: BTreeSet<&[u8]> = cases.iter().flat_map(cases::Case::frames).collect();
    // Those a case cut short by hand: changes cut enough.
    let is_whole =
        |frame: &&&[u8]| !frames.iter().any(|other| other.len() > frame.len() && other.starts_with(frame));
    frames.iter().filter(is_whole).map(|frame| frame.to_vec()).collect()
});

/// One thing that happens to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Frame(Vec<u8>),
    Wait(Duration),
}

/// Longer than any timeout of the fixture, so that no rounding of a clock decides whether a flow is still there.
pub const LONG: Duration = Duration::from_secs(1000);

/// A change to a frame.
#[derive(Clone, Debug)]
enum Change {
    /// A byte, counted from the front as a fraction of the frame, becomes this one.
    Byte(f64, u8),
    /// A byte among the headers.
    HeaderByte(usize, u8),
    Cut(f64),
    Pad(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (0.0..1.0, any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        4 => (12usize..80, any::<u8>()).prop_map(|(at, byte)| Change::HeaderByte(at, byte)),
        1 => (0.0..1.0).prop_map(Change::Cut),
        1 => (0usize..60).prop_map(Change::Pad),
    ]
}

fn changed(mut frame: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    let len = frame.len();
    for change in changes {
        match change {
            Change::Byte(at, byte) => set(&mut frame, (at * len as f64) as usize, byte),
            Change::HeaderByte(at, byte) => set(&mut frame, at, byte),
            Change::Cut(at) => frame.truncate((at * len as f64) as usize),
            Change::Pad(by) => frame.resize(frame.len() + by, 0),
        }
    }
    // The kernel takes no less than an Ethernet header.
    frame.resize(frame.len().max(14), 0);
    frame
}

fn set(frame: &mut [u8], at: usize, byte: u8) {
    if let Some(place) = frame.get_mut(at) {
        *place = byte;
    }
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let known = (any::<prop::sample::Index>(), prop_oneof![1 => Just(0), 1 => 1usize..4])
        .prop_flat_map(|(index, changes)| (Just(index.get(&FRAMES).clone()), vec(change(), changes)))
        .prop_map(|(frame, changes)| changed(frame, changes));
    prop_oneof![1 => vec(any::<u8>(), 14..200), 9 => known]
}

/// A life of up to 60 events.
pub fn life() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![40 => frame().prop_map(Event::Frame), 1 => Just(Event::Wait(LONG))];
    vec(event, 1..60)
}

/// A bit of everything, on the addresses the cases use.
pub fn everything() -> Fixture {
    let prefix = |text: &str, protocol| Place::Within(text.parse().expect("a prefix"), protocol, 0, 65535);
    let many = Service {
        places: vec![prefix("192.0.0.0/16", 0), prefix("2001:db8:ff::/48", 6)],
        ..tcp("192.0.2.1", 0)
    };
    let hash: Vec<(u32, u32)> = (0..256).map(|at| (9 + at % 3, at % 5)).collect();
    let fixture = Fixture {
        features: feature::ALL,
        source_flows_per_second: 12,
        new_flows_per_second: 10,
        icmp_per_second: 3,
        switches: switch::PMTU_DISC | switch::SCHEDULE_ICMP,
        ..Fixture::new()
    };
    let nobody = Service::at("192.0.2.1", proto::UDP, 80);
    let fixture = fixture
        .service(tcp("192.0.2.1", 80).plan(Plan::cycle(&[1, 2, 3, 4, 5, 20, 21])))
        .service(tcp("2001:db8:ff::1", 80).plan(Plan::of(
            PlanKind::Least,
            cost::WLC,
            &[(6, 1), (7, 2), (8, 1)],
        )))
        .service(Service::at("192.0.2.1", proto::UDP, 53).plan(Plan::of(
            PlanKind::Hash,
            hash_detail::SH | hash_detail::PORT | hash_detail::FALLBACK,
            &hash,
        )))
        .service(Service::at("192.0.2.1", proto::SCTP, 80).plan(Plan::of(
            PlanKind::Least,
            cost::SED,
            &[(12, 1), (13, 1)],
        )))
        .service(
            Service::at("192.0.2.1", proto::UDP, 0)
                .flags(service_flag::ONE_PACKET)
                .plan(Plan::cycle(&[14, 15])),
        )
        .service(tcp("192.0.2.1", 0).persistent(300, "255.255.255.0").plan(Plan::cycle(&[16, 17])))
        .service(many.plan(Plan::of(PlanKind::Locality, locality::REPLICATE, &[(18, 1), (19, 1)])))
        .service(nobody.plan(Plan::none()))
        .server(ipip("10.0.1.1").mtu(700))
        .server(dr("10.0.1.2"))
        .server(gre("10.0.1.3").with(server_flag::CHECKSUM))
        .server(gue("fd00::1:4").with(server_flag::CHECKSUM))
        .server(dr("10.0.1.5").vlan([5, lb_common::server::NO_VLAN]).behind(7))
        .server(dr("fd00::1:6").of_service(1).thresholds(3, 0))
        .server(ipip("10.0.1.7").of_service(1).with(server_flag::VARY_SOURCE))
        .server(gue("fd00::1:8").of_service(1));
    let servers = [
        (9, 2),
        (10, 2),
        (11, 2),
        (12, 3),
        (13, 3),
        (14, 4),
        (15, 4),
        (16, 5),
        (17, 5),
        (18, 6),
        (19, 6),
        (20, 0),
        (21, 0),
    ];
    let fixture = servers.iter().fold(fixture, |fixture, (id, service)| {
        fixture.server(dr(&format!("10.0.1.{id}")).of_service(*service))
    });
    let mut fixture = fixture.deny("203.0.113.2/32");
    fixture.servers[9].flags &= !server_flag::REACHABLE;
    fixture.servers[19].flags |= server_flag::LOCAL;
    fixture.servers[20].flags &= !server_flag::AVAILABLE;
    fixture.servers[16].mtu = 100;
    fixture
}

/// What became of an event's packet.
pub fn apply<E: Engine>(engine: &mut E, event: &Event) -> Option<Output> {
    match event {
        Event::Frame(frame) => Some(engine.run(frame)),
        Event::Wait(time) => {
            engine.advance(*time);
            None
        }
    }
}

/// Bytes a way to a server may add: two tags, IPv6, UDP and GUE.
const MOST_ADDED: usize = 2 * 4 + 40 + 8 + 4;

/// Bytes an answer may have: two tags and Ethernet, and what every IPv6 link carries (RFC 4443 §2.4).
const LARGEST_REPLY: usize = 2 * 4 + 14 + 1280;

/// What is true after any life, of one packet and of all.
///
/// # Errors
/// What is not true.
pub fn check<E: Engine>(engine: &E, life: &[Event], outputs: &[Output]) -> Result<(), TestCaseError> {
    let frames = life.iter().filter_map(|event| match event {
        Event::Frame(frame) => Some(frame),
        Event::Wait(_) => None,
    });
    for (frame, output) in frames.zip(outputs) {
        check_output(frame, output)?;
    }
    check_counted(engine, outputs.len() as u64)?;
    check_books(engine)
}

/// What is true of any packet.
///
/// # Errors
/// What is not true.
pub fn check_output(frame: &[u8], output: &Output) -> Result<(), TestCaseError> {
    let (reason, len) = (output.reason.name(), output.bytes.len());
    match output.reason.verdict() {
        Verdict::Pass => {
            prop_assert_eq!(frame, &output.bytes, "a packet left to the stack was changed: {}", reason);
        }
        Verdict::Transmit | Verdict::Redirect => {
            let most = frame.len() + MOST_ADDED;
            prop_assert!(len <= most, "{} bytes of {}, {}", len, frame.len(), reason);
        }
        Verdict::Reply => prop_assert!(len <= LARGEST_REPLY, "an answer of {} bytes, {}", len, reason),
        Verdict::Drop => {}
    }
    Ok(())
}

/// Each of so many packets is counted once.
///
/// # Errors
/// How many are counted.
pub fn check_counted<E: Engine>(engine: &E, packets: u64) -> Result<(), TestCaseError> {
    let counted: u64 = Reason::ALL.iter().map(|reason| engine.reason(*reason)).sum();
    prop_assert_eq!(counted, packets, "every packet is counted once");
    Ok(())
}

/// Every server holds as many flows and templates as it is said to hold.
///
/// # Errors
/// Of which server it is not true.
pub fn check_books<E: Engine>(engine: &E) -> Result<(), TestCaseError> {
    let mut held: BTreeMap<u32, [u32; 3]> = BTreeMap::new();
    let mut hold = |server: u32, what: usize| held.entry(server).or_default()[what] += 1;
    let mut all = engine.with_tables(|tables| [flows(&tables.v4), flows(&tables.v6)].concat());
    all.extend(engine.spills().iter().map(|(key, words)| Flow::in_spill(*key, words)));
    for flow in &all {
        hold(flow.server, if flow.control & control::ACTIVE != 0 { 0 } else { 1 });
    }
    engine.with_tables(|tables| {
        for template in templates(&tables.templates) {
            hold(template, 2);
        }
    });
    engine.with_tables(|tables| {
        for id in 1..32 {
            let load = tables.load(id).expect("ids of the fixture");
            let (active, inactive) = counts(load);
            let counted = [active, inactive, load.load(load_word::PERSISTENT)];
            prop_assert_eq!(
                held.remove(&id).unwrap_or_default(),
                counted,
                "what server {} is said to hold",
                id
            );
        }
        Ok(())
    })?;
    prop_assert!(held.is_empty(), "flows of nobody: {:?}", held);
    Ok(())
}

/// Servers of the live templates.
fn templates(slab: &Slab<'_, Templates>) -> Vec<u32> {
    flows::<Templates>(slab).iter().map(|template| meta::server(template.meta)).collect()
}

/// A frame without what is random in it: the identification of an IPv4 header the director wrote, and the checksum over
/// it.
pub fn masked(output: &Output) -> Output {
    let mut output = output.clone();
    let mut at = 14;
    while matches!(output.bytes.get(at - 2..at), Some([0x81, 0] | [0x88, 0xa8])) {
        at += 4;
    }
    if matches!(output.bytes.get(at - 2..at), Some([8, 0])) && output.bytes.len() >= at + 20 {
        output.bytes[at + 4..at + 6].fill(0);
        output.bytes[at + 10..at + 12].fill(0);
    }
    output
}
