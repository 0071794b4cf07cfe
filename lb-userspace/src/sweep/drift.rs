//! Servers' counts against the flows there are.
//!
//! The datapath counts up and down with every flow; a lost step would stay for ever. A pass takes a second or more, in
//! which flows come and go, so a single difference means nothing. One that is there again after the next pass does, if
//! it is larger than all that came and went: a flow that comes behind the walk's back is missing from what is counted in
//! this pass, and while the load lasts so are others in every pass.

use super::{Counted, Rules, Tables, Tally};
use lb_common::flow::{self, Shared, Words, load_word};

const WORDS: [u32; 3] = [load_word::ACTIVE, load_word::INACTIVE, load_word::PERSISTENT];

/// What the passes so far showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Drift {
    /// By server id: the words when the pass began.
    began: Vec<[u32; 3]>,
    /// By server id: what the last pass found.
    last: Vec<Found>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// Counted flows less the server's words.
    off: [i32; 3],
    /// The most that flows which came, went or changed state during the pass make up of `off`: 0 for a server at rest.
    churn: u32,
}

fn words(load: Shared<'_>) -> [u32; 3] {
    WORDS.map(|word| load.load(word))
}

/// Servers the load map has room for.
fn servers(tables: &Tables<'_>) -> u32 {
    (tables.loads.len() / flow::LOAD_WORDS as usize) as u32
}

impl Drift {
    pub(super) fn begin(&mut self, tables: &Tables<'_>) {
        self.began.clear();
        self.began.extend((0..servers(tables)).filter_map(|id| tables.load(id)).map(words));
    }

    /// Puts right what was wrong in this pass and the one before; how many flows' worth of counts that was.
    pub(super) fn finish(&mut self, tables: &Tables<'_>, rules: &Rules, tally: &Tally) -> u64 {
        let mut corrected = 0;
        let before = std::mem::take(&mut self.last);
        for (id, began) in (0..servers(tables)).zip(&self.began) {
            let Some(load) = tables.load(id) else { break };
            let now = words(load);
            let counted = tally.servers.get(id as usize).copied().unwrap_or_default();
            let removed = tally.removed_of.get(id as usize).copied().unwrap_or_default();
            let mut found = Found { off: off(counted, now), churn: churn(*began, now, removed) };
            let then = before.get(id as usize).copied().unwrap_or_default();
            for (at, word) in WORDS.into_iter().enumerate() {
                let step = step(then, found, at, now[at]);
                if step != 0 {
                    correct(load, rules, id, word, step);
                    corrected += u64::from(step.unsigned_abs());
                    found.off[at] -= step;
                }
            }
            self.last.push(found);
        }
        corrected
    }
}

fn off(counted: Counted, words: [u32; 3]) -> [i32; 3] {
    let counted = [counted.active, counted.inactive, counted.templates];
    std::array::from_fn(|at| counted[at].wrapping_sub(words[at]) as i32)
}

/// As many flows came as there are more, and as were taken out; and as many changed state as one word lost and another
/// gained.
fn churn(began: [u32; 3], now: [u32; 3], removed: u32) -> u32 {
    let changes =
        began.into_iter().zip(now).map(|(began, now)| (now.wrapping_sub(began) as i32).unsigned_abs());
    changes.fold(removed, u32::saturating_add)
}

/// By how much to change a word that two passes in a row found wrong. A server at rest is put right exactly. One with
/// traffic by what both passes agree on, if that is more than the traffic itself can make up.
fn step(then: Found, now: Found, at: usize, word: u32) -> i32 {
    let (then_off, now_off) = (then.off[at], now.off[at]);
    if then_off == 0 || now_off == 0 || then_off.signum() != now_off.signum() {
        return 0;
    }
    if then.churn == 0 && now.churn == 0 {
        return if then_off == now_off { now_off } else { 0 };
    }
    let agreed = then_off.unsigned_abs().min(now_off.unsigned_abs());
    // What came and went within the pass shows in neither look; it is little of what is there.
    let unseen = (word as i32).unsigned_abs() / 64 + 8;
    if agreed > then.churn.max(now.churn).saturating_add(unseen) {
        now_off.signum() * agreed as i32
    } else {
        0
    }
}

/// Changes a word, the last flow of it by the datapath's own rule, so that the thresholds are looked at.
fn correct(load: Shared<'_>, rules: &Rules, id: u32, word: u32, step: i32) {
    let thresholds = rules.server(id).thresholds;
    if word == load_word::PERSISTENT {
        load.add(word, step as u32);
        return;
    }
    let is_active = word == load_word::ACTIVE;
    if step < 0 {
        load.add(word, (step + 1) as u32);
        flow::unbind(load, thresholds.as_ref(), is_active);
    } else {
        load.add(word, (step - 1) as u32);
        flow::bind(load, thresholds.as_ref(), is_active);
    }
}
