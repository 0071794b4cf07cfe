//! The client: asks over HTTP and UDP, and records who answered, whom the server saw, and how long it took.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::AbortHandle;

use super::LabError;
use super::http::Answer;
use super::runtime::NsRuntime;
use crate::netns::Namespace;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {target}")]
    Connect { target: SocketAddr, source: io::Error },
    #[error("no answer from {target} within {after:?}")]
    TimedOut { target: SocketAddr, after: Duration },
    #[error("HTTP conversation with {target} broke")]
    Http { target: SocketAddr, source: hyper::Error },
    #[error("{target} answered {status}: {body}")]
    Status { target: SocketAddr, status: StatusCode, body: String },
    #[error("UDP exchange with {target} failed")]
    Udp { target: SocketAddr, source: io::Error },
    #[error("answer of {target} is not one of the lab's: {body:?}")]
    Answer { target: SocketAddr, body: String, source: serde_json::Error },
}

/// What became of one request.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<Answer, ClientError>,
    /// From before the connection (or datagram) to the end of the answer, or to giving up.
    pub latency: Duration,
}

/// Many requests, each over a new connection or from a new UDP socket.
#[derive(Debug, Clone)]
pub struct Load {
    pub target: SocketAddr,
    pub requests: usize,
    /// Requests under way at any time; at least 1.
    pub concurrency: usize,
    /// Client address and port; port 0 lets the kernel choose. A fixed port allows one request at a time.
    pub source: Option<SocketAddr>,
    /// Request `i` comes from port `source` + `i`: no connection has the ports of an earlier one, which a director would
    /// take for that one still closing.
    pub successive_ports: bool,
    /// HTTP path and query.
    pub path: String,
    /// Body of each HTTP request, payload of each datagram.
    pub body: Bytes,
    /// How long each request may take.
    pub deadline: Duration,
}

impl Load {
    /// `requests` empty requests to `/`, 16 at a time, 5 s for each.
    pub fn new(target: SocketAddr, requests: usize) -> Self {
        Load {
            target,
            requests,
            concurrency: 16,
            source: None,
            successive_ports: false,
            path: "/".to_owned(),
            body: Bytes::new(),
            deadline: Duration::from_secs(5),
        }
    }

    pub fn concurrency(self, concurrency: usize) -> Self {
        Load { concurrency, ..self }
    }

    /// Sends from this client address, any port.
    pub fn from(self, source: IpAddr) -> Self {
        self.from_port(SocketAddr::new(source, 0))
    }

    pub fn from_port(self, source: SocketAddr) -> Self {
        Load { source: Some(source), ..self }
    }

    /// Sends from this address and port, the next request from the next port, and so on; past 65535 from 1024 again.
    pub fn from_ports(self, first: SocketAddr) -> Self {
        Load { source: Some(first), successive_ports: true, ..self }
    }

    pub fn path(self, path: impl Into<String>) -> Self {
        Load { path: path.into(), ..self }
    }

    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Load { body: body.into(), ..self }
    }

    pub fn deadline(self, deadline: Duration) -> Self {
        Load { deadline, ..self }
    }
}

