//! TCP (RFC 9293 §3.1).

/// The header without options.
pub const HEADER: usize = 20;
pub const FLAGS: usize = 13;
