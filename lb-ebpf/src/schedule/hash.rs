//! sh, dh, mh: the slot a hash of the packet names.

use super::{NOBODY, is_usable, slot};
use crate::{parse::Packet, tables::Tables};
use lb_common::{
    flow::Words,
    hash::{dh, mh, sh},
    plan::{PlanHead, Slot, hash_detail},
};

/// Slots tried with a fallback flag. That is the whole table of sh. IPVS tries as often as mh's table has slots (4093);
/// with one usable server in a hundred, 256 tries miss it once in thirteen.
const FALLBACKS: u32 = 256;

#[inline(always)]
pub(super) fn choose<T: Tables>(tables: &T, plan: PlanHead, packet: &Packet) -> u32 {
    let len = plan.len();
    if len == 0 {
        return NOBODY;
    }
    let detail = plan.detail();
    let table = detail & hash_detail::TABLE;
    let client = &packet.key.client;
    let port = if detail & hash_detail::PORT != 0 { packet.key.client_port() } else { 0 };
    let first = if table == hash_detail::MH {
        mh(client, port, 0)
    } else if table == hash_detail::DH {
        dh(&packet.key.vip)
    } else {
        sh(client, port, 0)
    } % len;
    let found = slot(tables, plan, first);
    if takes(tables, found) {
        return found.server();
    }
    if detail & hash_detail::FALLBACK == 0 {
        return NOBODY;
    }
    let Some(words) = tables.scratch() else { return NOBODY };
    words.store(TABLE, (table == hash_detail::MH) as u32);
    words.store(LEN, len);
    words.store(FIRST, first);
    words.store(PORT, port as u32);
    let mut offset = 0;
    while offset < FALLBACKS {
        let len = words.load(LEN);
        if offset >= len {
            break;
        }
        // Both schedulers hash the place of the first try again instead of walking on from it.
        let again = (words.load(FIRST) + offset) % len;
        let port = words.load(PORT) as u16;
        let index =
            if words.load(TABLE) != 0 { mh(client, port, again) } else { sh(client, port, again) } % len;
        let found = slot(tables, plan, index);
        if found.server() == NOBODY {
            break;
        }
        if takes(tables, found) {
            return found.server();
        }
        offset += 1;
    }
    NOBODY
}

/// Words of the scratch memory, where a loop's constants are kept from the verifier: it would walk the loop once for
/// every combination of them.
const TABLE: u32 = 0;
const LEN: u32 = 1;
const FIRST: u32 = 2;
const PORT: u32 = 3;

/// A drained server keeps its slots but takes nobody.
#[inline(always)]
fn takes<T: Tables>(tables: &T, slot: Slot) -> bool {
    slot.number() != 0 && is_usable(tables, slot)
}
