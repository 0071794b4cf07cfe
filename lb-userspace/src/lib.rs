//! The control plane, in the order a configuration change travels.

pub mod config;
pub mod model;

pub mod neigh;
pub mod netlink;

pub mod maps;
pub mod reconcile;
pub mod scheduler;

pub mod jiffies;
pub mod object;
pub mod sweep;
pub mod xdp;

pub mod realserver;
pub mod vips;

pub mod daemon;

pub mod api;
pub mod bench;
pub mod cli;
pub mod client;
