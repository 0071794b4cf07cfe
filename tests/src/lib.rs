//! What the tests share.

pub mod lab;
pub mod netns;
pub mod packet;
pub mod traces;
