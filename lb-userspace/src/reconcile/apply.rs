//! Carrying out the steps: where plans and rules go, and what the maps hold after each.

use super::MapOp;
use super::ranges::Ranges;
use crate::maps::{Contents, MapStore, Plan, StoreError, read_contents};
use ipnet::IpNet;
use lb_common::flow::{Thresholds, load_word};
use lb_common::limits;
use lb_common::plan::{PlanHead, Slot};
use lb_common::server::Server;
use lb_common::service::{MatchRule, MatchSet, Service};
use std::collections::BTreeMap;
use std::time::Instant;

/// The writer of the configuration maps: knows what they hold and where.
#[derive(Clone, Debug)]
pub struct Applier {
    contents: Contents,
    cells: Ranges,
    match_sets: Ranges,
    heads: BTreeMap<u32, PlanHead>,
    set_of: BTreeMap<IpNet, u32>,
}

/// A step could not be carried out. Those before it were.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no room for a plan of {slots} slots; it is tried again when the old plans may be overwritten")]
    NoCells { slots: usize },
    #[error("no room for the rules of {prefix}; it is tried again when the old ones may be overwritten")]
    NoMatchSet { prefix: IpNet },
}

impl Applier {
    /// Starts from what the maps hold.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(store: &dyn MapStore) -> Result<Self, StoreError> {
        let mut applier = Self {
            contents: read_contents(store)?,
            cells: Ranges::new(limits::SLOTS),
            match_sets: Ranges::new(limits::MATCH_PREFIXES),
            heads: BTreeMap::new(),
            set_of: BTreeMap::new(),
        };
        for id in applier.contents.plans.keys() {
            let head = store.plan(*id)?;
            applier.cells.reserve(head.start(), head.len() + 1);
            applier.heads.insert(*id, head);
        }
        for (prefix, set) in store.prefixes()? {
            applier.match_sets.reserve(set, 1);
            applier.set_of.insert(prefix, set);
        }
        Ok(applier)
    }

    /// What the maps hold.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Where the cursor of a service's plan stands; 0 without a plan.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn cursor(&self, store: &dyn MapStore, service: u32) -> Result<u64, StoreError> {
        match self.heads.get(&service) {
            Some(head) => Ok(store.cells(head.start(), 1)?[0]),
            None => Ok(0),
        }
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// A map operation failed. The maps are then between two steps, each of them sound, and [`Applier::contents`]
    /// says what they hold; the step can be tried again.
    pub fn apply(&mut self, store: &mut dyn MapStore, op: &MapOp, now: Instant) -> Result<(), ApplyError> {
        let contents = &mut self.contents;
        match op {
            MapOp::Settings(settings) => {
                store.put_settings(settings)?;
                contents.settings = **settings;
            }
            MapOp::Deny(prefix) => {
                store.deny(*prefix)?;
                contents.denied.insert(*prefix);
            }
            MapOp::Allow(prefix) => {
                store.allow(*prefix)?;
                contents.denied.remove(prefix);
            }
            MapOp::ForgetServer(id) => store.forget_server(*id)?,
            MapOp::Thresholds { server, old, new, at_once } => {
                // The flag first: if that fails the thresholds still differ, and both are tried again.
                if let Some(overloaded) = overloaded(&store.load(*server)?, old, new, *at_once) {
                    store.put_overloaded(*server, overloaded)?;
                }
                store.put_thresholds(*server, new)?;
                if *new == Thresholds::default() {
                    contents.thresholds.remove(server);
                } else {
                    contents.thresholds.insert(*server, *new);
                }
            }
            MapOp::Server(id, server) => {
                store.put_server(*id, server)?;
                contents.servers.insert(*id, *server);
            }
            MapOp::ClearServer(id) => {
                store.put_thresholds(*id, &Thresholds::default())?;
                contents.thresholds.remove(id);
                store.put_server(*id, &Server::default())?;
                contents.servers.remove(id);
            }
            MapOp::Service(id, service) => {
                store.put_service(*id, service)?;
                contents.services.insert(*id, *service);
            }
            MapOp::ClearService(id) => {
                store.put_service(*id, &Service::default())?;
                contents.services.remove(id);
            }
            MapOp::Plan { service, plan, cursor } => self.plan(store, *service, plan, *cursor, now)?,
            MapOp::ClearPlan(service) => {
                store.put_plan(*service, PlanHead::NONE)?;
                contents.plans.remove(service);
                self.release_plan(*service, now);
            }
            MapOp::Prefix(prefix, rules) => self.prefix(store, *prefix, rules, now)?,
            MapOp::ClearPrefix(prefix) => {
                store.remove_prefix(*prefix)?;
                contents.prefixes.remove(prefix);
                if let Some(set) = self.set_of.remove(prefix) {
                    self.match_sets.give_back(set, 1, now);
                }
            }
            MapOp::Place(place, service) => {
                store.put_place(&place.key(), *service)?;
                contents.places.insert(*place, *service);
            }
            MapOp::ClearPlace(place) => {
                store.remove_place(&place.key())?;
                contents.places.remove(place);
            }
        }
        Ok(())
    }

    /// Writes a plan where no packet reads, then turns the service to it with one store.
    fn plan(
        &mut self,
        store: &mut dyn MapStore,
        service: u32,
        plan: &Plan,
        cursor: u64,
        now: Instant,
    ) -> Result<(), ApplyError> {
        let len = plan.slots.len() as u32 + 1;
        let start = self.cells.take(len, now).ok_or(ApplyError::NoCells { slots: plan.slots.len() })?;
        let cells: Vec<u64> = [cursor].into_iter().chain(plan.slots.iter().map(|Slot(cell)| *cell)).collect();
        let head = PlanHead::new(plan.kind, plan.detail, start, len - 1);
        if let Err(error) = store.put_cells(start, &cells).and_then(|()| store.put_plan(service, head)) {
            // Perhaps in use after all.
            self.cells.give_back(start, len, now);
            return Err(error.into());
        }
        self.release_plan(service, now);
        self.heads.insert(service, head);
        self.contents.plans.insert(service, plan.clone());
        Ok(())
    }

    fn release_plan(&mut self, service: u32, now: Instant) {
        if let Some(head) = self.heads.remove(&service) {
            self.cells.give_back(head.start(), head.len() + 1, now);
        }
    }

    /// As with plans: a new set of rules, then the prefix is turned to it.
    fn prefix(
        &mut self,
        store: &mut dyn MapStore,
        prefix: IpNet,
        rules: &[MatchRule],
        now: Instant,
    ) -> Result<(), ApplyError> {
        let mut set =
            MatchSet { count: rules.len() as u32, rules: [MatchRule::default(); limits::MATCH_RULES] };
        set.rules[..rules.len()].copy_from_slice(rules);
        let id = self.match_sets.take(1, now).ok_or(ApplyError::NoMatchSet { prefix })?;
        if let Err(error) = store.put_match_set(id, &set).and_then(|()| store.put_prefix(prefix, id)) {
            self.match_sets.give_back(id, 1, now);
            return Err(error.into());
        }
        if let Some(old) = self.set_of.insert(prefix, id) {
            self.match_sets.give_back(old, 1, now);
        }
        self.contents.prefixes.insert(prefix, rules.to_vec());
        Ok(())
    }
}

