//! Destination affinity of lblc and lblcr: which servers a destination address went to.

use crate::{limits::LOCALITY_SET, net::Addr};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct LocalityKey {
    pub destination: Addr,
    pub service: u32,
}

/// Places of the words in the value. Written by the kernel, thinned out by the sweeper.
pub mod word {
    /// Jiffies of the latest use.
    pub const USED: u32 = 0;
    /// Jiffies of the latest change of the set.
    pub const MODIFIED: u32 = 1;
    /// Servers in the set; lblc uses one.
    pub const COUNT: u32 = 2;
    /// Ids of the servers, the newest first.
    pub const SERVERS: u32 = 3;
}

/// Words of a value.
pub const LOCALITY_WORDS: usize = word::SERVERS as usize + LOCALITY_SET as usize;
