//! Locality-based least connection: the server its destination address went to before; wlc for a new one, or when
//! the server has more active flows than its weight and another has fewer than half of its own.

/// One server per destination.
pub(super) const DETAIL: u8 = 0;
