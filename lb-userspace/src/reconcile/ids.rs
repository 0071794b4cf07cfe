//! Which number stands for which service and server, for as long as a flow may remember it.
//!
//! As IPVS keeps them: a service's servers are a list, the newest first; a removed server goes to the trash, where the
//! flows it still has keep its number taken, and comes out of it under the same number when it is added again.

use crate::maps::Contents;
use crate::model::{self, Model, Selector};
use lb_common::limits;
use lb_common::server::server_flag;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// How long nothing may refer to a removed server before its number is used again (IPVS: `IP_VS_DEST_TRASH_PERIOD`).
pub const TRASH_SECONDS: u64 = 120;

/// The numbers in use. Saved beside the pinned maps, because the maps tell neither the lists' order nor
/// `last_weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    services: Vec<ServiceIds>,
    trash: Vec<Trashed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ServiceIds {
    identity: String,
    id: u32,
    /// Newest first.
    servers: Vec<ServerIds>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ServerIds {
    id: u32,
    address: IpAddr,
    /// The latest weight other than 0; as added if it never had one.
    last_weight: u32,
}

/// A removed server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trashed {
    id: u32,
    address: IpAddr,
    /// Of the service it belonged to.
    identity: String,
    service: u32,
    /// Unix time since when nothing refers to it, as far as known.
    idle_since: Option<u64>,
}

/// A service of the model with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedService {
    pub id: u32,
    /// Newest first, the order of IPVS's list.
    pub servers: Vec<AssignedServer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignedServer {
    pub id: u32,
    /// Place among the service's servers in the model.
    pub index: usize,
    /// The latest weight other than 0; as added if it never had one.
    pub last_weight: u32,
}

/// There are more than the maps can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdsError {
    #[error("{wanted} virtual services, but there is room for {}", limits::SERVICES)]
    Services { wanted: usize },
    #[error(
        "more real servers than the {} there is room for, {removed} removed ones with live flows included",
        limits::SERVERS - 1
    )]
    Servers { removed: usize },
}

/// What makes a service the same one in another configuration: its place, as in IPVS. A service over many, a firewall
/// mark there, is its name.
pub fn identity(service: &model::Service) -> String {
    match &service.selector {
        Selector::Vip { address, port, protocol } => format!("{protocol} {address} {port}"),
        Selector::Matches(_) => format!("many {}", service.name),
    }
}

impl Ids {
    /// The numbers the maps were written with, as far as `saved` and the maps agree. What is in the maps alone is
    /// taken from there: services by the places of `model` that lead to them, in the order of the file.
    pub fn restore(saved: Option<Self>, contents: &Contents, model: &Model) -> Self {
        let saved = saved.unwrap_or_default();
        let mut ids = Self::default();
        let mut seen = BTreeSet::new();
        let found = |id: u32, address: IpAddr, service: u32, available: bool| {
            contents.servers.get(&id).is_some_and(|server| {
                server.rip.to_ip() == address
                    && u32::from(server.service) == service
                    && server.has(server_flag::AVAILABLE) == available
            })
        };
        for mut service in saved.services {
            if contents.services.contains_key(&service.id) {
                let id = service.id;
                service.servers.retain(|s| found(s.id, s.address, id, true) && seen.insert(s.id));
                ids.services.push(service);
            }
        }
        for trashed in saved.trash {
            if found(trashed.id, trashed.address, trashed.service, false) && seen.insert(trashed.id) {
                ids.trash.push(trashed);
            }
        }
        ids.adopt(contents, model, &seen);
        ids
    }

    fn adopt(&mut self, contents: &Contents, model: &Model, seen: &BTreeSet<u32>) {
        let mut identities: HashMap<u32, String> =
            self.services.iter().map(|service| (service.id, service.identity.clone())).collect();
        for service in &model.services {
            let entries = service.selector.matches();
            if let Some(id) = entries.iter().find_map(|entry| super::keys::lead(contents, entry))
                && contents.services.contains_key(&id)
                && !identities.contains_key(&id)
            {
                identities.insert(id, identity(service));
                self.services.push(ServiceIds { identity: identity(service), id, servers: Vec::new() });
            }
        }
        let order: HashMap<(String, IpAddr), usize> = model
            .services
            .iter()
            .flat_map(|service| {
                let identity = identity(service);
                service
                    .servers
                    .iter()
                    .enumerate()
                    .map(move |(at, server)| ((identity.clone(), server.address), at))
            })
            .collect();
        for (id, server) in contents.servers.iter().filter(|(id, _)| !seen.contains(id)) {
            let (service, address) = (u32::from(server.service), server.rip.to_ip());
            let identity = identities.get(&service).cloned().unwrap_or_default();
            match self.services.iter_mut().find(|known| known.id == service) {
                Some(known) if server.has(server_flag::AVAILABLE) => {
                    known.servers.push(ServerIds { id: *id, address, last_weight: server.weight });
                }
                _ => self.trash.push(Trashed { id: *id, address, identity, service, idle_since: None }),
            }
        }
        for service in &mut self.services {
            let place = |server: &ServerIds| order.get(&(service.identity.clone(), server.address));
            // A stable sort: what came with its order from the saved state keeps it if nothing was adopted.
            if service.servers.iter().any(|server| !seen.contains(&server.id)) {
                service.servers.sort_by_key(|server| std::cmp::Reverse(place(server).copied()));
            }
        }
    }

