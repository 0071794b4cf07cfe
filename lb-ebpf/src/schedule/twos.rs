//! twos: the cheaper of two candidates drawn by lot.

use super::{
    NOBODY,
    least::{Cost, Stretch, candidate, takes},
};
use crate::tables::Tables;
use lb_common::{
    flow::{Words, counts},
    limits::LEAST_CANDIDATES,
    plan::is_cheaper,
    settings::Settings,
};

/// Power of two choices: two draws weighted by weight, each from 0 to the sum of the weights, both ends included, so
/// the first candidate is drawn a little more often (IPVS).
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, settings: &Settings, service: u32) -> u32 {
    let Some(words) = tables.scratch() else { return NOBODY };
    let stretch = Stretch::take(tables, words, tables.plan(service));
    let (plan, first) = stretch.again();
    words.store(TOTAL, 0);
    let mut i = 0;
    while i < LEAST_CANDIDATES {
        if i >= plan.len() {
            break;
        }
        let candidate = candidate(tables, plan, first, i);
        i += 1;
        if takes(tables, candidate) {
            words.store(TOTAL, words.load(TOTAL).saturating_add(candidate.number()));
        }
    }
    let total = words.load(TOTAL);
    if total == 0 {
        return NOBODY;
    }
    let by = Cost::wlc(settings);
    let mut draw = 0;
    while draw < 2 {
        words.store(LEFT, (tables.random() as u64 % (total as u64 + 1)) as u32);
        words.store(TAKEN, 0);
        let (plan, first) = stretch.again();
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
            let weight = candidate.number();
            let left = words.load(LEFT);
            if words.load(TAKEN) == 0 && left <= weight {
                words.store(TAKEN, 1);
                words.store(DRAWN + 3 * draw, candidate.server());
                words.store(DRAWN + 3 * draw + 1, by.with(active, inactive));
                words.store(DRAWN + 3 * draw + 2, weight);
            }
            words.store(LEFT, left.wrapping_sub(weight));
        }
        if words.load(TAKEN) == 0 {
            // Servers became overloaded since the sum was taken.
            return NOBODY;
        }
        draw += 1;
    }
    let drawn = |draw: u32, word: u32| words.load(DRAWN + 3 * draw + word);
    let second_is_cheaper = is_cheaper(drawn(1, 1), drawn(1, 2), drawn(0, 1), drawn(0, 2));
    if second_is_cheaper { drawn(1, 0) } else { drawn(0, 0) }
}

/// Words of the scratch memory: see `least::Best` for why there.
const TOTAL: u32 = 0;
const LEFT: u32 = 1;
const TAKEN: u32 = 2;
/// Server, cost and weight of two draws.
const DRAWN: u32 = 3;
