//! The steps from what the maps hold to what they should hold, in an order a packet may fall between any two of.

use super::Desired;
use crate::maps::{Contents, Place, Plan};
use ipnet::IpNet;
use lb_common::flow::Thresholds;
use lb_common::server::Server;
use lb_common::service::{MatchRule, Service};
use lb_common::settings::{Settings, switch};
use std::collections::{BTreeMap, BTreeSet};

/// One step. Several map operations where the datapath cannot tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    Settings(Box<Settings>),
    Deny(IpNet),
    Allow(IpNet),
    /// A number is given to a new server: whatever was counted under it before is cleared.
    ForgetServer(u32),
    /// `at_once`: whether the server is overloaded is decided now, as kernels since mid-2026 do.
    Thresholds {
        server: u32,
        old: Thresholds,
        new: Thresholds,
        at_once: bool,
    },
    Server(u32, Server),
    /// The number is free.
    ClearServer(u32),
    Service(u32, Service),
    ClearService(u32),
    Plan {
        service: u32,
        plan: Plan,
        cursor: u64,
    },
    ClearPlan(u32),
    Prefix(IpNet, Vec<MatchRule>),
    ClearPrefix(IpNet),
    Place(Place, u32),
    ClearPlace(Place),
}

/// Steps from `current` to `desired`: servers before the plans that name them, plans before the places that lead to
/// them; removals after that, the other way round.
pub fn diff(current: &Contents, desired: &Desired) -> Vec<MapOp> {
    let wanted = &desired.contents;
    let mut ops = Vec::new();
    if current.settings != wanted.settings {
        ops.push(MapOp::Settings(Box::new(wanted.settings)));
    }
    ops.extend(wanted.denied.difference(&current.denied).map(|prefix| MapOp::Deny(*prefix)));
    servers(current, wanted, &mut ops);
    ops.extend(
        changed(&current.services, &wanted.services).map(|(id, service)| MapOp::Service(*id, *service)),
    );
    for (id, plan) in &wanted.plans {
        if current.plans.get(id) != Some(plan) || desired.moved_cursors.contains(id) {
            let cursor = desired.schedules.get(id).map_or(0, |schedule| schedule.plan().cursor);
            ops.push(MapOp::Plan { service: *id, plan: plan.clone(), cursor });
        }
    }
    let prefixes = changed(&current.prefixes, &wanted.prefixes);
    ops.extend(prefixes.map(|(prefix, rules)| MapOp::Prefix(*prefix, rules.clone())));
    ops.extend(changed(&current.places, &wanted.places).map(|(place, id)| MapOp::Place(*place, *id)));

    ops.extend(gone(&current.places, &wanted.places).map(|place| MapOp::ClearPlace(*place)));
    ops.extend(gone(&current.prefixes, &wanted.prefixes).map(|prefix| MapOp::ClearPrefix(*prefix)));
    ops.extend(gone(&current.plans, &wanted.plans).map(|id| MapOp::ClearPlan(*id)));
    ops.extend(gone(&current.services, &wanted.services).map(|id| MapOp::ClearService(*id)));
    // A failure may have left thresholds without their server.
    let left = gone(&current.servers, &wanted.servers).chain(gone(&current.thresholds, &wanted.servers));
    ops.extend(left.copied().collect::<BTreeSet<u32>>().into_iter().map(MapOp::ClearServer));
    ops.extend(current.denied.difference(&wanted.denied).map(|prefix| MapOp::Allow(*prefix)));
    ops
}

fn servers(current: &Contents, wanted: &Contents, ops: &mut Vec<MapOp>) {
    let at_once = wanted.settings.is_on(switch::OVERHEAD_2026);
    for (id, server) in &wanted.servers {
        let before = current.servers.get(id);
        if before.is_none() {
            ops.push(MapOp::ForgetServer(*id));
        }
        let [old, new] =
            [current, wanted].map(|contents| contents.thresholds.get(id).copied().unwrap_or_default());
        if old != new {
            ops.push(MapOp::Thresholds { server: *id, old, new, at_once });
        }
        if before != Some(server) {
            ops.push(MapOp::Server(*id, *server));
        }
    }
}

/// Entries of `wanted` that `current` has not or has otherwise.
fn changed<'a, K: Ord, V: PartialEq>(
    current: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    wanted.iter().filter(|(key, value)| current.get(key) != Some(value))
}

/// Keys of `current` that `wanted` has not.
fn gone<'a, K: Ord, V, W>(
    current: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, W>,
) -> impl Iterator<Item = &'a K> {
    current.keys().filter(|key| !wanted.contains_key(key))
}
