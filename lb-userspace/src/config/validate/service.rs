//! One entry of `services:`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::advice;
use super::server::{self, Around, Found};
use crate::config::read::{Fields, Item, Located, Place, Reader};
use crate::config::report::Severity;
use crate::config::values::{
    Wrong, boolean, byte, choice, duration, netmask, port, ports, service_name, unicast, vip_prefix,
};
use crate::model::{
    ClientMask, Family, Match, Persistence, Port, Protocol, Scheduler, SchedulerFlags, Selector, Service,
};

/// Largest number of servers `mh` takes: each needs a slot of its 4093.
const MAX_MH_SERVERS: usize = 4093;
/// As `ipvsadm -p` without a value.
const DEFAULT_PERSISTENCE: std::time::Duration = std::time::Duration::from_secs(360);

/// What a service claims, each claim with its place.
pub(super) type Entries = Vec<Located<Match>>;

/// The service, located at its name (or itself, if it has none), and what it claims.
pub(super) fn service(item: &Item<'_>, r: &mut Reader) -> Option<(Located<Service>, Entries)> {
    let mut fields = item.fields(r, "address, port, scheduler, servers and more")?;
    let problems_before = r.problems.len();
    let name = fields.get(r, "name", service_name);
    let selected = selector(&mut fields, r);
    let scheduler = fields.get(r, "scheduler", choice::<Scheduler>);
    let scheduler_wrong = scheduler.is_none() && fields.has("scheduler");
    let scheduler_place =
        scheduler.as_ref().map_or(fields.place.clone(), |scheduler| scheduler.place.clone());
    let scheduler = scheduler.map(|scheduler| scheduler.value).unwrap_or_default();
    let flags = fields.take("flags").map(|item| flags(&item, (!scheduler_wrong).then_some(scheduler), r));
    let family = selected.as_ref().map(|(selector, _)| selector.family());
    let persistence = fields.take("persistence").map(|item| (persistence(&item, family, r), item.place));
    let one_packet = fields.get(r, "one_packet", boolean);
    let stateless = fields.get(r, "stateless", boolean).filter(|stateless| stateless.value);
    let no_destination = fields.get(r, "no_destination", choice);

    let entries = selected.as_ref().map_or(&[][..], |(_, entries)| entries);
    check_port(selected.as_ref().map(|(selector, _)| selector), fields.key("port"), persistence.is_some(), r);
    if let Some(one_packet) = one_packet.as_ref().filter(|one_packet| one_packet.value)
        && entries.iter().any(|entry| entry.value.protocol != Protocol::Udp)
    {
        r.error(
            &one_packet.place,
            Wrong::new("one-packet scheduling is only for UDP", "a service of UDP alone"),
        );
    }
    if let Some(stateless) = &stateless {
        if !scheduler_wrong && !scheduler.is_hash() {
            let what = format!("{scheduler} cannot choose a server without knowing the flows");
            r.error(
                &stateless.place,
                Wrong::new(what, "scheduler sh, dh or mh, or a service that is not stateless"),
            );
        }
        if let Some((_, place)) = &persistence {
            let what = "a stateless service remembers no clients";
            r.error(place, Wrong::new(what, "no persistence, or a service that is not stateless"));
        }
    }

    let list = fields.take("servers");
    let around = Around { family, stateless: stateless.is_some() };
    let servers = list.map(|list| servers(&list, around, r)).unwrap_or_default();
    if scheduler == Scheduler::Mh && servers.len() > MAX_MH_SERVERS {
        let what = format!("{} servers are too many for mh", servers.len());
        r.error(&scheduler_place, Wrong::new(what, format!("at most {MAX_MH_SERVERS} servers")));
    }
    let service_place = fields.place.clone();
    fields.finish(r);

    let (selector, entries) = selected?;
    let (name, name_place) = match name {
        Some(name) => (name.value, name.place),
        None => (derived_name(&entries), service_place.clone()),
    };
    let service = Service {
        name,
        selector,
        scheduler,
        flags: flags.unwrap_or_default(),
        persistence: persistence.and_then(|(persistence, _)| persistence),
        one_packet: one_packet.is_some_and(|one_packet| one_packet.value),
        stateless: stateless.is_some(),
        no_destination: no_destination.map(|found| found.value).unwrap_or_default(),
        servers: servers.iter().map(|found| found.server).collect(),
    };
    let places = advice::Places { service: service_place, scheduler: scheduler_place, servers: &servers };
    // Advice on a service that lacks its wrong parts would be beside the point.
    if r.problems[problems_before..].iter().all(|problem| problem.severity == Severity::Warning) {
        advice::advise(&service, &places, r);
    }
    Some((Located { value: service, place: name_place }, entries))
}

