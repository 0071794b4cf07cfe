//! What crosses the API's socket, version 1. Names here are the keys of the JSON.
//!
//! Times are RFC 3339 in UTC, durations seconds unless the key says otherwise, sizes bytes, addresses text, ports host
//! order.

mod failure;
mod filter;
mod flow;
mod reload;
mod service;
mod stats;
mod status;

pub use failure::{ErrorCode, Failure};
pub use filter::{FlowFilter, UnknownPrefix, prefix};
pub use flow::{Flow, FlowCount, FlowProtocol, State, UnknownState};
pub use reload::{Action, Change, Finding, Reload, Severity};
pub use service::{Address, Method, NextHop, Persistence, Ports, Protocol, Server, Service, UnknownPorts};
pub use stats::{NoteCount, ReasonCount, ServerCount, Stats, Verdict, note_counts, reason_counts};
pub use status::{FlowTables, Interface, Mode, Status, Sweep, Table, Version};

/// Version of the API, the first part of its paths.
pub const API_VERSION: u32 = 1;

/// `SystemTime` as RFC 3339 text in whole seconds.
mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_seconds(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}
