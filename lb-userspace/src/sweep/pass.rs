//! A pass over all tables, step by step.

use super::drift::Drift;
use super::locality::{LocalityGc, LocalityStore};
use super::spill::{SpillStore, sweep_spill};
use super::templates::{Children, sweep_templates};
use super::{Rules, Tables, Tally, sweep_slice};
use crate::maps::StoreError;

/// Buckets a step walks at most: some tens of microseconds.
const SLICE: u32 = 512;

/// Where the walk stands, and what it carries from one pass to the next.
#[derive(Debug, Default)]
pub struct Pass {
    place: Place,
    tally: Tally,
    children: Children,
    drift: Drift,
    gc: LocalityGc,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    V4(u32),
    V6(u32),
    Spill,
    Templates(u32),
    Locality,
}

/// What came of a step.
#[derive(Debug)]
pub enum Step {
    /// This many buckets were walked, and there is more.
    Walked(u32),
    /// The pass is over.
    Done(Report),
}

/// A finished pass.
#[derive(Debug)]
pub struct Report {
    pub tally: Tally,
    /// Counts of active and inactive flows and templates that were put right, in flows.
    pub corrected: u64,
}

impl Pass {
    /// Buckets of a whole pass.
    pub fn length(tables: &Tables<'_>) -> u64 {
        [tables.v4.buckets(), tables.v6.buckets(), tables.templates.buckets()]
            .into_iter()
            .map(u64::from)
            .sum()
    }

    /// Does the next bit. `now` is jiffies.
    ///
    /// # Errors
    /// The spill or the locality map failed. The next step begins a new pass, because this one did not see every flow.
    pub fn step(
        &mut self,
        tables: &Tables<'_>,
        rules: &Rules,
        now: u32,
        spill: &mut dyn SpillStore,
        locality: &mut dyn LocalityStore,
    ) -> Result<Step, StoreError> {
        match self.place {
            Place::Start => {
                self.tally = Tally::default();
                self.children = Children::begin(&tables.templates);
                self.drift.begin(tables);
                self.place = Place::V4(0);
                Ok(Step::Walked(tables.templates.buckets()))
            }
            Place::V4(at) => {
                let to = (at + SLICE).min(tables.v4.buckets());
                let (tally, children) = (&mut self.tally, &mut self.children);
                sweep_slice(&tables.v4, at..to, now, tables, rules, tally, children);
                self.place = if to == tables.v4.buckets() { Place::V6(0) } else { Place::V4(to) };
                Ok(Step::Walked(to - at))
            }
            Place::V6(at) => {
                let to = (at + SLICE).min(tables.v6.buckets());
                let (tally, children) = (&mut self.tally, &mut self.children);
                sweep_slice(&tables.v6, at..to, now, tables, rules, tally, children);
                self.place = if to == tables.v6.buckets() { Place::Spill } else { Place::V6(to) };
                Ok(Step::Walked(to - at))
            }
            Place::Spill => {
                self.place = Place::Start;
                sweep_spill(spill, now, tables, rules, &mut self.tally, &mut self.children)?;
                self.place = Place::Templates(0);
                Ok(Step::Walked(0))
            }
            Place::Templates(at) => {
                let to = (at + SLICE).min(tables.templates.buckets());
                sweep_templates(at..to, now, tables, rules, &mut self.tally, &self.children);
                let last = to == tables.templates.buckets();
                self.place = if last { Place::Locality } else { Place::Templates(to) };
                Ok(Step::Walked(to - at))
            }
            Place::Locality => {
                self.place = Place::Start;
                let expiration = |service: u32| rules.expirations.get(&service).copied();
                self.gc.run(locality, now, rules.hz, expiration, &mut self.tally)?;
                let corrected = self.drift.finish(tables, rules, &self.tally);
                Ok(Step::Done(Report { tally: std::mem::take(&mut self.tally), corrected }))
            }
        }
    }
}
