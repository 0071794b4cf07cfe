//! A scenario, event by event, held against its trace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lb_common::flow::{FlowKey, control};

use super::alike::{
    HEAD, IPIP_QUOTE, flow_key, has_source_route, is_refused, is_sent_to_server, is_too_big, reports_mtu,
    same, same_frame, same_sightings, shown, without_mtu,
};
use super::counts::Ledger;
use super::director::{Director, Ended};
use super::entries::{ROUNDED, Remembered};
use super::lots::Lots;
use super::played::{Compared, Difference, LeftOut, Played, Wrong};
use crate::engine::Engine as Datapath;
use crate::traces::classify::Segment;
use crate::traces::commands;
use crate::traces::engine::{Engine, Refused, Verdict, meant};
use crate::traces::event::{Action, Body, Event, PacketEvent};
use crate::traces::frames::Driver;
use crate::traces::host::{self, Answer};
use crate::traces::outcome::{Sighting, To};
use crate::traces::scenario::{RouteMtu, Scenario, Service};
use crate::traces::trace::{Conn, Counts, Frames, Outcome, Record, Trace, TraceEvent};
use crate::traces::{Recording, compare};

/// Plays a recording through a director over `engine`.
pub fn play<E: Datapath>(recording: &Recording, engine: &mut E) -> Played {
    let (scenario, trace) = (&recording.scenario, &recording.trace);
    let mut played = Played::new(recording.label());
    let director = Director::new(engine, scenario);
    if director.cannot_play(scenario).is_some() {
        let packets =
            trace.events.iter().filter(|event| matches!(event.record, Record::Packet { .. })).count();
        played.decisions.all = packets as u64;
        played.decisions.left_out.insert(LeftOut::Nat, packets as u64);
        return played;
    }
    let mut player = Player::new(director, scenario, trace, played);
    player.begin();
    for (event, recorded) in scenario.events.iter().zip(&trace.events) {
        player.event(event, recorded);
    }
    player.end()
}

struct Player<'a, E: Datapath> {
    director: Director<'a, E>,
    scenario: &'a Scenario,
    trace: &'a Trace,
    driver: Driver,
    segment: Segment,
    ledger: Ledger,
    played: Played,
    /// The latest error about a tunnel that reported an MTU quoted less than IPVS wants of IPIP.
    short_tunnel_error: bool,
    /// A service's scheduler draws by lot.
    by_lot: bool,
    lots: Lots,
}

fn from_ms(ms: f64) -> Duration {
    Duration::from_micros((ms * 1000.0).max(0.0) as u64)
}

/// How late the kernel may take an idle entry out: an eighth of the largest power of two of seconds within its timeout,
/// but at least a tick.
fn lateness(timeout_seconds: u32) -> Duration {
    let power = if timeout_seconds == 0 { 0 } else { 1u64 << timeout_seconds.ilog2() };
    Duration::from_millis(power * 1000 / 8).max(A_TICK)
}

/// Port of a template that cannot be used any more.
const UNUSABLE: u16 = 0xffff;

/// The kernel's next timer tick, and the event it falls in.
const A_TICK: Duration = Duration::from_millis(20);

impl<'a, E: Datapath> Player<'a, E> {
    fn new(director: Director<'a, E>, scenario: &'a Scenario, trace: &'a Trace, played: Played) -> Self {
        let mut segment = Segment::new();
        for server in scenario.services.iter().flat_map(|service| &service.servers) {
            segment.know(server);
        }
        for event in &scenario.events {
            if let Action::AddServer(change) = &event.action {
                segment.know(&change.server);
            }
        }
        for neighbour in &scenario.neighbours {
            segment.know_neighbour(*neighbour);
        }
        let ledger = Ledger::new(scenario, &trace.begin.order);
        let is_twos = |sched: Option<&str>| sched == Some("twos");
        let by_event = |event: &Event| match &event.action {
            Action::AddService(service) => is_twos(service.sched.as_deref()),
            Action::EditService { options, .. } => is_twos(options.sched.as_deref()),
            _ => false,
        };
        let by_lot = scenario.services.iter().any(|service| is_twos(service.sched.as_deref()))
            || scenario.events.iter().any(by_event);
        Self {
            director,
            scenario,
            trace,
            driver: Driver::new(),
            segment,
            ledger,
            played,
            short_tunnel_error: false,
            by_lot,
            lots: Lots::default(),
        }
    }

