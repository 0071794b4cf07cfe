//! The real servers' UDP server: answers each datagram with who received it from whom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::UdpSocket;

use super::LabError;
use super::http::Answer;
use super::runtime::NsRuntime;
use crate::netns::Namespace;

/// A UDP server in a namespace that answers with an [`Answer`] about the datagram; it stops when dropped.
#[derive(Debug)]
pub struct UdpServer {
    datagrams: Arc<AtomicU64>,
    _runtime: NsRuntime,
}

impl UdpServer {
    /// Listens on each address (host-order port) by a socket of its own. A socket bound to a wildcard address would
    /// answer from the address the route back prefers, the RIP, where clients wait for the VIP.
    pub fn start(namespace: &Namespace, name: &str, addresses: &[SocketAddr]) -> Result<Self, LabError> {
        let runtime = NsRuntime::start(namespace)?;
        let datagrams = Arc::new(AtomicU64::new(0));
        for &address in addresses {
            let socket = runtime.block_on(UdpSocket::bind(address)).map_err(|source| LabError::Listen {
                namespace: namespace.name().to_owned(),
                address,
                source,
            })?;
            runtime.spawn(serve(socket, name.to_owned(), address, Arc::clone(&datagrams)));
        }
        Ok(UdpServer { datagrams, _runtime: runtime })
    }

    /// Datagrams received so far.
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Ordering::Relaxed)
    }
}

async fn serve(socket: UdpSocket, name: String, local: SocketAddr, datagrams: Arc<AtomicU64>) {
    let mut payload = vec![0; usize::from(u16::MAX)];
    loop {
        // An error here is an ICMP message about an earlier answer: that client's loss.
        let Ok((length, peer)) = socket.recv_from(&mut payload).await else { continue };
        datagrams.fetch_add(1, Ordering::Relaxed);
        let answer = Answer::new(&name, peer, local, 0, &payload[..length]);
        let json = serde_json::to_vec(&answer).expect("an Answer has no map with odd keys");
        let _ = socket.send_to(&json, peer).await;
    }
}
