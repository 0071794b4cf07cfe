//! The API's client. Everything that shows or commands a director goes through it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::api::types::{Failure, Flow, FlowCount, FlowFilter, Reload, Service, Stats, Status, Version};

/// How long the director may take to begin an answer. Counting a hundred million flows takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A director, by its socket. Each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer, or not the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket, or nobody behind it.
    #[error("no director answers on {}: is `lb run` running?", socket.display())]
    NoDirector { socket: PathBuf },
    #[error("not allowed to talk to the director on {}: only root and the socket's group are", socket.display())]
    Forbidden { socket: PathBuf },
    #[error("cannot connect to {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the director on {} did not answer {path} within {seconds} s", socket.display())]
    Silent { socket: PathBuf, path: String, seconds: u64 },
    #[error("the answer to {path} broke off")]
    Broken {
        path: String,
        #[source]
        source: hyper::Error,
    },
    #[error("the answer to {path} is not what this version of lb expects")]
    Malformed {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    /// The director says no.
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl Client {
    /// A client of the director that answers on `socket`. Connects to nothing yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Which program answers.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.ask(Method::GET, "/v1/version").await
    }

    /// The director as a whole.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status").await
    }

    /// The virtual services in the order of the configuration.
    pub async fn services(&self) -> Result<Vec<Service>, ClientError> {
        self.ask(Method::GET, "/v1/services").await
    }

    /// Counters since the maps were made.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.ask(Method::GET, "/v1/stats").await
    }

    /// The flows that fit, one by one.
    pub async fn flows(&self, filter: &FlowFilter) -> Result<FlowLines, ClientError> {
        let path = query("/v1/flows", filter);
        let answer = self.send(Method::GET, &path).await?;
        Ok(FlowLines { body: answer.into_body(), path, buffer: BytesMut::new(), searched: 0 })
    }

    /// How many flows fit.
    pub async fn count_flows(&self, filter: &FlowFilter) -> Result<u64, ClientError> {
        let count: FlowCount = self.ask(Method::GET, &query("/v1/flows/count", filter)).await?;
        Ok(count.flows)
    }

    /// Has the director read its configuration again; answers when it is in force.
    pub async fn reload(&self) -> Result<Reload, ClientError> {
        self.ask(Method::POST, "/v1/reload").await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        let body = whole(path, self.send(method, path).await?).await?;
        parse(path, &body)
    }

    /// The answer, if it is not a refusal, when its head is there.
    async fn send(&self, method: Method, path: &str) -> Result<Response<Incoming>, ClientError> {
        let silent = |_| ClientError::Silent {
            socket: self.socket.clone(),
            path: path.to_owned(),
            seconds: PATIENCE.as_secs(),
        };
        let broken = |source| ClientError::Broken { path: path.to_owned(), source };
        let answer = timeout(PATIENCE, async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
            let (mut sender, connection) = handshake.await.map_err(broken)?;
            // Ends with the answer's body; what goes wrong on the way is told there too.
            tokio::spawn(connection);
            sender.send_request(request(method, path)).await.map_err(broken)
        });
        let answer = answer.await.map_err(silent)??;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let failure: Failure = parse(path, &whole(path, answer).await?)?;
        Err(failure.into())
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDirector { socket },
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket },
            _ => ClientError::Connect { socket, source },
        }
    }
}

fn request(method: Method, path: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    // Our own constants and percent-encoded queries: always a path.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("lb"));
    request
}

fn query(path: &str, filter: &FlowFilter) -> String {
    // Fails for nested structures alone, and a filter is flat.
    let query = serde_urlencoded::to_string(filter).unwrap_or_default();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

async fn whole(path: &str, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = answer.into_body().collect().await;
    body.map(|body| body.to_bytes()).map_err(|source| ClientError::Broken { path: path.to_owned(), source })
}

fn parse<'a, T: Deserialize<'a>>(path: &str, body: &'a [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|source| ClientError::Malformed { path: path.to_owned(), source })
}

/// A listing of flows as it arrives.
#[derive(Debug)]
pub struct FlowLines {
    body: Incoming,
    path: String,
    buffer: BytesMut,
    /// Bytes of `buffer` known to hold no end of line.
    searched: usize,
}

impl FlowLines {
    /// The next flow; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Flow>, ClientError> {
        match self.next_line().await? {
            Some(line) => self.parse(&line).map(Some),
            None => Ok(None),
        }
    }

    /// A line of this listing as a flow, or as what of one is of interest.
    ///
    /// # Errors
    /// [`ClientError::Malformed`].
    pub fn parse<'a, T: Deserialize<'a>>(&self, line: &'a [u8]) -> Result<T, ClientError> {
        parse(&self.path, line)
    }

    /// The next flow as its JSON, without the end of line; `None` after the last.
    pub async fn next_line(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + end).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                // The director ends a listing it cannot finish with its failure.
                if line.starts_with(br#"{"error":"#) {
                    return Err(parse::<Failure>(&self.path, &line)?.into());
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            let broken = |source| ClientError::Broken { path: self.path.clone(), source };
            match self.body.frame().await.transpose().map_err(broken)? {
                Some(frame) => self.buffer.extend(frame.into_data().ok()),
                // The director ends every line.
                None => return Ok(None),
            }
        }
    }
}
