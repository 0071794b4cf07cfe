//! The real server's side: what a real server needs besides its service, set up, checked and taken away again.
//!
//! [`commands`] says what has to be so, as steps that know their shell command; [`host`] reads what is so;
//! [`setup`] does what is missing, [`check`] names what is wrong. [`decap`] stands in for a tunnel device where the
//! kernel has none.

pub mod check;
pub mod commands;
pub mod decap;
pub mod host;
pub mod setup;
