//! Paths, methods and HTTP statuses.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use tokio::task::spawn_blocking;

use super::types::{
    ErrorCode, Failure, Flow, FlowCount, FlowFilter, Reload, Service, Stats, Status, Version,
};
use super::{Flows, Operator, OperatorError, ReloadError};

/// Bytes of a listing that are made at a time: a few thousand flows, so that a switch of threads is nothing beside it.
const CHUNK: usize = 256 << 10;

type Answer<T> = Result<Json<T>, Failure>;
type Asked = Result<Query<FlowFilter>, QueryRejection>;

pub(super) fn router<O: Operator>(operator: Arc<O>) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/status", get(status::<O>))
        .route("/v1/services", get(services::<O>))
        .route("/v1/stats", get(stats::<O>))
        .route("/v1/flows", get(flows::<O>))
        .route("/v1/flows/count", get(count::<O>))
        .route("/v1/reload", post(reload::<O>))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(operator)
}

async fn version() -> Json<Version> {
    Json(Version::own())
}

async fn status<O: Operator>(State(operator): State<Arc<O>>) -> Answer<Status> {
    blocking(move || operator.status()).await.map(Json)
}

async fn services<O: Operator>(State(operator): State<Arc<O>>) -> Answer<Vec<Service>> {
    blocking(move || operator.services()).await.map(Json)
}

async fn stats<O: Operator>(State(operator): State<Arc<O>>) -> Answer<Stats> {
    blocking(move || operator.stats()).await.map(Json)
}

async fn flows<O: Operator>(State(operator): State<Arc<O>>, asked: Asked) -> Result<Response, Failure> {
    let listing = blocking(move || fitting(&*operator, asked)).await?;
    // Each chunk is made when the client has room for it, and no thread waits for a slow client.
    let chunks = stream::unfold(Some(listing), |listing| async move {
        let (chunk, rest) = match spawn_blocking(|| next_chunk(listing?)).await {
            Ok(made) => made?,
            Err(panic) => (line(&internal(&panic)), None),
        };
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), rest))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(chunks)).into_response())
}

async fn count<O: Operator>(State(operator): State<Arc<O>>, asked: Asked) -> Answer<FlowCount> {
    let counted = blocking(move || {
        let mut flows = fitting(&*operator, asked)?;
        flows.try_fold(0, |sum, flow| flow.map(|_| sum + 1)).map_err(Failure::from)
    });
    Ok(Json(FlowCount { flows: counted.await? }))
}

async fn reload<O: Operator>(State(operator): State<Arc<O>>) -> Answer<Reload> {
    // By itself: a client that hangs up does not stop a reload half-way.
    match tokio::spawn(async move { operator.reload().await }).await {
        Ok(outcome) => Ok(Json(outcome?)),
        Err(panic) => Err(internal(&panic)),
    }
}

async fn not_found(uri: Uri) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    Failure::new(ErrorCode::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

/// The flows that fit what is asked.
fn fitting<O: Operator>(operator: &O, asked: Asked) -> Result<Flows, Failure> {
    let Query(filter) =
        asked.map_err(|rejection| Failure::new(ErrorCode::InvalidRequest, rejection.body_text()))?;
    if let Some(name) = &filter.service {
        let services = operator.services()?;
        if !services.iter().any(|service| service.name == *name) {
            return Err(unknown_service(name, &services));
        }
    }
    let limit = filter.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let fits = move |flow: &Result<Flow, OperatorError>| flow.as_ref().map_or(true, |flow| filter.fits(flow));
    Ok(Box::new(operator.flows()?.filter(fits).take(limit)))
}

/// What is said of a service that does not exist.
pub(crate) fn unknown_service(name: &str, services: &[Service]) -> Failure {
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    let known = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
    let detail = format!("there is no virtual service `{name}`; there are: {known}");
    Failure::new(ErrorCode::UnknownService, detail)
}

/// The next lines of a listing, and the listing if there may be more; `None` at its end.
fn next_chunk(mut listing: Flows) -> Option<(Vec<u8>, Option<Flows>)> {
    let mut chunk = Vec::with_capacity(CHUNK + 512);
    for flow in &mut listing {
        match flow {
            Ok(flow) => {
                if let Err(error) = serde_json::to_writer(&mut chunk, &flow) {
                    chunk.extend(line(&internal(&error)));
                    return Some((chunk, None));
                }
                chunk.push(b'\n');
            }
            Err(error) => {
                chunk.extend(line(&Failure::from(error)));
                return Some((chunk, None));
            }
        }
        if chunk.len() >= CHUNK {
            return Some((chunk, Some(listing)));
        }
    }
    if chunk.is_empty() { None } else { Some((chunk, None)) }
}

fn line(failure: &Failure) -> Vec<u8> {
    // Text and numbers alone: always JSON.
    let mut line = serde_json::to_vec(failure).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Runs what reads maps where it does not keep others waiting.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(panic) => Err(internal(&panic)),
    }
}

/// An error with all of its causes in one line.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn internal(error: &dyn Error) -> Failure {
    let detail = chain(error);
    tracing::error!(%detail, "cannot answer");
    Failure::new(ErrorCode::Internal, detail)
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::NotReady(_) => Self::new(ErrorCode::NotReady, error.to_string()),
            OperatorError::Read { .. } => internal(&error),
        }
    }
}

impl From<ReloadError> for Failure {
    fn from(error: ReloadError) -> Self {
        let detail = chain(&error);
        match error {
            ReloadError::Invalid { findings, .. } => {
                Self { findings, ..Self::new(ErrorCode::InvalidConfiguration, detail) }
            }
            ReloadError::NeedsRestart { .. } => Self::new(ErrorCode::NeedsRestart, detail),
            ReloadError::Apply { .. } => internal(&error),
            ReloadError::Operator(error) => error.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.error {
            ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorCode::NotFound | ErrorCode::UnknownService => StatusCode::NOT_FOUND,
            ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::InvalidConfiguration => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::NeedsRestart => StatusCode::CONFLICT,
            ErrorCode::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}
