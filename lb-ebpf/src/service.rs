//! Step 3: the virtual service a new flow asks for.

use crate::{parse::Packet, tables::Tables};
use lb_common::{
    net::{Addr, Be16, proto},
    service::{MatchSet, ServiceKey, key_kind},
    settings::feature,
};

/// The first unprivileged port (`net.ipv4.ip_unprivileged_port_start`): where passive FTP's data goes.
const UNPRIVILEGED: u16 = 1024;
pub const FTP: u16 = 21;
pub const FTP_DATA: u16 = 20;

/// Id of the service a packet is for.
///
/// The exact place comes first, then FTP's data connections (IPVS: with a service on port 21, those to port 20 and
/// to unprivileged ports are its own), then any port, then prefixes and ranges.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, packet: &Packet) -> Option<u32> {
    let port = packet.key.vip_port();
    let protocol = packet.key.protocol as u8;
    let mut key = ServiceKey {
        address: packet.key.vip,
        port: Be16::from_host(port),
        protocol,
        kind: key_kind::SERVICE,
    };
    if let Some(id) = tables.service_at(&key) {
        return Some(id);
    }
    let features = tables.features();
    if features & feature::FTP != 0 && protocol == proto::TCP && (port == FTP_DATA || port >= UNPRIVILEGED) {
        key.port = Be16::from_host(FTP);
        if let Some(id) = tables.service_at(&key) {
            return Some(id);
        }
    }
    if features & feature::ANY_PORT != 0 {
        key.port = Be16::from_host(0);
        if let Some(id) = tables.service_at(&key) {
            return Some(id);
        }
    }
    if features & feature::PREFIXES != 0 {
        return among(tables.matches(&packet.key.vip)?, protocol, port);
    }
    None
}

/// The first rule that fits.
#[inline(always)]
fn among(set: &MatchSet, protocol: u8, port: u16) -> Option<u32> {
    let mut i = 0;
    while i < set.rules.len() {
        let rule = &set.rules[i];
        if i as u32 >= set.count {
            return None;
        }
        let fits = rule.protocol == protocol || rule.protocol == 0;
        if fits && rule.from <= port && port <= rule.to {
            return Some(rule.service);
        }
        i += 1;
    }
    None
}

/// True if the address belongs to any service, whatever the port.
#[inline(always)]
pub fn is_vip<T: Tables>(tables: &T, address: &Addr) -> bool {
    let key = ServiceKey { address: *address, kind: key_kind::VIP, ..Default::default() };
    tables.service_at(&key).is_some()
        || (tables.features() & feature::PREFIXES != 0 && tables.matches(address).is_some())
}
