use serde::{Deserialize, Serialize};

use super::Finding;

/// What is answered instead of what was asked for, with an HTTP status of 400 and above; also the last line of a
/// listing that broke off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// The kind, for programs.
    pub error: ErrorCode,
    /// The whole story in one line, for people.
    pub detail: String,
    /// What is wrong with the configuration, if that is the matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl Failure {
    pub fn new(error: ErrorCode, detail: impl Into<String>) -> Self {
        Self { error, detail: detail.into(), findings: Vec::new() }
    }
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the query cannot be understood.
    InvalidRequest,
    /// 404: no such path.
    NotFound,
    /// 404: no virtual service of that name.
    UnknownService,
    /// 405: the path exists, but not for this method.
    MethodNotAllowed,
    /// 422: the configuration has errors; nothing changed.
    InvalidConfiguration,
    /// 409: the configuration asks for what only a restart can change; nothing changed.
    NeedsRestart,
    /// 503: the director is starting or stopping.
    NotReady,
    /// 500: something failed that should not.
    Internal,
}

impl ErrorCode {
    /// Whether asking was in order and the answer is no, rather than something having gone wrong.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::UnknownService | Self::InvalidConfiguration | Self::NeedsRestart => true,
            Self::InvalidRequest
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::NotReady
            | Self::Internal => false,
        }
    }
}