    /// Gives every service and server of the model its number; what is no longer in it goes to the trash.
    ///
    /// # Errors
    /// The model has more than the maps hold; nothing is changed then.
    pub fn update(&mut self, model: &Model) -> Result<Vec<AssignedService>, IdsError> {
        let mut next = self.clone();
        let assigned = next.take_over(model)?;
        *self = next;
        Ok(assigned)
    }

    fn take_over(&mut self, model: &Model) -> Result<Vec<AssignedService>, IdsError> {
        if model.services.len() > limits::SERVICES as usize {
            return Err(IdsError::Services { wanted: model.services.len() });
        }
        let mut before: BTreeMap<String, ServiceIds> =
            self.services.drain(..).map(|service| (service.identity.clone(), service)).collect();
        let mut services: Vec<Option<ServiceIds>> =
            model.services.iter().map(|service| before.remove(&identity(service))).collect();
        for gone in before.into_values() {
            self.discard(&gone.identity, gone.id, gone.servers);
        }
        for (kept, wanted) in services.iter_mut().zip(&model.services) {
            let Some(kept) = kept else { continue };
            let (stay, go) =
                kept.servers.drain(..).partition(|s| wanted.servers.iter().any(|w| w.address == s.address));
            kept.servers = stay;
            self.discard(&kept.identity, kept.id, go);
        }
        let mut used: BTreeSet<u32> = services.iter().flatten().map(|service| service.id).collect();
        // A removed server still names its service's number, and its flows that server.
        used.extend(self.trash.iter().map(|trashed| trashed.service));
        let mut taken: BTreeSet<u32> =
            services.iter().flatten().flat_map(|service| service.servers.iter().map(|s| s.id)).collect();
        taken.extend(self.trash.iter().map(|trashed| trashed.id));

        let mut assigned = Vec::with_capacity(services.len());
        for (kept, wanted) in services.into_iter().zip(&model.services) {
            let mut service = match kept {
                Some(kept) => kept,
                None => self.new_service(wanted, &mut used)?,
            };
            for server in &wanted.servers {
                match service.servers.iter_mut().find(|known| known.address == server.address) {
                    Some(known) if server.weight > 0 => known.last_weight = server.weight,
                    Some(_) => {}
                    None => {
                        let id = self.server_id(&service.identity, server.address, &mut taken)?;
                        let added = ServerIds { id, address: server.address, last_weight: server.weight };
                        service.servers.insert(0, added);
                    }
                }
            }
            let servers = service.servers.iter().map(|known| AssignedServer {
                id: known.id,
                index: wanted.servers.iter().position(|w| w.address == known.address).unwrap_or_default(),
                last_weight: known.last_weight,
            });
            assigned.push(AssignedService { id: service.id, servers: servers.collect() });
            self.services.push(service);
        }
        Ok(assigned)
    }

    fn discard(&mut self, identity: &str, service: u32, servers: Vec<ServerIds>) {
        self.trash.extend(servers.into_iter().map(|server| Trashed {
            id: server.id,
            address: server.address,
            identity: identity.to_owned(),
            service,
            idle_since: None,
        }));
    }

    fn new_service(&self, wanted: &model::Service, used: &mut BTreeSet<u32>) -> Result<ServiceIds, IdsError> {
        let identity = identity(wanted);
        let old =
            self.trash.iter().find(|trashed| trashed.identity == identity).map(|trashed| trashed.service);
        let id = old
            .or_else(|| (0..limits::SERVICES).find(|id| !used.contains(id)))
            .ok_or(IdsError::Services { wanted: used.len() + 1 })?;
        used.insert(id);
        Ok(ServiceIds { identity, id, servers: Vec::new() })
    }

    fn server_id(
        &mut self,
        identity: &str,
        address: IpAddr,
        taken: &mut BTreeSet<u32>,
    ) -> Result<u32, IdsError> {
        let old = self.trash.iter().position(|t| t.identity == identity && t.address == address);
        if let Some(at) = old {
            return Ok(self.trash.remove(at).id);
        }
        let id = (1..limits::SERVERS)
            .find(|id| !taken.contains(id))
            .ok_or(IdsError::Servers { removed: self.trash.len() })?;
        taken.insert(id);
        Ok(id)
    }

    /// Removed servers whose entries have to stay.
    pub fn trashed(&self) -> impl Iterator<Item = u32> {
        self.trash.iter().map(|trashed| trashed.id)
    }

    /// Frees the removed servers nothing has referred to for [`TRASH_SECONDS`], and says if there were any. `now` is
    /// Unix time; `is_referenced` knows of flows, templates and remembered destinations.
    pub fn collect(&mut self, now: u64, is_referenced: impl Fn(u32) -> bool) -> bool {
        let before = self.trash.len();
        self.trash.retain_mut(|trashed| {
            if is_referenced(trashed.id) {
                trashed.idle_since = None;
                return true;
            }
            let since = *trashed.idle_since.get_or_insert(now);
            // A clock that was set back starts the wait anew rather than making it endless.
            if since > now {
                trashed.idle_since = Some(now);
            }
            now.saturating_sub(since) < TRASH_SECONDS
        });
        self.trash.len() != before
    }
}
