//! Servers' numbers as a trace tells them: what changed, event by event.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::traces::scenario::Scenario;
use crate::traces::trace::{Counts, ServiceOrder, ServiceRow};

/// The numbers of every server by the trace so far.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    /// Whether servers are called `SERVICE|SERVER`.
    with_service: bool,
    servers: BTreeMap<String, Counts>,
}

/// A flow that may count or not: its service, its server, whether it is active.
pub(super) type Doubtful = (String, SocketAddr, bool);

impl Ledger {
    /// As things stood at the start.
    pub(super) fn new(scenario: &Scenario, order: &[ServiceOrder]) -> Self {
        let mut ledger = Self { with_service: scenario.services.len() > 1, servers: BTreeMap::new() };
        for service in order {
            for (at, _, weight) in &service.list {
                let counts = Counts { weight: *weight, active: 0, inactive: 0 };
                ledger.servers.insert(ledger.name(&service.svc, at.0), counts);
            }
        }
        ledger
    }

    fn name(&self, service: &str, server: SocketAddr) -> String {
        if self.with_service { format!("{service}|{server}") } else { server.to_string() }
    }

    /// Takes in what an event changed.
    pub(super) fn apply(&mut self, changes: &BTreeMap<String, Option<Counts>>) {
        for (server, counts) in changes {
            match counts {
                Some(counts) => self.servers.insert(server.clone(), *counts),
                None => self.servers.remove(server),
            };
        }
    }

    fn listed(&self, rows: &[ServiceRow]) -> BTreeMap<String, Counts> {
        let servers = rows.iter().flat_map(|row| row.dests.iter().map(move |dest| (&row.svc, dest)));
        servers
            .map(|(service, &(at, _, weight, active, inactive))| {
                (self.name(service, at.0), Counts { weight, active, inactive })
            })
            .collect()
    }

    /// The difference in words.
    pub(super) fn compare(&self, rows: &[ServiceRow]) -> Result<(), String> {
        let got = self.listed(rows);
        if got == self.servers {
            return Ok(());
        }
        let text = |counts: Option<&Counts>| match counts {
            None => "none".to_owned(),
            Some(Counts { weight, active, inactive }) => format!("{weight}/{active}/{inactive}"),
        };
        let names: std::collections::BTreeSet<&String> = self.servers.keys().chain(got.keys()).collect();
        let different = names.into_iter().filter(|name| self.servers.get(*name) != got.get(*name));
        let words: Vec<String> = different
            .map(|name| {
                format!("{name} expected {}, got {}", text(self.servers.get(name)), text(got.get(name)))
            })
            .collect();
        Err(format!("weight/active/inactive of {}", words.join("; ")))
    }

    /// Whether only the connections of servers at some addresses differ.
    pub(super) fn differs_only_at(
        &self,
        rows: &[ServiceRow],
        is_one: impl Fn(std::net::IpAddr) -> bool,
    ) -> bool {
        let got = self.listed(rows);
        let excused: std::collections::BTreeSet<String> = rows
            .iter()
            .flat_map(|row| row.dests.iter().map(|(at, ..)| (&row.svc, at.0)))
            .filter(|(_, at)| is_one(at.ip()))
            .map(|(service, at)| self.name(service, at))
            .collect();
        let rest = |all: &BTreeMap<String, Counts>| -> BTreeMap<String, Counts> {
            all.iter()
                .filter(|(name, _)| !excused.contains(*name))
                .map(|(name, c)| (name.clone(), *c))
                .collect()
        };
        rest(&got) == rest(&self.servers) && got.len() == self.servers.len()
    }

    /// Whether the numbers agree if `more` may be counted as well and `less` need not be.
    pub(super) fn is_within(&self, rows: &[ServiceRow], more: &[Doubtful], less: &[Doubtful]) -> bool {
        let got = self.listed(rows);
        let count = |doubtful: &[Doubtful], name: &str, active: bool| {
            let concerns = |(service, at, is_active): &&Doubtful| {
                *is_active == active && self.name(service, *at) == *name
            };
            doubtful.iter().filter(concerns).count() as i64
        };
        got.len() == self.servers.len()
            && self.servers.iter().all(|(name, wanted)| {
                let Some(got) = got.get(name) else { return false };
                let within = |wanted: i64, got: i64, active| {
                    got - count(less, name, active) <= wanted && wanted <= got + count(more, name, active)
                };
                wanted.weight == got.weight
                    && within(wanted.active, got.active, true)
                    && within(wanted.inactive, got.inactive, false)
            })
    }
}
