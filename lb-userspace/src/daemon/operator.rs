//! The daemon as the API sees it.

use super::keeper::Command;
use super::shared::{Shared, View};
use crate::api::types::{
    Flow, FlowProtocol, FlowTables, NextHop, Reload, Server, ServerCount, Service, State, Stats, Status,
    Sweep, Table, note_counts, reason_counts,
};
use crate::api::{Flows, Operator, OperatorError, ReloadError, describe};
use crate::maps::{KernelSpill, StoreError};
use crate::model;
use crate::netlink;
use crate::sweep::SpillStore;
use lb_common::ABI_VERSION;
use lb_common::counters::{Counters, Note, Reason};
use lb_common::flow::{
    AtomicU32, Buckets, Entry, FlowKey, LOAD_WORDS, Layout, Shared as Words, Slab, Templates, V4, V6, WAYS,
    control, counts, is_overloaded, load_word, meta,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};

pub(super) struct Daemon {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

fn unreadable(error: StoreError) -> OperatorError {
    OperatorError::Read { what: format!("the map {}", error.map), source: Box::new(error) }
}

impl Operator for Daemon {
    fn status(&self) -> Result<Status, OperatorError> {
        let view = self.shared.view();
        let swept = self.shared.swept();
        let arrays = &self.shared.arrays;
        let note = |note| self.shared.counters.note(note).map_err(unreadable);
        let ways = |buckets: u32| u64::from(buckets) * u64::from(WAYS);
        let flow_tables = FlowTables {
            ipv4: Table::new(ways(Slab::<V4>::new(arrays.flows4.words()).buckets()), swept.live.v4),
            ipv6: Table::new(ways(Slab::<V6>::new(arrays.flows6.words()).buckets()), swept.live.v6),
            templates: Table::new(
                ways(Slab::<Templates>::new(arrays.templates.words()).buckets()),
                swept.live.templates,
            ),
            spilled: arrays.spilled.words()[0].load(Acquire).into(),
            over_admission: note(Note::OverAdmission)?,
            without_place: note(Note::NotRemembered)?,
        };
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            pid: std::process::id(),
            started: self.shared.started,
            uptime_s: SystemTime::now().duration_since(self.shared.started).unwrap_or_default().as_secs(),
            config: view.config.clone(),
            config_loaded: view.loaded,
            interfaces: view.interfaces.clone(),
            flow_tables,
            sweep: Sweep {
                last_full_duration_ms: swept.lasted.map(|took| took.all.as_millis() as u64),
                last_full_work_us: swept.lasted.map(|took| took.work.as_micros() as u64),
                corrected: swept.corrected,
            },
            services: self.services()?,
            counters: self.reasons()?,
        })
    }

    fn services(&self) -> Result<Vec<Service>, OperatorError> {
        let view = self.shared.view();
        let services = view.model.services.iter().zip(&view.assigned);
        services
            .map(|(service, assigned)| {
                let mut servers: Vec<_> = assigned.servers.iter().collect();
                servers.sort_by_key(|server| server.index);
                let servers: Result<Vec<Server>, OperatorError> = servers
                    .into_iter()
                    .map(|known| self.server(&view, known.id, &service.servers[known.index]))
                    .collect();
                Ok(describe::service(assigned.id, service, servers?))
            })
            .collect()
    }

    fn stats(&self) -> Result<Stats, OperatorError> {
        let view = self.shared.view();
        let mut notes = Vec::new();
        for note in Note::ALL {
            notes.push((*note, self.shared.counters.note(*note).map_err(unreadable)?));
        }
        let times =
            |wanted: Note| notes.iter().find(|(note, _)| *note == wanted).map_or(0, |(_, times)| *times);
        let mut servers = Vec::new();
        for (service, assigned) in view.model.services.iter().zip(&view.assigned) {
            let mut known: Vec<_> = assigned.servers.iter().collect();
            known.sort_by_key(|server| server.index);
            for server in known {
                let Counters { connections, packets, bytes } =
                    self.shared.counters.server(server.id).map_err(unreadable)?;
                servers.push(ServerCount {
                    service: service.name.clone(),
                    server: service.servers[server.index].address,
                    connections,
                    packets,
                    bytes,
                });
            }
        }
        Ok(Stats { reasons: self.reasons()?, notes: note_counts(times), servers })
    }

    fn flows(&self) -> Result<Flows, OperatorError> {
        let lister = Lister {
            shared: self.shared.clone(),
            view: self.shared.view(),
            now: self.shared.now.load(Relaxed),
        };
        let arrays = &self.shared.arrays;
        let spilled = KernelSpill::open(&self.shared.pin, &arrays.spilled.words()[0]).map_err(unreadable)?;
        let spilled = if spilled.is_empty() { Vec::new() } else { spilled.entries().map_err(unreadable)? };
        let in_spill = lister.clone();
        let spilled = spilled.into_iter().filter_map(move |(key, value)| in_spill.spilled(&key, value));
        let count = |table: u32| 0..table;
        let v4 = count(Slab::<V4>::new(arrays.flows4.words()).buckets());
        let v6 = count(Slab::<V6>::new(arrays.flows6.words()).buckets());
        let templates = count(Slab::<Templates>::new(arrays.templates.words()).buckets());
        let (of_v4, of_v6, of_templates) = (lister.clone(), lister.clone(), lister);
        let v4 = v4.flat_map(move |at| {
            of_v4.bucket(&Slab::<V4>::new(of_v4.shared.arrays.flows4.words()), at, false)
        });
        let v6 = v6.flat_map(move |at| {
            of_v6.bucket(&Slab::<V6>::new(of_v6.shared.arrays.flows6.words()), at, false)
        });
        let templates = templates.flat_map(move |at| {
            of_templates.bucket(
                &Slab::<Templates>::new(of_templates.shared.arrays.templates.words()),
                at,
                true,
            )
        });
        Ok(Box::new(v4.chain(v6).chain(spilled).chain(templates).map(Ok)))
    }

    async fn reload(&self) -> Result<Reload, ReloadError> {
        let (answer, answered) = oneshot::channel();
        let stopping = OperatorError::NotReady("stopping");
        if self.commands.send(Command::Reload(answer)).is_err() {
            return Err(stopping.into());
        }
        answered.await.unwrap_or(Err(stopping.into()))
    }
}

