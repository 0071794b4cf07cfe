//! A director's state in the words of IPVS's listings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_common::net::proto;
use lb_userspace::model;

use super::entries::Remembered;
use crate::traces::scenario::ServiceKey;
use crate::traces::trace::Conn;

/// How packets reach a server, as listed: as it was asked for, even if the server is local.
pub(super) fn method(server: &model::Server) -> String {
    if server.method.is_tunnel() { "Tunnel" } else { "Route" }.to_owned()
}

/// A flow or template of a server that is listed at `server`.
pub(super) fn conn(what: &Remembered, service: ServiceKey, server: SocketAddr, now: u32, hz: u32) -> Conn {
    let key = &what.flow.key;
    let client = SocketAddr::new(key.client.to_ip(), key.client_port());
    let mut vip = SocketAddr::new(key.vip.to_ip(), key.vip_port());
    let mut port = if server.port() == 0 { vip.port() } else { server.port() };
    let mut state = what.flow.state_name().to_owned();
    let mut proto = match key.protocol as u8 {
        proto::TCP => "TCP",
        proto::UDP => "UDP",
        proto::SCTP => "SCTP",
        _ => "IP",
    };
    if what.is_template {
        state = if what.is_assured() { "ASSURED" } else { "NONE" }.to_owned();
        if let ServiceKey::Mark { mark, .. } = service {
            let number = Ipv4Addr::from(mark.get());
            vip = SocketAddr::new(
                match client.ip() {
                    IpAddr::V4(_) => number.into(),
                    IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from(u128::from(mark.get()))),
                },
                0,
            );
            proto = "IP";
        }
        // IPVS gives the template of a service for any port and of a mark no port of the server either.
        if vip.port() == 0 {
            port = 0;
        }
    }
    let left = what.left(now).max(0) as u32;
    Conn {
        proto: proto.to_owned(),
        client,
        vip,
        server: SocketAddr::new(server.ip(), port),
        state,
        expires: u64::from(left / hz),
        more: Vec::new(),
    }
}
