//! What the datapath does with a plan, on the host and one flow at a time.
//!
//! Where the datapath's bounds make it differ from IPVS it is said at the bound: [`CYCLE_TRIES`], [`HASH_PROBES`],
//! [`LOCALITY_SET`], [`LEAST_CANDIDATES`].

use std::collections::HashMap;

use lb_common::hash::{self, MH_TABLE};
use lb_common::limits::{LEAST_CANDIDATES, LOCALITY_SET};
use lb_common::net::Addr;
use lb_common::plan::{PlanKind, Slot, cost, cycle, hash_detail, is_cheaper, locality, overhead, stretch};

use super::{CYCLE_TRIES, Load, Plan};

/// Slots a `Hash` plan with a fallback tries after the first. All of sh's table; of mh's 4093 a part: with a tenth
/// of the slots available 256 tries fail once in 10^11.
pub const HASH_PROBES: u32 = 256;

/// Destinations lblc and lblcr remember for one service.
pub const DESTINATIONS: usize = 24_576;

/// What a choice may depend on of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub source: Addr,
    /// Host order; 0 if the protocol has no ports.
    pub source_port: u16,
    pub destination: Addr,
}

/// Of a server's record ([`lb_common::server::Server`]), what lblc and lblcr look at.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// 0 while drained or unreachable; a removed server's stays.
    pub weight: u32,
    /// In the configuration.
    pub available: bool,
}

/// The datapath's view of servers at one moment.
pub struct World<'a> {
    pub load: &'a dyn Fn(u32) -> Load,
    pub server: &'a dyn Fn(u32) -> Server,
    /// A number from 0 to the given one, both included, all equally likely.
    pub draw: &'a mut dyn FnMut(u64) -> u64,
    /// Seconds.
    pub now: u64,
}

/// A service's state in the maps: the cursor and the destinations.
#[derive(Clone, Debug)]
pub struct Datapath {
    pub cursor: u64,
    destinations: HashMap<Addr, Destination>,
    /// Seconds a set of lblcr stays as it is before it loses a server.
    pub lblcr_expiration: u64,
    /// Active flows weigh 257, as in kernels since mid-2026, not 256.
    pub since_2026: bool,
}

#[derive(Clone, Debug)]
struct Destination {
    modified: u64,
    /// The newest first.
    servers: Vec<u32>,
}

impl Datapath {
    pub fn new(cursor: u64) -> Self {
        Self { cursor, destinations: HashMap::new(), lblcr_expiration: 86_400, since_2026: false }
    }

    /// Server for a new flow.
    pub fn choose(&mut self, plan: &Plan, packet: &Packet, world: &mut World) -> Option<u32> {
        match plan.kind {
            PlanKind::None => None,
            PlanKind::Cycle if plan.detail & cycle::FIXED != 0 => first(&plan.slots, world),
            PlanKind::Cycle => self.next(&plan.slots, world),
            PlanKind::Hash => hashed(plan, packet, world),
            PlanKind::Least => {
                let candidates = self.stretch(&plan.slots);
                self.least(plan.detail, candidates, world)
            }
            PlanKind::Locality => self.local(plan, packet, world),
        }
    }

    /// The datapath draws its ticket by an atomic fetch-add and adds the distance skipped afterwards; when no
    /// server is found it puts the cursor back, if it still stands where it left it.
    fn next(&mut self, slots: &[Slot], world: &World) -> Option<u32> {
        let len = slots.len() as u64;
        let slot = |at: u64| slots[(at % len) as usize];
        let begin = self.cursor;
        let mut at = begin;
        let mut undecided = true;
        for _ in 0..CYCLE_TRIES {
            if !(world.load)(slot(at).server()).overloaded {
                self.cursor = at + 1;
                return Some(slot(at).server());
            }
            let distance = u64::from(slot(at).number()) % len;
            at += distance;
            if distance == 0 || at - begin >= len {
                undecided = false;
                break;
            }
        }
        if undecided {
            // The end of a wrr period holds every server once, so that even many overloaded ones do not hide a light one.
            let period = begin - begin % len;
            let last = period + len.saturating_sub(CYCLE_TRIES as u64)..period + len;
            if let Some(at) = last.into_iter().find(|&at| !(world.load)(slot(at).server()).overloaded) {
                self.cursor = if at < begin { at + len } else { at } + 1;
                return Some(slot(at).server());
            }
        }
        if u64::from(slot(begin).number()) >= len {
            self.cursor = 0;
        }
        None
    }

