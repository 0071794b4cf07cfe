//! Step 2: the flow a packet belongs to: looked up, moved to its next state, opened, released.

use crate::{parse::Packet, state, tables::Tables, verdict::Stop};
use lb_common::{
    counters::{Note, Reason},
    flow::{
        self, Buckets, Entry, Evicted, Home, Layout, NewFlow, Opened, Thresholds, Words, control, is_past,
        meta,
    },
    net::proto,
    server::{Method, Server, server_flag},
    settings::{Settings, feature, switch},
    tcp,
};

/// A family of flows: its layout and which of the tables holds it.
pub trait Family: Layout {
    /// Index in [`Settings::buckets`].
    const TABLE: usize;
}

impl Family for flow::V4 {
    const TABLE: usize = 0;
}

impl Family for flow::V6 {
    const TABLE: usize = 1;
}

#[inline(always)]
fn home<F: Family>(settings: &Settings, packet: &Packet) -> Home {
    flow::home::<F>(&settings.seed, &packet.key, settings.buckets[F::TABLE])
}

/// How a flow's packets get to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the server says.
    Server,
    Direct,
    Tunnel,
}

impl Way {
    /// The way a flow keeps to, by its entry's meta word.
    #[inline(always)]
    pub const fn of(meta: u32) -> Self {
        if meta & meta::TUNNEL != 0 { Self::Tunnel } else { Self::Direct }
    }
}

/// A known flow's part in a packet's journey.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub server: u32,
    /// With this packet the flow is established, and so its template assured.
    pub assures: bool,
    pub way: Way,
}

/// The server of a known flow, after the packet did to the flow what it does. `None` for an unknown flow, or one
/// that is over with this packet.
#[inline(always)]
pub fn follow<F: Family, T: Tables + Buckets<F, Words = T::Cells>>(
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    now: u32,
) -> Result<Option<Known>, Stop> {
    let home = home::<F>(settings, packet);
    let mut entry = match find::<F, T>(tables, packet, &home) {
        Some(entry) => entry,
        None => return Ok(None),
    };
    if is_past(entry.expires(), now) {
        release(tables, &entry);
        return Ok(None);
    }
    let id = meta::server(entry.meta);
    let server = tables.server(id).ok_or(Reason::DroppedServerGone)?;
    let mut known = Known { server: id, assures: false, way: Way::of(entry.meta) };
    let protocol = packet.key.protocol as u8;
    let current = control::state(entry.control);
    let available = server.has(server_flag::AVAILABLE);
    if !available && settings.is_on(switch::NO_SERVICES) {
        return Err(Reason::PassedNoService.into());
    }
    // The director's own stack answers what goes up to it with a reset, which closes the flow in IPVS's eyes before the
    // flow is forgotten: a server that is back by then has it closed.
    let resets = !available
        && settings.is_on(switch::EXPIRE_NODEST_CONN)
        && protocol == proto::TCP
        && !state::may_open(settings, packet, false);
    if !resets && is_over(settings, packet, &entry, server) {
        release(tables, &entry);
        return Ok(None);
    }
    if !available && !resets {
        return Err(Reason::DroppedServerGone.into());
    }
    let next = if resets { tcp::state::CLOSE } else { state::next(settings, packet, current) };
    let confirmed = state::is_confirmed(protocol, next, false);
    if next != current || (confirmed && control::is_half_open(entry.control)) {
        let was_active = entry.control & control::ACTIVE != 0;
        let active = state::is_active(protocol, next);
        if entry.transition(next, confirmed, active) {
            if let Some(load) = tables.load(id) {
                flow::move_state(load, was_active, active);
            }
            known.assures = entry.meta & meta::PARENT != 0 && state::is_established(protocol, next);
        }
    }
    entry.set_expires(state::expiry(settings, protocol, next, now));
    if resets {
        return Ok(None);
    }
    Ok(Some(known))
}

/// The server of a known flow, without a change to the flow: for an ICMP error about it.
#[inline(always)]
pub fn server<F: Family, T: Tables + Buckets<F, Words = T::Cells>>(
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    now: u32,
) -> Option<u32> {
    let entry = find::<F, T>(tables, packet, &home::<F>(settings, packet))?;
    if is_past(entry.expires(), now) { None } else { Some(meta::server(entry.meta)) }
}

/// True if this packet ends the flow it finds, so that it begins a new one: a client opens again what is closed, or its
/// server is drained or gone and such flows are not kept.
#[inline(always)]
fn is_over<F: Family, W: Words>(
    settings: &Settings,
    packet: &Packet,
    entry: &Entry<F, W>,
    server: &Server,
) -> bool {
    let available = server.has(server_flag::AVAILABLE);
    let expire_nodest = settings.is_on(switch::EXPIRE_NODEST_CONN);
    if expire_nodest && !available {
        return true;
    }
    if !state::is_attempt(packet) {
        return false;
    }
    let nodest = expire_nodest && server.has(server_flag::DRAINED);
    let state = control::state(entry.control);
    nodest
        || (entry.meta & meta::PARENT == 0 && state::is_reusable(settings, packet.key.protocol as u8, state))
}