    /// Compares one thing and counts it where `of` says.
    fn judge(
        &mut self,
        of: fn(&mut Played) -> &mut Compared,
        recorded: Option<&TraceEvent>,
        result: Result<(), Wrong>,
    ) {
        of(&mut self.played).count(&result);
        if let Err(Wrong::Different(what)) = result {
            let op = recorded.map_or("start", |recorded| &recorded.op).to_owned();
            self.played.differences.push(Difference { event: recorded.map(|recorded| recorded.i), op, what });
        }
    }

    fn begin(&mut self) {
        for (setting, value) in &self.scenario.sysctl {
            let result =
                self.director.set(setting, &value.0).map_err(|why| Wrong::Different(why.to_string()));
            self.judge(|played| &mut played.commands, None, result);
        }
        match self.scenario.route_mtus() {
            Ok(routes) => routes.into_iter().for_each(|route| self.director.route_mtu(route)),
            Err(command) => {
                let result = Err(Wrong::Different(format!("setup cannot be played: {command}")));
                self.judge(|played| &mut played.commands, None, result);
            }
        }
        let mut errors = Vec::new();
        for service in &self.scenario.services {
            errors.extend(self.add_service(service));
        }
        let wanted: Vec<(String, i32)> =
            self.trace.begin.setup_errors.iter().map(|error| (error.cmd.clone(), error.rc)).collect();
        let result = same("commands that failed", &wanted, &errors);
        self.judge(|played| &mut played.commands, None, result);

        let listed = |rows: Vec<(String, Vec<(std::net::SocketAddr, i64)>)>| {
            rows.into_iter().collect::<BTreeMap<_, _>>()
        };
        let wanted = listed(
            self.trace
                .begin
                .order
                .iter()
                .map(|order| {
                    (order.svc.clone(), order.list.iter().map(|(at, _, weight)| (at.0, *weight)).collect())
                })
                .collect(),
        );
        let got = self.director.services().into_iter();
        let got = listed(
            got.map(|row| {
                (row.svc, row.dests.into_iter().map(|(at, _, weight, ..)| (at.0, weight)).collect())
            })
            .collect(),
        );
        let result = same("services at the start", &wanted, &got);
        self.judge(|played| &mut played.commands, None, result);
    }

    /// Adds a service with its servers; commands that failed, with their exit statuses.
    fn add_service(&mut self, service: &Service) -> Vec<(String, i32)> {
        let Some(key) = service.key() else { return vec![("a service without address or mark".into(), 0)] };
        for matching in &service.matches {
            self.director.add_mark(&key, matching);
            if service.local != Some(false) {
                self.director.add_local(matching);
            }
        }
        if let (Some(vip), true) = (service.vip, service.local != Some(false)) {
            let dst = vip.to_string();
            self.director.add_local(&crate::traces::scenario::Match { dst, proto: None, port: None });
        }
        let mut errors = Vec::new();
        let mut ran = |command: Vec<String>, result: Result<(), Refused>| {
            if let Err(refused) = result {
                errors.push((command.join(" "), refused.rc));
            }
        };
        let options = service.options();
        ran(commands::add_service(&key, &options), self.director.add_service(&key, &options));
        for server in &service.servers {
            let result = self.director.add_server(&key, service, server);
            ran(commands::add_server(&key, service, server), result);
        }
        errors
    }

