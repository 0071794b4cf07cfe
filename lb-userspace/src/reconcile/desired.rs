//! What the maps should hold. Pure: no I/O, no clock.

use super::ids::AssignedService;
use super::keys::{self, Keys, KeysError, keys};
use crate::maps::{Contents, Plan};
use crate::model::{self, ClientMask, Method, Model, NoDestination, Overhead, Selector, TunnelSource};
use crate::neigh::{NextHop, NextHopTable};
use crate::netlink::VlanTag;
use crate::scheduler::{Edit, Entry, Schedule, edits_between};
use lb_common::flow::Thresholds;
use lb_common::hash::Seed;
use lb_common::net::{Addr, Be16, Mac};
use lb_common::server::{self, NO_VLAN, SERVICE_VLAN, Server, server_flag};
use lb_common::service::{Service, service_flag};
use lb_common::settings::{Settings, feature, switch, timeout};
use lb_common::{sctp, tcp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What stays as it is while the tables live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub seed: Seed,
    /// Buckets of the IPv4 flows, the IPv6 flows and the templates.
    pub buckets: [u32; 3],
    /// Jiffies in a second.
    pub hz: u32,
}

/// Everything the desired state follows from.
pub struct World<'a> {
    pub model: &'a Model,
    /// Numbers of the model's services, in the model's order.
    pub assigned: &'a [AssignedService],
    /// Removed servers whose entries stay.
    pub trashed: &'a BTreeSet<u32>,
    pub next_hops: &'a NextHopTable,
    pub base: Base,
    /// What the maps hold now.
    pub current: &'a Contents,
    /// By service: the schedules behind the plans the maps hold.
    pub schedules: &'a BTreeMap<u32, Schedule>,
    /// Where the cursor of a service's plan stands.
    pub cursors: &'a dyn Fn(u32) -> u64,
    /// Servers that count as edited whether they changed or not.
    pub touched: &'a BTreeSet<u32>,
}

/// What the maps should hold, and what follows for the next round and for the operator.
#[derive(Clone, Debug)]
pub struct Desired {
    pub contents: Contents,
    /// By service. To be kept once its plan is in place.
    pub schedules: BTreeMap<u32, Schedule>,
    /// Services whose cursor has to be set even if the slots stay the same.
    pub moved_cursors: BTreeSet<u32>,
    /// By server: why it gets no new flows, weight and thresholds aside.
    pub why_not: BTreeMap<u32, String>,
}

/// The model cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesiredError {
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Computes everything anew.
///
/// # Errors
/// The maps have no room for what the model asks for.
pub fn desired(world: &World<'_>) -> Result<Desired, DesiredError> {
    let Keys { places, prefixes } = keys(world.model, |at| world.assigned[at].id)?;
    let contents = Contents {
        settings: Settings { own_v6: own_v6(world.next_hops), ..settings(world.model, world.base) },
        places,
        prefixes,
        denied: world.model.admission.deny.iter().copied().collect(),
        ..Contents::default()
    };
    let mut desired = Desired {
        contents,
        schedules: BTreeMap::new(),
        moved_cursors: BTreeSet::new(),
        why_not: BTreeMap::new(),
    };
    for (service, assigned) in world.model.services.iter().zip(world.assigned) {
        desired.add(world, service, assigned);
    }
    for id in world.trashed {
        if let Some(removed) = world.current.servers.get(id) {
            let flags = removed.flags & !server_flag::AVAILABLE;
            desired.contents.servers.insert(*id, Server { flags, ..*removed });
            let thresholds = world.current.thresholds.get(id);
            desired.contents.thresholds.extend(thresholds.map(|thresholds| (*id, *thresholds)));
        }
    }
    Ok(desired)
}