/// `tcp-192.0.2.1-80`, after the first thing the service claims.
fn derived_name(entries: &Entries) -> String {
    let Some(Located { value: Match { prefix, protocol, ports }, .. }) = entries.first() else {
        return String::new();
    };
    if prefix.prefix_len() == prefix.max_prefix_len() {
        format!("{protocol}-{}-{ports}", prefix.addr())
    } else {
        format!("{protocol}-{}_{}-{ports}", prefix.addr(), prefix.prefix_len())
    }
}

/// Either `address`, `port` and `protocol`, or `match`.
fn selector(fields: &mut Fields<'_>, r: &mut Reader) -> Option<(Selector, Entries)> {
    let Some(list) = fields.take("match") else {
        let address = fields.need(r, "address", "the VIP, or a list of them under `match:`", unicast);
        let number = fields.need(r, "port", "1 to 65535, or any (which needs persistence)", port);
        let protocol = fields.get(r, "protocol", choice);
        let protocol_wrong = protocol.is_none() && fields.has("protocol");
        let (address, port) = (address?, number?.value);
        if protocol_wrong {
            return None;
        }
        let protocol = protocol.map_or(Protocol::Tcp, |protocol| protocol.value);
        let selector = Selector::Vip { address: address.value, port, protocol };
        let entry = |value| Located { value, place: address.place.clone() };
        let entries = selector.matches().into_iter().map(entry).collect();
        return Some((selector, entries));
    };
    for key in ["address", "port", "protocol"] {
        if fields.take(key).is_some()
            && let Some(place) = fields.key(key)
        {
            r.error(&place, Wrong::new("stands beside `match:`", "either the one or the other"));
        }
    }
    let items = list.list(r, "mappings with address, protocol and port");
    if list.node.is_empty_list() {
        r.error(
            &list.place,
            Wrong::new("matches nothing", "at least one mapping with address, protocol and port"),
        );
    }
    let mut entries = Entries::new();
    let mut complete = !items.is_empty();
    for item in items {
        match entry(&item, r) {
            Some(found) => entries.extend(found),
            None => complete = false,
        }
    }
    let first = entries.first()?.value.prefix.addr();
    for Located { value, place } in &entries {
        if Family::of(value.prefix.addr()) != Family::of(first) {
            let what = format!(
                "{} is {}, the first entry {}",
                value,
                Family::of(value.prefix.addr()),
                Family::of(first)
            );
            r.error(place, Wrong::new(what, "one family in a service; a second service for the other"));
            complete = false;
        }
    }
    complete.then(|| (Selector::Matches(entries.iter().map(|entry| entry.value).collect()), entries))
}

/// One entry of `match:`, as many as it has protocols.
fn entry(item: &Item<'_>, r: &mut Reader) -> Option<Entries> {
    let mut fields = item.fields(r, "address, protocol and port")?;
    let prefix = fields.need(r, "address", "an address or a prefix", vip_prefix);
    let ports = fields.need(r, "port", "1 to 65535, a range like 1000-2000, or any", ports);
    let protocol = fields.get(r, "protocol", choice::<MatchProtocol>);
    let protocols: &[Protocol] = match &protocol {
        None if fields.has("protocol") => &[],
        None => &[Protocol::Tcp],
        Some(found) => found.value.protocols(),
    };
    fields.finish(r);
    let (prefix, ports) = (prefix?, ports?.value);
    let entry = |protocol: &Protocol| {
        let value = Match { prefix: prefix.value, protocol: *protocol, ports };
        Located { value, place: prefix.place.clone() }
    };
    (!protocols.is_empty()).then(|| protocols.iter().map(entry).collect())
}

/// `protocol:` of a `match` entry.
#[derive(Clone, Copy, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "lowercase")]
enum MatchProtocol {
    Tcp,
    Udp,
    Sctp,
    /// All of them, as a firewall mark does.
    Any,
}

impl MatchProtocol {
    fn protocols(self) -> &'static [Protocol] {
        match self {
            Self::Tcp => &[Protocol::Tcp],
            Self::Udp => &[Protocol::Udp],
            Self::Sctp => &[Protocol::Sctp],
            Self::Any => &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
        }
    }
}

