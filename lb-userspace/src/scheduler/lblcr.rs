//! Locality-based least connection with replication: as lblc, with a set of servers for each destination, which grows
//! when all of it is crowded and loses its busiest after a day without a change.

use lb_common::plan::locality;

pub(super) const DETAIL: u8 = locality::REPLICATE;
