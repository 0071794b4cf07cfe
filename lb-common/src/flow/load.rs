//! How busy a server is: active and inactive flows, persistence templates, and whether it is overloaded.
//! The kernel and the sweeper change these words, both atomically.

use super::Words;

/// Places of the words in a server's load.
pub mod load_word {
    /// Flows in an active state. Read as signed: between two CPUs' updates it may dip below zero.
    pub const ACTIVE: u32 = 0;
    /// All other flows.
    pub const INACTIVE: u32 = 1;
    /// Persistence templates.
    pub const PERSISTENT: u32 = 2;
    /// Not 0: at or over its upper threshold, so schedulers pass it by.
    pub const OVERLOADED: u32 = 3;
}

/// Words of a server's load.
pub const LOAD_WORDS: u32 = 4;

/// Connection thresholds, `ipvsadm -x` and `-y`. Counted in flows, active and inactive; 0 is unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Thresholds {
    pub upper: u32,
    pub lower: u32,
}

#[inline(always)]
fn count<W: Words>(load: W) -> u32 {
    let sum = load.load(load_word::ACTIVE).wrapping_add(load.load(load_word::INACTIVE)) as i32;
    if sum < 0 { 0 } else { sum as u32 }
}

/// A flow or template was bound to the server: it is overloaded once it has `upper` flows.
#[inline(always)]
fn after_bind<W: Words>(load: W, thresholds: &Thresholds) {
    if thresholds.upper != 0 && count(load) >= thresholds.upper {
        load.store(load_word::OVERLOADED, 1);
    }
}

/// A flow or template ended: no longer overloaded below `lower`, or without one below three quarters of `upper`.
#[inline(always)]
fn after_unbind<W: Words>(load: W, thresholds: &Thresholds) {
    if load.load(load_word::OVERLOADED) == 0 {
        return;
    }
    let count = count(load);
    let relieved = if thresholds.lower != 0 {
        count < thresholds.lower
    } else {
        4 * (count as u64) < 3 * thresholds.upper as u64
    };
    if relieved {
        load.store(load_word::OVERLOADED, 0);
    }
}

#[inline(always)]
const fn word(active: bool) -> u32 {
    if active { load_word::ACTIVE } else { load_word::INACTIVE }
}

/// Counts a new flow. `thresholds` is `None` for a server without any.
#[inline(always)]
pub fn bind<W: Words>(load: W, thresholds: Option<&Thresholds>, active: bool) {
    load.add(word(active), 1);
    if let Some(thresholds) = thresholds {
        after_bind(load, thresholds);
    }
}

/// Moves a flow between the active and the inactive count.
#[inline(always)]
pub fn move_state<W: Words>(load: W, was_active: bool, is_active: bool) {
    if was_active != is_active {
        load.add(word(is_active), 1);
        load.add(word(was_active), 1u32.wrapping_neg());
    }
}

/// Counts a flow that ended.
#[inline(always)]
pub fn unbind<W: Words>(load: W, thresholds: Option<&Thresholds>, was_active: bool) {
    load.add(word(was_active), 1u32.wrapping_neg());
    if let Some(thresholds) = thresholds {
        after_unbind(load, thresholds);
    }
}

/// Counts a new persistence template. Thresholds are looked at again, as IPVS does on every bind.
#[inline(always)]
pub fn bind_template<W: Words>(load: W, thresholds: Option<&Thresholds>) {
    load.add(load_word::PERSISTENT, 1);
    if let Some(thresholds) = thresholds {
        after_bind(load, thresholds);
    }
}

/// Counts a persistence template that ended.
#[inline(always)]
pub fn unbind_template<W: Words>(load: W, thresholds: Option<&Thresholds>) {
    load.add(load_word::PERSISTENT, 1u32.wrapping_neg());
    if let Some(thresholds) = thresholds {
        after_unbind(load, thresholds);
    }
}

#[inline(always)]
pub fn is_overloaded<W: Words>(load: W) -> bool {
    load.load(load_word::OVERLOADED) != 0
}

/// Active and inactive flows as the schedulers see them, never below zero.
#[inline(always)]
pub fn counts<W: Words>(load: W) -> (u32, u32) {
    let read = |at| {
        let value = load.load(at) as i32;
        if value < 0 { 0 } else { value as u32 }
    };
    (read(load_word::ACTIVE), read(load_word::INACTIVE))
}
