//! Holds the readers and builders to the recordings themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::classify::Segment;
use super::commands;
use super::compare::{Compared, differences, masked};
use super::event::{Action, PacketOp, ServerChange};
use super::frames::Driver;
use super::host::{Answer, answer};
use super::outcome::{Sighting, Via};
use super::scenario::{Scenario, Server, Service};
use super::store::{Recording, folders, load, own_folder};
use super::trace::{Outcome, Record, TraceEvent};

/// The repository's recordings, which have something of everything, and those `LB_TRACES` names.
fn all() -> Vec<Recording> {
    let mut all = vec![own_folder()];
    all.extend(folders().into_iter().filter(|folder| *folder != own_folder()));
    load(&all).unwrap_or_else(|error| panic!("{error}"))
}

/// The segment as the driver knows it before the first event.
fn segment(scenario: &Scenario) -> Segment {
    let mut segment = Segment::new();
    scenario.neighbours.iter().for_each(|&address| segment.know_neighbour(address));
    scenario.services.iter().flat_map(|service| &service.servers).for_each(|server| segment.know(server));
    for event in &scenario.events {
        if let Action::AddServer(change) = &event.action {
            segment.know(&change.server);
        }
    }
    segment
}

/// What is due of a frame: sightings come in the order of the frames.
fn split<'a>(outcome: &Outcome, sent: &'a [Vec<u8>]) -> Vec<(&'a [u8], Vec<Sighting>)> {
    match outcome {
        Outcome::One(all) => vec![(&sent[0], all.clone())],
        Outcome::Each(each) => sent.iter().map(Vec::as_slice).zip(each.iter().cloned()).collect(),
    }
}

#[test]
fn every_recorded_frame_is_built_and_every_answer_classified_as_recorded() {
    let (mut built, mut classified) = (0, 0);
    for recording in all() {
        let mut driver = Driver::new();
        let mut segment = segment(&recording.scenario);
        for (asked, done) in recording.scenario.events.iter().zip(&recording.trace.events) {
            let at = format!("{} event {}", recording.label(), done.i);
            match &asked.action {
                Action::EditServer(ServerChange { server, .. })
                | Action::AddServer(ServerChange { server, .. }) => {
                    segment.know(server);
                }
                Action::AddService(service) => service.servers.iter().for_each(|server| segment.know(server)),
                Action::Packet(packet) => {
                    let Record::Packet { outcome, frames } = &done.record else {
                        panic!("{at}: a packet without an outcome")
                    };
                    let sent = driver.frames(packet).unwrap_or_else(|error| panic!("{at}: {error}"));
                    let Some(frames) = frames else { continue };
                    assert_eq!(sent, frames.sent, "{at}: frames sent");
                    built += sent.len();
                    let mut out = frames.out.iter();
                    for (sent, seen) in split(outcome, &sent) {
                        for sighting in &seen {
                            let frame =
                                out.next().unwrap_or_else(|| panic!("{at}: a frame for {sighting:?}"));
                            assert_eq!(segment.classify(frame, sent).as_ref(), Some(sighting), "{at}");
                            driver.saw(frame, sighting);
                            classified += 1;
                        }
                    }
                    assert_eq!(out.next(), None, "{at}: more frames than sightings");
                }
                _ => {}
            }
        }
    }
    assert!(built > 0 && classified > 0, "no recording with frames in {:?}", own_folder());
    println!("{built} frames built, {classified} classified");
}