    fn event(&mut self, event: &Event, recorded: &TraceEvent) {
        let mut began = from_ms(recorded.t);
        if let Record::Command { .. } | Record::Ipvsadm { .. } | Record::AddService { .. } = recorded.record {
            // A command takes effect as it ends, some milliseconds after it was begun.
            let next = self.trace.events.get(recorded.i + 1).map_or(self.trace.end.t, |next| next.t);
            began = began.max(from_ms(next));
        }
        self.director.advance_to(began);
        let mut ended = began;
        let rc = |result: Result<(), Refused>| result.err().map_or(0, |refused| refused.rc);
        match (&event.action, &recorded.record) {
            (Action::Packet(packet), Record::Packet { outcome, frames }) => {
                self.packet(packet, recorded, outcome, frames.as_ref());
            }
            (Action::AddServer(change), Record::Command { ran, .. }) => {
                self.segment.know(&change.server);
                self.settle_evictions(recorded);
                let result = meant(self.scenario, change)
                    .map_or(Ok(()), |(key, of, server)| self.director.add_server(&key, of, server));
                self.judge(|played| &mut played.commands, Some(recorded), same("rc", &ran.rc, &rc(result)));
            }
            (Action::EditServer(change), Record::Command { ran, .. }) => {
                self.segment.know(&change.server);
                let result = meant(self.scenario, change)
                    .map_or(Ok(()), |(key, of, server)| self.director.edit_server(&key, of, server));
                self.judge(|played| &mut played.commands, Some(recorded), same("rc", &ran.rc, &rc(result)));
            }
            (Action::DeleteServer(change), Record::Command { ran, .. }) => {
                let result = meant(self.scenario, change)
                    .map_or(Ok(()), |(key, of, server)| self.director.delete_server(&key, of, server));
                self.judge(|played| &mut played.commands, Some(recorded), same("rc", &ran.rc, &rc(result)));
            }
            (Action::AddService(service), Record::AddService { errors }) => {
                service.servers.iter().for_each(|server| self.segment.know(server));
                self.settle_evictions(recorded);
                let got = self.add_service(service);
                let wanted: Vec<_> = errors.iter().map(|error| (error.cmd.clone(), error.rc)).collect();
                let result = same("commands that failed", &wanted, &got);
                self.judge(|played| &mut played.commands, Some(recorded), result);
            }
            (Action::EditService { svc, options }, Record::Command { ran, .. }) => {
                let key = self.scenario.service(svc.as_deref()).and_then(Service::key);
                let result = key.map_or(Ok(()), |key| self.director.edit_service(&key, options));
                self.judge(|played| &mut played.commands, Some(recorded), same("rc", &ran.rc, &rc(result)));
            }
            (Action::DeleteService { svc }, Record::Command { ran, .. }) => {
                let key = self.scenario.service(svc.as_deref()).and_then(Service::key);
                let result = key.map_or(Ok(()), |key| self.director.delete_service(&key));
                self.judge(|played| &mut played.commands, Some(recorded), same("rc", &ran.rc, &rc(result)));
            }
            (Action::Ipvsadm { args, stdin }, Record::Ipvsadm { ran, .. }) => {
                let got = self.director.ipvsadm(args, stdin.as_deref());
                let result = same("rc and output", &(ran.rc, &ran.stdout), &(got.rc, &got.stdout));
                self.judge(|played| &mut played.commands, Some(recorded), result);
            }
            (Action::Sysctl { key, value }, Record::Sysctl { ok, .. }) => {
                let result = same("ok", ok, &self.director.set(key, &value.0).is_ok());
                self.judge(|played| &mut played.commands, Some(recorded), result);
            }
            (Action::Shell { cmd, .. }, _) => match RouteMtu::parse(cmd) {
                Some(route) => self.director.route_mtu(route),
                None => {
                    let left_out = Err(Wrong::LeftOut(LeftOut::Foreign));
                    self.judge(|played| &mut played.commands, Some(recorded), left_out);
                }
            },
            (Action::Sleep { ms }, _) => {
                ended = began + Duration::from_millis(*ms);
                self.director.advance_to(ended);
            }
            (Action::Until { ms }, _) => {
                ended = began.max(Duration::from_millis(*ms));
                self.director.advance_to(ended);
            }
            (Action::Snapshot { .. }, Record::Snapshot(snapshot)) => {
                let wanted: BTreeMap<_, Vec<_>> = snapshot
                    .services
                    .iter()
                    .map(|row| {
                        let dests = row.dests.iter();
                        (
                            row.svc.clone(),
                            dests.map(|(at, how, weight, ..)| (at.0, how.clone(), *weight)).collect(),
                        )
                    })
                    .collect();
                let got: BTreeMap<_, Vec<_>> = self
                    .director
                    .services()
                    .into_iter()
                    .map(|row| {
                        let dests = row.dests.into_iter();
                        (row.svc, dests.map(|(at, how, weight, ..)| (at.0, how, weight)).collect())
                    })
                    .collect();
                self.judge(|played| &mut played.commands, Some(recorded), same("services", &wanted, &got));
            }
            (Action::Bench(_), _) => {
                let left_out = Err(Wrong::LeftOut(LeftOut::Foreign));
                self.judge(|played| &mut played.commands, Some(recorded), left_out);
            }
            (_, record) => {
                let what = format!("the trace has another kind of event: {record:?}");
                self.judge(|played| &mut played.commands, Some(recorded), Err(Wrong::Different(what)));
            }
        }
        self.state(recorded, ended);
    }

