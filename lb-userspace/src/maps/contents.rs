//! What the configuration maps hold, as a whole, and its text.

use super::{MapStore, StoreError};
use ipnet::IpNet;
use lb_common::flow::Thresholds;
use lb_common::limits;
use lb_common::net::{Addr, Be16, proto};
use lb_common::plan::{PlanHead, PlanKind, Slot, cost, cycle, hash_detail, locality};
use lb_common::server::{NO_VLAN, SERVICE_VLAN, Server, VLAN_ID, server_flag};
use lb_common::service::{MatchRule, Service, ServiceKey, key_kind, service_flag};
use lb_common::settings::Settings;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// A key of `SERVICES`, in host order and sortable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// See [`key_kind`].
    pub kind: u8,
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Host order; 0 is any port.
    pub port: u16,
}

impl Place {
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            address: Addr::from(self.address),
            port: Be16::from_host(self.port),
            protocol: self.protocol,
            kind: self.kind,
        }
    }
}

impl From<ServiceKey> for Place {
    fn from(key: ServiceKey) -> Self {
        Self {
            kind: key.kind,
            address: key.address.to_ip(),
            protocol: key.protocol,
            port: key.port.to_host(),
        }
    }
}

/// A service's plan without its place among the cells and without its cursor, which moves with every flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub kind: PlanKind,
    pub detail: u8,
    pub slots: Vec<Slot>,
}

impl Plan {
    pub fn none() -> Self {
        Self { kind: PlanKind::None, detail: 0, slots: Vec::new() }
    }
}

/// Everything in the configuration maps. Ids as the datapath uses them; an entry that is not here is free (zero).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub settings: Settings,
    /// Exact keys, and the service (for tunnels the server) each leads to.
    pub places: BTreeMap<Place, u32>,
    /// Rules of each prefix, those of the prefixes around it included, the first that fits wins.
    pub prefixes: BTreeMap<IpNet, Vec<MatchRule>>,
    pub services: BTreeMap<u32, Service>,
    /// By service.
    pub plans: BTreeMap<u32, Plan>,
    pub servers: BTreeMap<u32, Server>,
    /// By server; those with neither threshold are left out.
    pub thresholds: BTreeMap<u32, Thresholds>,
    pub denied: BTreeSet<IpNet>,
}

/// Reads everything.
///
/// # Errors
/// The first read that failed.
pub fn read_contents(store: &dyn MapStore) -> Result<Contents, StoreError> {
    let mut contents = Contents { settings: store.settings()?, ..Contents::default() };
    contents.places = store.places()?.into_iter().map(|(key, id)| (key.into(), id)).collect();
    for (prefix, set) in store.prefixes()? {
        let set = store.match_set(set)?;
        let rules = set.rules.iter().take(set.count as usize).copied().collect();
        contents.prefixes.insert(prefix, rules);
    }
    for id in 0..limits::SERVICES {
        let service = store.service(id)?;
        if service != Service::default() {
            contents.services.insert(id, service);
        }
        let head = store.plan(id)?;
        if head != PlanHead::NONE {
            contents.plans.insert(id, read_plan(store, head)?);
        }
    }
    for id in 1..limits::SERVERS {
        let server = store.server(id)?;
        if server != Server::default() {
            contents.servers.insert(id, server);
        }
        let thresholds = store.thresholds(id)?;
        if thresholds != Thresholds::default() {
            contents.thresholds.insert(id, thresholds);
        }
    }
    contents.denied = store.denied()?.into_iter().collect();
    Ok(contents)
}

fn read_plan(store: &dyn MapStore, head: PlanHead) -> Result<Plan, StoreError> {
    let slots = store.cells(head.start() + 1, head.len())?.into_iter().map(Slot).collect();
    Ok(Plan { kind: kind(head), detail: head.detail(), slots })
}

fn kind(head: PlanHead) -> PlanKind {
    const KINDS: [PlanKind; 4] = [PlanKind::Cycle, PlanKind::Hash, PlanKind::Least, PlanKind::Locality];
    KINDS.into_iter().find(|kind| *kind as u8 == head.kind()).unwrap_or(PlanKind::None)
}

/// One line an entry, sorted, ids as numbers: what control-plane tests compare.
impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for prefix in &self.denied {
            writeln!(f, "denied {prefix}")?;
        }
        for (place, service) in &self.places {
            match place.kind {
                key_kind::SERVICE => writeln!(f, "place {place} -> service {service}")?,
                key_kind::VIP => writeln!(f, "vip {}", place.address)?,
                _ => writeln!(f, "tunnel {place} -> server {service}")?,
            }
        }
        for (prefix, rules) in &self.prefixes {
            let rules: Vec<String> = rules.iter().map(rule).collect();
            writeln!(f, "prefix {prefix}: {}", rules.join(", "))?;
        }
        for (id, service) in &self.services {
            writeln!(f, "service {id}: {}", describe_service(service))?;
        }
        for (id, plan) in &self.plans {
            writeln!(f, "plan {id}: {plan}")?;
        }
        for (id, server) in &self.servers {
            write!(f, "server {id}: {}", describe_server(server))?;
            match self.thresholds.get(id) {
                Some(t) => writeln!(f, " thresholds {}/{}", t.upper, t.lower)?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} port {}", protocol(self.protocol), self.address, ports(self.port, self.port))
    }
}

