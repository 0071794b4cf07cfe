//! lc, wlc, sed, nq, ovf: the cheapest candidate by live counts, the first of equals.

use super::{NOBODY, is_usable, slot};
use crate::tables::Tables;
use lb_common::{
    flow::{Words, counts},
    limits::LEAST_CANDIDATES,
    plan::{PlanHead, Slot, cost, is_cheaper, overhead, stretch},
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
pub fn choose<T: Tables>(tables: &T, settings: &Settings, plan: PlanHead) -> u32 {
    let Some(words) = tables.scratch() else { return NOBODY };
    let stretch = Stretch::take(tables, words, plan);
    cheapest(tables, words, stretch, Cost::of(plan.detail(), settings))
}

/// The cheapest candidate of the stretch.
#[inline(always)]
pub(super) fn cheapest<T: Tables>(tables: &T, words: T::Cells, stretch: Stretch<T::Cells>, by: Cost) -> u32 {
    let (plan, first) = stretch.again();
    let best = Best::none(words);
    let mut i = 0;
    while i < LEAST_CANDIDATES {
        if i >= plan.len() {
            break;
        }
        let candidate = candidate(tables, plan, first, i);
        i += 1;
        if !takes(tables, candidate) {
            continue;
        }
        let Some(load) = tables.load(candidate.server()) else { continue };
        let (active, inactive) = counts(load);
        if by.rule == cost::NQ && active == 0 {
            return candidate.server();
        }
        if by.rule == cost::OVF && active > candidate.number() {
            continue;
        }
        let weight = if by.rule == cost::LC { 1 } else { candidate.number() };
        best.offer(candidate.server(), by.with(active, inactive), weight);
    }
    best.server()
}

/// What a new flow looks at. Kept in scratch memory, to be asked for again before every loop over it: after one the
/// verifier knows of the length and of the first place at how many candidates the loop ended, one way each.
#[derive(Clone, Copy)]
pub(super) struct Stretch<W>(W);

impl<W: Words> Stretch<W> {
    /// Words behind those that the schedulers keep there.
    const HEAD: u32 = 13;
    const FIRST: u32 = 15;

    /// The stretch of this flow, see [`stretch`]. Of a plan with more candidates than it looks at, it takes a turn.
    #[inline(always)]
    pub(super) fn take<T: Tables<Cells = W>>(tables: &T, words: W, plan: PlanHead) -> Self {
        let len = plan.len();
        words.store(Self::HEAD, plan.0 as u32);
        words.store(Self::HEAD + 1, (plan.0 >> 32) as u32);
        words.store(Self::FIRST, 0);
        if len > LEAST_CANDIDATES {
            let turn = tables.advance(plan.start(), 1).unwrap_or(0);
            words.store(Self::FIRST, stretch(turn, len));
        }
        Self(words)
    }

    /// The plan and the place of the first candidate.
    #[inline(always)]
    pub(super) fn again(self) -> (PlanHead, u32) {
        let head = self.0.load(Self::HEAD) as u64 | (self.0.load(Self::HEAD + 1) as u64) << 32;
        (PlanHead(head), self.0.load(Self::FIRST))
    }
}

/// Candidate `i` of those a new flow looks at; `i` below the plan's length.
#[inline(always)]
pub(super) fn candidate<T: Tables>(tables: &T, plan: PlanHead, first: u32, i: u32) -> Slot {
    let len = plan.len();
    let at = first.wrapping_add(i);
    slot(tables, plan, if at >= len { at - len } else { at })
}

/// The cheapest server so far. In scratch memory and not in registers: the verifier follows what it knows of registers,
/// and would walk every way to come by 256 candidates.
#[derive(Clone, Copy)]
pub(super) struct Best<W>(W);

impl<W: Words> Best<W> {
    const SERVER: u32 = 0;
    const COST: u32 = 1;
    const WEIGHT: u32 = 2;

    #[inline(always)]
    pub(super) fn none(words: W) -> Self {
        words.store(Self::SERVER, 0);
        words.store(Self::COST, 0);
        words.store(Self::WEIGHT, 0);
        Self(words)
    }

    /// Takes the server if it is strictly cheaper, or the first.
    #[inline(always)]
    pub(super) fn offer(self, server: u32, cost: u32, weight: u32) {
        if self.0.load(Self::SERVER) == 0
            || is_cheaper(cost, weight, self.0.load(Self::COST), self.0.load(Self::WEIGHT))
        {
            self.0.store(Self::SERVER, server);
            self.0.store(Self::COST, cost);
            self.0.store(Self::WEIGHT, weight);
        }
    }

    #[inline(always)]
    pub(super) fn server(self) -> u32 {
        self.0.load(Self::SERVER)
    }
}

/// True if a candidate takes new flows.
#[inline(always)]
pub(super) fn takes<T: Tables>(tables: &T, candidate: Slot) -> bool {
    candidate.number() != 0 && is_usable(tables, candidate)
}
