//! What the fuzzer plays, and the inputs it keeps.
//!
//! The libFuzzer targets in `tests/fuzz` are a line each; what they do is here, so that ordinary tests play the kept
//! inputs again, on the host and through the loaded programs.

mod corpus;
pub mod decap;
pub mod path;

use clap::ValueEnum;

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The director's path.
    Path,
    /// The real server's decapsulator.
    Decap,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Decap => "decap",
        }
    }

    /// Plays an input on the host.
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub fn play(self, input: &[u8]) {
        match self {
            Self::Path => path::play(input),
            Self::Decap => decap::play(input),
        }
    }

    /// Inputs made from the cases, to begin with.
    pub fn seeds(self) -> Vec<Vec<u8>> {
        match self {
            Self::Path => path::seeds(),
            Self::Decap => decap::seeds(),
        }
    }
}
