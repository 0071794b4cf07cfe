use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{ReasonCount, Service, rfc3339};

/// Which program answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of `lb`.
    pub version: String,
    /// Of the API, [`super::API_VERSION`].
    pub api: u32,
    /// Of the maps, [`lb_common::ABI_VERSION`].
    pub abi: u32,
}

impl Version {
    /// Of this program.
    pub fn own() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: super::API_VERSION,
            abi: lb_common::ABI_VERSION,
        }
    }
}

/// The director as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of `lb`.
    pub version: String,
    /// Of the maps.
    pub abi: u32,
    pub pid: u32,
    /// When the daemon started; the datapath may be older.
    #[serde(with = "rfc3339")]
    pub started: SystemTime,
    pub uptime_s: u64,
    /// The configuration file.
    pub config: PathBuf,
    /// When the configuration in force was read.
    #[serde(with = "rfc3339")]
    pub config_loaded: SystemTime,
    pub interfaces: Vec<Interface>,
    pub flow_tables: FlowTables,
    pub sweep: Sweep,
    pub services: Vec<Service>,
    /// Packets by what became of them.
    pub counters: Vec<ReasonCount>,
}

/// An interface the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub ifindex: u32,
    pub mode: Mode,
    /// Why it is not native; `None` if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_generic: Option<String>,
    /// Its own MAC, `02:00:00:00:00:0b`.
    pub mac: String,
    pub mtu: u32,
}

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// After the kernel has built its packet buffer.
    Generic,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// How full the flow tables are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowTables {
    pub ipv4: Table,
    pub ipv6: Table,
    /// Persistence templates of both families.
    pub templates: Table,
    /// Flows in the spill map.
    pub spilled: u64,
    /// New flows that were sent on by their service's plan and not remembered, since the maps were made: those over
    /// `admission.new_flows_per_second`, and those that found no place.
    pub over_admission: u64,
    pub without_place: u64,
}

/// How full one table is, as of the last sweep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Places.
    pub ways: u64,
    /// Places taken.
    pub flows: u64,
    /// `flows / ways`, 0 to 1.
    pub occupancy: f64,
}

impl Table {
    pub fn new(ways: u64, flows: u64) -> Self {
        // Exact below 2^53; the tables end at 2^26.
        let occupancy = if ways == 0 { 0.0 } else { flows as f64 / ways as f64 };
        Self { ways, flows, occupancy }
    }
}

/// What the sweeper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// How long the last walk over all flows took, pauses included; `None` before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full_duration_ms: Option<u64>,
    /// What of that was work: processor time of the thread that walks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full_work_us: Option<u64>,
    /// Counts of active, inactive and persistent flows that were found wrong and corrected, since the start.
    pub corrected: u64,
}
