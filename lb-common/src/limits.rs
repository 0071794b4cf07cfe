//! Capacities of the maps. Sizes that depend on the configuration are set at load.

/// Virtual services, and so plans. Ids run from 0.
pub const SERVICES: u32 = 4096;

/// Real servers over all services, removed ones with live flows included. Ids run from 1; 0 is no server.
pub const SERVERS: u32 = 16_384;

/// Cells for plans: a cursor and the slots of every plan, twice while one is being swapped.
pub const SLOTS: u32 = 1 << 20;

/// Candidates of a `Least` or `Locality` plan that are compared for one flow; see [`crate::plan::stretch`]. The verifier walks every iteration of the loop, and each costs about 0.7 ns.
pub const LEAST_CANDIDATES: u32 = 256;

/// Rules of one prefix in a multi-address service.
pub const MATCH_RULES: usize = 32;

/// Prefixes of all multi-address services.
pub const MATCH_PREFIXES: u32 = 4096;

/// Flows that found both of their buckets full.
pub const SPILL: u32 = 65_536;

/// Destinations remembered by lblc and lblcr over all services: IPVS's own bound for one service is 24,576.
pub const LOCALITY: u32 = 65_536;

/// Servers in one lblcr set.
pub const LOCALITY_SET: u32 = 32;

/// Fragmented datagrams on their way at one time.
pub const FRAGMENTS: u32 = 16_384;

/// Denied prefixes.
pub const DENIED: u32 = 16_384;

/// Source prefixes whose new flows are being counted.
pub const SOURCES: u32 = 65_536;

/// Paths whose MTU was learned from ICMP, a direct-mapped cache.
pub const PATHS: u32 = 4096;
