//! A service's schedule: its list, its plan, and what the scheduler remembers across edits.

use super::{Edit, Entry, Plan, Warning, apply, plan, rr, wrr};
use crate::model::{Scheduler, SchedulerFlags};

/// A service's scheduler at work. Made new for a new service and when the scheduler or its flags change; every
/// edit makes the next one from it.
#[derive(Clone, Debug)]
pub struct Schedule {
    scheduler: Scheduler,
    flags: SchedulerFlags,
    entries: Vec<Entry>,
    plan: Plan,
    memory: Memory,
    warning: Option<Warning>,
}

/// What IPVS would remember at the moment the plan's cursor is [`Plan::cursor`].
#[derive(Clone, Copy, Debug)]
enum Memory {
    /// Nothing, or nothing that depends on edits.
    Nothing,
    Rr(rr::Last),
    Wrr(wrr::Position),
}

impl Schedule {
    /// A scheduler bound to servers that are already there: `entries` in list order, the newest first.
    ///
    /// A new service in IPVS is empty and gets its servers one by one, and wrr begins at the level that leaves. To
    /// begin like that make a schedule of no entries and add them by [`Schedule::edited`].
    pub fn new(scheduler: Scheduler, flags: SchedulerFlags, entries: Vec<Entry>) -> Self {
        let memory = match scheduler {
            Scheduler::Rr => Memory::Rr(rr::Last::default()),
            Scheduler::Wrr => Memory::Wrr(wrr::Position::start(&entries)),
            _ => Memory::Nothing,
        };
        let (plan, warning) = plan(scheduler, flags, &entries);
        Self { scheduler, flags, entries, plan, memory, warning }
    }

    /// The schedule of a datapath that kept running while the control plane did not: as [`Schedule::new`], at the cursor
    /// found there. Slots follow from the list alone, so that the cursor means the same.
    ///
    /// The next flow goes where it would have gone. What an edit left behind that no flow has followed is forgotten, and
    /// may show after the next edit: that rr's pointer stands on a drained server, that wrr goes on at a level's head.
    pub fn resumed(scheduler: Scheduler, flags: SchedulerFlags, entries: Vec<Entry>, cursor: u64) -> Self {
        let mut schedule = Self::new(scheduler, flags, entries);
        schedule.memory = schedule.memory_at(cursor);
        if schedule.is_cursor_used() {
            schedule.plan.cursor = cursor;
        }
        schedule
    }

    /// The schedule after these edits, made in this order while the datapath's cursor stood at `cursor`. It continues
    /// where IPVS would.
    pub fn edited(&self, edits: &[Edit], cursor: u64) -> Self {
        let mut entries = self.entries.clone();
        let mut memory = self.memory_at(cursor);
        for edit in edits {
            if let Memory::Rr(last) = &mut memory {
                last.edit(&entries, edit);
            }
            apply(&mut entries, edit);
            if let Memory::Wrr(position) = &mut memory {
                position.edited(&entries);
            }
        }
        let (mut plan, warning) = plan(self.scheduler, self.flags, &entries);
        plan.cursor = match &memory {
            Memory::Nothing if self.plan.slides() && plan.slides() => cursor,
            Memory::Nothing => 0,
            Memory::Rr(last) => last.cursor(&entries),
            Memory::Wrr(position) => position.cursor(&entries),
        };
        Self { scheduler: self.scheduler, flags: self.flags, entries, plan, memory, warning }
    }

    pub fn flags(&self) -> SchedulerFlags {
        self.flags
    }

    pub fn scheduler(&self) -> Scheduler {
        self.scheduler
    }

    /// Servers in list order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// For the operator: where the plan is not quite what IPVS would do.
    pub fn warning(&self) -> Option<&Warning> {
        self.warning.as_ref()
    }

    fn is_cursor_used(&self) -> bool {
        match self.memory {
            Memory::Nothing => self.plan.slides(),
            Memory::Rr(_) | Memory::Wrr(_) => !self.plan.slots.is_empty(),
        }
    }

    /// What IPVS would remember with the cursor there. A cursor that did not move says nothing new.
    fn memory_at(&self, cursor: u64) -> Memory {
        if cursor == self.plan.cursor || !self.is_cursor_used() {
            return self.memory;
        }
        match self.memory {
            Memory::Nothing => Memory::Nothing,
            Memory::Rr(_) => Memory::Rr(rr::Last::from_cursor(&self.plan, cursor)),
            Memory::Wrr(_) => Memory::Wrr(wrr::Position::from_cursor(&self.entries, &self.plan, cursor)),
        }
    }
}
