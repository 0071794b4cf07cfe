//! Step 4: the server of a new flow, by executing the service's plan.

mod cycle;
mod hash;
pub mod least;
pub mod locality;
pub mod twos;

use crate::{parse::Packet, stage::Stage, tables::Tables};
use lb_common::{
    flow,
    hash::stateless,
    plan::{PlanHead, PlanKind, Slot, cost},
    settings::feature,
};

/// Whether the answer will be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Flow,
    /// Every packet of the flow asks again and must get the same answer while the plan stays.
    None,
}

/// For a server's id: nobody, because every server is drained, overloaded or missing. The schedulers say it with a number
/// and not with an `Option`, whose absent value LLVM spills and the verifier then refuses as never written.
pub const NOBODY: u32 = 0;

/// What a plan's first look at a packet gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A server's id or [`NOBODY`].
    Server(u32),
    /// Candidates have to be compared.
    Stage(Stage),
}

/// Executes the service's plan, as far as that needs no comparison of candidates.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, service: u32, packet: &Packet, memory: Memory) -> Choice {
    let plan = tables.plan(service);
    let kind = plan.kind();
    let server = if kind == PlanKind::Hash as u8 {
        hash::choose(tables, plan, packet)
    } else if memory == Memory::None {
        by_hash(tables, plan, packet)
    } else if kind == PlanKind::Cycle as u8 {
        cycle::choose(tables, plan)
    } else if kind == PlanKind::Least as u8 {
        return Choice::Stage(if plan.detail() == cost::TWOS { Stage::Twos } else { Stage::Least });
    } else if kind == PlanKind::Locality as u8 {
        return Choice::Stage(Stage::Locality);
    } else {
        NOBODY
    };
    Choice::Server(server)
}

/// A slot by hash, whatever the plan: weights still show in a wrr cycle.
#[inline(always)]
fn by_hash<T: Tables>(tables: &T, plan: PlanHead, packet: &Packet) -> u32 {
    let mut index = stateless(&packet.key.client, packet.key.client_port());
    // An overloaded server's neighbours take its share; after this many, nobody does.
    let mut tries = 0;
    while tries < 8 {
        let Some(at) = index.checked_rem(plan.len()) else { break };
        let slot = slot(tables, plan, at);
        if is_usable(tables, slot) {
            return slot.server();
        }
        index = index.wrapping_add(1);
        tries += 1;
    }
    NOBODY
}

/// Slot `index` of a plan, empty past its end.
#[inline(always)]
fn slot<T: Tables>(tables: &T, plan: PlanHead, index: u32) -> Slot {
    tables.slot(plan.start() + 1 + index).unwrap_or(Slot::EMPTY)
}

/// True if there is a server in the slot and it takes new flows.
#[inline(always)]
fn is_usable<T: Tables>(tables: &T, slot: Slot) -> bool {
    slot.server() != NOBODY && !is_overloaded(tables, slot.server())
}

#[inline(always)]
fn is_overloaded<T: Tables>(tables: &T, server: u32) -> bool {
    tables.features() & feature::THRESHOLDS != 0 && tables.load(server).is_some_and(flow::is_overloaded)
}
