//! Destination affinity of lblc and lblcr: which servers a destination address went to.

use crate::limits::LOCALITY_SET;
use crate::net::Addr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct LocalityKey {
    pub destination: Addr,
    pub service: u32,
}

/// Servers of a destination, the newest first; lblc uses one. Written by the kernel, thinned out by the sweeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Locality {
    /// Jiffies of the latest use.
    pub used: u32,
    /// Jiffies of the latest change of the set.
    pub modified: u32,
    pub count: u32,
    pub servers: [u16; LOCALITY_SET],
}

impl Default for Locality {
    fn default() -> Self {
        Self { used: 0, modified: 0, count: 0, servers: [0; LOCALITY_SET] }
    }
}
