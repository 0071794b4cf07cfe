//! Weighted round robin: level by level from the largest weight down, each level once through the list, picking the
//! servers whose weight reaches it. Levels are `di`, the greatest common divisor of the weights, apart; the lowest is 1.

use lb_common::plan::PlanKind;

use super::{CYCLE_SLOTS, Entry, Plan, Warning, cycle};

/// One period, from the highest level and the head of the list.
pub(super) fn plan(entries: &[Entry]) -> (Plan, Option<Warning>) {
    let (rounds, warning) = Rounds::of(entries);
    let servers = rounds.sequence(entries);
    // The lowest level holds every server once and is the last. IPVS, when a flow finds all of them overloaded,
    // starts over at the highest level, unless it began within the lowest.
    let lowest = rounds.0.iter().filter(|&&turns| turns > 0).count();
    let rewinds = 1..servers.len() - lowest + 1;
    (Plan::new(PlanKind::Cycle, 0, cycle::slots(&servers, rewinds)), warning)
}

/// How far ahead the cursor of a plan starts that does not begin at 0: counting up from 0 again after a rewind it
/// must not come by, or it would look like one that never moved.
const PERIODS_AHEAD: u64 = 1 << 32;

/// How often each server of the list comes up in a period: its weight / di, unless scaled down.
struct Rounds(Vec<u32>);

impl Rounds {
    fn of(entries: &[Entry]) -> (Self, Option<Warning>) {
        let weights: Vec<u32> = entries.iter().map(Entry::live_weight).collect();
        let divisor = gcd(&weights);
        let exact: Vec<u32> = weights.iter().map(|weight| weight / divisor).collect();
        let needed = total(&exact);
        if needed <= CYCLE_SLOTS as u64 {
            return (Self(exact), None);
        }
        let mut scaled = scaled_to_fit(&exact);
        let divisor = gcd(&scaled);
        scaled.iter_mut().for_each(|turns| *turns /= divisor);
        let slots = total(&scaled);
        let share = |turns: u32, of: u64| f64::from(turns) / of as f64;
        let worst = exact
            .iter()
            .zip(&scaled)
            .filter(|(turns, _)| **turns > 0)
            .map(|(&is, &got)| (share(got, slots) / share(is, needed) - 1.0).abs())
            .fold(0.0, f64::max);
        let warning = Warning::WeightsScaled { needed, slots: slots as usize, worst_percent: worst * 100.0 };
        (Self(scaled), Some(warning))
    }

    fn levels(&self) -> u32 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    /// Server ids of one period.
    fn sequence(&self, entries: &[Entry]) -> Vec<u32> {
        let mut sequence = Vec::with_capacity(total(&self.0) as usize);
        let mut waiting: Vec<usize> = (0..entries.len()).collect();
        waiting.sort_by_key(|&at| self.0[at]);
        let mut members: Vec<usize> = Vec::new();
        for above in (0..self.levels()).rev() {
            while waiting.last().is_some_and(|&at| self.0[at] > above) {
                let at = waiting.pop().expect("just looked at");
                let place = members.partition_point(|&member| member < at);
                members.insert(place, at);
            }
            sequence.extend(members.iter().map(|&at| entries[at].id));
        }
        sequence
    }
}

/// Turns in the same proportion as closely as [`CYCLE_SLOTS`] allows; equal stays equal and nobody falls to 0.
fn scaled_to_fit(turns: &[u32]) -> Vec<u32> {
    const UNIT: u64 = 1 << 32;
    let scale = |factor: u64| -> Vec<u32> {
        let one = |turns: u32| (((u64::from(turns) * factor + UNIT / 2) / UNIT) as u32).max(1);
        turns.iter().map(|&turns| if turns == 0 { 0 } else { one(turns) }).collect()
    };
    let (mut fits, mut too_large) = (0, UNIT);
    while too_large - fits > 1 {
        let middle = fits + (too_large - fits) / 2;
        if total(&scale(middle)) <= CYCLE_SLOTS as u64 {
            fits = middle;
        } else {
            too_large = middle;
        }
    }
    scale(fits)
}

/// Where IPVS stands in the sequence, in its own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The server picked last; None: the head of the list.
    last: Option<u32>,
    /// The current weight `cw`; 0 while no server has any.
    weight: u32,
}

impl Position {
    pub(super) fn start(entries: &[Entry]) -> Self {
        Self { last: None, weight: highest(entries) }
    }

    /// From a cursor that moved.
    pub(super) fn from_cursor(entries: &[Entry], plan: &Plan, cursor: u64) -> Self {
        let Some(picked) = cursor.checked_sub(1).filter(|_| !plan.slots.is_empty()) else {
            return Self::start(entries);
        };
        let at = (picked % plan.slots.len() as u64) as usize;
        let server = plan.slots[at].server();
        // The last time a server comes up in a period is in the lowest level.
        let level = plan.slots[at + 1..].iter().filter(|slot| slot.server() == server).count() as u64;
        let (rounds, _) = Rounds::of(entries);
        let (divisor, exact_levels) = exact(entries);
        // Rounded up, so that the way back, rounded down, leads to the same level.
        let level = (level * u64::from(exact_levels)).div_ceil(u64::from(rounds.levels().max(1)));
        Self { last: Some(server), weight: level as u32 * divisor + 1 }
    }

    /// After *any* edit, even one that changes nothing, IPVS goes on at its current level from the head of the list.
    /// `entries`: after the edit.
    pub(super) fn edited(&mut self, entries: &[Entry]) {
        self.last = None;
        let (divisor, _) = exact(entries);
        if self.weight > highest(entries) || self.weight == 0 {
            self.weight = highest(entries);
        } else if divisor > 1 {
            self.weight = self.weight / divisor * divisor + 1;
        }
    }

    /// A cursor for the slot of the next pick; 0 only where nothing has been picked in the period.
    pub(super) fn cursor(&self, entries: &[Entry]) -> u64 {
        if self.weight == 0 {
            return 0;
        }
        let (rounds, _) = Rounds::of(entries);
        let (divisor, exact_levels) = exact(entries);
        let level = u64::from((self.weight - 1) / divisor);
        let level = (level * u64::from(rounds.levels()) / u64::from(exact_levels)) as u32;
        let above: u64 = rounds.0.iter().map(|&turns| u64::from(turns.saturating_sub(level + 1))).sum();
        let passed = self.last.and_then(|id| entries.iter().position(|entry| entry.id == id));
        let within = passed.map_or(0, |at| rounds.0[..=at].iter().filter(|&&turns| turns > level).count());
        match above + within as u64 {
            0 => 0,
            place => place + PERIODS_AHEAD * total(&rounds.0),
        }
    }
}

/// `mw`: the highest level.
fn highest(entries: &[Entry]) -> u32 {
    let (divisor, levels) = exact(entries);
    (levels * divisor).saturating_sub(divisor - 1)
}

/// `di` and the number of levels, without scaling.
fn exact(entries: &[Entry]) -> (u32, u32) {
    let weights: Vec<u32> = entries.iter().map(Entry::live_weight).collect();
    let divisor = gcd(&weights);
    (divisor, weights.iter().max().unwrap_or(&0) / divisor)
}

/// Greatest common divisor of those that are not 0; 1 if all are.
pub(super) fn gcd(numbers: &[u32]) -> u32 {
    let pair = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    numbers.iter().copied().fold(0, pair).max(1)
}

fn total(turns: &[u32]) -> u64 {
    turns.iter().map(|&turns| u64::from(turns)).sum()
}