impl Daemon {
    fn reasons(&self) -> Result<Vec<crate::api::types::ReasonCount>, OperatorError> {
        let mut packets = Vec::with_capacity(Reason::ALL.len());
        for reason in Reason::ALL {
            packets.push(self.shared.counters.reason(*reason).map_err(unreadable)?);
        }
        Ok(reason_counts(|reason| packets[reason as usize]))
    }

    fn server(&self, view: &View, id: u32, config: &model::Server) -> Result<Server, OperatorError> {
        let Counters { connections, packets, bytes } = self.shared.counters.server(id).map_err(unreadable)?;
        let at = id as usize * LOAD_WORDS as usize;
        let none: [AtomicU32; LOAD_WORDS as usize] = Default::default();
        let words = self.shared.arrays.loads.words();
        let load = Words(words.get(at..at + LOAD_WORDS as usize).unwrap_or(&none));
        let (active, inactive) = counts(load);
        let hop = view.next_hops.get(&config.address);
        let resolved = hop.and_then(|hop| hop.as_ref().ok());
        let why_not = match (view.why_not.get(&id), hop) {
            (Some(_), Some(Err(why))) => Some(why.describe(Instant::now())),
            (why, _) => why.cloned().or_else(|| (config.weight == 0).then(|| "its weight is 0".to_owned())),
        };
        Ok(Server {
            id,
            address: config.address,
            weight: config.weight,
            method: config.method.into(),
            local: resolved.is_some_and(|hop| hop.local),
            eligible: why_not.is_none(),
            why_not,
            next_hop: resolved.filter(|hop| !hop.local).map(|hop| next_hop(view, config, hop)),
            active,
            inactive,
            persistent: (words.get(at + load_word::PERSISTENT as usize)).map_or(0, |word| word.load(Acquire)),
            connections,
            packets,
            bytes,
            overloaded: is_overloaded(load),
            upper_threshold: config.upper_threshold,
            lower_threshold: config.lower_threshold,
        })
    }
}

fn next_hop(view: &View, config: &model::Server, hop: &crate::neigh::NextHop) -> NextHop {
    let mac = config.mac.unwrap_or(model::Mac(hop.dmac));
    NextHop {
        mac: mac.to_string(),
        interface: view
            .links
            .get(&hop.ifindex)
            .cloned()
            .unwrap_or_else(|| format!("interface {}", hop.ifindex)),
        vlan: hop.vlan.iter().map(|tag: &netlink::VlanTag| tag.id).collect(),
        mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
        gateway: hop.gateway,
    }
}

/// Turns entries into lines.
#[derive(Clone)]
struct Lister {
    shared: Arc<Shared>,
    view: Arc<View>,
    /// Jiffies when the listing began.
    now: u32,
}

impl Lister {
    fn bucket<L: Layout>(&self, table: &Slab<'_, L>, at: u32, template: bool) -> Vec<Flow> {
        let Some(words) = table.bucket(at) else { return Vec::new() };
        let entries = (0..WAYS).filter_map(|way| Entry::<L, _>::at(words, way));
        entries
            .filter_map(|(entry, key)| self.flow(&key, entry.control, entry.meta, entry.expires(), template))
            .collect()
    }

    fn spilled(&self, key: &FlowKey, value: [u32; lb_common::flow::SPILL_WORDS]) -> Option<Flow> {
        let words = value.map(AtomicU32::new);
        if key.client.is_v4() {
            let entry = Entry::<V4, _>::in_spill(Words(&words))?;
            self.flow(key, entry.control, entry.meta, entry.expires(), false)
        } else {
            let entry = Entry::<V6, _>::in_spill(Words(&words))?;
            self.flow(key, entry.control, entry.meta, entry.expires(), false)
        }
    }

    /// `None` for what is no flow any more, or of a server nobody knows.
    fn flow(&self, key: &FlowKey, control: u32, meta: u32, expires: u32, template: bool) -> Option<Flow> {
        let left = expires.wrapping_sub(self.now) as i32;
        let server = self.view.servers.get(&meta::server(meta))?;
        let protocol = FlowProtocol::from_number(key.protocol as u8)?;
        let assured = template && meta & meta::ASSURED != 0;
        let state = if template {
            State::of_template(assured)
        } else {
            State::of_flow(protocol, control::state(control))
        };
        // A template of a service over many has the service's number for a VIP.
        let many = template && key.protocol == 0;
        let client: IpAddr = if many && key.vip.0[1] != 0 { v6(key) } else { key.client.to_ip() };
        (left > 0 || template).then(|| Flow {
            protocol,
            client: SocketAddr::new(client, key.client_port()),
            vip: (!many).then(|| SocketAddr::new(key.vip.to_ip(), key.vip_port())),
            server: SocketAddr::new(server.address, key.vip_port()),
            service: server.service.clone(),
            state,
            expires_in_s: left.max(0) as u32 / self.shared.hz.max(1),
            template,
            assured,
        })
    }
}

/// The masked client of an IPv6 service, which may look like a mapped IPv4 one.
fn v6(key: &FlowKey) -> IpAddr {
    match key.client.to_ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 => v6,
    }
}
