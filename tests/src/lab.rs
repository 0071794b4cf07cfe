//! Labs: a client, a router, a director and real servers, each in a network namespace of its own.
//!
//! ```text
//!  one_arm   client ── router ──┬── director          two_arm   client ── router ─── director (front)
//!                               ├── rs1                                     │           │ (back)
//!                               └── rs2 …                                   └──┬────────┤
//!                                                                             rs1      rs2 …
//!  routed    client ── router ──┬── director
//!                               └── gateway ──┬── rs1
//!                                             └── rs2 …
//! ```
//!
//! [`topology`] builds them, [`http`] and [`udp`] serve in them, [`client`] asks, [`capture`] watches a link frame
//! by frame, [`process`] runs programs such as the director.

pub mod address;
pub mod capture;
pub mod client;
pub mod http;
pub mod link;
pub mod process;
pub mod runtime;
mod site;
pub mod topology;
pub mod trunk;
pub mod udp;
pub mod xdp;

use std::io;

pub use address::{Dual, Family, Mac};
pub use topology::{Builder, Director, Lab, Nic, RealServer, one_arm, routed, two_arm};

use crate::netns::NetnsError;

/// Why a lab, or something in it, could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("{option}: {got} is not possible here, {accepted}")]
    Option { option: &'static str, got: String, accepted: &'static str },
    #[error("cannot open interface {interface} of network namespace {namespace} for raw frames")]
    RawLink { namespace: String, interface: String, source: io::Error },
    #[error("cannot listen on {address} in network namespace {namespace}")]
    Listen { namespace: String, address: std::net::SocketAddr, source: io::Error },
    #[error("cannot start a runtime in network namespace {namespace}")]
    Runtime { namespace: String, source: io::Error },
    #[error("cannot write the XDP program for {interface} to a temporary file")]
    Xdp { interface: String, source: io::Error },
    #[error("unexpected output of `ip -s -j link show` for {interface}: {output:?}")]
    Counters { interface: String, output: String },
}