impl Desired {
    fn add(&mut self, world: &World<'_>, service: &model::Service, assigned: &AssignedService) {
        self.contents.services.insert(assigned.id, service_entry(service, world.base.hz));
        let mut list = Vec::with_capacity(assigned.servers.len());
        for known in &assigned.servers {
            let config = &service.servers[known.index];
            let way = way_to(config, world);
            if let Err(why) = &way {
                self.why_not.insert(known.id, why.clone());
            }
            list.push((
                known.index,
                Entry {
                    id: known.id,
                    address: config.address,
                    port: port(service),
                    weight: config.weight,
                    last_weight: known.last_weight,
                    reachable: way.is_ok(),
                },
            ));
            let entry = server_entry(config, way.ok(), world.model, assigned.id);
            self.contents.servers.insert(known.id, entry);
            if let Some(place) = keys::tunnel(config) {
                self.contents.places.entry(place).or_insert(known.id);
            }
            if config.upper_threshold != 0 || config.lower_threshold != 0 {
                let thresholds = Thresholds { upper: config.upper_threshold, lower: config.lower_threshold };
                self.contents.thresholds.insert(known.id, thresholds);
            }
        }
        let (schedule, edited) = schedule(world, service, assigned.id, list);
        let plan = schedule.plan();
        if !plan.slots.is_empty() {
            let plan = Plan { kind: plan.kind, detail: plan.detail, slots: plan.slots.clone() };
            self.contents.plans.insert(assigned.id, plan);
        }
        if edited && plan.cursor != (world.cursors)(assigned.id) {
            self.moved_cursors.insert(assigned.id);
        }
        self.schedules.insert(assigned.id, schedule);
    }
}

/// The service's schedule, continued from the one it has; and whether the list was edited.
fn schedule(
    world: &World<'_>,
    service: &model::Service,
    id: u32,
    list: Vec<(usize, Entry)>,
) -> (Schedule, bool) {
    let (kind, flags) = (service.scheduler, service.flags);
    let before = world.schedules.get(&id);
    let mut wanted = list.clone();
    wanted.sort_by_key(|(index, _)| *index);
    let wanted: Vec<Entry> = wanted.into_iter().map(|(_, entry)| entry).collect();
    if let Some(before) = before.filter(|before| before.scheduler() == kind && before.flags() == flags) {
        let mut edits = edits_between(before.entries(), &wanted);
        let is_known = |id: u32| before.entries().iter().any(|entry| entry.id == id);
        let touched = wanted.iter().filter(|entry| world.touched.contains(&entry.id) && is_known(entry.id));
        edits.extend(touched.copied().map(Edit::Change));
        if edits.is_empty() {
            return (before.clone(), false);
        }
        return (before.edited(&edits, (world.cursors)(id)), true);
    }
    if before.is_none() && !world.current.plans.contains_key(&id) {
        // A new service gets its servers one by one.
        let edits: Vec<Edit> = wanted.into_iter().map(Edit::Add).collect();
        return (Schedule::new(kind, flags, Vec::new()).edited(&edits, 0), true);
    }
    let entries: Vec<Entry> = list.into_iter().map(|(_, entry)| entry).collect();
    let bound = Schedule::new(kind, flags, entries.clone());
    let plan = bound.plan();
    let as_running = world.current.plans.get(&id).is_some_and(|running| {
        (running.kind, running.detail, &running.slots) == (plan.kind, plan.detail, &plan.slots)
    });
    if before.is_none() && as_running {
        let cursor = (world.cursors)(id);
        return (Schedule::resumed(kind, flags, entries, cursor), false);
    }
    (bound, true)
}

/// The port mh hashes: the service's, as the kernel gives it to the servers of DR and TUN; 0 for any and for many.
fn port(service: &model::Service) -> u16 {
    match &service.selector {
        Selector::Vip { port: model::Port::Number(number), .. } => number.get(),
        Selector::Vip { port: model::Port::Any, .. } | Selector::Matches(_) => 0,
    }
}

fn service_entry(service: &model::Service, hz: u32) -> Service {
    let mut entry = Service { flags: service_flag::IN_USE, ..Service::default() };
    match &service.selector {
        Selector::Vip { protocol, .. } => {
            entry.port = Be16::from_host(port(service));
            entry.protocol = keys::number(*protocol);
        }
        Selector::Matches(_) => entry.flags |= service_flag::MANY,
    }
    if let Some(persistence) = &service.persistence {
        entry.flags |= service_flag::PERSISTENT;
        entry.persistence = jiffies(persistence.timeout, hz);
        entry.persistence_mask = match persistence.mask {
            ClientMask::V4(mask) => mask_v4(mask),
            ClientMask::V6(bits) => mask_v6(bits),
        };
    }
    for (on, flag) in [
        (service.one_packet, service_flag::ONE_PACKET),
        (service.stateless, service_flag::STATELESS),
        (service.no_destination == NoDestination::Drop, service_flag::DROP_NO_DESTINATION),
    ] {
        if on {
            entry.flags |= flag;
        }
    }
    entry
}

