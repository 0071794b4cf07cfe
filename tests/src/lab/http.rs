//! The real servers' HTTP/1.1 server: says who answered whom.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::LabError;
use super::runtime::NsRuntime;
use crate::netns::Namespace;

/// Header that names the server in every response.
pub const SERVER_HEADER: &str = "x-real-server";
/// Connections that may wait to be accepted, per port and family.
const BACKLOG: i32 = 1024;
/// Largest body `/bytes` makes.
const MAX_BYTES: usize = 64 << 20;

/// What a real server says to a request (as JSON), over TCP and UDP alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the server.
    pub server: String,
    /// Client address and port as the server saw them.
    pub peer: SocketAddr,
    /// Address and port the client dialled, as the server saw them.
    pub local: SocketAddr,
    /// Requests answered on this connection before this one; 0 over UDP.
    pub earlier: u64,
    /// Bytes of the request's body.
    pub length: u64,
    /// SHA-256 of the request's body, in lower-case hex.
    pub sha256: String,
}

impl Answer {
    pub(super) fn new(server: &str, peer: SocketAddr, local: SocketAddr, earlier: u64, body: &[u8]) -> Self {
        let length = body.len() as u64;
        Answer { server: server.to_owned(), peer, local, earlier, length, sha256: sha256(body) }
    }
}

/// SHA-256 in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An HTTP/1.1 server in a namespace; it stops, and resets its connections, when dropped.
///
/// | request | response |
/// |---|---|
/// | any method on `/` or `/upload` | [`Answer`] about the request and its body |
/// | `GET /hold?ms=N` | the same, N milliseconds later |
/// | `GET /bytes?n=N` | N bytes of the letter `x` |
/// | `GET /health` | the status given to [`HttpServer::set_health`], 200 at first |
#[derive(Debug)]
pub struct HttpServer {
    name: String,
    shared: Arc<Shared>,
    _runtime: NsRuntime,
}

#[derive(Debug)]
struct Shared {
    name: String,
    connections: AtomicU64,
    open: AtomicU64,
    requests: AtomicU64,
    health: AtomicU16,
}

impl HttpServer {
    /// Listens on every address of the namespace, both families, on each of `ports`.
    pub fn start(namespace: &Namespace, name: &str, ports: &[u16]) -> Result<Self, LabError> {
        let runtime = NsRuntime::start(namespace)?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            health: AtomicU16::new(StatusCode::OK.as_u16()),
        });
        for &port in ports {
            for address in
                [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), (Ipv6Addr::UNSPECIFIED, port).into()]
            {
                let listener = runtime.block_on(async move { listen(address) }).map_err(|source| {
                    LabError::Listen { namespace: namespace.name().to_owned(), address, source }
                })?;
                runtime.spawn(accept(listener, Arc::clone(&shared)));
            }
        }
        Ok(HttpServer { name: name.to_owned(), shared, _runtime: runtime })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Requests received so far, those for `/health` excepted.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Makes `/health` answer with this status from now on.
    pub fn set_health(&self, status: StatusCode) {
        self.shared.health.store(status.as_u16(), Ordering::Relaxed);
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(converse(stream, peer, Arc::clone(&shared)));
            }
            // Out of descriptors, or the connection died in the queue: the next one may do better.
            Err(error) => {
                tracing::warn!(server = shared.name, %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let Ok(local) = stream.local_addr() else { return };
    let open = Open::new(&shared);
    let answered = AtomicU64::new(0);
    let service = service_fn(|request| {
        let earlier = answered.fetch_add(1, Ordering::Relaxed);
        respond(&open.0, peer, local, earlier, request)
    });
    // A connection the client resets is the client's affair.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Counts a connection as open while it lives, however it ends.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn respond(
    shared: &Shared,
    peer: SocketAddr,
    local: SocketAddr,
    earlier: u64,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path != "/health" {
        shared.requests.fetch_add(1, Ordering::Relaxed);
    }
    let (status, body) = match (request.method(), path.as_str()) {
        (_, "/" | "/upload") => answer(shared, peer, local, earlier, request).await,
        (&Method::GET, "/hold") => match parameter(&query, "ms") {
            Some(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                answer(shared, peer, local, earlier, request).await
            }
            None => (StatusCode::BAD_REQUEST, "give ms=<milliseconds>".into()),
        },
        (&Method::GET, "/bytes") => match parameter(&query, "n") {
            Some(n) if n <= MAX_BYTES as u64 => (StatusCode::OK, Bytes::from(vec![b'x'; n as usize])),
            _ => (StatusCode::BAD_REQUEST, format!("give n=<bytes>, at most {MAX_BYTES}").into()),
        },
        (&Method::GET, "/health") => {
            let status = shared.health.load(Ordering::Relaxed);
            (StatusCode::from_u16(status).expect("stored from a StatusCode"), Bytes::new())
        }
        _ => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(name) = HeaderValue::from_str(&shared.name) {
        response.headers_mut().insert(SERVER_HEADER, name);
    }
    Ok(response)
}

async fn answer(
    shared: &Shared,
    peer: SocketAddr,
    local: SocketAddr,
    earlier: u64,
    request: Request<Incoming>,
) -> (StatusCode, Bytes) {
    match request.into_body().collect().await {
        Ok(body) => {
            let answer = Answer::new(&shared.name, peer, local, earlier, &body.to_bytes());
            let json = serde_json::to_vec(&answer).expect("an Answer has no map with odd keys");
            (StatusCode::OK, json.into())
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string().into()),
    }
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
