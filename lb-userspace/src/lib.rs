//! The control plane, in the order a configuration change travels.

pub mod config;
pub mod model;
pub mod neigh;
pub mod netlink;
pub mod object;
pub mod scheduler;

pub mod api;
pub mod cli;
pub mod client;
