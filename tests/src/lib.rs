//! What the tests share.

pub mod packet;
