//! What only some packets go through. Each stage is a function here and a program in the kernel; a [`Trip`] is what
//! one leaves for the next.

use crate::{
    admit,
    flow::{self, Family, Way},
    forward,
    frame::{Frame, Room},
    icmp, on,
    parse::Packet,
    persist, reply,
    schedule::{self, Choice, Memory, NOBODY},
    service, settle, state,
    tables::Tables,
    verdict::{Forwarded, Stop},
};
pub use lb_common::stage::Stage;

use lb_common::{
    counters::Reason,
    flow::{Buckets, V4, V6},
    net::proto,
    service::{Service, service_flag},
    settings::Settings,
};

/// What becomes of a packet next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Forwarded(Forwarded),
    /// The journey ends, for a reason whose verdict says how.
    End(Reason),
    Stage(Stage),
}

/// What is known of a packet between two stages.
#[derive(Clone, Copy, Debug)]
pub struct Trip {
    pub packet: Packet,
    /// 0 until there is one.
    pub server: u32,
    pub way: Way,
    pub service: u32,
    pub memory: Memory,
    /// This packet opened the flow, or is one by itself.
    pub is_new: bool,
    /// Sum of the packet's bytes, for a tunnel with a checksum.
    pub sum: u32,
    pub stop: Stop,
}

impl Trip {
    #[inline(always)]
    pub fn new(packet: Packet) -> Self {
        Self {
            packet,
            server: 0,
            way: Way::Server,
            service: 0,
            memory: Memory::Flow,
            is_new: false,
            sum: 0,
            stop: Stop::new(Reason::PassedNoService),
        }
    }

    /// The trip as the next stage takes it up. The verifier does not know what was stored, so the bounds that hold
    /// anyway are stated again: a link header is at most 22 bytes, a walk over headers ends within 4 KiB, an IPv6 payload
    /// within 64 KiB.
    #[inline(always)]
    pub fn resumed(&self) -> Self {
        let mut trip = *self;
        trip.packet.l3 &= 0x1f;
        trip.packet.l4 &= 0xfff;
        trip.packet.quote &= 0xfff;
        trip.packet.length &= 0x1ffff;
        trip
    }
}

/// Runs a stage over what the one before it left.
#[inline(always)]
pub fn run<R: Room, T: Tables>(stage: Stage, frame: &mut Frame<R>, tables: &T) -> Next {
    let Some(settings) = tables.settings() else { return Next::End(Reason::DroppedNoStage) };
    let Some(left) = tables.trip() else { return Next::End(Reason::DroppedNoStage) };
    let trip = &mut left.resumed();
    let now = tables.now();
    let next = match stage {
        Stage::Icmp => error(frame, tables, settings, trip, now),
        Stage::Assure => assure(tables, settings, trip),
        Stage::Open => unknown(frame, tables, settings, trip, now),
        Stage::Choose => choose(tables, trip),
        Stage::Least => {
            let chosen = schedule::least::choose(tables, settings, tables.plan(trip.service));
            chose(tables, trip, chosen)
        }
        Stage::Twos => {
            let chosen = schedule::twos::choose(tables, settings, trip.service);
            chose(tables, trip, chosen)
        }
        Stage::Locality => {
            let chosen = schedule::locality::choose(tables, settings, trip.service, &trip.packet, now);
            chose(tables, trip, chosen)
        }
        Stage::Pin => pin(tables, settings, trip, now),
        Stage::Remember4 => remember_and_send::<V4, R, T>(frame, tables, settings, trip, now),
        Stage::Remember6 => remember_and_send::<V6, R, T>(frame, tables, settings, trip, now),
        Stage::Forward => on(frame, tables, settings, trip, now),
        Stage::Sum => forward::sum(frame, trip).map(|()| Next::Stage(Stage::Tunnel)),
        Stage::Tunnel => forward::tunnel(frame, tables, settings, trip, now).map(Next::Forwarded),
        Stage::Reply => return Next::End(reply::send(frame, tables, settings, trip, now)),
    };
    settle(tables, trip, next)
}

#[inline(always)]
fn error<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    trip: &mut Trip,
    now: u32,
) -> Result<Next, Stop> {
    icmp::subject(frame, tables, settings, &mut trip.packet, now)?;
    let packet = &trip.packet;
    let server = if packet.is_v6 {
        flow::server::<V6, T>(tables, settings, packet, now)
    } else {
        flow::server::<V4, T>(tables, settings, packet, now)
    };
    let Some(server) = server else { return Ok(Next::Stage(Stage::Open)) };
    if packet.is_about_tunnel() {
        return Err(icmp::tunnel::tell(frame, packet));
    }
    admit::source(tables, packet)?;
    trip.server = server;
    Ok(Next::Stage(Stage::Forward))
}

#[inline(always)]
fn assure<T: Tables>(tables: &T, settings: &Settings, trip: &Trip) -> Result<Next, Stop> {
    admit::source(tables, &trip.packet)?;
    persist::assure(tables, settings, &trip.packet, trip.server);
    Ok(Next::Stage(Stage::Forward))
}

/// An unknown flow's way as far as one program holds it. Every stage that is a program of its own costs a packet some
/// 20 ns, and most new flows need no other than these.
#[inline(always)]
fn unknown<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    trip: &mut Trip,
    now: u32,
) -> Result<Next, Stop> {
    let mut next = open(tables, settings, trip, now)?;
    if next == Next::Stage(Stage::Choose) {
        next = choose(tables, trip)?;
    }
    if next == Next::Stage(Stage::Remember4) {
        return remember_and_send::<V4, R, T>(frame, tables, settings, trip, now);
    }
    Ok(next)
}

