//! What a schedule is made of and what comes out of it.

use lb_common::limits::LEAST_CANDIDATES;
use lb_common::plan::{PlanKind, Slot};

/// How busy a server is; read from the datapath's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Flows in an active state.
    pub active: u32,
    /// All other flows.
    pub inactive: u32,
    /// Past its connection threshold (IPVS: OVERLOAD).
    pub overloaded: bool,
}

/// A plan as it goes into the slot map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub kind: PlanKind,
    /// Bits of [`lb_common::plan::cycle`], [`lb_common::plan::hash_detail`], [`lb_common::plan::cost`] or
    /// [`lb_common::plan::locality`].
    pub detail: u8,
    /// See [`Slot`]. In a `Cycle` the number has one more meaning: it is the distance to the next slot with another
    /// server, *plus the number of slots* if a flow that finds every server overloaded, beginning here, sets the
    /// cursor to 0. Modulo the length, as the cursor goes, the distance is the same.
    pub slots: Vec<Slot>,
    /// What to store in the cursor cell. Of a `Cycle` the next flow gets slot `cursor % slots.len()`, and 0 means
    /// that nothing has been picked since the beginning of the period. Of a plan that [slides](Plan::slides) it counts
    /// new flows. 0 in every other plan.
    pub cursor: u64,
}

impl Plan {
    pub const NONE: Self = Self { kind: PlanKind::None, detail: 0, slots: Vec::new(), cursor: 0 };

    /// A plan without slots chooses nothing, whatever its kind was meant to be.
    pub(super) fn new(kind: PlanKind, detail: u8, slots: Vec<Slot>) -> Self {
        if slots.is_empty() { Self::NONE } else { Self { kind, detail, slots, cursor: 0 } }
    }

    /// True if there are more candidates than the datapath compares for one flow, so that every new flow looks at the
    /// next stretch of them.
    pub fn slides(&self) -> bool {
        matches!(self.kind, PlanKind::Least | PlanKind::Locality)
            && self.slots.len() > LEAST_CANDIDATES as usize
    }
}

/// What an operator should know about a plan that is not exactly IPVS's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Warning {
    #[error(
        "wrr: these weights repeat after {needed} flows and a plan holds {slots}; they were scaled down, and no \
         server's share is off by more than {worst_percent:.2} % of it"
    )]
    WeightsScaled { needed: u64, slots: usize, worst_percent: f64 },
    #[error(
        "mh: {servers} servers do not fit a table of {slots} slots; the {left_out} added last get no new flows"
    )]
    TableFull { servers: usize, slots: usize, left_out: usize },
}
