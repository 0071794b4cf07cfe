//! Fragments: only the first carries ports, so it leaves word where it went and the others follow.

use crate::{
    parse::{Fragment, Packet},
    service,
    tables::Tables,
    verdict::Stop,
};
use lb_common::{
    counters::Reason,
    fragment::{FragmentKey, FragmentRoute},
    settings::Settings,
};

/// How long fragments may follow their first, in seconds (`net.ipv4.ipfrag_time`).
const SECONDS: u32 = 30;

/// In [`FragmentRoute::server`]: the first fragment was left to the local stack.
const STACK: u32 = 0;

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    FragmentKey {
        source: packet.key.client,
        destination: packet.key.vip,
        id: packet.fragment_id,
        // IPv6 fragments are told apart by addresses and identification alone (RFC 8200 §4.5).
        protocol: if packet.is_v6 { 0 } else { packet.key.protocol },
    }
}

/// The server a later fragment follows its first to.
#[inline(always)]
pub fn follow<T: Tables>(tables: &T, packet: &Packet, now: u32) -> Result<u32, Stop> {
    match tables.fragment(&key(packet)) {
        Some(route) if route.expires.wrapping_sub(now) as i32 > 0 => {
            if route.server == STACK {
                return Err(Reason::PassedFragment.into());
            }
            Ok(route.server)
        }
        // Nobody knows its ports any more. For a VIP nothing can be done with it; else it is not ours.
        _ if service::is_vip(tables, &packet.key.vip) => Err(Reason::DroppedFragment.into()),
        _ => Err(Reason::PassedFragment.into()),
    }
}

/// Leaves word where a first fragment goes.
#[inline(always)]
pub fn lead<T: Tables>(tables: &T, settings: &Settings, packet: &Packet, server: u32, now: u32) {
    if packet.fragment == Fragment::First {
        let expires = now.wrapping_add(SECONDS * settings.hz);
        tables.set_fragment(&key(packet), &FragmentRoute { server, expires });
    }
}

/// A first fragment goes up the local stack: the others do too.
#[inline(always)]
pub fn left_to_stack<T: Tables>(tables: &T, packet: &Packet) {
    if let Some(settings) = tables.settings() {
        lead(tables, settings, packet, STACK, tables.now());
    }
}
