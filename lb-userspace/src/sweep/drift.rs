//! Servers' counts against the flows there are.
//!
//! The datapath counts up and down with every flow; a lost step would stay for ever. A pass takes a second or two, in
//! which flows come and go, so a single difference means nothing. One that is there again after the next pass does.

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
    /// No word changed during the pass.
    quiet: bool,
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
            let mut found = Found { off: off(counted, now), quiet: now == *began };
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

/// By how much to change a word that two passes in a row found wrong. A server at rest is put right exactly. One with
/// traffic by what both passes agree on, if that is more than flows that came and went during the walk make up.
fn step(then: Found, now: Found, at: usize, word: u32) -> i32 {
    let (then_off, now_off) = (then.off[at], now.off[at]);
    if then_off == 0 || now_off == 0 || then_off.signum() != now_off.signum() {
        return 0;
    }
    if then.quiet && now.quiet {
        return if then_off == now_off { now_off } else { 0 };
    }
    let agreed = then_off.unsigned_abs().min(now_off.unsigned_abs());
    let noise = (word as i32).unsigned_abs() / 64 + 8;
    if agreed > noise { now_off.signum() * agreed as i32 } else { 0 }
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
