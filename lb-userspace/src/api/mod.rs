//! The director's one interface: HTTP and JSON on a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/version` | [`types::Version`] |
//! | `GET /v1/status` | [`types::Status`] |
//! | `GET /v1/services` | a list of [`types::Service`] |
//! | `GET /v1/stats` | [`types::Stats`] |
//! | `GET /v1/flows?…` | [`types::Flow`]s, one a line (`application/x-ndjson`); the query is a [`types::FlowFilter`] |
//! | `GET /v1/flows/count?…` | [`types::FlowCount`] |
//! | `POST /v1/reload` | [`types::Reload`] |
//!
//! Whatever else is answered is a [`types::Failure`] with a fitting HTTP status. Within `/v1` keys are added, never
//! renamed or removed.
//!
//! The daemon is an [`Operator`]; [`server::serve`] puts it on a socket, [`crate::client`] is the other end.

pub mod changes;
pub mod describe;
mod operator;
mod routes;
pub mod server;
pub mod types;

pub use operator::{Flows, Operator, OperatorError, ReloadError};
pub(crate) use routes::unknown_service;
pub use server::{BindError, Socket, serve};

/// Where the director answers, unless the configuration or the command line says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";