fn check_port(selector: Option<&Selector>, place: Option<Place>, persistent: bool, r: &mut Reader) {
    if let (Some(Selector::Vip { port: Port::Any, .. }), Some(place), false) = (selector, place, persistent) {
        let what = "any port needs persistence (ipvsadm: Zero port specified for non-persistent service)";
        r.error(&place, Wrong::new(what, "a port from 1 to 65535, or `persistence:`, or `match:`"));
    }
}

/// The flags, each with the scheduler it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum Flag {
    ShPort,
    ShFallback,
    MhPort,
    MhFallback,
}

/// `scheduler` is `None` if it was wrong.
fn flags(item: &Item<'_>, scheduler: Option<Scheduler>, r: &mut Reader) -> SchedulerFlags {
    let mut flags = SchedulerFlags::default();
    for item in item.list(r, "scheduler flags, like [sh-port]") {
        let Some(flag) = item.scalar(r, choice::<Flag>) else { continue };
        let (of, set) = match flag {
            Flag::ShPort => (Scheduler::Sh, &mut flags.port),
            Flag::ShFallback => (Scheduler::Sh, &mut flags.fallback),
            Flag::MhPort => (Scheduler::Mh, &mut flags.port),
            Flag::MhFallback => (Scheduler::Mh, &mut flags.fallback),
        };
        if let Some(scheduler) = scheduler.filter(|scheduler| *scheduler != of) {
            let what = format!("{flag} means nothing to scheduler {scheduler}");
            r.error(&item.place, Wrong::new(what, format!("scheduler {of}, or no such flag")));
        } else if std::mem::replace(set, true) {
            r.error(&item.place, Wrong::new(format!("{flag} is listed twice"), "each flag once"));
        }
    }
    flags
}

/// A time, or a mapping with a time and a mask. `family` is `None` if the service's addresses were wrong.
fn persistence(item: &Item<'_>, family: Option<Family>, r: &mut Reader) -> Option<Persistence> {
    let whole = match family {
        Some(Family::V6) => ClientMask::V6(128),
        Some(Family::V4) | None => ClientMask::V4(Ipv4Addr::BROADCAST),
    };
    if !item.is_map() {
        return item.scalar(r, duration).map(|timeout| Persistence { timeout, mask: whole });
    }
    let mut fields = item.fields(r, "timeout, and netmask or prefix")?;
    let mut persistence = Persistence { timeout: DEFAULT_PERSISTENCE, mask: whole };
    fields.set(r, "timeout", &mut persistence.timeout, duration);
    let mask = fields.get(r, "netmask", netmask);
    let prefix = match family {
        Some(Family::V4) => fields.get(r, "prefix", byte(1..=32)),
        Some(Family::V6) | None => fields.get(r, "prefix", byte(1..=128)),
    };
    fields.finish(r);
    if let (Some(mask), Some(prefix)) = (&mask, &prefix) {
        r.clash(
            &prefix.place,
            Wrong::new("stands beside `netmask`", "either the one or the other"),
            &mask.place,
        );
    }
    match (mask, prefix, family) {
        (Some(mask), _, Some(Family::V6)) => {
            let what = "a dotted netmask in an IPv6 service";
            r.error(&mask.place, Wrong::new(what, "`prefix:` with a length from 1 to 128"));
        }
        (Some(mask), ..) => {
            let bits = u32::from(mask.value);
            if bits.leading_ones() != bits.count_ones() {
                let what = format!("{} has a gap; clients are grouped by scattered bits", mask.value);
                r.warning(&mask.place, Wrong::new(what, "usually a mask like 255.255.255.0"));
            }
            persistence.mask = ClientMask::V4(mask.value);
        }
        (None, Some(prefix), Some(Family::V6)) => persistence.mask = ClientMask::V6(prefix.value),
        (None, Some(prefix), Some(Family::V4)) => {
            let bits = u32::MAX.checked_shl(32 - u32::from(prefix.value)).unwrap_or(0);
            persistence.mask = ClientMask::V4(bits.into());
        }
        (None, ..) => {}
    }
    Some(persistence)
}

fn servers(list: &Item<'_>, around: Around, r: &mut Reader) -> Vec<Found> {
    let mut seen: HashMap<IpAddr, Place> = HashMap::new();
    let mut servers = Vec::new();
    for item in list.list(r, "mappings with address, weight, method and more") {
        let Some(found) = server::server(&item, around, r) else { continue };
        let address = found.server.address;
        if let Some(first) = seen.get(&address) {
            let what = format!("server {address} is in this service already");
            r.clash(
                &found.address,
                Wrong::new(what, "each server once; its weight says how much it takes"),
                first,
            );
            continue;
        }
        seen.insert(address, found.address.clone());
        servers.push(found);
    }
    servers
}
