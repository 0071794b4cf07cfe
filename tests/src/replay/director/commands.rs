//! What a scenario can tell the director, each an edit of what it holds.

use std::time::Duration;

use lb_common::counters::Verdict as Fate;

use super::super::listing;
use super::super::world::{self, Held, HeldServer, KERNEL, Marking, refused};
use super::{Director, IDLE, TICK, floored};
use crate::engine::Engine as Datapath;
use crate::traces::engine::{Engine, Refused, Verdict};
use crate::traces::scenario::{
    self, RouteMtu, Scenario, Server, Service, ServiceKey, ServiceOptions, Setting,
};
use crate::traces::trace::{Conn, Endpoint, Ran, ServiceRow};

impl<E: Datapath> Engine for Director<'_, E> {
    fn cannot_play(&self, scenario: &Scenario) -> Option<String> {
        world::needs_nat(scenario).then(|| "NAT is left for later".to_owned())
    }

    fn advance_to(&mut self, since_start: Duration) {
        let target = floored(since_start);
        while self.at < target {
            let due = self.swept + IDLE;
            let end = self.next_end();
            let next = target.min(due.max(self.at + TICK)).min(end.unwrap_or(target).max(self.at + TICK));
            self.engine.advance(next - self.at);
            self.at = next;
            if self.at >= due || end.is_some_and(|end| end <= self.at) {
                self.sweep();
            }
        }
        self.reached = since_start;
        if self.evicts.is_some_and(|due| due <= since_start) {
            self.sweep();
        }
    }

    fn set(&mut self, setting: &str, value: &str) -> Result<(), Refused> {
        world::set(&mut self.model.ipvs, setting, &Setting(value.to_owned()))?;
        self.reconcile()
    }

    fn route_mtu(&mut self, route: RouteMtu) {
        self.routes.push(route);
        self.reconcile().expect("what is in force, by another way");
    }

    fn add_local(&mut self, destination: &scenario::Match) {
        self.local.push(world::prefix(destination));
    }

    fn add_mark(&mut self, key: &ServiceKey, matching: &scenario::Match) {
        let entries = world::entries(matching);
        self.markings.push(Marking { key: *key, entries });
    }

    fn add_service(&mut self, key: &ServiceKey, options: &ServiceOptions) -> Result<(), Refused> {
        if self.position(key).is_ok() {
            return refused(KERNEL, "Service already exists");
        }
        let held = Held { key: *key, options: options.clone(), servers: Vec::new() };
        self.change(|all| {
            all.push(held);
            Ok(())
        })
    }

    fn edit_service(&mut self, key: &ServiceKey, options: &ServiceOptions) -> Result<(), Refused> {
        let at = self.position(key)?;
        self.change(|all| {
            all[at].options = options.clone();
            Ok(())
        })
    }

    fn delete_service(&mut self, key: &ServiceKey) -> Result<(), Refused> {
        let at = self.position(key)?;
        self.change(|all| {
            all.remove(at);
            Ok(())
        })
    }

    fn add_server(&mut self, key: &ServiceKey, of: &Service, server: &Server) -> Result<(), Refused> {
        let at = self.position(key)?;
        let added = HeldServer { server: world::server(server)?, port: server.endpoint(of).port() };
        self.change(|all| {
            let servers = &mut all[at].servers;
            if servers.iter().any(|known| known.server.address == added.server.address) {
                return refused(KERNEL, "Destination already exists");
            }
            servers.push(added);
            Ok(())
        })
    }

    fn edit_server(&mut self, key: &ServiceKey, of: &Service, server: &Server) -> Result<(), Refused> {
        let at = self.position(key)?;
        let edited = HeldServer { server: world::server(server)?, port: server.endpoint(of).port() };
        let known = |servers: &[HeldServer]| {
            servers
                .iter()
                .position(|known| (known.server.address, known.port) == (edited.server.address, edited.port))
        };
        let Some(place) = known(&self.held[at].servers) else {
            return refused(KERNEL, "No such destination");
        };
        self.reconciler.touch(&self.held[at].key.to_string(), edited.server.address);
        self.change(|all| {
            all[at].servers[place] = edited;
            Ok(())
        })
    }

    fn delete_server(&mut self, key: &ServiceKey, of: &Service, server: &Server) -> Result<(), Refused> {
        let at = self.position(key)?;
        let endpoint = server.endpoint(of);
        self.change(|all| {
            let servers = &mut all[at].servers;
            let before = servers.len();
            servers.retain(|known| (known.server.address, known.port) != (endpoint.ip(), endpoint.port()));
            if servers.len() == before { refused(KERNEL, "No such destination") } else { Ok(()) }
        })
    }

    /// Only what changes how packets are treated: `--set`, and the listing of what it sets.
    fn ipvsadm(&mut self, args: &[String], stdin: Option<&str>) -> Ran {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let unknown = || Ran { rc: 64, stderr: format!("not played: {args:?} {stdin:?}"), ..Ran::default() };
        match words.as_slice() {
            ["--set", seconds @ ..] => {
                let seconds: Vec<u64> = seconds.iter().filter_map(|word| word.parse().ok()).collect();
                let Ok(seconds) = <[u64; 3]>::try_from(seconds) else { return unknown() };
                self.set_timeouts(seconds);
                self.reconcile().expect("what is in force, with other times");
                Ran::default()
            }
            ["-Ln" | "-L", "--timeout"] => {
                let timeouts = &self.model.timeouts;
                let [tcp, fin, udp] =
                    [timeouts.tcp, timeouts.tcp_fin, timeouts.udp].map(|timeout| timeout.as_secs());
                let stdout = format!("Timeout (tcp tcpfin udp): {tcp} {fin} {udp}\n");
                Ran { stdout, ..Ran::default() }
            }
            _ => unknown(),
        }
    }

    fn receive(&mut self, frame: &[u8]) -> Verdict {
        let output = self.engine.run(frame);
        match output.reason.verdict() {
            Fate::Transmit | Fate::Redirect | Fate::Reply => Verdict::Sent(vec![output.bytes]),
            Fate::Pass => Verdict::Passed,
            Fate::Drop => Verdict::Sent(Vec::new()),
        }
    }

    fn services(&mut self) -> Vec<ServiceRow> {
        let loads = |id: u32| {
            self.engine.with_tables(|tables| {
                let load = tables.load(id).expect("every server has a load");
                lb_common::flow::counts(load)
            })
        };
        let assigned = self.reconciler.assigned();
        let rows = self.model.services.iter().zip(assigned).map(|(service, assigned)| {
            let row = |known: &lb_userspace::reconcile::AssignedServer| {
                let server = &service.servers[known.index];
                let (_, endpoint) = self.listed[&known.id];
                let (active, inactive) = loads(known.id);
                let method = listing::method(server);
                (Endpoint(endpoint), method, i64::from(server.weight), i64::from(active), i64::from(inactive))
            };
            ServiceRow {
                svc: service.name.clone(),
                sched: service.scheduler.to_string(),
                dests: assigned.servers.iter().map(row).collect(),
            }
        });
        rows.collect()
    }

    fn conns(&mut self) -> Vec<Conn> {
        self.remembered().iter().filter_map(|what| self.conn(what)).collect()
    }
}
