//! What the kernel knows of interfaces, addresses, routes and neighbours, through rtnetlink. Calls, no policy.
//!
//! One [`Netlink`] asks and tells; a [`Subscription`] on a socket of its own listens. They are apart because the
//! kernel drops notifications when a listener's buffer is full, and an answer must not be lost with them.

mod addr;
mod link;
mod neigh;
mod route;

use std::{fmt, io, net::IpAddr, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    proto::sys::{AsyncSocket, SocketAddr},
};

pub use self::{
    addr::{Added, Address, Removed},
    link::{Link, LinkKind, VlanTag},
    neigh::{NeighState, Neighbour},
    route::{Route, Via},
};

/// An Ethernet address, as on the wire.
pub type Mac = [u8; 6];

/// How long the kernel may take to answer. It answers at once; without a bound, an answer the library cannot decode
/// would be waited for for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Receive buffer asked for a [`Subscription`], bytes; the kernel grants up to `net.core.rmem_max`.
const SUBSCRIPTION_BUFFER: i32 = 4 << 20;

/// Why the kernel's networking state could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel said no; `source` carries its errno.
    #[error("cannot {what}")]
    Refused {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The request could not be sent, or the answer is not one to this request.
    #[error("cannot {what}")]
    Exchange {
        what: String,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("cannot {what}: the kernel did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Timeout { what: String },
    #[error("cannot {what}: the kernel's answer has no {missing}")]
    Incomplete { what: String, missing: &'static str },
}

impl NetlinkError {
    fn new(what: impl fmt::Display, source: rtnetlink::Error) -> Self {
        let what = what.to_string();
        match source {
            rtnetlink::Error::NetlinkError(message) => Self::Refused { what, source: message.to_io() },
            source => Self::Exchange { what, source },
        }
    }

    /// The kernel's errno, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Open(source) => source.raw_os_error(),
            Self::Exchange { .. } | Self::Timeout { .. } | Self::Incomplete { .. } => None,
        }
    }
}

/// Questions and orders to the kernel's networking, in the network namespace of the thread that opened it.
/// Cloning shares the socket.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a netlink socket. Must be called within a tokio runtime, which serves the socket until the last clone
    /// is dropped. Reading needs no privilege; changing needs `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _unsolicited) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Sends a hand-made request and waits for all of its answer. `what` completes "cannot …".
    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl fmt::Display + Copy,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let answers =
            self.handle.clone().request(request).map_err(|source| NetlinkError::new(what, source))?;
        let answers = answers.filter_map(async |answer| match answer.payload {
            NetlinkPayload::InnerMessage(message) => Some(Ok(message)),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                Some(Err(rtnetlink::Error::NetlinkError(error)))
            }
            _ => None,
        });
        collect(answers, what).await
    }
}

/// All of a dump, within [`ANSWER_WITHIN`].
async fn collect<T>(
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
    what: impl fmt::Display,
) -> Result<Vec<T>, NetlinkError> {
    match tokio::time::timeout(ANSWER_WITHIN, answers.try_collect()).await {
        Ok(collected) => collected.map_err(|source| NetlinkError::new(what, source)),
        Err(_) => Err(NetlinkError::Timeout { what: what.to_string() }),
    }
}

/// Something changed in the kernel's networking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface appeared or any of its attributes changed.
    Link(Link),
    LinkGone {
        ifindex: u32,
    },
    /// A neighbour appeared, or its state or MAC changed.
    Neighbour(Neighbour),
    NeighbourGone {
        ifindex: u32,
        address: IpAddr,
    },
    /// Some route or routing rule came, went or changed.
    Routes,
    /// Some interface's address came, went or changed.
    Addresses,
    /// The kernel dropped notifications (`ENOBUFS`): everything known has to be read again.
    Overrun,
}

impl Event {
    fn from_message(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Self> {
        use RouteNetlinkMessage as M;
        match message.payload {
            NetlinkPayload::Overrun(_) => Some(Self::Overrun),
            NetlinkPayload::InnerMessage(message) => match message {
                M::NewLink(m) => Link::from_message(&m).map(Self::Link),
                // A port leaving a bridge is told as the deletion of its link in family AF_BRIDGE: the link stays.
                M::DelLink(m) => Link::from_message(&m).map(|link| Self::LinkGone { ifindex: link.ifindex }),
                M::NewNeighbour(m) => Neighbour::from_message(&m).map(Self::Neighbour),
                M::DelNeighbour(m) => Neighbour::from_message(&m)
                    .map(|n| Self::NeighbourGone { ifindex: n.ifindex, address: n.address }),
                M::NewRoute(_) | M::DelRoute(_) | M::NewRule(_) | M::DelRule(_) => Some(Self::Routes),
                M::NewAddress(_) | M::DelAddress(_) => Some(Self::Addresses),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Notifications of links, neighbours, routes, routing rules and addresses, both families.
pub struct Subscription {
    events: stream::BoxStream<'static, Event>,
    connection: tokio::task::JoinHandle<()>,
}

impl Subscription {
    /// Listens from now on, in the network namespace of the calling thread. To miss nothing, subscribe first and
    /// read the present state afterwards. Must be called within a tokio runtime. Needs no privilege.
    pub fn open() -> Result<Self, NetlinkError> {
        use MulticastGroup as G;
        let (mut connection, _handle, messages) = rtnetlink::new_multicast_connection(&[
            G::Link,
            G::Neigh,
            G::Ipv4Ifaddr,
            G::Ipv6Ifaddr,
            G::Ipv4Route,
            G::Ipv6Route,
            G::Ipv4Rule,
            G::Ipv6Rule,
        ])
        .map_err(NetlinkError::Open)?;
        connection
            .socket_mut()
            .socket_mut()
            .set_rx_buf_sz(SUBSCRIPTION_BUFFER)
            .map_err(NetlinkError::Open)?;
        let events = messages
            .filter_map(async |(message, _from): (_, SocketAddr)| Event::from_message(message))
            .boxed();
        Ok(Self { events, connection: tokio::spawn(connection) })
    }

    /// The next event; `None` when the socket broke and a new subscription is needed. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.next().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