/// How many requests each server answered.
///
/// # Panics
/// When a request failed, saying why.
pub fn tally(outcomes: &[Outcome]) -> BTreeMap<String, usize> {
    let mut servers = BTreeMap::new();
    for (number, outcome) in outcomes.iter().enumerate() {
        match &outcome.result {
            Ok(answer) => *servers.entry(answer.server.clone()).or_default() += 1,
            Err(error) => panic!("request {number} of {} failed: {}", outcomes.len(), chain(error)),
        }
    }
    servers
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A client in a namespace. Its calls block the calling thread.
#[derive(Debug)]
pub struct Client {
    runtime: NsRuntime,
}

impl Client {
    pub fn start(namespace: &Namespace) -> Result<Self, LabError> {
        Ok(Client { runtime: NsRuntime::start(namespace)? })
    }

    /// One request, as [`Client::http`] makes them.
    pub fn get(&self, target: SocketAddr) -> Result<Answer, ClientError> {
        self.http(&Load::new(target, 1)).remove(0).result
    }

    /// Sends `body` to `/upload`; 30 s are allowed.
    pub fn upload(&self, target: SocketAddr, body: impl Into<Bytes>) -> Result<Answer, ClientError> {
        let load = Load::new(target, 1).path("/upload").body(body).deadline(Duration::from_secs(30));
        self.http(&load).remove(0).result
    }

    /// HTTP requests, each on a connection of its own; the outcomes are in the order the requests were started.
    pub fn http(&self, load: &Load) -> Vec<Outcome> {
        self.all(load, |load| async move {
            let (mut sender, connection, _) = connect(load.target, load.source).await?;
            let answer = ask(&mut sender, load.target, &load.path, load.body).await;
            connection.abort();
            answer
        })
    }

    /// Datagrams to a [`super::udp::UdpServer`], each from a socket of its own and sent once. The socket is
    /// connected: only an answer from the very address and port it was sent to counts.
    pub fn udp(&self, load: &Load) -> Vec<Outcome> {
        self.all(load, |load| async move { datagram(load.target, load.source, &load.body).await })
    }

    /// Opens a connection to keep.
    pub fn converse(
        &self,
        target: SocketAddr,
        source: Option<SocketAddr>,
    ) -> Result<Conversation<'_>, ClientError> {
        let deadline = Duration::from_secs(5);
        let (sender, connection, local) =
            self.runtime.block_on(async move { within(deadline, target, connect(target, source)).await })?;
        Ok(Conversation { client: self, target, local, sender: Arc::new(Mutex::new(sender)), connection })
    }

    fn all<F>(&self, load: &Load, one: impl Fn(Load) -> F + Clone + Send + Sync + 'static) -> Vec<Outcome>
    where
        F: Future<Output = Result<Answer, ClientError>> + Send + 'static,
    {
        let load = load.clone();
        self.runtime.block_on(async move {
            let permits = Arc::new(Semaphore::new(load.concurrency.max(1)));
            let mut requests = Vec::with_capacity(load.requests);
            for number in 0..load.requests {
                let permit = Arc::clone(&permits).acquire_owned().await.expect("never closed");
                let (one, mut load) = (one.clone(), load.clone());
                if load.successive_ports {
                    load.source = load.source.map(|source| nth_port(source, number));
                }
                requests.push(tokio::spawn(async move {
                    let _permit = permit;
                    let start = Instant::now();
                    let result = within(load.deadline, load.target, one(load)).await;
                    Outcome { result, latency: start.elapsed() }
                }));
            }
            let mut outcomes = Vec::with_capacity(requests.len());
            for request in requests {
                outcomes.push(request.await.expect("a request does not panic"));
            }
            outcomes
        })
    }
}

/// The address with the port `number` further on.
pub fn nth_port(first: SocketAddr, number: usize) -> SocketAddr {
    const FIRST: usize = 1024;
    const PORTS: usize = 65_536 - FIRST;
    let port = FIRST + (usize::from(first.port()).saturating_sub(FIRST) + number) % PORTS;
    SocketAddr::new(first.ip(), port as u16)
}

/// A connection that stays open from request to request, until dropped.
#[derive(Debug)]
pub struct Conversation<'a> {
    client: &'a Client,
    target: SocketAddr,
    local: SocketAddr,
    sender: Arc<Mutex<SendRequest<Full<Bytes>>>>,
    connection: AbortHandle,
}

impl Conversation<'_> {
    /// The client's address and port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// A request to `/`; 5 s are allowed.
    pub fn request(&mut self) -> Result<Answer, ClientError> {
        self.send("/", Bytes::new(), Duration::from_secs(5))
    }

    /// A request with a body to any path that answers with an [`Answer`].
    pub fn send(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Answer, ClientError> {
        let (sender, target, path, body) =
            (Arc::clone(&self.sender), self.target, path.to_owned(), body.into());
        self.client.runtime.block_on(async move {
            let mut sender = sender.lock().await;
            within(deadline, target, ask(&mut sender, target, &path, body)).await
        })
    }
}

impl Drop for Conversation<'_> {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn within<T>(
    after: Duration,
    target: SocketAddr,
    future: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(after, future).await.unwrap_or(Err(ClientError::TimedOut { target, after }))
}

type Connection = (SendRequest<Full<Bytes>>, AbortHandle, SocketAddr);

async fn connect(target: SocketAddr, source: Option<SocketAddr>) -> Result<Connection, ClientError> {
    let (stream, local) =
        dial(target, source).await.map_err(|source| ClientError::Connect { target, source })?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|source| ClientError::Http { target, source })?;
    // Its errors reach the request that is waiting on it.
    let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok((sender, connection, local))
}

async fn dial(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<(TcpStream, SocketAddr)> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        // Lets a fixed source port be used again at once.
        socket.set_reuseaddr(true)?;
        socket.bind(source)?;
    }
    let stream = socket.connect(target).await?;
    let local = stream.local_addr()?;
    Ok((stream, local))
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    target: SocketAddr,
    path: &str,
    body: Bytes,
) -> Result<Answer, ClientError> {
    let http = |source| ClientError::Http { target, source };
    let method = if body.is_empty() { Method::GET } else { Method::POST };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, target.to_string())
        .body(Full::new(body))
        .expect("the test gave a valid path");
    sender.ready().await.map_err(http)?;
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(http)?.to_bytes();
    if status != StatusCode::OK {
        return Err(ClientError::Status {
            target,
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        });
    }
    parse(target, &body)
}

async fn datagram(
    target: SocketAddr,
    source: Option<SocketAddr>,
    payload: &[u8],
) -> Result<Answer, ClientError> {
    let any: SocketAddr =
        if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let exchange = async {
        let socket = UdpSocket::bind(source.unwrap_or(any)).await?;
        socket.connect(target).await?;
        socket.send(payload).await?;
        let mut answer = vec![0; usize::from(u16::MAX)];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    };
    let answer = exchange.await.map_err(|source| ClientError::Udp { target, source })?;
    parse(target, &answer)
}

fn parse(target: SocketAddr, body: &[u8]) -> Result<Answer, ClientError> {
    serde_json::from_slice(body).map_err(|source| {
        let body = String::from_utf8_lossy(body).into_owned();
        ClientError::Answer { target, body, source }
    })
}