    /// The candidates this flow looks at: all, or of more than [`LEAST_CANDIDATES`] the next stretch.
    fn stretch<'a>(&mut self, slots: &'a [Slot]) -> impl Iterator<Item = Slot> + Clone + use<'a> {
        let turn = self.cursor;
        if slots.len() > LEAST_CANDIDATES as usize {
            self.cursor = turn.wrapping_add(1);
        }
        let (before, from) = slots.split_at(stretch(turn, slots.len() as u32) as usize);
        from.iter().chain(before).copied().take(LEAST_CANDIDATES as usize)
    }

    fn least(
        &self,
        detail: u8,
        candidates: impl Iterator<Item = Slot> + Clone,
        world: &mut World,
    ) -> Option<u32> {
        if detail == cost::TWOS {
            return self.two(candidates, world);
        }
        let mut best: Option<(Slot, u32)> = None;
        for slot in candidates {
            let load = (world.load)(slot.server());
            if load.overloaded {
                continue;
            }
            let (cost, weight) = match detail {
                cost::LC => (overhead(load.active, load.inactive, self.since_2026), 1),
                cost::WLC => (overhead(load.active, load.inactive, self.since_2026), slot.number()),
                cost::SED => (load.active + 1, slot.number()),
                cost::NQ if load.active == 0 => return Some(slot.server()),
                cost::NQ => (load.active + 1, slot.number()),
                // The heaviest: the same cost for all.
                cost::OVF if load.active <= slot.number() => (1, slot.number()),
                _ => continue,
            };
            // Under lc all weights are 1 to the comparison.
            if best.is_none_or(|(held, than)| {
                let than_weight = if detail == cost::LC { 1 } else { held.number() };
                is_cheaper(cost, weight, than, than_weight)
            }) {
                best = Some((slot, cost));
            }
        }
        best.map(|(slot, _)| slot.server())
    }

    /// Of two drawn by weight the less busy. The comparison has 64 bits; IPVS's has 32 and goes wrong past 2^31.
    fn two(&self, candidates: impl Iterator<Item = Slot> + Clone, world: &mut World) -> Option<u32> {
        let usable = || candidates.clone().filter(|slot| !(world.load)(slot.server()).overloaded);
        let total: u64 = usable().map(|slot| u64::from(slot.number())).sum();
        let pick = |lot: u64| {
            let mut reached = 0;
            usable().find(|slot| {
                reached += u64::from(slot.number());
                lot <= reached
            })
        };
        let (one, two) = ((world.draw)(total), (world.draw)(total));
        let (one, two) = (pick(one)?, pick(two)?);
        let cost = |slot: Slot| {
            let load = (world.load)(slot.server());
            overhead(load.active, load.inactive, self.since_2026)
        };
        let other = is_cheaper(cost(two), two.number(), cost(one), one.number());
        Some(if other { two.server() } else { one.server() })
    }

    fn local(&mut self, plan: &Plan, packet: &Packet, world: &mut World) -> Option<u32> {
        let candidates = self.stretch(&plan.slots);
        let replicate = plan.detail & locality::REPLICATE != 0;
        let found = self.destinations.get_mut(&packet.destination);
        let known = found.is_some();
        if let Some(destination) = found {
            let server = if replicate {
                destination.cheapest_and_thin_out(self.lblcr_expiration, self.since_2026, world)
            } else {
                destination.servers.first().copied().filter(|&server| {
                    let server = (world.server)(server);
                    server.available && server.weight > 0
                })
            };
            if let Some(server) = server
                && !is_crowded(server, candidates.clone(), world)
            {
                return Some(server);
            }
        }
        let server = self.least(cost::WLC, candidates, world)?;
        if known || self.destinations.len() < DESTINATIONS {
            let fresh = || Destination { modified: world.now, servers: Vec::new() };
            let destination = self.destinations.entry(packet.destination).or_insert_with(fresh);
            if !replicate {
                destination.servers = vec![server];
            } else if !destination.servers.contains(&server) {
                destination.servers.insert(0, server);
                // IPVS's sets have no bound; here the oldest makes room.
                destination.servers.truncate(LOCALITY_SET as usize);
                destination.modified = world.now;
            }
        }
        Some(server)
    }
}

