//! The packet's path.
//!
//! Plain Rust over a [`Tables`] trait and a bounds-checked [`Frame`]: it never names the kernel, so the same
//! functions run in the BPF program, under `cargo test`, in fuzzers and under Miri. [`begin`] is an established packet's
//! life; what only some packets need are the [`stage`]s that follow it, each a program of its own in the kernel, because
//! a program has 512 bytes of stack and a bound on what the verifier walks. [`process`] runs them all in one go.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod admit;
pub mod checksum;
pub mod decap;
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
pub mod short;
pub mod stage;
pub mod state;
pub mod tables;
pub mod verdict;
pub mod wire;

use frame::{Frame, Room};
use lb_common::{
    counters::{Reason, Verdict},
    flow::{V4, V6},
    server::server_flag,
    settings::{Settings, feature},
};
use parse::Fragment;
use stage::{Next, Stage, Trip};
use tables::Tables;
use verdict::{Forwarded, Stop};

/// A packet's whole life, as the host runs it.
pub fn process<R: Room, T: Tables>(frame: &mut Frame<R>, tables: &T) -> Result<Forwarded, Reason> {
    let next = begin(frame, tables);
    go_on(next, frame, tables)
}

/// As [`process`], with the long way for plain packets too: what the short one must agree with.
#[cfg(feature = "host")]
pub fn process_long<R: Room, T: Tables>(frame: &mut Frame<R>, tables: &T) -> Result<Forwarded, Reason> {
    let next = long(frame, tables);
    go_on(next, frame, tables)
}

fn go_on<R: Room, T: Tables>(mut next: Next, frame: &mut Frame<R>, tables: &T) -> Result<Forwarded, Reason> {
    loop {
        next = match next {
            Next::Forwarded(forwarded) => return Ok(forwarded),
            Next::End(reason) => return Err(reason),
            Next::Stage(stage) => stage::run(stage, frame, tables),
        }
    }
}

/// What every packet goes through: what it is, which server its flow has, and the way there. An established packet's
/// journey ends here; others go on to a stage.
#[inline(always)]
pub fn begin<R: Room, T: Tables>(frame: &mut Frame<R>, tables: &T) -> Next {
    match short::go(frame, tables) {
        Some(next) => next,
        None => long(frame, tables),
    }
}

/// The way of whatever is not plain, see [`short`].
#[inline(always)]
fn long<R: Room, T: Tables>(frame: &mut Frame<R>, tables: &T) -> Next {
    let mut trip = match parse::packet(frame, tables) {
        Ok(packet) => Trip::new(packet),
        Err(stop) => return Next::End(stop.reason),
    };
    let next = known(frame, tables, &mut trip);
    settle(tables, &mut trip, next)
}

#[inline(always)]
fn known<R: Room, T: Tables>(frame: &mut Frame<R>, tables: &T, trip: &mut Trip) -> Result<Next, Stop> {
    let packet = &trip.packet;
    let settings = tables.settings().ok_or(Reason::PassedNoService)?;
    let now = tables.now();
    trip.server = if packet.fragment == Fragment::Later {
        fragment::follow(tables, packet, now)?
    } else if icmp::is_icmp(packet) {
        return Ok(Next::Stage(Stage::Icmp));
    } else if tables.features() & feature::FLOWS == 0 {
        return Ok(Next::Stage(Stage::Open));
    } else {
        let known = if packet.is_v6 {
            flow::follow::<V6, T>(tables, settings, packet, now)?
        } else {
            flow::follow::<V4, T>(tables, settings, packet, now)?
        };
        let Some(known) = known else { return Ok(Next::Stage(Stage::Open)) };
        trip.way = known.way;
        if known.assures {
            trip.server = known.server;
            return Ok(Next::Stage(Stage::Assure));
        }
        known.server
    };
    admit::source(tables, packet)?;
    on(frame, tables, settings, trip, now)
}

/// On to the server that was found: counted, and then sent, by way of the tunnel's stage if it is behind one.
#[inline(always)]
pub(crate) fn on<R: Room, T: Tables>(
    frame: &mut Frame<R>,
    tables: &T,
    settings: &Settings,
    trip: &mut Trip,
    now: u32,
) -> Result<Next, Stop> {
    fragment::lead(tables, settings, &trip.packet, trip.server, now);
    tables.account(trip.server, trip.is_new, trip.packet.length);
    let server = tables.server(trip.server).ok_or(Reason::DroppedServerGone)?;
    if forward::is_tunnel(tables, server, trip.way) {
        let has_checksum = server.has(server_flag::CHECKSUM);
        return Ok(Next::Stage(if has_checksum { Stage::Sum } else { Stage::Tunnel }));
    }
    forward::direct(frame, tables, &trip.packet, server).map(Next::Forwarded)
}

/// Turns a stop into what follows it, and leaves the trip for the stage that does.
#[inline(always)]
pub(crate) fn settle<T: Tables>(tables: &T, trip: &mut Trip, next: Result<Next, Stop>) -> Next {
    let next = match next {
        Ok(next) => next,
        Err(stop) => {
            trip.stop = stop;
            match stop.reason.verdict() {
                Verdict::Reply => Next::Stage(Stage::Reply),
                Verdict::Pass if trip.packet.fragment == Fragment::First => {
                    fragment::left_to_stack(tables, &trip.packet);
                    Next::End(stop.reason)
                }
                _ => Next::End(stop.reason),
            }
        }
    };
    if let Next::Stage(_) = next {
        tables.leave(trip);
    }
    next
}
