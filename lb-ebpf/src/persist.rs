//! Persistence: a client's flows keep to the server its template names.

use crate::{flow::thresholds, parse::Packet, state, tables::Tables};
use lb_common::{
    flow::{self, Entry, NewFlow, Opened, Templates, control, is_past, meta},
    server::server_flag,
    service::{Service, service_flag},
    settings::{Settings, feature, switch},
};

/// What a template's life falls to once it ended under live flows, in seconds (IPVS).
const ENDED_SECONDS: u32 = 60;

/// Index of the templates in [`Settings::buckets`].
const TABLE: usize = 2;

/// True if clients of the service are pinned to servers.
#[inline(always)]
pub fn is_on<T: Tables>(tables: &T, service: &Service) -> bool {
    tables.features() & feature::PERSISTENCE != 0 && service.has(service_flag::PERSISTENT)
}

/// The persistence template of a packet's client, if there is one.
#[inline(always)]
fn template<T: Tables>(
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    id: u32,
    service: &Service,
) -> Option<Entry<Templates, T::Cells>> {
    let key = service.template_key(id, &packet.key);
    let home = flow::home::<Templates>(&settings.seed, &key, settings.buckets[TABLE]);
    flow::lookup::<Templates, T>(tables, &home, &key)
}

/// Marks the template of a flow of this server: one of its flows was established.
#[inline(always)]
pub fn assure<T: Tables>(tables: &T, settings: &Settings, packet: &Packet, server: u32) {
    let Some(server) = tables.server(server) else { return };
    let id = server.service as u32;
    let Some(service) = tables.service(id) else { return };
    if is_on(tables, service)
        && let Some(template) = template(tables, settings, packet, id, service)
    {
        template.set_flags(meta::ASSURED);
    }
}

/// True if the packet establishes its flow at once, as with `sloppy_tcp`.
#[inline(always)]
fn assures(settings: &Settings, packet: &Packet) -> u32 {
    let protocol = packet.key.protocol as u8;
    let established = !packet.is_error && state::is_established(protocol, state::next(settings, packet, 0));
    if established { meta::ASSURED } else { 0 }
}

/// The server the client's template pins it to, with the template prolonged for the new flow. Weight 0 and overload
/// do not matter here (IPVS), unless `expire_quiescent_template` says that drained servers lose their clients.
#[inline(always)]
pub fn pinned<T: Tables>(
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    id: u32,
    service: &Service,
    now: u32,
) -> Option<u32> {
    let entry = template(tables, settings, packet, id, service)?;
    let server = meta::server(entry.meta);
    if is_past(entry.expires(), now) {
        if entry.extra(Templates::CHILDREN) == 0 {
            forget(tables, &entry);
            return None;
        }
        // Its flows keep it alive, from now on by the minute.
        entry.set_extra(Templates::TIMEOUT, ENDED_SECONDS * settings.hz);
    }
    let usable = match tables.server(server) {
        Some(server) => {
            let drained =
                server.has(server_flag::DRAINED) && settings.is_on(switch::EXPIRE_QUIESCENT_TEMPLATE);
            server.has(server_flag::AVAILABLE) && !drained
        }
        None => false,
    };
    if !usable {
        forget(tables, &entry);
        return None;
    }
    entry.set_expires(state::rounded(now).wrapping_add(entry.extra(Templates::TIMEOUT)));
    entry.add_extra(Templates::CHILDREN, 1);
    entry.set_flags(assures(settings, packet));
    Some(server)
}

/// Pins the client to a server it was just given.
#[inline(always)]
pub fn pin<T: Tables>(
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    id: u32,
    service: &Service,
    server: u32,
    now: u32,
) {
    let key = service.template_key(id, &packet.key);
    let home = flow::home::<Templates>(&settings.seed, &key, settings.buckets[TABLE]);
    let new = NewFlow {
        key: &key,
        meta: meta::pack(server, key.protocol, assures(settings, packet)),
        // A template is never a victim, however few flows it has had.
        state_bits: control::CONFIRMED,
        // Rounded up as its first flow's end is: of two that end at the same time the flow goes first and the template
        // with it, as in IPVS, and does not find that it still has a flow.
        expires: state::rounded(now).wrapping_add(service.persistence),
        extra: [service.persistence, 1],
    };
    let Some(scratch) = tables.scratch() else { return };
    if let Opened::New { evicted, twin, .. } = flow::open::<Templates, T>(tables, scratch, &home, &new, now) {
        if let Some(load) = tables.load(server) {
            flow::bind_template(load, thresholds(tables, server));
        }
        if let Some(gone) = evicted.who() {
            unbind(tables, meta::server(gone.meta));
        }
        if let Some(gone) = twin.who() {
            unbind(tables, meta::server(gone.meta));
        }
    }
}

#[inline(always)]
fn forget<T: Tables>(tables: &T, entry: &Entry<Templates, T::Cells>) {
    if entry.remove() {
        unbind(tables, meta::server(entry.meta));
    }
}

#[inline(always)]
fn unbind<T: Tables>(tables: &T, server: u32) {
    if let Some(load) = tables.load(server) {
        flow::unbind_template(load, thresholds(tables, server));
    }
}
