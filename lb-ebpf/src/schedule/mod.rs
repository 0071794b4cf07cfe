//! Step 4: the server of a new flow, by executing the service's plan.

mod cycle;
mod hash;
mod least;
mod locality;

use crate::{Scene, parse::Packet, tables::Tables};
use lb_common::{
    flow,
    hash::stateless,
    plan::{PlanHead, PlanKind, Slot},
    settings::feature,
};

/// Whether the answer will be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Flow,
    /// Every packet of the flow asks again and must get the same answer while the plan stays.
    None,
}

/// The server the service's scheduler picks, or `None`: every server is drained, overloaded or missing.
#[inline(never)]
pub fn choose<T: Tables>(scene: &Scene<'_, T>, service: u32, memory: Memory) -> Option<u32> {
    let Scene { tables, settings, packet, now } = *scene;
    let plan = tables.plan(service);
    let kind = plan.kind();
    if kind == PlanKind::Hash as u8 {
        hash::choose(tables, plan, packet)
    } else if memory == Memory::None {
        by_hash(tables, plan, packet)
    } else if kind == PlanKind::Cycle as u8 {
        cycle::choose(tables, plan)
    } else if kind == PlanKind::Least as u8 {
        least::choose(tables, settings, plan, least::Cost::of(plan.detail(), settings))
    } else if kind == PlanKind::Locality as u8 && tables.features() & feature::LOCALITY != 0 {
        locality::choose(tables, settings, plan, service, packet, now)
    } else {
        None
    }
}

/// A slot by hash, whatever the plan: weights still show in a wrr cycle.
#[inline(always)]
fn by_hash<T: Tables>(tables: &T, plan: PlanHead, packet: &Packet) -> Option<u32> {
    let mut index = stateless(&packet.key.client, packet.key.client_port());
    // An overloaded server's neighbours take its share; after this many, nobody does.
    let mut tries = 0;
    while tries < 8 {
        let slot = slot(tables, plan, index.checked_rem(plan.len())?)?;
        if is_usable(tables, slot) {
            return Some(slot.server());
        }
        index = index.wrapping_add(1);
        tries += 1;
    }
    None
}

/// Slot `index` of a plan; `index` below its length.
#[inline(always)]
fn slot<T: Tables>(tables: &T, plan: PlanHead, index: u32) -> Option<Slot> {
    tables.slot(plan.start() + 1 + index)
}

/// True if there is a server in the slot and it takes new flows.
#[inline(always)]
fn is_usable<T: Tables>(tables: &T, slot: Slot) -> bool {
    slot.server() != 0 && !is_overloaded(tables, slot.server())
}

#[inline(always)]
fn is_overloaded<T: Tables>(tables: &T, server: u32) -> bool {
    tables.features() & feature::THRESHOLDS != 0 && tables.load(server).is_some_and(flow::is_overloaded)
}
