//! Plays recordings through the product: its control plane (model, reconciler, sweeper) in front of either engine.
//!
//! [`Director`] is the product with a recording's world around it, [`play`] runs a scenario through it event by event
//! and holds it against the trace, [`report`] adds up what came of it. Time is the trace's: it is driven, never slept.
//!
//! What `tests/oracle/README.md` says to leave out is left out, event by event and only where there is a difference; each is counted
//! under its reason ([`LeftOut`]).

mod alike;
mod counts;
mod director;
mod entries;
mod listing;
mod lots;
mod play;
mod played;
pub mod report;
mod world;

#[cfg(test)]
mod tests;

pub use director::{Director, FEATURES};
pub use play::play;
pub use played::{Compared, Difference, LeftOut, Played};

use lb_userspace::xdp::Sizes;

/// Tables that no recording fills.
pub const SIZES: Sizes = Sizes { v4: 512, v6: 512, templates: 128 };