fn protocol(number: u8) -> String {
    match number {
        0 => "any".into(),
        proto::TCP => "tcp".into(),
        proto::UDP => "udp".into(),
        proto::SCTP => "sctp".into(),
        proto::IPIP => "ipip".into(),
        proto::GRE => "gre".into(),
        other => other.to_string(),
    }
}

fn ports(from: u16, to: u16) -> String {
    match (from, to) {
        (0, 0) | (0, u16::MAX) => "any".into(),
        _ if from == to => from.to_string(),
        _ => format!("{from}-{to}"),
    }
}

fn rule(rule: &MatchRule) -> String {
    format!("{} {} -> service {}", protocol(rule.protocol), ports(rule.from, rule.to), rule.service)
}

fn names<T: Copy + Into<u32>>(flags: T, table: &[(T, &str)]) -> String {
    let set: Vec<&str> =
        table.iter().filter(|(bit, _)| flags.into() & (*bit).into() != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "-".into() } else { set.join("+") }
}

fn describe_service(service: &Service) -> String {
    let flags = names(
        service.flags & !service_flag::IN_USE,
        &[
            (service_flag::PERSISTENT, "persistent"),
            (service_flag::ONE_PACKET, "one-packet"),
            (service_flag::STATELESS, "stateless"),
            (service_flag::MANY, "many"),
            (service_flag::DROP_NO_DESTINATION, "drop-no-destination"),
        ],
    );
    let mut text = format!(
        "{} port {} flags {flags}",
        protocol(service.protocol),
        ports(service.port.to_host(), service.port.to_host())
    );
    if service.has(service_flag::PERSISTENT) {
        let mask = service.persistence_mask.0.map(|word| format!("{:08x}", u32::from_be(word))).join("");
        text += &format!(" persistence {} mask {mask}", service.persistence);
    }
    text
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = &self.slots;
        match self.kind {
            PlanKind::None => return f.write_str("none"),
            PlanKind::Cycle => {
                f.write_str(if self.detail & cycle::FIXED != 0 { "fixed" } else { "cycle" })?;
            }
            PlanKind::Hash => {
                let table = match self.detail & hash_detail::TABLE {
                    hash_detail::SH => "sh",
                    hash_detail::DH => "dh",
                    _ => "mh",
                };
                let port = if self.detail & hash_detail::PORT != 0 { "+port" } else { "" };
                let fallback = if self.detail & hash_detail::FALLBACK != 0 { "+fallback" } else { "" };
                write!(f, "hash {table}{port}{fallback}")?;
            }
            PlanKind::Least => {
                let name = match self.detail {
                    cost::LC => "lc",
                    cost::WLC => "wlc",
                    cost::SED => "sed",
                    cost::NQ => "nq",
                    cost::OVF => "ovf",
                    _ => "twos",
                };
                write!(f, "least {name}")?;
            }
            PlanKind::Locality => {
                let set = self.detail & locality::REPLICATE != 0;
                f.write_str(if set { "locality sets" } else { "locality" })?;
            }
        }
        // Hash tables are long and say little slot by slot.
        if self.kind == PlanKind::Hash {
            let mut share = BTreeMap::new();
            for slot in slots {
                *share.entry((slot.server(), slot.number())).or_insert(0) += 1;
            }
            let share: Vec<String> =
                share.iter().map(|((id, weight), n)| format!("{id} weight {weight} in {n}")).collect();
            return write!(f, " {} slots: {}", slots.len(), share.join(", "));
        }
        let slots: Vec<String> =
            slots.iter().map(|slot| format!("{}/{}", slot.server(), slot.number())).collect();
        write!(f, " [{}]", slots.join(" "))
    }
}

fn describe_server(server: &Server) -> String {
    let flags = names(
        server.flags,
        &[
            (server_flag::AVAILABLE, "available"),
            (server_flag::REACHABLE, "reachable"),
            (server_flag::DRAINED, "drained"),
            (server_flag::CHECKSUM, "checksum"),
            (server_flag::LOCAL, "local"),
            (server_flag::THRESHOLDS, "thresholds"),
            (server_flag::VARY_SOURCE, "vary-source"),
        ],
    );
    const METHODS: [&str; 4] = ["dr", "ipip", "gre", "gue"];
    let method = METHODS.get(server.method as usize).copied().unwrap_or("?");
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let mut text = format!("{} of service {} by {method} {flags}", server.rip.to_ip(), server.service);
    if server.has(server_flag::REACHABLE) && !server.has(server_flag::LOCAL) {
        text += &format!(
            " if {} {} -> {} mtu {}",
            server.ifindex,
            mac(server.smac.0),
            mac(server.dmac.0),
            server.mtu
        );
    }
    for tag in server.vlan.iter().filter(|tag| **tag != NO_VLAN) {
        let service = if *tag & SERVICE_VLAN != 0 { " service" } else { "" };
        text += &format!("{service} vlan {}", *tag & VLAN_ID);
    }
    if server.method != 0 {
        text += &format!(" from {}", server.source.to_ip());
        if server.tunnel_port != Be16::default() {
            text += &format!(" port {}", server.tunnel_port.to_host());
        }
    }
    text
}
