//! Step 3: the virtual service a new flow asks for.

use crate::{parse::Packet, tables::Tables};
use lb_common::{
    net::{Addr, Be16, proto},
    service::{FTP, MatchSet, ServiceKey, key_kind},
    settings::feature,
};

/// The first unprivileged port (`net.ipv4.ip_unprivileged_port_start`): where passive FTP's data goes.
const UNPRIVILEGED: u16 = 1024;
pub const FTP_DATA: u16 = 20;

/// Id of the service a packet is for.
///
/// The exact place comes first, then FTP's data connections (IPVS: with a service on port 21, those to port 20 and
/// to unprivileged ports are its own), then any port, then prefixes and ranges.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, packet: &Packet) -> Option<u32> {
    // One variable that always has a value: given an `Option` at every step, LLVM spills the absent ones' values too,
    // which the verifier refuses as never written.
    let id = look(tables, packet);
    if id == NOWHERE { None } else { Some(id) }
}

/// No service's id.
const NOWHERE: u32 = u32::MAX;

#[inline(always)]
fn look<T: Tables>(tables: &T, packet: &Packet) -> u32 {
    let port = packet.key.vip_port();
    let protocol = packet.key.protocol as u8;
    let mut id = at(tables, packet, port);
    let features = tables.features();
    if id == NOWHERE
        && features & feature::FTP != 0
        && protocol == proto::TCP
        && (port == FTP_DATA || port >= UNPRIVILEGED)
    {
        id = at(tables, packet, FTP);
    }
    if id == NOWHERE && features & feature::ANY_PORT != 0 {
        id = at(tables, packet, 0);
    }
    if id == NOWHERE
        && features & feature::PREFIXES != 0
        && let Some(set) = tables.matches(&packet.key.vip)
    {
        id = among(set, protocol, port);
    }
    id
}

/// The service at the packet's address and this port, host order.
#[inline(always)]
fn at<T: Tables>(tables: &T, packet: &Packet, port: u16) -> u32 {
    let key = ServiceKey {
        address: packet.key.vip,
        port: Be16::from_host(port),
        protocol: packet.key.protocol as u8,
        kind: key_kind::SERVICE,
    };
    tables.service_at(&key).unwrap_or(NOWHERE)
}

/// The first rule that fits.
#[inline(always)]
fn among(set: &MatchSet, protocol: u8, port: u16) -> u32 {
    let mut i = 0;
    while i < set.rules.len() {
        let rule = &set.rules[i];
        if i as u32 >= set.count {
            break;
        }
        let fits = rule.protocol == protocol || rule.protocol == 0;
        if fits && rule.from <= port && port <= rule.to {
            return rule.service;
        }
        i += 1;
    }
    NOWHERE
}

/// True if the address belongs to any service, whatever the port.
#[inline(always)]
pub fn is_vip<T: Tables>(tables: &T, address: &Addr) -> bool {
    is_exact(tables, address)
        || (tables.features() & feature::PREFIXES != 0 && tables.matches(address).is_some())
}

/// True if the address is a service's by itself, not by a prefix.
#[inline(always)]
pub fn is_exact<T: Tables>(tables: &T, address: &Addr) -> bool {
    let key = ServiceKey { address: *address, kind: key_kind::VIP, ..Default::default() };
    tables.service_at(&key).is_some()
}