/// Remembers the choice and goes on to the server at once, unless it has to be made again.
#[inline(always)]
fn remember_and_send<F: Family, R: Room, T: Tables + Buckets<F, Words = T::Cells>>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    trip: &mut Trip,
    now: u32,
) -> Result<Next, Stop> {
    let next = remember::<F, T>(tables, settings, trip, now)?;
    if next == Next::Stage(Stage::Forward) {
        return on(frame, tables, settings, trip, now);
    }
    Ok(next)
}

/// The service of an unknown flow; its client's template, if it has one.
#[inline(always)]
fn open<T: Tables>(tables: &T, settings: &Settings, trip: &mut Trip, now: u32) -> Result<Next, Stop> {
    let packet = &trip.packet;
    let id = service::find(tables, packet).ok_or(miss(packet))?;
    let service = tables.service(id).ok_or(miss(packet))?;
    trip.service = id;
    admit::source(tables, packet)?;
    may_open(tables, settings, packet, service, now)?;
    admit::opening(tables, settings, packet, now)?;

    // A packet that opens nothing and was let in all the same is of a flow that went by hash when it was opened, and
    // goes where that went.
    let began_before = !packet.is_error && !state::may_open(settings, packet, false);
    if service.has(service_flag::STATELESS) || began_before || !admit::may_remember(tables, settings, now) {
        trip.memory = Memory::None;
    } else if persist::is_on(tables, service)
        && let Some(server) = persist::pinned(tables, settings, packet, id, service, now)
    {
        trip.server = server;
        return Ok(Next::Stage(to_remember(packet)));
    }
    Ok(Next::Stage(Stage::Choose))
}

/// The server of a new flow, by executing the service's plan.
#[inline(always)]
fn choose<T: Tables>(tables: &T, trip: &mut Trip) -> Result<Next, Stop> {
    match schedule::choose(tables, trip.service, &trip.packet, trip.memory) {
        Choice::Server(server) => chose(tables, trip, server),
        Choice::Stage(stage) => Ok(Next::Stage(stage)),
    }
}

#[inline(always)]
fn chose<T: Tables>(tables: &T, trip: &mut Trip, server: u32) -> Result<Next, Stop> {
    let packet = &trip.packet;
    let service = tables.service(trip.service).ok_or(miss(packet))?;
    if server == NOBODY {
        return Err(reply::no_destination(packet, service));
    }
    trip.server = server;
    let pins = trip.memory == Memory::Flow && persist::is_on(tables, service);
    Ok(Next::Stage(if pins { Stage::Pin } else { to_remember(packet) }))
}

#[inline(always)]
fn pin<T: Tables>(tables: &T, settings: &Settings, trip: &mut Trip, now: u32) -> Result<Next, Stop> {
    let packet = &trip.packet;
    let service = tables.service(trip.service).ok_or(miss(packet))?;
    persist::pin(tables, settings, packet, trip.service, service, trip.server, now);
    Ok(Next::Stage(to_remember(packet)))
}

#[inline(always)]
fn to_remember(packet: &Packet) -> Stage {
    if packet.is_v6 { Stage::Remember6 } else { Stage::Remember4 }
}

/// Remembers the choice, unless the service or the flood says otherwise. What can be remembered nowhere is chosen
/// again in a way that needs no memory.
#[inline(always)]
fn remember<F: Family, T: Tables + Buckets<F, Words = T::Cells>>(
    tables: &T,
    settings: &Settings,
    trip: &mut Trip,
    now: u32,
) -> Result<Next, Stop> {
    let packet = &trip.packet;
    let service = tables.service(trip.service).ok_or(miss(packet))?;
    trip.is_new = true;
    if trip.memory == Memory::None {
        if !service.has(service_flag::STATELESS) {
            admit::forget(tables, settings, now);
        }
        trip.is_new = state::is_attempt(packet);
    } else if !service.has(service_flag::ONE_PACKET) || packet.key.protocol != proto::UDP as u32 {
        let persistent = persist::is_on(tables, service);
        let server = flow::open::<F, T>(tables, settings, packet, trip.server, persistent, now);
        if server == NOBODY {
            trip.memory = Memory::None;
            return Ok(Next::Stage(Stage::Choose));
        }
        trip.server = server;
    }
    Ok(Next::Stage(Stage::Forward))
}

/// A packet that no service wants. An error about one of our own tunnel packets was meant for us all the same.
#[inline(always)]
fn miss(packet: &Packet) -> Stop {
    if packet.is_about_tunnel() {
        Reason::DroppedTunnelError.into()
    } else if packet.is_error {
        Reason::PassedIcmp.into()
    } else {
        Reason::PassedNoService.into()
    }
}

/// What an unknown flow must be to be scheduled.
#[inline(always)]
fn may_open<T: Tables>(
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    service: &Service,
    now: u32,
) -> Result<(), Stop> {
    if packet.is_about_tunnel() {
        return Err(Reason::DroppedTunnelError.into());
    }
    let stateless = service.has(service_flag::STATELESS);
    if packet.is_error {
        return if stateless { Ok(()) } else { icmp::may_open(settings) };
    }
    // A flow that nobody remembers looks new in the middle: a stateless service's always, others' after a flood.
    let lenient = stateless || admit::is_forgetful(tables, settings, now);
    if !state::may_open(settings, packet, lenient) {
        return Err(Reason::PassedNotOpening.into());
    }
    if packet.key.client_port() == service::FTP_DATA {
        return Err(Reason::PassedFtpData.into());
    }
    Ok(())
}
