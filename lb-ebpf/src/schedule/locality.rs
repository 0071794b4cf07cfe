//! lblc, lblcr: the server (or one of the servers) that the packet's destination went to before, unless it is crowded.

use super::{
    NOBODY,
    least::{Best, Cost, Stretch, candidate, cheapest},
};
use crate::{parse::Packet, tables::Tables};
use lb_common::{
    counters::Note,
    flow::{Words, counts},
    limits::{LEAST_CANDIDATES, LOCALITY_SET},
    locality::{LocalityKey, word},
    plan::{is_cheaper, locality},
    server::server_flag,
    settings::Settings,
};

/// CPUs change a destination's words without a lock. What they can spoil is one destination's affinity for one flow:
/// every id is looked up before it is used, and the count is bounded where it is read.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, settings: &Settings, service: u32, packet: &Packet, now: u32) -> u32 {
    let plan = tables.plan(service);
    let key = LocalityKey { destination: packet.key.vip, service };
    let replicate = plan.detail() & locality::REPLICATE != 0;
    let Some(words) = tables.scratch() else { return NOBODY };
    // One stretch for both questions: what makes the kept server crowded is among what is then compared.
    let stretch = Stretch::take(tables, words, plan);
    let known = tables.locality(&key);
    if let Some(entry) = known {
        entry.store(word::USED, now);
        let kept = if replicate { of_set(tables, settings, entry, now) } else { of_one(tables, entry) };
        if kept != NOBODY && !is_crowded(tables, stretch, kept) {
            return kept;
        }
    }
    let chosen = cheapest(tables, words, stretch, Cost::wlc(settings));
    if chosen == NOBODY {
        return NOBODY;
    }
    match known {
        Some(entry) if replicate => add(entry, chosen, now),
        Some(entry) => entry.store(word::SERVERS, chosen),
        None => {
            if !tables.locality_insert(&key, chosen, now) {
                tables.note(Note::LocalityFull);
            }
        }
    }
    chosen
}

/// lblc: the one server, if it is in the configuration and not drained, else 0. Overload does not matter (IPVS).
#[inline(always)]
fn of_one<T: Tables>(tables: &T, entry: T::Cells) -> u32 {
    let id = entry.load(word::SERVERS);
    match tables.server(id) {
        Some(server) if server.has(server_flag::AVAILABLE) && server.weight > 0 => id,
        _ => NOBODY,
    }
}

#[inline(always)]
fn count<W: Words>(entry: W) -> u32 {
    let count = entry.load(word::COUNT);
    if count > LOCALITY_SET { LOCALITY_SET } else { count }
}

/// lblcr: the least loaded of the set, or 0. A set of several that has not changed for long loses its most loaded,
/// which may be the one just chosen.
#[inline(always)]
fn of_set<T: Tables>(tables: &T, settings: &Settings, entry: T::Cells, now: u32) -> u32 {
    let by = Cost::wlc(settings);
    let count = count(entry);
    let Some(words) = tables.scratch() else { return NOBODY };
    let best = Best::none(words);
    words.store(WORST, 0);
    let mut i = 0;
    while i < LOCALITY_SET {
        if i >= count {
            break;
        }
        let id = entry.load(word::SERVERS + i);
        i += 1;
        let (Some(server), Some(load)) = (tables.server(id), tables.load(id)) else { continue };
        let weight = server.weight;
        if weight == 0 {
            continue;
        }
        let (active, inactive) = counts(load);
        let cost = by.with(active, inactive);
        if server.has(server_flag::AVAILABLE) && !super::is_overloaded(tables, id) {
            best.offer(id, cost, weight);
        }
        let than = (words.load(WORST + 1), words.load(WORST + 2));
        if words.load(WORST) == 0 || is_cheaper(than.0, than.1, cost, weight) {
            words.store(WORST, id);
            words.store(WORST + 1, cost);
            words.store(WORST + 2, weight);
        }
    }
    let worst = words.load(WORST);
    let settled = entry.load(word::MODIFIED).wrapping_add(settings.lblcr_expiration);
    if count > 1 && worst != 0 && now.wrapping_sub(settled) as i32 > 0 {
        remove(entry, worst, count, now);
    }
    best.server()
}

/// Words of the scratch memory behind those of `Best`: the most loaded server, its cost and weight.
const WORST: u32 = 3;

/// IPVS's test for moving a destination elsewhere: the server has more active flows than its weight, while some other
/// candidate has less than half of its own.
#[inline(always)]
fn is_crowded<T: Tables>(tables: &T, stretch: Stretch<T::Cells>, id: u32) -> bool {
    let (Some(server), Some(load)) = (tables.server(id), tables.load(id)) else { return true };
    if counts(load).0 <= server.weight {
        return false;
    }
    let (plan, first) = stretch.again();
    let mut i = 0;
    while i < LEAST_CANDIDATES {
        if i >= plan.len() {
            break;
        }
        let candidate = candidate(tables, plan, first, i);
        if let Some(load) = tables.load(candidate.server())
            && 2 * (counts(load).0 as u64) < candidate.number() as u64
        {
            return true;
        }
        i += 1;
    }
    false
}

/// Puts a server at the front of the set unless it is in it. A full set loses its oldest, where IPVS has no bound.
#[inline(always)]
fn add<W: Words>(entry: W, server: u32, now: u32) {
    let count = count(entry);
    let mut i = 0;
    while i < LOCALITY_SET {
        if i < count && entry.load(word::SERVERS + i) == server {
            return;
        }
        i += 1;
    }
    let mut moved = server;
    let mut i = 0;
    while i < LOCALITY_SET {
        let next = entry.load(word::SERVERS + i);
        entry.store(word::SERVERS + i, moved);
        moved = next;
        i += 1;
    }
    entry.store(word::COUNT, if count < LOCALITY_SET { count + 1 } else { count });
    entry.store(word::MODIFIED, now);
}

#[inline(always)]
fn remove<W: Words>(entry: W, server: u32, count: u32, now: u32) {
    // From the end on, every server up to the one that goes moves one place back.
    let mut moved = 0;
    let mut i = LOCALITY_SET;
    while i > 0 {
        i -= 1;
        if i < count {
            let id = entry.load(word::SERVERS + i);
            entry.store(word::SERVERS + i, moved);
            if id == server {
                break;
            }
            moved = id;
        }
    }
    entry.store(word::COUNT, count - 1);
    entry.store(word::MODIFIED, now);
}
