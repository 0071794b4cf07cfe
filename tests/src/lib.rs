//! What the tests share.

pub mod lab;
pub mod netns;
