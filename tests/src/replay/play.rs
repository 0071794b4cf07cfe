//! A scenario, event by event, held against its trace.

use std::collections::BTreeMap;
use std::time::Duration;

use super::alike::same;
use super::counts::Ledger;
use super::director::Director;
use super::lots::Lots;
use super::played::{Compared, Difference, LeftOut, Played, Wrong};
use crate::engine::Engine as Datapath;
use crate::traces::Recording;
use crate::traces::classify::Segment;
use crate::traces::commands;
use crate::traces::engine::{Engine, Refused, meant};
use crate::traces::event::{Action, Event};
use crate::traces::frames::Driver;
use crate::traces::scenario::{RouteMtu, Scenario, Service};
use crate::traces::trace::{Counts, Record, Trace, TraceEvent};

mod packets;
mod standing;

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