/// Jiffies in whole seconds. Configured times are at most 31 days, for which 32 bits suffice at HZ 1000.
fn jiffies(time: Duration, hz: u32) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).saturating_mul(hz)
}

/// Keeps the bits that tell an IPv4 address from others.
fn mask_v4(mask: Ipv4Addr) -> Addr {
    Addr([!0, !0, !0, u32::from_ne_bytes(mask.octets())])
}

fn mask_v6(bits: u8) -> Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    Addr::from(IpAddr::V6(Ipv6Addr::from(mask)))
}

/// The next hop a server's packets can go by, or why there is none.
fn way_to<'a>(config: &model::Server, world: &World<'a>) -> Result<&'a NextHop, String> {
    let hop = match world.next_hops.get(&config.address) {
        Some(Ok(hop)) => hop,
        Some(Err(why)) => return Err(why.to_string()),
        None => return Err(format!("the route to {} is being looked up", config.address)),
    };
    if hop.local {
        return Ok(hop);
    }
    if config.method.is_tunnel() && source(config, hop, world.model).is_unspecified() {
        return Err(format!("the director has no address for the tunnel to {}", config.address));
    }
    Ok(hop)
}

/// Outer source address of a tunnel to the server.
fn source(config: &model::Server, hop: &NextHop, model: &Model) -> IpAddr {
    match (config.address, model.tunnel_source.ipv4, model.tunnel_source.ipv6) {
        (IpAddr::V4(_), TunnelSource::Address(address), _) => address.into(),
        (IpAddr::V6(_), _, TunnelSource::Address(address)) => address.into(),
        (_, _, _) => hop.source,
    }
}

fn server_entry(config: &model::Server, hop: Option<&NextHop>, model: &Model, service: u32) -> Server {
    // Below `limits::SERVICES`, which fits.
    let service = service as u16;
    let mut entry = Server {
        flags: server_flag::AVAILABLE,
        service,
        rip: Addr::from(config.address),
        vlan: [NO_VLAN; 2],
        ..Server::default()
    };
    let (method, checksum) = match config.method {
        Method::Dr => (server::Method::Dr, false),
        Method::Ipip => (server::Method::Ipip, false),
        Method::Gre { checksum } => (server::Method::Gre, checksum),
        Method::Gue { port, checksum } => {
            entry.tunnel_port = Be16::from_host(port.get());
            (server::Method::Gue, checksum)
        }
    };
    entry.method = method as u8;
    for (on, flag) in [
        (checksum, server_flag::CHECKSUM),
        (config.weight == 0, server_flag::DRAINED),
        (config.upper_threshold != 0, server_flag::THRESHOLDS),
        (config.method.is_tunnel() && model.tunnel_source.vary, server_flag::VARY_SOURCE),
    ] {
        if on {
            entry.flags |= flag;
        }
    }
    let Some(hop) = hop else { return entry };
    entry.weight = config.weight;
    entry.flags |= server_flag::REACHABLE;
    if hop.local {
        entry.flags |= server_flag::LOCAL;
        return entry;
    }
    entry.dmac = Mac(config.mac.map_or(hop.dmac, |mac| mac.0));
    entry.smac = Mac(hop.smac);
    entry.ifindex = hop.ifindex;
    entry.mtu = u16::try_from(hop.mtu).unwrap_or(u16::MAX);
    for (tag, known) in entry.vlan.iter_mut().zip(&hop.vlan) {
        *tag = if known.tpid == VlanTag::DOT1AD { known.id | SERVICE_VLAN } else { known.id };
    }
    // Also for DR: flows that were opened while the method was another keep to it.
    entry.source = Addr::from(source(config, hop, model));
    entry
}

/// The director's IPv6 address on the way to its servers; of several, to the lowest.
fn own_v6(next_hops: &NextHopTable) -> Addr {
    let usable = next_hops.iter().filter_map(|(rip, hop)| Some((rip, hop.as_ref().ok()?)));
    let of_v6 = usable.filter(|(rip, hop)| rip.is_ipv6() && !hop.local && !hop.source.is_unspecified());
    of_v6.min_by_key(|(rip, _)| **rip).map_or(Addr::default(), |(_, hop)| Addr::from(hop.source))
}