    /// What an added server is recorded with tells whether the flows it had were still there.
    fn settle_evictions(&mut self, recorded: &TraceEvent) {
        let has_flows = |counts: &Counts| counts.active != 0 || counts.inactive != 0;
        let taken_out = !recorded.st.values().flatten().any(has_flows);
        self.director.settle_evictions(taken_out);
    }

    fn packet(
        &mut self,
        event: &PacketEvent,
        recorded: &TraceEvent,
        outcome: &Outcome,
        recorded_frames: Option<&Frames>,
    ) {
        let frames = match self.driver.frames(event) {
            Ok(frames) => frames,
            Err(error) => {
                let result = Err(Wrong::Different(error.to_string()));
                return self.judge(|played| &mut played.decisions, Some(recorded), result);
            }
        };
        let mut wanted: Vec<Vec<Sighting>> = match outcome {
            Outcome::One(all) => vec![all.clone()],
            Outcome::Each(each) => each.clone(),
        };
        if wanted.iter().flatten().any(|sighting| sighting.to == To::SendFailed) {
            let left_out = Err(Wrong::LeftOut(LeftOut::NotSent));
            return self.judge(|played| &mut played.decisions, Some(recorded), left_out);
        }
        let mut wanted_frames = recorded_frames.map_or(&[][..], |frames| &frames.out).to_vec();
        // What came out late is told with the event after.
        if let Some((sighting, frame)) =
            self.trace.events.get(recorded.i + 1).and_then(|next| next.late.clone())
        {
            wanted.last_mut().expect("one list per frame").push(sighting);
            wanted_frames.push(frame);
        }
        // A frame that quotes what left this director has what that one drew at random.
        let quotes_own = matches!(&event.body, Body::Packet(packet) if packet.inner_last);
        if let Some(recorded_frames) = recorded_frames
            && !quotes_own
            && recorded_frames.sent != frames
        {
            let what = "the frames sent are not those of the recording".to_owned();
            self.judge(|played| &mut played.frames, Some(recorded), Err(Wrong::Different(what)));
        }
        if reports_mtu(event) {
            let Body::Packet(packet) = &event.body else { return };
            self.short_tunnel_error = packet.inner_len.unwrap_or(28) < IPIP_QUOTE;
        }
        let quotes_other = recorded_frames.is_some_and(|recorded| recorded.sent != frames);
        let is_fragmented = !event.frag.is_empty();
        let key = flow_key(event);
        let mut rest = wanted_frames.as_slice();
        let mut reached = BTreeSet::new();
        for (at, frame) in frames.iter().enumerate() {
            let before = key.and_then(|key| self.director.find(&key));
            let got = self.send(frame);
            if let (Some(before), Some(key)) = (before, key) {
                self.note_reuse(before, self.director.find(&key));
            }
            reached.extend(got.iter().flatten().map(|(sighting, _)| sighting.to));
            let Some(wanted) = wanted.get(at) else {
                let result = Err(Wrong::Different(format!("frame {at} is not in the trace")));
                self.judge(|played| &mut played.decisions, Some(recorded), result);
                continue;
            };
            let (wanted_frames, after) = rest.split_at(wanted.len().min(rest.len()));
            rest = after;
            let mut result = match &got {
                Some(got) => same_sightings(wanted, got),
                None if wanted.iter().all(|sighting| sighting.to == To::Router) => {
                    Err(Wrong::LeftOut(LeftOut::Stack))
                }
                None => Err(Wrong::Different(format!("expected {}, got passed", shown(wanted)))),
            };
            if let (true, [wanted], Some([(got, _)])) = (self.by_lot, wanted.as_slice(), got.as_deref())
                && let (To::Server(one), To::Server(other)) = (wanted.to, got.to)
                && wanted.via == got.via
            {
                if before.is_none() {
                    self.lots.count(one, other);
                }
                result = Err(Wrong::LeftOut(LeftOut::Lot));
            }
            if let Err(Wrong::Different(_)) = &result {
                if is_fragmented {
                    result = Err(Wrong::LeftOut(LeftOut::Fragments));
                } else if got.as_ref().is_some_and(|got| is_refused(wanted, got)) {
                    result = Err(Wrong::LeftOut(LeftOut::Fragmenting));
                } else if got.as_ref().is_some_and(|got| got.is_empty() || is_sent_to_server(got))
                    && wanted.is_empty()
                    && has_source_route(event)
                {
                    result = Err(Wrong::LeftOut(LeftOut::SourceRoute));
                } else if self.short_tunnel_error && got.as_ref().is_some_and(|got| is_too_big(got)) {
                    result = Err(Wrong::LeftOut(LeftOut::TunnelMtu));
                } else if let Some(why) = key.and_then(|key| self.excuse(&key, from_ms(recorded.t))) {
                    result = Err(Wrong::LeftOut(why));
                }
            }
            if let (Some(got), Ok(()), true) = (&got, &result, recorded_frames.is_some()) {
                for ((sighting, got), wanted) in got.iter().zip(wanted_frames) {
                    let mut result = same_frame(wanted, got, &sighting.via);
                    if result.is_err() && reports_mtu(event) {
                        // If this director refused what the recorded one let through, it quotes an earlier packet.
                        let shown = if self.short_tunnel_error || quotes_other { HEAD } else { usize::MAX };
                        let [wanted, got] = [wanted, got].map(|frame| without_mtu(frame, shown));
                        result = same_frame(&wanted, &got, &sighting.via)
                            .and(Err(Wrong::LeftOut(LeftOut::TunnelMtu)));
                    }
                    self.judge(|played| &mut played.frames, Some(recorded), result);
                }
            } else if let (Err(Wrong::LeftOut(why)), true) = (&result, recorded_frames.is_some()) {
                let left_out = Err(Wrong::LeftOut(*why));
                self.judge(|played| &mut played.frames, Some(recorded), left_out);
            }
            self.judge(|played| &mut played.decisions, Some(recorded), result);
        }
        if is_fragmented && event.frag_order.is_none() && key.is_some() && !reached.contains(&To::Router) {
            // However they are cut, fragments that come in order reach the server the whole reached.
            let wanted: BTreeSet<To> = wanted.iter().flatten().map(|sighting| sighting.to).collect();
            let result = same("hosts reached by fragments", &wanted, &reached);
            self.judge(|played| &mut played.decisions, Some(recorded), result);
        }
    }

