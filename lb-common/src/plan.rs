//! Plans: what the control plane makes of a scheduler and its servers, and the datapath executes in constant time.
//!
//! A plan lives in a range of cells of the slot map. Its first cell is the cursor, the others are slots. The head,
//! one 64-bit word per service, names the range; replacing it switches the service to the new plan at once.

use crate::hash::{MH_TABLE, SH_TABLE};
use crate::limits::LEAST_CANDIDATES;

/// The head of a service's plan, one word so that it changes in one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PlanHead(pub u64);

/// What the kernel does for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PlanKind {
    /// No server can be chosen.
    None = 0,
    /// The next slot: rr, wrr; with [`cycle::FIXED`] the first usable one: fo.
    Cycle = 1,
    /// The slot a hash of the packet names: sh, dh, mh.
    Hash = 2,
    /// The cheapest candidate by live counts: lc, wlc, sed, nq, ovf; or by lot: twos.
    Least = 3,
    /// The server its destination went to before, unless it is crowded; else `Least`: lblc, lblcr.
    Locality = 4,
}

/// Detail bits of [`PlanKind::Cycle`].
pub mod cycle {
    /// Start at the first slot every time and leave the cursor alone.
    pub const FIXED: u8 = 1;
}

/// Detail bits of [`PlanKind::Hash`].
pub mod hash_detail {
    pub const TABLE: u8 = 0x0f;
    pub const SH: u8 = 0;
    pub const DH: u8 = 1;
    pub const MH: u8 = 2;
    /// Mix the client's port in (sh-port, mh-port).
    pub const PORT: u8 = 0x10;
    /// Try further slots when the server is drained or overloaded (sh-fallback, mh-fallback).
    pub const FALLBACK: u8 = 0x20;
}

/// Detail of [`PlanKind::Least`]: the cost function.
pub mod cost {
    pub const LC: u8 = 0;
    pub const WLC: u8 = 1;
    pub const SED: u8 = 2;
    pub const NQ: u8 = 3;
    pub const OVF: u8 = 4;
    pub const TWOS: u8 = 5;
}

/// Detail bits of [`PlanKind::Locality`].
pub mod locality {
    /// Keep a set of servers per destination (lblcr) instead of one (lblc).
    pub const REPLICATE: u8 = 1;
}

impl PlanHead {
    pub const NONE: Self = Self(0);

    /// `start` is the cell of the cursor, `len` the slots behind it; both below 2^24.
    pub const fn new(kind: PlanKind, detail: u8, start: u32, len: u32) -> Self {
        Self(
            kind as u64
                | (detail as u64) << 8
                | (start as u64 & 0xff_ffff) << 16
                | (len as u64 & 0xff_ffff) << 40,
        )
    }

    /// The kind's number, see [`PlanKind`].
    #[inline(always)]
    pub const fn kind(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    pub const fn detail(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Cell of the cursor; slot `i` is cell `start + 1 + i`.
    #[inline(always)]
    pub const fn start(self) -> u32 {
        (self.0 >> 16) as u32 & 0xff_ffff
    }

    /// Number of slots.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        (self.0 >> 40) as u32
    }

    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// One slot: a server and a number whose meaning is the plan's.
///
/// `Cycle`: how far ahead the next slot with another server is, so that an overloaded server is skipped in one step
/// (0: there is none). The plan's length is added to it where a search that finds nobody leaves the scheduler at the start
/// of its period instead of where it stood (IPVS's wrr, unless the search began within the lowest level). `Hash`, `Least`, `Locality`: the server's weight; a hash slot of weight 0 is a drained server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Slot(pub u64);

impl Slot {
    pub const EMPTY: Self = Self(0);

    #[inline(always)]
    pub const fn new(server: u32, number: u32) -> Self {
        Self(server as u64 | (number as u64) << 32)
    }

    /// The server's id; 0 for an empty slot.
    #[inline(always)]
    pub const fn server(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub const fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// How busy a server with these flows is: lc, wlc, lblc, lblcr, twos. Kernels since mid-2026 count active flows once
/// more, because inactive became total minus active.
#[inline(always)]
pub const fn overhead(active: u32, inactive: u32, since_2026: bool) -> u32 {
    let classic = (active << 8).wrapping_add(inactive);
    if since_2026 { classic.wrapping_add(active) } else { classic }
}

/// True if a server with `cost` at `weight` is strictly cheaper than the one held so far. Ties keep the earlier.
#[inline(always)]
pub const fn is_cheaper(cost: u32, weight: u32, than_cost: u32, than_weight: u32) -> bool {
    than_cost as u64 * weight as u64 > cost as u64 * than_weight as u64
}

/// Where in a plan of `len` candidates a new flow begins to look. 0 for up to [`LEAST_CANDIDATES`]: it looks at all.
///
/// A longer plan has them in random order, and its cursor, `turn`, moves on by one with every flow, which looks at that
/// many candidates from here on, around the end. The best of 256 of thousands is within a few per cent of the best of
/// all.
#[inline(always)]
pub const fn stretch(turn: u64, len: u32) -> u32 {
    if len <= LEAST_CANDIDATES { 0 } else { (turn.wrapping_mul(STRIDE) % len as u64) as u32 }
}

/// Places between the stretches of two flows: fewer than a stretch has, so that every candidate is looked at each time
/// around, and prime, so that it is at ever other places of the stretch.
const STRIDE: u64 = 127;

const _: () = assert!(SH_TABLE < 1 << 24 && MH_TABLE < 1 << 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_keeps_its_parts() {
        let head = PlanHead::new(PlanKind::Locality, 0xa5, 0xff_fffe, 0x12_3456);
        assert_eq!((head.kind(), head.detail(), head.start(), head.len()), (4, 0xa5, 0xff_fffe, 0x12_3456));
    }
}
