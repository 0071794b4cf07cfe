//! The loop's state: what is wanted, what the maps hold, and the steps between.

use super::apply::{Applier, ApplyError};
use super::desired::{Base, DesiredError, World, desired};
use super::diff::{MapOp, diff};
use super::ids::{AssignedService, Ids, IdsError};
use crate::maps::{Contents, MapStore, StoreError};
use crate::model::Model;
use crate::neigh::{NextHop, NextHopTable};
use crate::netlink::VlanTag;
use crate::scheduler::Schedule;
use lb_common::server::{NO_VLAN, SERVICE_VLAN, VLAN_ID, server_flag};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// The one writer of the configuration maps.
#[derive(Debug)]
pub struct Reconciler<S> {
    store: S,
    applier: Applier,
    base: Base,
    ids: Ids,
    model: Arc<Model>,
    assigned: Vec<AssignedService>,
    schedules: BTreeMap<u32, Schedule>,
    why_not: BTreeMap<u32, String>,
    touched: BTreeSet<u32>,
}

/// What is wanted could not be worked out or put in place.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Ids(#[from] IdsError),
    #[error(transparent)]
    Desired(#[from] DesiredError),
    #[error("reading what the maps hold")]
    Read(#[from] StoreError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl<S: MapStore> Reconciler<S> {
    /// Starts from what the maps hold and `saved`, the numbers an earlier daemon gave. Nothing is written yet.
    ///
    /// # Errors
    /// The maps cannot be read, or have no room for the model.
    pub fn new(store: S, base: Base, saved: Option<Ids>, model: Arc<Model>) -> Result<Self, ReconcileError> {
        let applier = Applier::read(&store)?;
        let mut ids = Ids::restore(saved, applier.contents(), &model);
        let assigned = ids.update(&model)?;
        let schedules = BTreeMap::new();
        Ok(Self {
            store,
            applier,
            base,
            ids,
            model,
            assigned,
            schedules,
            why_not: BTreeMap::new(),
            touched: BTreeSet::new(),
        })
    }

    /// Wants another model from now on; the next round puts it in place.
    ///
    /// # Errors
    /// The maps have no room for it. The old one is still wanted.
    pub fn set_model(&mut self, model: Arc<Model>) -> Result<(), ReconcileError> {
        super::desired::features(&model, false)?;
        self.assigned = self.ids.update(&model)?;
        self.model = model;
        Ok(())
    }

    /// The next round takes a server for edited even if it stays as it is: `ipvsadm -e` with what is already set makes
    /// wrr go on from the first server of its level. `service` is a name. A server that is not there is none.
    pub fn touch(&mut self, service: &str, server: IpAddr) {
        for (wanted, assigned) in self.model.services.iter().zip(&self.assigned) {
            if wanted.name == service {
                let ids =
                    assigned.servers.iter().filter(|known| wanted.servers[known.index].address == server);
                self.touched.extend(ids.map(|known| known.id));
            }
        }
    }

    /// Brings the maps to what is wanted by now; how many steps that took.
    ///
    /// # Errors
    /// A step failed. Those before it are done; another round does the rest.
    pub fn round(&mut self, next_hops: &NextHopTable, now: Instant) -> Result<usize, ReconcileError> {
        let cursors = self.cursors()?;
        let trashed: BTreeSet<u32> = self.ids.trashed().collect();
        let desired = desired(&World {
            model: &self.model,
            assigned: &self.assigned,
            trashed: &trashed,
            next_hops,
            base: self.base,
            current: self.applier.contents(),
            schedules: &self.schedules,
            cursors: &|service| cursors.get(&service).copied().unwrap_or_default(),
            touched: &self.touched,
        })?;
        self.why_not.clone_from(&desired.why_not);
        let ops = diff(self.applier.contents(), &desired);
        let replanned: BTreeSet<u32> = ops.iter().filter_map(planned).collect();
        // A schedule is that of the plan in place. So those with a new plan change with it, the others now.
        self.schedules.retain(|id, _| desired.schedules.contains_key(id) || replanned.contains(id));
        for (id, schedule) in &desired.schedules {
            if !replanned.contains(id) {
                self.schedules.insert(*id, schedule.clone());
            }
        }
        for op in &ops {
            self.applier.apply(&mut self.store, op, now)?;
            if let Some(id) = planned(op) {
                match desired.schedules.get(&id) {
                    Some(schedule) => self.schedules.insert(id, schedule.clone()),
                    None => self.schedules.remove(&id),
                };
            }
        }
        self.touched.clear();
        Ok(ops.len())
    }

    fn cursors(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let plans = self.applier.contents().plans.keys();
        plans.map(|id| Ok((*id, self.applier.cursor(&self.store, *id)?))).collect()
    }

    /// Frees removed servers nothing has referred to for long enough; true if there were any. `now` is Unix time.
    pub fn collect(&mut self, now: u64, is_referenced: impl Fn(u32) -> bool) -> bool {
        self.ids.collect(now, is_referenced)
    }

    pub fn contents(&self) -> &Contents {
        self.applier.contents()
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Numbers of the model's services and servers, in the model's order.
    pub fn assigned(&self) -> &[AssignedService] {
        &self.assigned
    }

    /// By server: why it gets no new flows, weight and thresholds aside.
    pub fn why_not(&self) -> &BTreeMap<u32, String> {
        &self.why_not
    }

    /// Of plans that are not exactly IPVS's, by service.
    pub fn warnings(&self) -> impl Iterator<Item = (u32, String)> {
        self.schedules.iter().filter_map(|(id, schedule)| Some((*id, schedule.warning()?.to_string())))
    }

    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }
}

fn planned(op: &MapOp) -> Option<u32> {
    match op {
        MapOp::Plan { service, .. } | MapOp::ClearPlan(service) => Some(*service),
        _ => None,
    }
}

/// The next hops the maps hold: what a daemon that was just started goes by until the kernel has told it better.
pub fn remembered(contents: &Contents) -> NextHopTable {
    let usable = contents.servers.values().filter(|server| server.has(server_flag::REACHABLE));
    let hop = |server: &lb_common::server::Server| NextHop {
        dmac: server.dmac.0,
        smac: server.smac.0,
        ifindex: server.ifindex,
        vlan: server
            .vlan
            .iter()
            .filter(|tag| **tag != NO_VLAN)
            .map(|tag| VlanTag {
                id: *tag & VLAN_ID,
                tpid: if *tag & SERVICE_VLAN != 0 { VlanTag::DOT1AD } else { VlanTag::DOT1Q },
            })
            .collect(),
        mtu: server.mtu.into(),
        source: server.source.to_ip(),
        gateway: None,
        local: server.has(server_flag::LOCAL),
    };
    usable.map(|server| (server.rip.to_ip(), Ok(hop(server)))).collect()
}
