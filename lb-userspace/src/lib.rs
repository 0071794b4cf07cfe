//! The control plane, in the order a configuration change travels.
pub mod object;
