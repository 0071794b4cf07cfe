//! lc, wlc, sed, nq, ovf: the cheapest candidate by live counts, the first of equals. twos: the cheaper of two by lot.

use super::{is_overloaded, slot};
use crate::tables::Tables;
use lb_common::{
    flow::counts,
    limits::LEAST_CANDIDATES,
    plan::{PlanHead, Slot, cost, is_cheaper, overhead},
    settings::{Settings, switch},
};

/// A cost function as numbers, so that the loop over candidates has no branch per scheduler.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    /// What an active and an inactive flow cost, and what a new one costs everywhere.
    active: u32,
    inactive: u32,
    own: u32,
    rule: u8,
}

impl Cost {
    #[inline(always)]
    pub(super) fn of(rule: u8, settings: &Settings) -> Self {
        match rule {
            cost::SED | cost::NQ => Self { active: 1, inactive: 0, own: 1, rule },
            // Equal costs: the weight alone decides.
            cost::OVF => Self { active: 0, inactive: 0, own: 1, rule },
            _ => {
                let active = overhead(1, 0, settings.is_on(switch::OVERHEAD_2026));
                Self { active, inactive: 1, own: 0, rule }
            }
        }
    }

    /// wlc's cost, which lblc and lblcr share.
    #[inline(always)]
    pub(super) fn wlc(settings: &Settings) -> Self {
        Self::of(cost::WLC, settings)
    }

    #[inline(always)]
    pub(super) fn with(&self, active: u32, inactive: u32) -> u32 {
        let cost = active.wrapping_mul(self.active).wrapping_add(inactive.wrapping_mul(self.inactive));
        cost.wrapping_add(self.own)
    }
}

#[inline(always)]
pub(super) fn choose<T: Tables>(tables: &T, settings: &Settings, plan: PlanHead, by: Cost) -> Option<u32> {
    if by.rule == cost::TWOS {
        return by_lot(tables, settings, plan);
    }
    let mut best = 0;
    let mut best_cost = 0;
    let mut best_weight = 0;
    let mut i = 0;
    while i < LEAST_CANDIDATES {
        if i >= plan.len() {
            break;
        }
        let candidate = slot(tables, plan, i)?;
        i += 1;
        let Some((active, inactive)) = load(tables, candidate) else { continue };
        if by.rule == cost::NQ && active == 0 {
            return Some(candidate.server());
        }
        if by.rule == cost::OVF && active > candidate.number() {
            continue;
        }
        let weight = if by.rule == cost::LC { 1 } else { candidate.number() };
        let cost = by.with(active, inactive);
        if best == 0 || is_cheaper(cost, weight, best_cost, best_weight) {
            best = candidate.server();
            best_cost = cost;
            best_weight = weight;
        }
    }
    if best == 0 { None } else { Some(best) }
}

/// Active and inactive flows of a candidate, or `None` if it takes no new ones.
#[inline(always)]
pub(super) fn load<T: Tables>(tables: &T, candidate: Slot) -> Option<(u32, u32)> {
    let server = candidate.server();
    if server == 0 || candidate.number() == 0 || is_overloaded(tables, server) {
        return None;
    }
    tables.load(server).map(counts)
}

/// Power of two choices: two draws weighted by weight, each from 0 to the sum of the weights, both ends included, so
/// the first candidate is drawn a little more often (IPVS).
#[inline(always)]
fn by_lot<T: Tables>(tables: &T, settings: &Settings, plan: PlanHead) -> Option<u32> {
    let mut total = 0u64;
    let mut i = 0;
    while i < LEAST_CANDIDATES {
        if i >= plan.len() {
            break;
        }
        let candidate = slot(tables, plan, i)?;
        if load(tables, candidate).is_some() {
            total += candidate.number() as u64;
        }
        i += 1;
    }
    if total == 0 {
        return None;
    }
    let ends = total + 1;
    let draw = || (tables.random() as u64).checked_rem(ends).map(|left| left as i64);
    let mut left = [draw()?, draw()?];
    let by = Cost::wlc(settings);
    // Per draw: server, cost, weight.
    let mut drawn = [(0u32, 0u32, 0u32); 2];
    let mut i = 0;
    while i < LEAST_CANDIDATES {
        if i >= plan.len() {
            break;
        }
        let candidate = slot(tables, plan, i)?;
        i += 1;
        let Some((active, inactive)) = load(tables, candidate) else { continue };
        let weight = candidate.number();
        left[0] -= weight as i64;
        left[1] -= weight as i64;
        let found = (candidate.server(), by.with(active, inactive), weight);
        if left[0] <= 0 && drawn[0].0 == 0 {
            drawn[0] = found;
        }
        if left[1] <= 0 && drawn[1].0 == 0 {
            drawn[1] = found;
        }
    }
    let (first, second) = (drawn[0], drawn[1]);
    let chosen = if is_cheaper(second.1, second.2, first.1, first.2) { second.0 } else { first.0 };
    if chosen == 0 { None } else { Some(chosen) }
}