#[test]
fn every_recorded_command_is_the_one_the_scenario_asks_for() {
    let mut compared = 0;
    for recording in all() {
        let scenario = &recording.scenario;
        let named = |svc: &Option<String>| -> &Service {
            scenario.service(svc.as_deref()).unwrap_or_else(|| panic!("{}: {svc:?}", recording.label()))
        };
        for (asked, done) in scenario.events.iter().zip(&recording.trace.events) {
            let Record::Command { cmd, .. } = &done.record else { continue };
            let key = |svc| named(svc).key().expect("a service has a VIP or a mark");
            let args = match &asked.action {
                Action::AddServer(ServerChange { svc, server }) => {
                    commands::add_server(&key(svc), named(svc), server)
                }
                Action::EditServer(ServerChange { svc, server }) => {
                    commands::edit_server(&key(svc), named(svc), server)
                }
                Action::DeleteServer(ServerChange { svc, server }) => {
                    commands::delete_server(&key(svc), named(svc), server)
                }
                Action::EditService { svc, options } => commands::edit_service(&key(svc), options),
                Action::DeleteService { svc } => commands::delete_service(&key(svc)),
                Action::Shell { cmd, .. } => vec![cmd.clone()],
                action => panic!("{}: {action:?} is not a command", recording.label()),
            };
            assert_eq!(args.join(" "), *cmd, "{} event {}", recording.label(), done.i);
            compared += 1;
        }
        // Commands that failed at the start: each is one the services ask for.
        let asked: BTreeSet<String> = scenario
            .services
            .iter()
            .flat_map(|service| {
                let key = service.key().expect("a service has a VIP or a mark");
                let servers =
                    service.servers.iter().map(move |server| commands::add_server(&key, service, server));
                [commands::add_service(&key, &service.options())].into_iter().chain(servers)
            })
            .map(|args| args.join(" "))
            .chain(scenario.setup.clone())
            .collect();
        for failed in &recording.trace.begin.setup_errors {
            assert!(asked.contains(&failed.cmd), "{}: {:?} was not asked for", recording.label(), failed.cmd);
            compared += 1;
        }
    }
    assert!(compared > 0, "no recording with a command in {:?}", own_folder());
}

#[test]
fn every_trace_starts_with_the_services_its_scenario_asks_for_and_their_servers_newest_first() {
    for recording in all() {
        let scenario = &recording.scenario;
        if !recording.trace.begin.setup_errors.is_empty() {
            continue;
        }
        let wanted: BTreeMap<String, Vec<_>> = scenario
            .services
            .iter()
            .map(|service| {
                let row = |server: &Server| (server.endpoint(service), server.weight.unwrap_or(1));
                let servers = service.servers.iter().rev().map(row);
                (service.key().expect("a service has a VIP or a mark").to_string(), servers.collect())
            })
            .collect();
        let listed = recording.trace.begin.order.iter().map(|service| {
            let servers = service.list.iter().map(|(endpoint, _, weight)| (endpoint.0, *weight));
            (service.svc.clone(), servers.collect())
        });
        assert_eq!(listed.collect::<BTreeMap<_, Vec<_>>>(), wanted, "{}", recording.label());
    }
}

#[test]
fn every_recorded_tunnel_frame_is_what_the_packet_builder_makes_of_its_parts() {
    let mut compared = BTreeMap::new();
    for recording in all() {
        for event in &recording.trace.events {
            let Record::Packet { outcome: Outcome::One(seen), frames: Some(frames) } = &event.record else {
                continue;
            };
            let ([Sighting { via, .. }], [out]) = (seen.as_slice(), frames.out.as_slice()) else { continue };
            let Some((kind, frame)) = rebuilt(via, out) else { continue };
            assert_eq!(frame, *out, "{} event {}", recording.label(), event.i);
            *compared.entry(kind).or_insert(0) += 1;
        }
    }
    println!("{compared:?}");
    assert!(!compared.is_empty(), "no recording with tunnel frames in {:?}", own_folder());
}

/// The frame again, from what its headers say and the packet inside.
fn rebuilt(via: &Via, frame: &[u8]) -> Option<(String, Vec<u8>)> {
    use etherparse::NetHeaders;
    let headers = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let link = headers.link.unwrap().ethernet2().unwrap();
    let eth = crate::packet::eth().from(link.source).to(link.destination);
    let (ip, l4, family) = match headers.net? {
        NetHeaders::Ipv4(header, _) => {
            let ip = eth
                .ipv4(std::net::Ipv4Addr::from(header.source), std::net::Ipv4Addr::from(header.destination));
            let ip = ip.id(header.identification.into()).df(header.dont_fragment).ttl(header.time_to_live);
            (ip.tos(header.dscp.value() << 2 | header.ecn.value()), &frame[34..], "4")
        }
        NetHeaders::Ipv6(header, _) => {
            let ip = eth.ipv6(header.source_addr(), header.destination_addr());
            let ip = ip.ttl(header.hop_limit).tos(header.traffic_class).flow_label(header.flow_label.value());
            (ip, &frame[54..], "6")
        }
        NetHeaders::Arp(_) => return None,
    };
    let port = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    let (kind, frame) = match via {
        Via::Ipip => ("ipip", ip.ipip(l4).build()),
        Via::Gre if l4[0] == 0 => ("gre", ip.gre(&l4[4..], false).build()),
        Via::Gre => ("gre+csum", ip.gre(&l4[8..], true).build()),
        Via::Gue if port(6) == 0 => ("gue", ip.gue(port(0), port(2), &l4[12..]).no_checksum().build()),
        Via::Gue => ("gue+csum", ip.gue(port(0), port(2), &l4[12..]).build()),
        _ => return None,
    };
    Some((format!("{kind} over IPv{family}"), frame))
}

