//! Which keys of the datapath's two maps make up the services: exact places, and rules of prefixes.

use crate::maps::{Contents, Place};
use crate::model::{self, Match, Method, Model, Ports, Protocol};
use ipnet::IpNet;
use lb_common::limits::MATCH_RULES;
use lb_common::net::proto;
use lb_common::service::{FTP, MatchRule, key_kind};
use std::collections::{BTreeMap, BTreeSet};

/// More rules meet at one prefix than its entry holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rules} port ranges and protocols meet at {prefix}, those of shorter prefixes included; at most {MATCH_RULES} can"
)]
pub struct KeysError {
    pub prefix: IpNet,
    pub rules: usize,
}

/// Keys of all services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) places: BTreeMap<Place, u32>,
    pub(super) prefixes: BTreeMap<IpNet, Vec<MatchRule>>,
}

pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => proto::TCP,
        Protocol::Udp => proto::UDP,
        Protocol::Sctp => proto::SCTP,
    }
}

fn is_single(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// The exact place of an entry of one address and one port, or of any port.
fn place(entry: &Match) -> Option<Place> {
    if !is_single(&entry.prefix) {
        return None;
    }
    let port = match entry.ports {
        Ports::Any => 0,
        Ports::Range(range) if range.first == range.last => range.first.get(),
        Ports::Range(_) => return None,
    };
    Some(Place {
        kind: key_kind::SERVICE,
        address: entry.prefix.addr(),
        protocol: number(entry.protocol),
        port,
    })
}

/// The service an entry leads to in the maps, if it is in them.
pub(super) fn lead(contents: &Contents, entry: &Match) -> Option<u32> {
    let exact = place(entry).and_then(|place| contents.places.get(&place)).copied();
    exact.or_else(|| {
        let wanted = rule(entry, 0);
        let rules = contents.prefixes.get(&entry.prefix)?;
        let same = |rule: &&MatchRule| {
            (rule.from, rule.to) == (wanted.from, wanted.to)
                && (rule.protocol == wanted.protocol || rule.protocol == 0)
        };
        rules.iter().find(same).map(|rule| rule.service)
    })
}

fn rule(entry: &Match, service: u32) -> MatchRule {
    let (from, to) = match entry.ports {
        Ports::Any => (0, u16::MAX),
        Ports::Range(range) => (range.first.get(), range.last.get()),
    };
    MatchRule { from, to, protocol: number(entry.protocol), pad: [0; 3], service }
}

/// The keys of the model's services; `id` is the number of the service at a place in the model.
///
/// The datapath asks for the exact port, then for any port, then for the longest prefix. So whatever is exact goes to
/// the exact map, but for "any port" beside a range on the same address: the range comes first, hence both are rules.
///
/// # Errors
/// Too many rules meet at a prefix.
pub(super) fn keys(model: &Model, id: impl Fn(usize) -> u32) -> Result<Keys, KeysError> {
    let entries: Vec<(Match, u32)> = model
        .services
        .iter()
        .enumerate()
        .flat_map(|(at, service)| service.selector.matches().into_iter().map(move |entry| (entry, at)))
        .map(|(entry, at)| (entry, id(at)))
        .collect();
    let ranges: BTreeSet<(IpNet, u8)> = entries
        .iter()
        .filter(|(entry, _)| place(entry).is_none() && is_single(&entry.prefix))
        .map(|(entry, _)| (entry.prefix, number(entry.protocol)))
        .collect();

    let mut keys = Keys::default();
    let mut own: BTreeMap<IpNet, Vec<MatchRule>> = BTreeMap::new();
    for (entry, service) in &entries {
        let beside_range =
            entry.ports == Ports::Any && ranges.contains(&(entry.prefix, number(entry.protocol)));
        match place(entry).filter(|_| !beside_range) {
            Some(place) => {
                keys.places.insert(place, *service);
                keys.places.insert(Place { kind: key_kind::VIP, protocol: 0, port: 0, ..place }, 0);
            }
            None => own.entry(entry.prefix).or_default().push(rule(entry, *service)),
        }
    }
    let own: BTreeMap<IpNet, Vec<MatchRule>> =
        own.into_iter().map(|(prefix, rules)| (prefix, in_order(rules))).collect();
    for (prefix, rules) in &own {
        let mut all = rules.clone();
        let mut around: Vec<_> =
            own.iter().filter(|(other, _)| *other != prefix && other.contains(prefix)).collect();
        around.sort_by_key(|(other, _)| std::cmp::Reverse(other.prefix_len()));
        all.extend(around.into_iter().flat_map(|(_, rules)| rules).copied());
        if all.len() > MATCH_RULES {
            return Err(KeysError { prefix: *prefix, rules: all.len() });
        }
        keys.prefixes.insert(*prefix, all);
    }

    Ok(keys)
}

/// Ports before "any port"; three protocols that lead to the same service are one rule.
fn in_order(rules: Vec<MatchRule>) -> Vec<MatchRule> {
    let mut protocols: BTreeMap<(bool, u16, u16, u32), BTreeSet<u8>> = BTreeMap::new();
    for rule in rules {
        let any = (rule.from, rule.to) == (0, u16::MAX);
        protocols.entry((any, rule.from, rule.to, rule.service)).or_default().insert(rule.protocol);
    }
    let all = BTreeSet::from([proto::TCP, proto::UDP, proto::SCTP]);
    let rule = |(from, to, service), protocol| MatchRule { from, to, protocol, pad: [0; 3], service };
    let spread = |((_, from, to, service), protocols)| {
        let merged = if protocols == all { BTreeSet::from([0]) } else { protocols };
        merged.into_iter().map(move |protocol| rule((from, to, service), protocol))
    };
    protocols.into_iter().flat_map(spread).collect()
}

/// The key under which errors about a server's tunnel find it; `None` without a tunnel.
pub(super) fn tunnel(server: &model::Server) -> Option<Place> {
    let (protocol, port) = match server.method {
        Method::Dr => return None,
        Method::Ipip => (proto::IPIP, 0),
        Method::Gre { .. } => (proto::GRE, 0),
        Method::Gue { port, .. } => (proto::UDP, port.get()),
    };
    Some(Place { kind: key_kind::TUNNEL, address: server.address, protocol, port })
}

/// Whether an address is in any prefix or place.
pub(super) fn has_v6(keys: &Keys) -> bool {
    keys.places.keys().any(|place| place.address.is_ipv6())
        || keys.prefixes.keys().any(|prefix| matches!(prefix, IpNet::V6(_)))
}

/// TCP services on port 21, whose data connections are theirs as well.
pub(super) fn has_ftp(keys: &Keys) -> bool {
    keys.places
        .keys()
        .any(|place| place.kind == key_kind::SERVICE && place.port == FTP && place.protocol == proto::TCP)
}

pub(super) fn has_any_port(keys: &Keys) -> bool {
    keys.places.keys().any(|place| place.kind == key_kind::SERVICE && place.port == 0)
}
