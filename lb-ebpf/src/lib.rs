//! The packet's path.
//!
//! Plain Rust over a [`Tables`] trait and a bounds-checked [`Frame`]: it never names the kernel, so the same
//! functions run in the BPF program, under `cargo test`, in fuzzers and under Miri. [`process`] is a packet's life.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod admit;
pub mod checksum;
pub mod flow;
pub mod forward;
pub mod fragment;
pub mod frame;
pub mod icmp;
pub mod parse;
pub mod persist;
pub mod reply;
pub mod schedule;
pub mod service;
pub mod state;
pub mod tables;
pub mod verdict;
pub mod wire;

use frame::{Frame, Room};
use lb_common::{
    counters::Reason,
    flow::{V4, V6},
    net::proto,
    service::{Service, service_flag},
    settings::Settings,
};
use parse::{Fragment, Packet};
use schedule::Memory;
use tables::Tables;
use verdict::{Forwarded, Stop};

/// A packet's life: what it is, which server its flow has, and the way there.
#[inline(always)]
pub fn process<R: Room, T: Tables>(frame: &mut Frame<R>, tables: &T) -> Result<Forwarded, Reason> {
    let settings = tables.settings().ok_or(Reason::PassedNoService)?;
    let now = tables.now();
    let mut packet = parse::packet(frame, tables).map_err(|stop| stop.reason)?;
    journey(frame, tables, settings, &mut packet, now).map_err(|stop| {
        fragment::stopped(tables, settings, &packet, stop, now);
        reply::end(frame, tables, settings, &packet, stop, now)
    })
}

#[inline(always)]
fn journey<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    packet: &mut Packet,
    now: u32,
) -> Result<Forwarded, Stop> {
    if icmp::is_icmp(packet) {
        icmp::subject(frame, tables, settings, packet, now)?;
    }
    let route = match known(tables, settings, packet, now)? {
        Some(route) => route,
        None => opened(tables, settings, packet, now)?,
    };
    if packet.quote != packet.l3 {
        return Err(icmp::tunnel::tell(frame, packet));
    }
    fragment::lead(tables, settings, packet, route.server, now);
    tables.account(route.server, route.is_new, packet.length);
    forward::send(frame, tables, settings, packet, route.server, now)
}

/// What every step of opening a flow works with. One value, because a BPF function takes five arguments.
pub struct Scene<'a, T> {
    pub tables: &'a T,
    pub settings: &'a Settings,
    pub packet: &'a Packet,
    /// Jiffies, low 32 bits.
    pub now: u32,
}

/// Where a packet goes.
struct Route {
    server: u32,
    /// This packet opened the flow, or is one by itself.
    is_new: bool,
}

/// The server of a known flow, so that an established packet costs one lookup.
#[inline(always)]
fn known<T: Tables>(
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    now: u32,
) -> Result<Option<Route>, Stop> {
    if packet.fragment == Fragment::Later {
        let server = fragment::follow(tables, packet, now)?;
        return Ok(Some(Route { server, is_new: false }));
    }
    let known = if packet.is_v6 {
        flow::follow::<V6, T>(tables, settings, packet, now)?
    } else {
        flow::follow::<V4, T>(tables, settings, packet, now)?
    };
    let Some(known) = known else { return Ok(None) };
    admit::source(tables, packet)?;
    if known.assures {
        persist::assure(tables, settings, packet, known.server);
    }
    Ok(Some(Route { server: known.server, is_new: false }))
}

/// The server of a new flow: its service's choice, remembered unless the service or the flood says otherwise.
///
/// A function of its own in the kernel too, as every step that an established packet does not take: the program's 512
/// bytes of stack hold one such step at a time.
#[inline(never)]
fn opened<T: Tables>(tables: &T, settings: &Settings, packet: &Packet, now: u32) -> Result<Route, Stop> {
    let id = service::find(tables, packet).ok_or(miss(packet))?;
    let service = tables.service(id).ok_or(miss(packet))?;
    admit::source(tables, packet)?;
    may_open(tables, settings, packet, service, now)?;
    admit::opening(tables, settings, packet, now)?;

    let scene = &Scene { tables, settings, packet, now };
    let persistent = persist::is_on(tables, service);
    let mut memory = Memory::Flow;
    if service.has(service_flag::STATELESS) || !admit::may_remember(tables, settings, now) {
        memory = Memory::None;
    }
    // Twice only if the flow could not be remembered.
    let mut tries = 0;
    while tries < 2 {
        tries += 1;
        let mut pinned = None;
        if persistent && memory == Memory::Flow {
            pinned = persist::pinned(scene, id, service);
        }
        let Some(server) = pinned.or_else(|| schedule::choose(scene, id, memory)) else {
            return Err(reply::no_destination(packet, service));
        };
        if memory == Memory::None {
            if !service.has(service_flag::STATELESS) {
                admit::forget(tables, settings, now);
            }
            return Ok(Route { server, is_new: state::is_attempt(packet) });
        }
        if persistent && pinned.is_none() {
            persist::pin(scene, id, service, server);
        }
        if service.has(service_flag::ONE_PACKET) && packet.key.protocol == proto::UDP as u32 {
            return Ok(Route { server, is_new: true });
        }
        let opened = if packet.is_v6 {
            flow::open::<V6, T>(scene, server, persistent)
        } else {
            flow::open::<V4, T>(scene, server, persistent)
        };
        if let Some(server) = opened {
            return Ok(Route { server, is_new: true });
        }
        memory = Memory::None;
    }
    Err(Reason::DroppedNoDestination.into())
}

/// A packet that no service wants. An error about one of our own tunnel packets was meant for us all the same.
#[inline(always)]
fn miss(packet: &Packet) -> Stop {
    if packet.quote != packet.l3 {
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
    if packet.quote != packet.l3 {
        return Err(Reason::DroppedTunnelError.into());
    }
    if packet.is_error {
        return icmp::may_open(settings);
    }
    // A flow that nobody remembers looks new in the middle: a stateless service's always, others' after a flood.
    let lenient = service.has(service_flag::STATELESS) || admit::is_forgetful(tables, settings, now);
    if !state::may_open(settings, packet, lenient) {
        return Err(Reason::PassedNotOpening.into());
    }
    if packet.key.client_port() == service::FTP_DATA {
        return Err(Reason::PassedFtpData.into());
    }
    Ok(())
}