#[test]
fn the_host_answers_passed_packets_as_recorded() {
    let mut compared = BTreeMap::new();
    for recording in all() {
        for (asked, done) in recording.scenario.events.iter().zip(&recording.trace.events) {
            let at = format!("{} event {}", recording.label(), done.i);
            let Action::Packet(packet) = &asked.action else { continue };
            let Record::Packet { outcome: Outcome::One(seen), frames: Some(frames) } = &done.record else {
                continue;
            };
            // What a server sends is not for the host.
            if packet.from.is_some() {
                continue;
            }
            let given = answer(&frames.sent[0]);
            let by_host = |via: &Via| match via {
                Via::Tcp { flags, .. } => flags & 4 != 0,
                Via::Icmp { v6: false, kind: 0, .. } | Via::Icmp { v6: false, kind: 3, code: 2, .. } => true,
                Via::Icmp { v6: true, kind: 129, .. } => true,
                Via::Icmp { v6: false, kind: 3, code: 3, .. }
                | Via::Icmp { v6: true, kind: 1, code: 4, .. } => {
                    // IPVS answers TCP alike, and errors about tunnels are passed on.
                    matches!(&packet.body, super::event::Body::Packet(packet) if packet.op == PacketOp::Udp)
                }
                _ => false,
            };
            match seen.as_slice() {
                [Sighting { via, .. }] if by_host(via) => {
                    let Answer::Frame(frame) = given else { panic!("{at}: {given:?}, not {via}") };
                    assert_eq!(masked(&frame, via), masked(&frames.out[0], via), "{at}");
                    *compared
                        .entry(via.to_string().split(' ').take(2).collect::<Vec<_>>().join(" "))
                        .or_insert(0) += 1;
                }
                // Nothing is dropped of what is not served.
                [] if recording.label() == "D/notserved" => {
                    assert_eq!(given, Answer::Nothing, "{at}");
                    *compared.entry("nothing".to_owned()).or_insert(0) += 1;
                }
                _ => {}
            }
        }
    }
    println!("{compared:?}");
    assert!(!compared.is_empty(), "no recording with an answer of the host in {:?}", own_folder());
}

#[test]
fn a_recording_agrees_with_itself_and_every_deviation_is_told() {
    let everything = Compared { counts: true, frames: true, also: true, conns: true };
    let recordings = all();
    for recording in &recordings {
        for event in &recording.trace.events {
            assert_eq!(differences(event, event, everything), [], "{} event {}", recording.label(), event.i);
        }
    }
    let line = |line: &str| -> TraceEvent { serde_json::from_str(line).unwrap() };
    let dr = r#"{"i":0,"op":"syn","t":0.1,"to":"10.0.1.1","via":"dr","in":["00"],"out":["aa"],"st":{"10.0.1.1:80":[1,1,0]},"conns":[["TCP","192.0.2.7:1","192.0.2.1:80","10.0.1.1:80","ESTABLISHED","900"]]}"#;
    let edit = r#"{"i":0,"op":"edit","t":0.1,"cmd":"-e","rc":0}"#;
    for (recorded, from, to, field) in [
        (dr, "\"10.0.1.1\",\"via", "\"10.0.1.2\",\"via", Some("to, via")),
        (dr, "\"dr\"", "\"ipip\"", Some("to, via")),
        (dr, "\"aa\"", "\"ab\"", Some("out")),
        (dr, "\"dr\",", "\"dr\",\"also\":[[\"10.0.1.1\",\"dr\"]],", Some("to, via")),
        (dr, "[1,1,0]", "[1,0,1]", Some("st")),
        (dr, "[1,1,0]", "null", Some("st")),
        (dr, "\"900\"", "\"899\"", None),
        (dr, "\"900\"", "\"898\"", Some("conns")),
        (dr, "ESTABLISHED", "SYN_RECV", Some("conns")),
        (dr, "\"t\":0.1", "\"t\":0.9", None),
        (edit, "\"rc\":0", "\"rc\":2", Some("rc")),
    ] {
        let changed = recorded.replace(from, to);
        assert_ne!(changed, recorded, "{from}");
        let found = differences(&line(recorded), &line(&changed), everything);
        assert_eq!(
            found.iter().map(|difference| difference.field).next(),
            field,
            "{from} -> {to}: {found:?}"
        );
    }
}
