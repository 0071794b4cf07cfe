//! What the tests share.

pub mod netns;