#[inline(always)]
fn find<F: Family, T: Tables + Buckets<F, Words = T::Cells>>(
    tables: &T,
    packet: &Packet,
    home: &Home,
) -> Option<Entry<F, T::Cells>> {
    let found = flow::lookup::<F, T>(tables, home, &packet.key);
    if found.is_none() && tables.spilled() != 0 {
        return Entry::in_spill(tables.spill(&packet.key)?);
    }
    found
}

/// Remembers a new flow. The server its packets go to: another one than `server` if another CPU was faster, 0 if
/// the flow could not be remembered. `has_parent`: it belongs to a persistence template.
#[inline(always)]
pub fn open<F: Family, T: Tables + Buckets<F, Words = T::Cells>>(
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    server: u32,
    has_parent: bool,
    now: u32,
) -> u32 {
    // 0 and not `None`: LLVM loads the value of an absent `Option` from wherever it would have been spilled, which the
    // verifier refuses.
    let Some(scratch) = tables.scratch() else { return 0 };
    let home = &home::<F>(settings, packet);
    let protocol = packet.key.protocol as u8;
    // An ICMP error that is scheduled opens the flow it is about without being a packet of it.
    let next = if packet.is_error { 0 } else { state::next(settings, packet, 0) };
    let active = state::is_active(protocol, next);
    let mut bits = next as u32;
    if active {
        bits |= control::ACTIVE;
    }
    if state::is_confirmed(protocol, next, true) {
        bits |= control::CONFIRMED;
    }
    let mut flags = if has_parent { meta::PARENT } else { 0 };
    if tables.features() & feature::TUNNELS != 0
        && tables.server(server).is_some_and(|server| server.method != Method::Dr as u8)
    {
        flags |= meta::TUNNEL;
    }
    let new = NewFlow {
        key: &packet.key,
        meta: meta::pack(server, protocol as u32, flags),
        state_bits: bits,
        expires: state::expiry(settings, protocol, next, now),
        extra: [0; 2],
    };
    match flow::open::<F, T>(tables, scratch, home, &new, now) {
        Opened::New { evicted, twin, .. } => {
            bind(tables, server, active);
            if let Some(evicted) = evicted.who() {
                unbind(tables, evicted);
                tables.note(Note::EvictedHalfOpen);
            }
            if let Some(twin) = twin.who() {
                unbind(tables, twin);
                tables.note(Note::Twin);
            }
        }
        Opened::Known { entry, evicted } => {
            if let Some(evicted) = evicted.who() {
                unbind(tables, evicted);
            }
            tables.note(Note::Twin);
            return meta::server(entry.meta);
        }
        Opened::Full | Opened::Contended => {
            // A flow that ended keeps its place in the spill map until the sweeper comes by.
            let place = if tables.spilled() != 0 { tables.spill(&packet.key) } else { None };
            let spilled = match place {
                Some(words) => Entry::<F, T::Cells>::refill_spill(words, &new),
                None => {
                    let fill = |words| Entry::<F, T::Cells>::fill_spill(words, &new);
                    tables.spill_insert(&packet.key, fill)
                }
            };
            if !spilled {
                tables.note(Note::NotRemembered);
                return 0;
            }
            tables.note(Note::Spilled);
            bind(tables, server, active);
        }
    }
    server
}

#[inline(always)]
pub fn thresholds<T: Tables>(tables: &T, server: u32) -> Option<&Thresholds> {
    if tables.features() & feature::THRESHOLDS == 0 {
        return None;
    }
    tables.thresholds(server)
}

#[inline(always)]
fn bind<T: Tables>(tables: &T, server: u32, active: bool) {
    if let Some(load) = tables.load(server) {
        flow::bind(load, thresholds(tables, server), active);
    }
}

#[inline(always)]
fn unbind<T: Tables>(tables: &T, gone: Evicted) {
    let server = meta::server(gone.meta);
    if let Some(load) = tables.load(server) {
        flow::unbind(load, thresholds(tables, server), gone.control & control::ACTIVE != 0);
    }
}

/// Takes a flow out and off its server's count. Its template's children are recounted by the sweeper.
#[inline(always)]
fn release<L: Layout, T: Tables>(tables: &T, entry: &Entry<L, T::Cells>) {
    if entry.remove() {
        unbind(tables, Evicted { control: entry.control, meta: entry.meta });
    }
}
