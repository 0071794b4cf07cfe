//! Whether another director did what a recording says, leaving out what a kernel draws at random.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::outcome::{Sighting, To, Via};
use super::trace::{Conn, Counts, Frames, Outcome, Record, TraceEvent};
use crate::packet::ROUTER_MAC;

/// What of two events is compared, beyond where the frames went and how commands ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Weight, active and inactive connections of servers.
    pub counts: bool,
    /// The frames that came out, [`masked`].
    pub frames: bool,
    /// Frames that came out besides the first. A kernel fragments where another director need not.
    pub also: bool,
    /// The connection table, with seconds [`SECONDS_APART`].
    pub conns: bool,
}

/// How far apart two readings of the seconds a connection has left may be.
pub const SECONDS_APART: u64 = 1;

/// How an event differs from its recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub field: &'static str,
    pub expected: String,
    pub got: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, got {}", self.field, self.expected, self.got)
    }
}

/// How `got` differs from the recording of the same event.
pub fn differences(expected: &TraceEvent, got: &TraceEvent, compared: Compared) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut differ = |field, expected: String, got: String| all.push(Difference { field, expected, got });
    match (&expected.record, &got.record) {
        (Record::Packet { outcome: want, frames: wanted }, Record::Packet { outcome, frames }) => {
            let (a, b) =
                if compared.also { (want.clone(), outcome.clone()) } else { (first(want), first(outcome)) };
            if a != b {
                differ("to, via", shown(&a), shown(&b));
            }
            if let (true, Some(wanted), Some(frames)) = (compared.frames, wanted, frames)
                && masked_out(wanted, want) != masked_out(frames, want)
            {
                differ("out", format!("{:02x?}", wanted.out), format!("{:02x?}", frames.out));
            }
        }
        (Record::Command { ran: want, .. }, Record::Command { ran, .. })
        | (Record::Ipvsadm { ran: want, .. }, Record::Ipvsadm { ran, .. })
            if want.rc != ran.rc =>
        {
            differ("rc", want.rc.to_string(), format!("{} {}", ran.rc, ran.stderr));
        }
        (Record::AddService { errors: want }, Record::AddService { errors }) => {
            let codes = |errors: &[super::trace::FailedCommand]| {
                errors.iter().map(|error| (error.cmd.clone(), error.rc)).collect::<Vec<_>>()
            };
            if codes(want) != codes(errors) {
                differ("errors", format!("{want:?}"), format!("{errors:?}"));
            }
        }
        _ => {}
    }
    if expected.op != got.op {
        differ("op", expected.op.clone(), got.op.clone());
    }
    if compared.counts && expected.st != got.st {
        differ("st", counts(&expected.st), counts(&got.st));
    }
    if let (true, Some(want), Some(have)) = (compared.conns, &expected.conns, &got.conns)
        && !same_conns(want, have)
    {
        differ("conns", format!("{want:?}"), format!("{have:?}"));
    }
    all
}

/// Whether two connection tables agree: every entry, its server and state, and the seconds left within
/// [`SECONDS_APART`]. Both in a trace's order.
pub fn same_conns(expected: &[Conn], got: &[Conn]) -> bool {
    // The order is of texts with the seconds in them, and those may differ.
    let sorted = |conns: &[Conn]| {
        let mut conns = conns.to_vec();
        conns
            .sort_by_key(|conn| (conn.proto.clone(), conn.client, conn.vip, conn.server, conn.state.clone()));
        conns
    };
    let (expected, got) = (sorted(expected), sorted(got));
    expected.len() == got.len()
        && expected.iter().zip(&got).all(|(a, b)| {
            let same_but_time = Conn { expires: a.expires, ..b.clone() } == *a;
            same_but_time && a.expires.abs_diff(b.expires) <= SECONDS_APART
        })
}

/// An outcome without the frames besides the first of a single packet.
fn first(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::One(all) => Outcome::One(all.iter().take(1).cloned().collect()),
        each => each.clone(),
    }
}

fn masked_out(frames: &Frames, recorded: &Outcome) -> Vec<Vec<u8>> {
    // As recorded frames are compared: how the first came out says how all are read.
    let via = recorded.sightings().next().map(|sighting| &sighting.via);
    frames.out.iter().map(|frame| via.map_or_else(|| frame.clone(), |via| masked(frame, via))).collect()
}

/// A frame with zeros for what a kernel draws at random: the outer IPv4 identification, the outer IPv6 flow label and
/// fragment identification, the GUE source port, and the checksums over them. `via` says what the frame is; one
/// that the director made no header of is returned as it is.
pub fn masked(frame: &[u8], via: &Via) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let tunnelled = matches!(via, Via::Ipip | Via::Gre | Via::Gue | Via::Fragment);
    let made = matches!(via, Via::Icmp { .. } | Via::IcmpTo { .. } | Via::Tcp { .. });
    if !(tunnelled || made && frame.starts_with(&ROUTER_MAC)) {
        return frame;
    }
    let (l4, first) = match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.len() >= 34 => {
            let first = frame[20] & 0x1f == 0 && frame[21] == 0;
            frame[18..20].fill(0);
            frame[24..26].fill(0);
            (34, first)
        }
        Some([0x86, 0xdd]) if frame.len() >= 54 => {
            frame[15] &= 0xf0;
            frame[16..18].fill(0);
            if frame[20] == 44 && frame.len() >= 62 {
                let first = frame[56] == 0 && frame[57] & 0xf8 == 0;
                frame[58..62].fill(0);
                (62, first)
            } else {
                (54, true)
            }
        }
        _ => return frame,
    };
    let udp = *via == Via::Gue || *via == Via::Fragment && frame.get(54) == Some(&17);
    if first && udp && frame.len() >= l4 + 8 {
        frame[l4..l4 + 2].fill(0);
        frame[l4 + 6..l4 + 8].fill(0);
    }
    frame
}

fn shown(outcome: &Outcome) -> String {
    let pair = |sighting: &Sighting| match sighting.to {
        To::SendFailed => sighting.to.to_string(),
        _ => format!("{} {}", sighting.to, sighting.via),
    };
    let list = |all: &[Sighting]| match all {
        [] => "nothing".to_owned(),
        all => all.iter().map(pair).collect::<Vec<_>>().join(", "),
    };
    match outcome {
        Outcome::One(all) => list(all),
        Outcome::Each(each) => each.iter().map(|all| list(all)).collect::<Vec<_>>().join(" | "),
    }
}

fn counts(st: &BTreeMap<String, Option<Counts>>) -> String {
    let one = |(server, counts): (&String, &Option<Counts>)| match counts {
        None => format!("{server} gone"),
        Some(Counts { weight, active, inactive }) => format!("{server} {weight}/{active}/{inactive}"),
    };
    st.iter().map(one).collect::<Vec<_>>().join(", ")
}