/// What an edit of the thresholds makes of the overload flag: nothing, or a new value.
fn overloaded(load: &[u32], old: &Thresholds, new: &Thresholds, at_once: bool) -> Option<bool> {
    let counted = |word: u32| load[word as usize] as i32;
    let count = counted(load_word::ACTIVE).wrapping_add(counted(load_word::INACTIVE)).max(0) as u32;
    if new.upper == 0 {
        return Some(false);
    }
    if !at_once {
        return (new.upper > old.upper).then_some(false);
    }
    if count >= new.upper {
        return Some(true);
    }
    let relieved = match new.lower {
        0 => 4 * u64::from(count) < 3 * u64::from(new.upper),
        lower => count < lower,
    };
    relieved.then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_of_thresholds_changes_the_overload_flag_as_in_ipvs() {
        let t = |upper, lower| Thresholds { upper, lower };
        for (sentence, count, old, new, at_once, flag) in [
            ("no upper threshold any more", 9, t(5, 0), t(0, 0), false, Some(false)),
            ("no upper threshold any more, since 2026", 9, t(5, 0), t(0, 0), true, Some(false)),
            ("a larger one clears the flag even if it is reached", 9, t(5, 0), t(7, 0), false, Some(false)),
            ("a smaller one waits for the next flow", 9, t(20, 0), t(5, 0), false, None),
            ("since 2026 a reached one sets it at once", 9, t(20, 0), t(5, 0), true, Some(true)),
            ("since 2026 it is cleared below the lower one", 3, t(5, 0), t(9, 4), true, Some(false)),
            ("since 2026 it stays between the two", 5, t(5, 0), t(9, 4), true, None),
            ("without a lower one three quarters count", 6, t(5, 0), t(9, 0), true, Some(false)),
        ] {
            assert_eq!(overloaded(&[1, count - 1, 0, 0], &old, &new, at_once), flag, "{sentence}");
        }
    }
}