impl Destination {
    /// The set's cheapest by wlc; then a set that has not changed for long loses its most loaded, which may be the same.
    fn cheapest_and_thin_out(&mut self, expiration: u64, since_2026: bool, world: &World) -> Option<u32> {
        let weighed = |&id: &u32| {
            let load = (world.load)(id);
            let weight = (world.server)(id).weight;
            (weight > 0).then(|| (id, weight, overhead(load.active, load.inactive, since_2026)))
        };
        let mut best: Option<(u32, u32, u32)> = None;
        let mut worst: Option<(u32, u32, u32)> = None;
        for (server, weight, cost) in self.servers.iter().filter_map(weighed) {
            let takes = (world.server)(server).available && !(world.load)(server).overloaded;
            if takes && best.is_none_or(|(_, than_weight, than)| is_cheaper(cost, weight, than, than_weight))
            {
                best = Some((server, weight, cost));
            }
            if worst.is_none_or(|(_, than_weight, than)| is_cheaper(than, than_weight, cost, weight)) {
                worst = Some((server, weight, cost));
            }
        }
        if self.servers.len() > 1
            && world.now > self.modified + expiration
            && let Some((worst, _, _)) = worst
        {
            self.servers.retain(|&server| server != worst);
            self.modified = world.now;
        }
        best.map(|(server, _, _)| server)
    }
}

/// More active flows than its weight, while a candidate this flow looks at has fewer than half of its own.
fn is_crowded(server: u32, mut candidates: impl Iterator<Item = Slot>, world: &World) -> bool {
    let active = |server| (world.load)(server).active;
    active(server) > (world.server)(server).weight
        && candidates.any(|slot| u64::from(active(slot.server())) * 2 < u64::from(slot.number()))
}

/// fo: the first that is not overloaded. Of more than [`CYCLE_TRIES`] servers only the heaviest are looked at.
fn first(slots: &[Slot], world: &World) -> Option<u32> {
    slots.iter().take(CYCLE_TRIES).map(|slot| slot.server()).find(|&server| !(world.load)(server).overloaded)
}

fn hashed(plan: &Plan, packet: &Packet, world: &World) -> Option<u32> {
    let usable = |at: u32| {
        let slot = plan.slots[at as usize];
        (slot.number() > 0 && !(world.load)(slot.server()).overloaded).then(|| slot.server())
    };
    let port = if plan.detail & hash_detail::PORT != 0 { packet.source_port } else { 0 };
    let (size, place): (u32, &dyn Fn(u32) -> u32) = match plan.detail & hash_detail::TABLE {
        hash_detail::DH => return usable(hash::dh(&packet.destination)),
        hash_detail::SH => (hash::SH_TABLE, &|offset| hash::sh(&packet.source, port, offset)),
        _ => (MH_TABLE, &|offset| hash::mh(&packet.source, port, offset) % MH_TABLE),
    };
    let first = place(0);
    if plan.detail & hash_detail::FALLBACK == 0 {
        return usable(first);
    }
    usable(first).or_else(|| (0..HASH_PROBES).find_map(|offset| usable(place((first + offset) % size))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Scheduler, SchedulerFlags};
    use crate::scheduler::{Entry, Schedule};

    #[test]
    fn a_light_server_is_found_behind_heavy_overloaded_ones() {
        let address = "10.0.0.1".parse().unwrap();
        let mut list: Vec<_> = (2..12).map(|id| Entry::new(id, address, 80, 100)).collect();
        list.push(Entry::new(1, address, 80, 1));
        let schedule = Schedule::new(Scheduler::Wrr, SchedulerFlags::default(), list);
        let source = Addr::from(address);
        let packet = Packet { source, source_port: 0, destination: source };
        for begin in 0..2 * schedule.plan().slots.len() as u64 {
            let mut datapath = Datapath::new(begin);
            let load = |id| Load { overloaded: id != 1, ..Load::default() };
            let server = |_| Server { weight: 1, available: true };
            let mut world = World { load: &load, server: &server, draw: &mut |_| 0, now: 0 };
            assert_eq!(datapath.choose(schedule.plan(), &packet, &mut world), Some(1), "from {begin}");
            assert!(datapath.cursor > begin && datapath.cursor - begin <= schedule.plan().slots.len() as u64);
        }
    }
}