fn settings(model: &Model, base: Base) -> Settings {
    let ipvs = &model.ipvs;
    let mut timeouts = [0; 32];
    let second = |seconds: &u32| seconds * base.hz;
    for (slot, seconds) in timeouts[timeout::TCP as usize..].iter_mut().zip(&tcp::TIMEOUTS) {
        *slot = second(seconds);
    }
    for (slot, seconds) in timeouts[timeout::SCTP as usize..].iter_mut().zip(&sctp::TIMEOUTS) {
        *slot = second(seconds);
    }
    timeouts[timeout::TCP as usize + tcp::state::ESTABLISHED as usize] = jiffies(model.timeouts.tcp, base.hz);
    timeouts[timeout::TCP as usize + tcp::state::FIN_WAIT as usize] =
        jiffies(model.timeouts.tcp_fin, base.hz);
    timeouts[timeout::UDP as usize] = jiffies(model.timeouts.udp, base.hz);
    let mut switches = 0;
    for (on, bit) in [
        (ipvs.sloppy_tcp, switch::SLOPPY_TCP),
        (ipvs.sloppy_sctp, switch::SLOPPY_SCTP),
        (ipvs.expire_nodest_conn, switch::EXPIRE_NODEST_CONN),
        (ipvs.expire_quiescent_template, switch::EXPIRE_QUIESCENT_TEMPLATE),
        (ipvs.schedule_icmp, switch::SCHEDULE_ICMP),
        (ipvs.pmtu_disc, switch::PMTU_DISC),
        (ipvs.secure_tcp, switch::SECURE_TCP),
        (ipvs.overhead == Overhead::Since2026, switch::OVERHEAD_2026),
        (model.services.is_empty(), switch::NO_SERVICES),
    ] {
        if on {
            switches |= bit;
        }
    }
    let mut settings = Settings {
        seed: base.seed,
        timeouts,
        buckets: base.buckets,
        hz: base.hz,
        switches,
        conn_reuse_mode: ipvs.conn_reuse_mode.into(),
        lblc_expiration: jiffies(ipvs.lblc_expiration, base.hz),
        lblcr_expiration: jiffies(ipvs.lblcr_expiration, base.hz),
        icmp_per_second: model.icmp_errors_per_second,
        new_flows_per_second: model.admission.new_flows_per_second.map_or(0, |limit| limit.get()),
        ..Settings::default()
    };
    if let Some(limit) = &model.admission.per_source {
        settings.source_flows_per_second = limit.new_flows_per_second.get();
        let bits = u32::MAX.checked_shl(32 - u32::from(limit.prefix4)).unwrap_or(0);
        settings.source_mask_v4 = mask_v4(Ipv4Addr::from(bits));
        settings.source_mask_v6 = mask_v6(limit.prefix6);
    }
    settings
}

/// What the program has to be able to do for this model; `tagged` if VLAN tags may be seen or sent.
///
/// # Errors
/// As for [`desired`].
pub fn features(model: &Model, tagged: bool) -> Result<u32, DesiredError> {
    let keys = keys(model, |at| at as u32)?;
    let servers = || model.services.iter().flat_map(|service| &service.servers);
    let locality = |service: &model::Service| {
        matches!(service.scheduler, model::Scheduler::Lblc | model::Scheduler::Lblcr)
    };
    let v6 = keys::has_v6(&keys) || servers().any(|server| server.address.is_ipv6());
    let admission = &model.admission;
    let bits = [
        (keys::has_any_port(&keys), feature::ANY_PORT),
        (!keys.prefixes.is_empty(), feature::PREFIXES),
        (!admission.deny.is_empty(), feature::DENY),
        (admission.per_source.is_some(), feature::SOURCE_LIMIT),
        (admission.new_flows_per_second.is_some(), feature::ADMISSION),
        (v6, feature::IPV6),
        (model.services.iter().any(|service| service.persistence.is_some()), feature::PERSISTENCE),
        (servers().any(|server| server.method.is_tunnel()), feature::TUNNELS),
        (tagged || model.neighbours.iter().any(|known| known.vlan.is_some()), feature::VLAN),
        (model.services.iter().any(locality), feature::LOCALITY),
        (servers().any(|server| server.upper_threshold != 0), feature::THRESHOLDS),
        (keys::has_ftp(&keys), feature::FTP),
        (model.services.iter().any(|service| !service.stateless), feature::FLOWS),
    ];
    Ok(bits.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit))
}
