//! What the daemon does for the API.

use std::error::Error;

use super::types::{Finding, Flow, Reload, Service, Stats, Status};

/// Flows as they are read from the tables, in no order. Read on demand, a slice at a time, as the client takes them:
/// the iterator may live as long as the client is slow, so it must not hold a lock.
pub type Flows = Box<dyn Iterator<Item = Result<Flow, OperatorError>> + Send>;

/// A running director, as the API sees it.
///
/// All but `reload` may block for as long as it takes to read the maps; they are called where that harms nobody. They
/// may run at the same time as each other and as a reload.
pub trait Operator: Send + Sync + 'static {
    /// Everything about the director and, in it, what [`Operator::services`] says.
    fn status(&self) -> Result<Status, OperatorError>;

    /// The virtual services in the order of the configuration, each with its real servers in that order.
    fn services(&self) -> Result<Vec<Service>, OperatorError>;

    /// Counters since the maps were made.
    fn stats(&self) -> Result<Stats, OperatorError>;

    /// All live flows and persistence templates; the API filters.
    fn flows(&self) -> Result<Flows, OperatorError>;

    /// Reads the configuration file again and puts it in force; answers when the datapath has it. If that fails,
    /// what was in force still is.
    fn reload(&self) -> impl Future<Output = Result<Reload, ReloadError>> + Send;
}

/// Why a question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The director is not ready; the text continues "the director is".
    #[error("the director is {0}")]
    NotReady(&'static str),
    #[error("cannot read {what}")]
    Read {
        /// What was being read: `the spill map`.
        what: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a configuration was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong. Nothing changed.
    #[error("{file} is not valid; nothing was changed")]
    Invalid {
        file: String,
        /// All errors and warnings, in the order of the file.
        findings: Vec<Finding>,
    },
    /// The file is right, but asks for what a running director cannot change. Nothing changed.
    #[error("{what} cannot change while the director runs; nothing was changed")]
    NeedsRestart {
        /// Keys with old and new value.
        what: String,
    },
    #[error("cannot put {file} in force")]
    Apply {
        file: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error(transparent)]
    Operator(#[from] OperatorError),
}
