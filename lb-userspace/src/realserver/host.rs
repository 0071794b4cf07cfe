//! What is so on this machine, as far as being a real server is concerned.

use super::commands::Wanted;
use crate::model::Family;
use crate::netlink::{Link, LinkKind, Netlink, NetlinkError, Route};
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::process::Command;
use std::{fs, io};

/// Why the machine could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("opening a netlink socket")]
    Open(#[source] io::Error),
    #[error("asking the kernel for {what}")]
    Ask {
        what: &'static str,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("reading {path}")]
    Sysctl {
        path: String,
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    pub interfaces: Vec<Interface>,
    /// `net.ipv4.conf.all`.
    pub all: Conf,
    /// The way replies go, by family; none if there is no route.
    pub ways_back: BTreeMap<Family, WayBack>,
    /// VIPs the routing table takes for this host's own.
    pub local: BTreeSet<IpAddr>,
    /// UDP ports on which GUE is received; `None` if that could not be learned.
    pub gue_ports: Option<BTreeSet<u16>>,
}

/// Some of `net.ipv4.conf.<interface>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    pub arp_ignore: u32,
    pub arp_announce: u32,
    pub rp_filter: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mtu: u32,
    pub up: bool,
    pub is_loopback: bool,
    /// With Ethernet addresses, so that ARP is spoken on it.
    pub is_ethernet: bool,
    pub conf: Conf,
    /// With prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Name of the XDP program on it; `None` if there is none or it may not be seen.
    pub xdp: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayBack {
    pub interface: String,
    pub gateway: Option<IpAddr>,
    /// The route's own, bytes.
    pub mtu: Option<u32>,
    /// Segment size the route has announced, bytes.
    pub advmss: Option<u32>,
}

impl Host {
    /// Looks at the network namespace of the calling thread. To be called within a tokio runtime; needs no privilege, but
    /// sees XDP programs' names only with some.
    ///
    /// # Errors
    /// The kernel does not answer, or `/proc` cannot be read.
    pub async fn read(wanted: &Wanted) -> Result<Self, HostError> {
        let netlink = Netlink::open()?;
        let links = netlink.links().await?;
        let addresses = netlink.addresses().await?;
        let raw = Raw::open()?;
        let xdp = raw.xdp().await?;
        let interface = |link: &Link| {
            let own = addresses.iter().filter(|address| address.ifindex == link.ifindex);
            Ok(Interface {
                name: link.name.clone(),
                mtu: link.mtu,
                up: link.up,
                is_loopback: link.kind == LinkKind::Loopback,
                is_ethernet: link.mac.is_some(),
                conf: conf(&link.name)?,
                addresses: own.map(|address| (address.address, address.prefix_len)).collect(),
                xdp: xdp.get(&link.ifindex).cloned(),
            })
        };
        let interfaces = links.iter().map(interface).collect::<Result<_, HostError>>()?;

        let mut ways_back = BTreeMap::new();
        for client in wanted.clients {
            if let Route::Unicast(via) = netlink.route(client, None).await?
                && let Some(link) = links.iter().find(|link| link.ifindex == via.ifindex)
            {
                let advmss = raw.advmss(client).await?;
                let way =
                    WayBack { interface: link.name.clone(), gateway: via.gateway, mtu: via.mtu, advmss };
                ways_back.insert(Family::of(client), way);
            }
        }
        let mut local = BTreeSet::new();
        for vip in &wanted.vips {
            if let Route::Local(_) = netlink.route(*vip, None).await? {
                local.insert(*vip);
            }
        }
        Ok(Self { interfaces, all: conf("all")?, ways_back, local, gue_ports: gue_ports() })
    }

    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// Where packets from the director come in: as told, or where replies go out.
    pub fn ingress<'a>(&'a self, wanted: &'a Wanted) -> Option<&'a str> {
        let way = || self.ways_back.get(&wanted.outer).or_else(|| self.ways_back.values().next());
        wanted.interface.as_deref().or_else(|| way().map(|way| way.interface.as_str()))
    }
}

fn conf(interface: &str) -> Result<Conf, HostError> {
    let read = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/{name}");
        let text =
            fs::read_to_string(&path).map_err(|source| HostError::Sysctl { path: path.clone(), source })?;
        let number = text.trim().parse();
        number.map_err(|error| HostError::Sysctl { path, source: io::Error::other(error) })
    };
    Ok(Conf {
        arp_ignore: read("arp_ignore")?,
        arp_announce: read("arp_announce")?,
        rp_filter: read("rp_filter")?,
    })
}

/// What `ip fou show` lists: lines such as `port 6080 gue`.
fn gue_ports() -> Option<BTreeSet<u16>> {
    let output = Command::new("ip").args(["fou", "show"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(parse_fou(&text))
}

fn parse_fou(text: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace();
        let port = words.by_ref().skip_while(|word| *word != "port").nth(1)?.parse().ok()?;
        words.any(|word| word == "gue").then_some(port)
    };
    text.lines().filter_map(port).collect()
}

/// Questions [`Netlink`] does not ask.
struct Raw(rtnetlink::Handle);

impl Raw {
    fn open() -> Result<Self, HostError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(HostError::Open)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Names of the XDP programs, by interface index.
    async fn xdp(&self) -> Result<HashMap<u32, String>, HostError> {
        let failed = |source| HostError::Ask { what: "XDP programs", source };
        let links: Vec<_> = self.0.link().get().execute().try_collect().await.map_err(failed)?;
        let mut ids = Vec::new();
        for link in links {
            let attributes = link.attributes.iter().filter_map(|attribute| match attribute {
                LinkAttribute::Xdp(xdp) => Some(xdp),
                _ => None,
            });
            for xdp in attributes.flatten() {
                match xdp {
                    LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) if *id != 0 => {
                        ids.push((*id, link.header.index));
                    }
                    _ => {}
                }
            }
        }
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        // Without the privilege to look, or for a program that goes at this moment, there is no name.
        let programs: HashMap<u32, String> = aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned()))
            .collect();
        Ok(ids.into_iter().filter_map(|(id, ifindex)| Some((ifindex, programs.get(&id)?.clone()))).collect())
    }

    async fn advmss(&self, destination: IpAddr) -> Result<Option<u32>, HostError> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match destination {
            IpAddr::V4(_) => (rtnetlink::packet_route::AddressFamily::Inet, 32),
            IpAddr::V6(_) => (rtnetlink::packet_route::AddressFamily::Inet6, 128),
        };
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(message));
        request.header.flags = NLM_F_REQUEST;
        let failed = |source| HostError::Ask { what: "a route's segment size", source };
        let answers = self.0.clone().request(request).map_err(failed)?;
        let answers: Vec<_> = answers.take(1).collect().await;
        let metrics = answers.iter().filter_map(|answer| match &answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => Some(&route.attributes),
            _ => None,
        });
        let metrics = metrics.flatten().filter_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => Some(metrics),
            _ => None,
        });
        Ok(metrics.flatten().find_map(|metric| match metric {
            RouteMetric::Advmss(bytes) => Some(*bytes),
            _ => None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_gue_are_read_and_those_of_fou_are_not() {
        let text = "port 6080 gue\nport 7777 ipproto 4\nport 6081 gue local 10.0.0.11\n";
        assert_eq!(parse_fou(text), BTreeSet::from([6080, 6081]));
    }
}
