//! How large the tables are, and what they cost.

use crate::model::FlowTables;
use lb_common::flow::{Layout, Templates, V4, V6, WAYS};
use lb_common::limits;
use std::fmt;

/// Occupancy up to which hardly any flow finds both of its buckets full, in percent.
const FULL: u64 = 85;

/// Buckets of the three tables, and entries of the spill map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub v4: u32,
    pub v6: u32,
    pub templates: u32,
}

fn buckets(flows: u64) -> u32 {
    let ways = (flows * 100).div_ceil(FULL);
    u32::try_from(ways.div_ceil(WAYS.into())).unwrap_or(u32::MAX).max(1)
}

impl Sizes {
    /// For so many flows. A client has a template for many flows, so they get a quarter of the room.
    pub fn of(flows: FlowTables) -> Self {
        let (v4, v6) = (u64::from(flows.ipv4), u64::from(flows.ipv6));
        Self { v4: buckets(v4), v6: buckets(v6), templates: buckets((v4 + v6) / 4) }
    }

    pub fn buckets(&self) -> [u32; 3] {
        [self.v4, self.v6, self.templates]
    }

    /// Memory of the tables, in bytes.
    pub fn bytes(&self) -> u64 {
        let table = |buckets: u32, words: u32| u64::from(buckets) * u64::from(words) * 4;
        table(self.v4, V4::BUCKET) + table(self.v6, V6::BUCKET) + table(self.templates, Templates::BUCKET)
    }

    /// Entries of the spill map: no more than there can be flows.
    pub fn spill(&self) -> u32 {
        limits::SPILL.min((self.v4.saturating_add(self.v6)).saturating_mul(WAYS))
    }
}

/// In ways, as an operator counts.
impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flows = |buckets: u32| u64::from(buckets) * u64::from(WAYS) * FULL / 100;
        write!(f, "{} IPv4 and {} IPv6 flows", flows(self.v4), flows(self.v6))
    }
}

/// `MemAvailable` of `/proc/meminfo` in bytes.
pub fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_the_flows_at_85_percent() {
        let sizes = Sizes::of(FlowTables { ipv4: 1 << 20, ipv6: 1 << 17 });
        assert_eq!(sizes.v4, 154_203);
        assert!(u64::from(sizes.v4) * 8 * 85 / 100 >= 1 << 20);
        assert_eq!(sizes.bytes() / (1 << 20), 28 + 7 + 18);
        assert_eq!(sizes.to_string(), "1048580 IPv4 and 131076 IPv6 flows");
    }

    #[test]
    fn available_memory_is_read() {
        assert!(memory_available().unwrap() > 1 << 20);
    }
}