    /// What came out after a frame; none if the host's stack has it and it is not known what that answers.
    fn send(&mut self, frame: &[u8]) -> Option<Vec<(Sighting, Vec<u8>)>> {
        let sent = match self.director.receive(frame) {
            Verdict::Sent(sent) => sent,
            Verdict::Passed => match host::answer(frame) {
                Answer::Frame(answer) => vec![answer],
                Answer::Nothing => Vec::new(),
                Answer::Unknown => return None,
            },
        };
        let mut seen = Vec::new();
        for out in sent {
            if let Some(sighting) = self.segment.classify(&out, frame) {
                self.driver.saw(&out, &sighting);
                seen.push((sighting, out));
            }
        }
        Some(seen)
    }

    /// Notes a flow that a packet put another in the place of.
    fn note_reuse(&mut self, before: Remembered, after: Option<Remembered>) {
        let place =
            |what: Remembered| what.flow.control & !(control::STATE | control::ACTIVE | control::CONFIRMED);
        if after.map(place) != Some(place(before)) {
            let at = self.director.at();
            self.director.ended.push(Ended { what: Remembered { timeout: 0, ..before }, at });
        }
    }

    /// Entries the kernel may still have though the director has not, and the other way round.
    fn uncertain(&self, at: Duration) -> (Vec<Remembered>, Vec<Remembered>) {
        let hz = self.director.hz();
        let lingering = self
            .director
            .ended
            .iter()
            .filter(|ended| at <= ended.at + lateness(ended.what.timeout / hz) + A_TICK);
        let now = self.director.now();
        let going =
            self.director.remembered().into_iter().filter(|what| {
                what.left(now) <= (ROUNDED + hz / 25) as i32 || self.director.is_evicted(what)
            });
        (lingering.map(|ended| ended.what).collect(), going.collect())
    }

    /// Why a packet may find another flow, or none, in the recording.
    fn excuse(&self, key: &FlowKey, at: Duration) -> Option<LeftOut> {
        let (lingering, going) = self.uncertain(at);
        let concerns = |what: &&Remembered| {
            what.flow.key == *key || what.is_template && what.flow.key.client == key.client
        };
        let found = lingering.iter().chain(&going).find(concerns)?;
        Some(if found.timeout == 0 { LeftOut::Reused } else { LeftOut::IdleEnd })
    }

