//! The control plane, in the order a configuration change travels.

pub mod config;
pub mod maps;
pub mod model;
pub mod neigh;
pub mod netlink;
pub mod object;
pub mod reconcile;
pub mod scheduler;
pub mod sweep;
pub mod jiffies;
pub mod xdp;
