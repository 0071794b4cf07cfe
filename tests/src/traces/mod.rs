//! Recorded decisions of a kernel's IPVS, and what it takes to hold another director to them.
//!
//! A recording is a *scenario* (services, and a list of events: packets, edits, pauses) and the *trace* of what
//! IPVS did at each event. `tests/oracle/README.md` defines both formats and records more; `tests/traces` keeps the
//! recordings in the repository. [`store`] finds them, [`scenario`] and [`event`] are what was asked, [`trace`] is
//! what happened. [`frames`] builds the very frames the recording sent; [`classify`] says where a frame that came
//! out went, in the trace's words; [`compare`] says whether two frames or two events agree, leaving out what a
//! kernel draws at random; [`host`] is the answer of the director's own stack to what is passed to it; [`engine`] is what a director must offer to be played against recordings.
//!
//! Both formats are read strictly: an unknown field or operation is an error, so that nothing of a recording can be
//! overlooked.

pub mod classify;
pub mod commands;
pub mod compare;
pub mod engine;
pub mod event;
pub mod frames;
pub mod host;
pub mod outcome;
pub mod scenario;
pub mod store;
pub mod trace;

mod read;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod tests;

pub use store::{Recording, recordings};
