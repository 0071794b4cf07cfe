//! One neighbour that is needed: its MAC, and when to ask for it.

use std::time::{Duration, Instant};

use super::{Mac, Timing};
use crate::netlink::{NeighState, Neighbour};

/// A neighbour somebody needs.
#[derive(Debug)]
pub(super) struct Followed {
    /// The MAC to use, which may outlive the kernel's entry.
    pub(super) mac: Option<Mac>,
    /// As the kernel told; `None` if it has no entry.
    pub(super) state: Option<NeighState>,
    pub(super) asked: Option<Instant>,
    /// Questions since it last had a MAC.
    unanswered: u32,
    /// When to ask; `None` for never.
    pub(super) due: Option<Instant>,
    /// When to stop trusting `mac`, of which the kernel knows no more.
    pub(super) forget: Option<Instant>,
}

/// How a neighbour is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Everybody, for its MAC.
    Find,
    /// It alone, at the MAC known.
    Confirm,
}

impl Followed {
    pub(super) fn new(now: Instant) -> Self {
        Self { mac: None, state: None, asked: None, unanswered: 0, due: Some(now), forget: None }
    }

    /// Takes in what the kernel says of this neighbour: its entry, or that it has none.
    pub(super) fn hear(&mut self, now: Instant, told: Option<&Neighbour>, timing: &Timing) {
        let before = self.state;
        self.state = told.map(|neighbour| neighbour.state);
        if let Some(Neighbour { mac: Some(mac), state, .. }) = told
            && !matches!(state, NeighState::None | NeighState::Incomplete | NeighState::Failed)
        {
            self.mac = Some(*mac);
            self.unanswered = 0;
            self.forget = None;
        }
        let no_sooner_than_gap = self.asked.map_or(now, |then| now.max(then + timing.ask_gap));
        match self.state {
            Some(NeighState::Permanent | NeighState::NoArp) => self.due = None,
            Some(NeighState::Reachable) => self.due = Some(now + timing.confirm_every),
            Some(NeighState::Stale | NeighState::Delay) => self.due = Some(no_sooner_than_gap),
            // Under way; the kernel tells the outcome.
            Some(NeighState::Probe) => self.due = Some(now + timing.patience),
            Some(NeighState::Incomplete) => {
                self.due = Some(now + timing.patience);
                self.doubt(now, timing);
            }
            // Nobody had asked: the entry was deleted by hand (`ip neigh flush`), which says nothing of the server.
            Some(NeighState::Failed) if before.is_some_and(settled) && self.mac.is_some() => {
                self.due = Some(now);
                self.doubt(now, timing);
            }
            Some(NeighState::Failed) if self.mac.take().is_some() => {
                // It did not answer at the MAC it had; perhaps it has another now.
                self.forget = None;
                self.due = Some(now);
            }
            Some(NeighState::Failed) if before != self.state => self.due = Some(now + self.pause(timing)),
            Some(NeighState::Failed) => self.due = self.due.or(Some(now)),
            Some(NeighState::None) | None => {
                self.due = Some(no_sooner_than_gap);
                self.doubt(now, timing);
            }
        }
    }

    /// Forgets a MAC that has been doubted for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.forget.is_some_and(|at| at <= now) {
            self.forget = None;
            self.mac = None;
        }
    }

    /// Notes that it is asked now, and tells how.
    pub(super) fn ask(&mut self, now: Instant, timing: &Timing) -> Question {
        self.asked = Some(now);
        self.due = Some(now + timing.patience);
        if self.mac.is_none() {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        match self.state {
            Some(NeighState::Reachable | NeighState::Stale | NeighState::Delay | NeighState::Probe) => {
                Question::Confirm
            }
            _ => {
                // The kernel does not tell that it starts asking, and telling that it failed once more would look
                // like old news.
                self.state = Some(NeighState::Incomplete);
                Question::Find
            }
        }
    }

    /// The kernel has lost the MAC without having asked: use it a little longer.
    fn doubt(&mut self, now: Instant, timing: &Timing) {
        if self.mac.is_some() && self.forget.is_none() {
            self.forget = Some(now + timing.patience);
        }
    }

    /// How long to leave a neighbour alone that has just failed to answer.
    fn pause(&self, timing: &Timing) -> Duration {
        let doubled = 1u32.checked_shl(self.unanswered.saturating_sub(1)).unwrap_or(u32::MAX);
        timing.retry_first.saturating_mul(doubled).min(timing.retry_at_most)
    }
}

/// Whether the kernel is content with a neighbour, not asking it at the moment.
fn settled(state: NeighState) -> bool {
    use NeighState as S;
    match state {
        S::Reachable | S::Stale | S::Delay | S::Permanent | S::NoArp => true,
        S::None | S::Incomplete | S::Probe | S::Failed => false,
    }
}
