//! How things stand after an event: counts and connections, with the room a kernel's timers have.

use std::time::Duration;

use lb_common::flow::FlowKey;

use super::super::entries::{ROUNDED, Remembered};
use super::super::played::{LeftOut, Wrong};
use super::Player;
use crate::engine::Engine as Datapath;
use crate::traces::compare;
use crate::traces::engine::Engine;
use crate::traces::trace::{Conn, TraceEvent};

/// How late the kernel may take an idle entry out: an eighth of the largest power of two of seconds within its timeout,
/// but at least a tick.
fn lateness(timeout_seconds: u32) -> Duration {
    let power = if timeout_seconds == 0 { 0 } else { 1u64 << timeout_seconds.ilog2() };
    Duration::from_millis(power * 1000 / 8).max(A_TICK)
}

/// Port of a template that cannot be used any more.
const UNUSABLE: u16 = 0xffff;

/// The kernel's next timer tick, and the event it falls in.
const A_TICK: Duration = Duration::from_millis(20);

impl<E: Datapath> Player<'_, E> {
    /// Entries the kernel may still have though the director has not, and the other way round.
    fn uncertain(&self, at: Duration) -> (Vec<Remembered>, Vec<Remembered>) {
        let hz = self.director.hz();
        let lingering = self
            .director
            .ended
            .iter()
            .filter(|ended| at <= ended.at + lateness(ended.what.timeout / hz) + A_TICK);
        let now = self.director.now();
        let going =
            self.director.remembered().into_iter().filter(|what| {
                what.left(now) <= (ROUNDED + hz / 25) as i32 || self.director.is_evicted(what)
            });
        (lingering.map(|ended| ended.what).collect(), going.collect())
    }

    /// Why a packet may find another flow, or none, in the recording.
    pub(super) fn excuse(&self, key: &FlowKey, at: Duration) -> Option<LeftOut> {
        let (lingering, going) = self.uncertain(at);
        let concerns = |what: &&Remembered| {
            what.flow.key == *key || what.is_template && what.flow.key.client == key.client
        };
        let found = lingering.iter().chain(&going).find(concerns)?;
        Some(if found.timeout == 0 { LeftOut::Reused } else { LeftOut::IdleEnd })
    }

    /// Compares how things stand after an event.
    pub(super) fn state(&mut self, recorded: &TraceEvent, at: Duration) {
        self.ledger.apply(&recorded.st);
        if self.by_lot {
            return;
        }
        if self.scenario.track != Some(false) {
            let rows = self.director.services();
            let result = match self.ledger.compare(&rows) {
                Ok(()) => Ok(()),
                Err(what) => {
                    let (lingering, going) = self.uncertain(at);
                    let place = |what: &Remembered| {
                        let (service, at) = self.director.server(what.flow.server)?;
                        (!what.is_template).then(|| (service.to_string(), at, what.is_active()))
                    };
                    let more: Vec<_> = lingering.iter().filter_map(place).collect();
                    let less: Vec<_> = going.iter().filter_map(place).collect();
                    let reused = lingering.iter().any(|what| what.timeout == 0);
                    match self.ledger.is_within(&rows, &more, &less) {
                        true if reused => Err(Wrong::LeftOut(LeftOut::Reused)),
                        true => Err(Wrong::LeftOut(LeftOut::IdleEnd)),
                        false if self.ledger.differs_only_at(&rows, |rip| self.director.is_local(rip)) => {
                            Err(Wrong::LeftOut(LeftOut::LocalReplies))
                        }
                        false => Err(Wrong::Different(what)),
                    }
                }
            };
            self.judge(|played| &mut played.counts, Some(recorded), result);
        }
        if let Some(wanted) = &recorded.conns {
            let got = self.director.conns();
            let result = self.conns(wanted, &got, at);
            self.judge(|played| &mut played.conns, Some(recorded), result);
        }
    }

    fn conns(&self, wanted: &[Conn], got: &[Conn], at: Duration) -> Result<(), Wrong> {
        if compare::same_conns(wanted, got) {
            return Ok(());
        }
        let (lingering, going) = self.uncertain(at);
        let conns = |all: &[Remembered]| -> Vec<Conn> {
            all.iter().filter_map(|what| self.director.conn(what)).collect()
        };
        let (may_stay, may_go) = (conns(&lingering), conns(&going));
        let is_one = |a: &Conn, b: &Conn| {
            (&a.proto, a.client, a.vip, a.server) == (&b.proto, b.client, b.vip, b.server)
        };
        let is_same = |a: &Conn, b: &Conn| {
            is_one(a, b) && a.state == b.state && a.expires.abs_diff(b.expires) <= compare::SECONDS_APART
        };
        // A template that ended under live flows goes on by a minute from when its timer, late, fired.
        let is_prolonged = |a: &Conn, b: &Conn| {
            let apart = Duration::from_secs(a.expires.abs_diff(b.expires));
            is_one(a, b) && a.state == b.state && a.client.port() == 0 && apart <= lateness(60)
        };
        let mut why = None;
        let mut left: Vec<&Conn> = got.iter().collect();
        for conn in wanted {
            if let Some(place) = left.iter().position(|other| is_same(conn, other)) {
                left.swap_remove(place);
            } else if let Some(place) = left.iter().position(|other| is_prolonged(conn, other)) {
                left.swap_remove(place);
                why = Some(LeftOut::IdleEnd);
            } else if may_stay.iter().any(|other| is_one(conn, other)) {
                why = Some(LeftOut::IdleEnd);
            } else if let Some(place) =
                left.iter().position(|other| is_one(conn, other) && self.director.is_local(conn.server.ip()))
            {
                left.swap_remove(place);
                why = Some(LeftOut::LocalReplies);
            } else if conn.vip.port() == UNUSABLE && conn.client.port() == 0 {
                why = why.or(Some(LeftOut::UnusableTemplate));
            } else {
                let close = left.iter().find(|other| (other.client, other.vip) == (conn.client, conn.vip));
                return Err(Wrong::Different(match close {
                    Some(other) => format!("expected {conn:?}, got {other:?}"),
                    None => format!("not remembered: {conn:?}"),
                }));
            }
        }
        for conn in left {
            if !may_go.iter().any(|other| is_one(conn, other)) {
                return Err(Wrong::Different(format!("still remembered: {conn:?}")));
            }
            why = Some(LeftOut::IdleEnd);
        }
        why.map_or(Ok(()), |why| Err(Wrong::LeftOut(why)))
    }
}