    /// Compares how things stand after an event.
    fn state(&mut self, recorded: &TraceEvent, at: Duration) {
        self.ledger.apply(&recorded.st);
        if self.by_lot {
            return;
        }
        if self.scenario.track != Some(false) {
            let rows = self.director.services();
            let result = match self.ledger.compare(&rows) {
                Ok(()) => Ok(()),
                Err(what) => {
                    let (lingering, going) = self.uncertain(at);
                    let place = |what: &Remembered| {
                        let (service, at) = self.director.server(what.flow.server)?;
                        (!what.is_template).then(|| (service.to_string(), at, what.is_active()))
                    };
                    let more: Vec<_> = lingering.iter().filter_map(place).collect();
                    let less: Vec<_> = going.iter().filter_map(place).collect();
                    let reused = lingering.iter().any(|what| what.timeout == 0);
                    match self.ledger.is_within(&rows, &more, &less) {
                        true if reused => Err(Wrong::LeftOut(LeftOut::Reused)),
                        true => Err(Wrong::LeftOut(LeftOut::IdleEnd)),
                        false if self.ledger.differs_only_at(&rows, |rip| self.director.is_local(rip)) => {
                            Err(Wrong::LeftOut(LeftOut::LocalReplies))
                        }
                        false => Err(Wrong::Different(what)),
                    }
                }
            };
            self.judge(|played| &mut played.counts, Some(recorded), result);
        }
        if let Some(wanted) = &recorded.conns {
            let got = self.director.conns();
            let result = self.conns(wanted, &got, at);
            self.judge(|played| &mut played.conns, Some(recorded), result);
        }
    }

    fn conns(&self, wanted: &[Conn], got: &[Conn], at: Duration) -> Result<(), Wrong> {
        if compare::same_conns(wanted, got) {
            return Ok(());
        }
        let (lingering, going) = self.uncertain(at);
        let conns = |all: &[Remembered]| -> Vec<Conn> {
            all.iter().filter_map(|what| self.director.conn(what)).collect()
        };
        let (may_stay, may_go) = (conns(&lingering), conns(&going));
        let is_one = |a: &Conn, b: &Conn| {
            (&a.proto, a.client, a.vip, a.server) == (&b.proto, b.client, b.vip, b.server)
        };
        let is_same = |a: &Conn, b: &Conn| {
            is_one(a, b) && a.state == b.state && a.expires.abs_diff(b.expires) <= compare::SECONDS_APART
        };
        // A template that ended under live flows goes on by a minute from when its timer, late, fired.
        let is_prolonged = |a: &Conn, b: &Conn| {
            let apart = Duration::from_secs(a.expires.abs_diff(b.expires));
            is_one(a, b) && a.state == b.state && a.client.port() == 0 && apart <= lateness(60)
        };
        let mut why = None;
        let mut left: Vec<&Conn> = got.iter().collect();
        for conn in wanted {
            if let Some(place) = left.iter().position(|other| is_same(conn, other)) {
                left.swap_remove(place);
            } else if let Some(place) = left.iter().position(|other| is_prolonged(conn, other)) {
                left.swap_remove(place);
                why = Some(LeftOut::IdleEnd);
            } else if may_stay.iter().any(|other| is_one(conn, other)) {
                why = Some(LeftOut::IdleEnd);
            } else if let Some(place) =
                left.iter().position(|other| is_one(conn, other) && self.director.is_local(conn.server.ip()))
            {
                left.swap_remove(place);
                why = Some(LeftOut::LocalReplies);
            } else if conn.vip.port() == UNUSABLE && conn.client.port() == 0 {
                why = why.or(Some(LeftOut::UnusableTemplate));
            } else {
                let close = left.iter().find(|other| (other.client, other.vip) == (conn.client, conn.vip));
                return Err(Wrong::Different(match close {
                    Some(other) => format!("expected {conn:?}, got {other:?}"),
                    None => format!("not remembered: {conn:?}"),
                }));
            }
        }
        for conn in left {
            if !may_go.iter().any(|other| is_one(conn, other)) {
                return Err(Wrong::Different(format!("still remembered: {conn:?}")));
            }
            why = Some(LeftOut::IdleEnd);
        }
        why.map_or(Ok(()), |why| Err(Wrong::LeftOut(why)))
    }

    fn end(mut self) -> Played {
        let result = match self.director.trouble() {
            None => Ok(()),
            Some(what) => Err(Wrong::Different(what)),
        };
        self.judge(|played| &mut played.commands, None, result);
        let result = self.lots.compare().map_err(Wrong::Different);
        self.judge(|played| &mut played.commands, None, result);
        self.played
    }
}
