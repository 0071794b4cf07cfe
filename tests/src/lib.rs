//! What the tests share.

pub mod cases;
pub mod decap;
pub mod director;
pub mod engine;
pub mod flood;
pub mod fuzz;
pub mod lab;
pub mod listing;
pub mod live;
pub mod netns;
pub mod packet;
pub mod random;
pub mod replay;
pub mod state;
pub mod traces;
