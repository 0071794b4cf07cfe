//! TCP (RFC 9293 §3.1).

pub const FLAGS: usize = 13;
