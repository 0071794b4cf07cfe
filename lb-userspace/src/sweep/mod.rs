//! What the datapath leaves to do: idle flows are taken out, and the counts schedulers go by are checked against the
//! flows there are.
//!
//! A pass walks every table once, in slices short enough not to be in anybody's way. The walk over the flows counts
//! them per server and per persistence template; with these counts templates end or live on, and at the end of the
//! pass servers' counts that drifted are put right. Everything here works on shared memory, the kernel's or a test's.

mod drift;
mod flows;
mod locality;
mod pass;
mod spill;
mod templates;

pub use flows::{live, sweep_slice};
pub use locality::{LocalityGc, LocalityStore};
pub use pass::{Pass, Report, Step};
pub use spill::{SpillStore, sweep_spill};
pub use templates::{Children, sweep_templates};

use crate::maps::Contents;
use lb_common::flow::{
    self, AtomicU32, LOAD_WORDS, Layout, Shared, Slab, Templates, Thresholds, V4, V6, meta,
};
use lb_common::hash::Seed;
use lb_common::plan::{PlanKind, locality as locality_detail};
use lb_common::server::server_flag;
use lb_common::service::Service;
use lb_common::settings::switch;
use std::collections::BTreeMap;

/// The tables a pass walks.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    pub v4: Slab<'a, V4>,
    pub v6: Slab<'a, V6>,
    pub templates: Slab<'a, Templates>,
    /// `LOADS`.
    pub loads: &'a [AtomicU32],
}

impl<'a> Tables<'a> {
    /// The load of a server; `None` beyond the map's end.
    pub fn load(&self, server: u32) -> Option<Shared<'a>> {
        let at = server as usize * LOAD_WORDS as usize;
        self.loads.get(at..at + LOAD_WORDS as usize).map(Shared)
    }
}

/// What a sweep has to know of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerRules {
    /// Its flows are taken out at once: it is removed and `expire_nodest_conn` is on.
    pub evict: bool,
    /// As the datapath uses them; `None` for a server without.
    pub thresholds: Option<Thresholds>,
    pub service: u32,
}

/// What a sweep has to know of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub seed: Seed,
    /// Jiffies in a second.
    pub hz: u32,
    /// By server id.
    pub servers: Vec<ServerRules>,
    /// By service id.
    pub services: Vec<Service>,
    /// By id of a service of lblc or lblcr: after how many jiffies it forgets a destination.
    pub expirations: BTreeMap<u32, u32>,
}

impl Rules {
    /// As the maps have it.
    pub fn of(contents: &Contents) -> Self {
        let settings = &contents.settings;
        let mut rules = Self { seed: settings.seed, hz: settings.hz, ..Self::default() };
        let nodest = settings.is_on(switch::EXPIRE_NODEST_CONN);
        for (id, server) in &contents.servers {
            *grown(&mut rules.servers, *id) = ServerRules {
                evict: nodest && !server.has(server_flag::AVAILABLE),
                thresholds: contents.thresholds.get(id).copied(),
                service: server.service.into(),
            };
        }
        for (id, service) in &contents.services {
            *grown(&mut rules.services, *id) = *service;
        }
        for (id, plan) in &contents.plans {
            if plan.kind == PlanKind::Locality {
                let replicate = plan.detail & locality_detail::REPLICATE != 0;
                let expiration = if replicate { settings.lblcr_expiration } else { settings.lblc_expiration };
                rules.expirations.insert(*id, expiration);
            }
        }
        rules
    }

    fn server(&self, id: u32) -> ServerRules {
        self.servers.get(id as usize).copied().unwrap_or_default()
    }
}

/// Flows and templates of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub active: u32,
    pub inactive: u32,
    pub templates: u32,
}

/// What a pass has counted so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By server id.
    pub servers: Vec<Counted>,
    /// Destinations lblc and lblcr remember for a server, by server id.
    pub destinations: Vec<u32>,
    /// Flows that are left.
    pub live: Live,
    /// Flows and templates taken out.
    pub removed: u64,
    /// The same by server id.
    pub removed_of: Vec<u32>,
}

/// How many entries the tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    pub v4: u64,
    pub v6: u64,
    pub templates: u64,
    pub spilled: u64,
}

impl Tally {
    fn server(&mut self, id: u32) -> &mut Counted {
        grown(&mut self.servers, id)
    }

    fn removed(&mut self, server: u32) {
        self.removed += 1;
        *grown(&mut self.removed_of, server) += 1;
    }

    /// Whether anything refers to the server.
    pub fn is_referenced(&self, id: u32) -> bool {
        let flows = self.servers.get(id as usize).is_some_and(|counted| *counted != Counted::default());
        flows || self.destinations.get(id as usize).is_some_and(|count| *count != 0)
    }

    fn flow(&mut self, meta: u32, is_active: bool) {
        let counted = self.server(meta::server(meta));
        if is_active {
            counted.active += 1;
        } else {
            counted.inactive += 1;
        }
    }
}

fn grown<T: Default + Clone>(list: &mut Vec<T>, id: u32) -> &mut T {
    let at = id as usize;
    if list.len() <= at {
        list.resize(at + 1, T::default());
    }
    &mut list[at]
}

/// A table of flows, as against one of templates.
pub trait Flows: Layout {
    fn count(live: &mut Live) -> &mut u64;
}

impl Flows for V4 {
    fn count(live: &mut Live) -> &mut u64 {
        &mut live.v4
    }
}

impl Flows for V6 {
    fn count(live: &mut Live) -> &mut u64 {
        &mut live.v6
    }
}

/// Takes a flow that was removed off its server's count.
fn unbind(tables: &Tables<'_>, rules: &Rules, control: u32, meta: u32) {
    let server = meta::server(meta);
    if let Some(load) = tables.load(server) {
        let thresholds = rules.server(server).thresholds;
        flow::unbind(load, thresholds.as_ref(), control & flow::control::ACTIVE != 0);
    }
}

#[cfg(test)]
mod tests;
