//! What a packet does to its flow: the next state, whether that counts as active, and what may open a flow.

use crate::parse::Packet;
use lb_common::{
    net::proto,
    sctp,
    settings::{Settings, switch, timeout},
    tcp::{self, flag},
};

/// The state after this packet; 0 for UDP, which has only one.
#[inline(always)]
pub fn next(settings: &Settings, packet: &Packet, current: u8) -> u8 {
    if packet.key.protocol == proto::TCP as u32 {
        tcp::next(current, packet.event, settings.is_on(switch::SECURE_TCP))
    } else if packet.key.protocol == proto::SCTP as u32 {
        sctp::next(current, packet.event)
    } else {
        0
    }
}

/// UDP is never active (IPVS: only TCP and SCTP set the flag).
#[inline(always)]
pub fn is_active(protocol: u8, state: u8) -> bool {
    if protocol == proto::TCP {
        tcp::is_active(state)
    } else {
        protocol == proto::SCTP && sctp::is_active(state)
    }
}

/// True once the client has shown that it gets our servers' answers: such a flow is never evicted. UDP shows it by
/// a second packet.
#[inline(always)]
pub fn is_confirmed(protocol: u8, state: u8, is_first: bool) -> bool {
    if protocol == proto::TCP {
        state != tcp::state::SYN_RECV && state != tcp::state::SYNACK && state != tcp::state::NONE
    } else if protocol == proto::SCTP {
        state > sctp::state::INIT
    } else {
        !is_first
    }
}

/// True if the flow's template counts as assured from this state on.
#[inline(always)]
pub fn is_established(protocol: u8, state: u8) -> bool {
    (protocol == proto::TCP && state == tcp::state::ESTABLISHED)
        || (protocol == proto::SCTP && state == sctp::state::ESTABLISHED)
}

/// A client's attempt to open a new connection, whatever else the packet says: any SYN, or an INIT.
#[inline(always)]
pub fn is_attempt(packet: &Packet) -> bool {
    if packet.key.protocol == proto::TCP as u32 {
        packet.event & flag::SYN != 0
    } else {
        packet.key.protocol == proto::SCTP as u32 && packet.event == sctp::chunk::INIT
    }
}

/// What an unknown flow must begin with to be scheduled. `lenient`: as with `sloppy_tcp` and `sloppy_sctp`.
#[inline(always)]
pub fn may_open(settings: &Settings, packet: &Packet, lenient: bool) -> bool {
    if packet.key.protocol == proto::TCP as u32 {
        let sloppy = lenient || settings.is_on(switch::SLOPPY_TCP);
        packet.event & flag::RST == 0 && (sloppy || packet.event & flag::SYN != 0)
    } else if packet.key.protocol == proto::SCTP as u32 {
        let sloppy = lenient || settings.is_on(switch::SLOPPY_SCTP);
        packet.event != sctp::chunk::ABORT && (sloppy || packet.event == sctp::chunk::INIT)
    } else {
        true
    }
}

/// True if a client may reuse the ports of a flow in this state for a new connection (`conn_reuse_mode`). A director
/// that forwards by DR or TUN sees no answers, so mode 2 lets FIN_WAIT count as closed.
#[inline(always)]
pub fn is_reusable(settings: &Settings, protocol: u8, state: u8) -> bool {
    let mode = settings.conn_reuse_mode;
    if mode == 0 {
        false
    } else if protocol == proto::TCP {
        state == tcp::state::TIME_WAIT
            || state == tcp::state::CLOSE
            || (mode & 2 != 0 && state == tcp::state::FIN_WAIT)
    } else {
        protocol == proto::SCTP && state == sctp::state::CLOSED
    }
}

/// Ends of idle times are rounded up to this many jiffies plus one, so that a busy flow's line is written a few
/// times a second and not once a jiffy.
const COARSE: u32 = 63;

/// When a flow in this state that was seen now is idle for good, in jiffies.
#[inline(always)]
pub fn expiry(settings: &Settings, protocol: u8, state: u8, now: u32) -> u32 {
    let index = timeout::index(protocol, state) & 31;
    rounded(now).wrapping_add(settings.timeouts[index as usize])
}

/// A time from which idle times run, in jiffies.
#[inline(always)]
pub fn rounded(now: u32) -> u32 {
    now | COARSE
}
