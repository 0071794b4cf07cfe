//! From the model and the network to the maps: the one writer of configuration.
//!
//! ```text
//! Model ──▶ ids ──▶ desired ──▶ Contents ── diff ──▶ [MapOp] ── apply ──▶ maps
//! next hops ──────────┘                      ▲
//!                                   what the maps hold
//! ```
//!
//! Everything up to `apply` is pure. A failed operation loses nothing: the next round reads what the maps hold by
//! then and computes the rest.

mod apply;
mod desired;
mod diff;
mod ids;
mod keys;
mod ranges;
mod reconciler;

pub use apply::Applier;
pub use desired::{Base, Desired, DesiredError, World, desired, features};
pub use diff::{MapOp, diff};
pub use ids::{AssignedServer, AssignedService, Ids, IdsError, TRASH_SECONDS, identity};
pub use keys::KeysError;
pub use reconciler::{ReconcileError, Reconciler, remembered};

#[cfg(test)]
mod tests;
