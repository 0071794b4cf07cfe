//! Round robin: the servers of the list in turn, weights other than 0 ignored.

use lb_common::plan::PlanKind;

use super::{Edit, Entry, Plan, cycle};

/// The usable servers in list order, beginning at the head whatever was picked last.
pub(super) fn plan(entries: &[Entry]) -> Plan {
    let usable: Vec<u32> = usable(entries).collect();
    // IPVS leaves its pointer alone when every server is overloaded: nothing rewinds.
    Plan::new(PlanKind::Cycle, 0, cycle::slots(&usable, 0..0))
}

/// The server picked last; None: the head of the list, before its first server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last(Option<u32>);

impl Last {
    /// From a cursor that moved.
    pub(super) fn from_cursor(plan: &Plan, cursor: u64) -> Self {
        match cursor.checked_sub(1) {
            Some(picked) if !plan.slots.is_empty() => {
                Self(Some(plan.slots[(picked % plan.slots.len() as u64) as usize].server()))
            }
            _ => Self(None),
        }
    }

    /// Additions and changes leave the pointer alone; removing the server it stands on moves it to the one before.
    /// `entries`: before the edit.
    pub(super) fn edit(&mut self, entries: &[Entry], edit: &Edit) {
        let Edit::Remove(id) = *edit else { return };
        if self.0 == Some(id)
            && let Some(at) = entries.iter().position(|entry| entry.id == id)
        {
            self.0 = at.checked_sub(1).map(|before| entries[before].id);
        }
    }

    /// How many usable servers there are up to the pointer.
    pub(super) fn cursor(&self, entries: &[Entry]) -> u64 {
        let passed = match self.0.and_then(|id| entries.iter().position(|entry| entry.id == id)) {
            Some(at) => &entries[..=at],
            None => &[],
        };
        usable(passed).count() as u64
    }
}

fn usable(entries: &[Entry]) -> impl Iterator<Item = u32> {
    entries.iter().filter(|entry| entry.live_weight() > 0).map(|entry| entry.id)
}
