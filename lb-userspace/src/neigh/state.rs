//! The machine: kernel's words and the time in, questions and next hops out. No clock, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use super::{
    Asked, Mac, NextHop, NextHopTable, Timing, Unresolved, WantedServer,
    followed::{Followed, Question},
    path::{self, Path},
};
use crate::netlink::{Event, Link, LinkKind, Neighbour, Route, Via};

/// Interface and address of a neighbour.
type Key = (u32, IpAddr);

/// What to do next; carried out by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look up the route to a real server and report it with [`NextHops::route_found`].
    LookUpRoute { server: IpAddr, oif: Option<u32> },
    /// Have the kernel find out a MAC.
    Solicit { ifindex: u32, address: IpAddr },
    /// Have the kernel confirm a MAC it knows.
    Probe { ifindex: u32, address: IpAddr },
}

/// Next hops of the wanted real servers.
#[derive(Debug)]
pub struct NextHops {
    timing: Timing,
    attached: BTreeSet<u32>,
    links: BTreeMap<u32, Link>,
    /// The kernel's table, whole: a server may be added whose neighbour has long been known.
    kernel: HashMap<Key, Neighbour>,
    servers: BTreeMap<IpAddr, Server>,
    /// The neighbours the wanted servers need now.
    followed: BTreeMap<Key, Followed>,
}

#[derive(Debug)]
struct Server {
    wanted: WantedServer,
    route: Option<Route>,
    /// Interface of the latest route that had one: if it goes down its routes go too, and "no route" would hide why.
    last_out: Option<u32>,
    looked_up: Option<Instant>,
    due: Instant,
}

/// What stands between a server and its next hop.
struct Plan<'a> {
    via: &'a Via,
    path: Path,
    interface: &'a str,
}

impl NextHops {
    /// No servers, and nothing known of the kernel: tell it with [`Self::snapshot`].
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            attached: BTreeSet::new(),
            links: BTreeMap::new(),
            kernel: HashMap::new(),
            servers: BTreeMap::new(),
            followed: BTreeMap::new(),
        }
    }

    /// Replaces the set of wanted servers. What is known of those that stay is kept. Of two with the same address
    /// the first counts.
    pub fn want(&mut self, now: Instant, wanted: &[WantedServer]) {
        let mut before = std::mem::take(&mut self.servers);
        for wanted in wanted {
            let fresh =
                || Server { wanted: wanted.clone(), route: None, last_out: None, looked_up: None, due: now };
            let kept = before.remove(&wanted.address).filter(|server| server.wanted == *wanted);
            self.servers.entry(wanted.address).or_insert_with(|| kept.unwrap_or_else(fresh));
        }
    }

    /// Replaces the set of interfaces with the XDP program, by index.
    pub fn attached(&mut self, ifindexes: &BTreeSet<u32>) {
        self.attached.clone_from(ifindexes);
    }

    /// All links and neighbours of the kernel, at the start and when notifications were lost.
    pub fn snapshot(&mut self, now: Instant, links: Vec<Link>, neighbours: Vec<Neighbour>) {
        self.links = links.into_iter().map(|link| (link.ifindex, link)).collect();
        self.kernel = neighbours.into_iter().map(|n| ((n.ifindex, n.address), n)).collect();
        for (key, followed) in &mut self.followed {
            followed.hear(now, self.kernel.get(key), &self.timing);
        }
        self.look_up_all(now);
    }

    /// One change in the kernel. [`Event::Overrun`] has no place here: answer it with [`Self::snapshot`].
    pub fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Link(link) => {
                let before = self.links.insert(link.ifindex, link.clone());
                if before.as_ref() != Some(&link) {
                    self.look_up_all(now);
                }
            }
            Event::LinkGone { ifindex } => {
                self.links.remove(&ifindex);
                self.look_up_all(now);
            }
            Event::Neighbour(neighbour) => {
                let key = (neighbour.ifindex, neighbour.address);
                if let Some(followed) = self.followed.get_mut(&key) {
                    followed.hear(now, Some(&neighbour), &self.timing);
                }
                self.kernel.insert(key, neighbour);
            }
            Event::NeighbourGone { ifindex, address } => {
                let key = (ifindex, address);
                self.kernel.remove(&key);
                if let Some(followed) = self.followed.get_mut(&key) {
                    followed.hear(now, None, &self.timing);
                }
            }
            Event::Routes | Event::Addresses => self.look_up_all(now),
            Event::Overrun => {}
        }
    }

    /// The answer to [`Action::LookUpRoute`].
    pub fn route_found(&mut self, server: IpAddr, route: Route) {
        if let Some(server) = self.servers.get_mut(&server) {
            if let Route::Unicast(via) = &route {
                server.last_out = Some(via.ifindex);
            }
            server.route = Some(route);
        }
    }

    /// What is due at `now`. To be called after every change and at [`Self::wake_at`].
    pub fn poll(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.look_up_due(now, &mut actions);
        self.follow(now);
        self.ask_due(now, &mut actions);
        actions
    }

    /// When something is due next.
    pub fn wake_at(&self) -> Option<Instant> {
        let lookups = self.servers.values().map(|server| server.due);
        let questions = self.followed.values().flat_map(|f| f.due.into_iter().chain(f.forget));
        lookups.chain(questions).min()
    }

    /// What is known of every wanted server. As of the latest [`Self::poll`].
    pub fn table(&self) -> NextHopTable {
        self.servers.iter().map(|(&address, server)| (address, self.next_hop(server))).collect()
    }

    fn look_up_all(&mut self, now: Instant) {
        for server in self.servers.values_mut() {
            let earliest = server.looked_up.map_or(now, |then| now.max(then + self.timing.route_gap));
            server.due = server.due.min(earliest);
        }
    }

    fn look_up_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let due: Vec<IpAddr> = self.servers.iter().filter(|(_, s)| s.due <= now).map(|(&a, _)| a).collect();
        for address in due {
            let oif = self.servers.get(&address).map(|server| self.oif(&server.wanted));
            let Some(server) = self.servers.get_mut(&address) else { continue };
            server.looked_up = Some(now);
            server.due = now + self.timing.route_refresh;
            match oif {
                Some(Ok(oif)) => actions.push(Action::LookUpRoute { server: address, oif }),
                // The configured interface is not there; its coming is an event.
                _ => server.route = None,
            }
        }
    }

    /// Interface the configuration binds the route to.
    fn oif(&self, wanted: &WantedServer) -> Result<Option<u32>, Unresolved> {
        let Some(name) = &wanted.interface else { return Ok(None) };
        let base = self
            .links
            .values()
            .find(|link| link.name == *name)
            .ok_or_else(|| Unresolved::NoInterface { interface: name.clone() })?;
        let Some(id) = wanted.vlan else { return Ok(Some(base.ifindex)) };
        let device = self.links.values().find(|link| {
            link.parent == Some(base.ifindex) && matches!(link.kind, LinkKind::Vlan(tag) if tag.id == id)
        });
        match (device, wanted.mac) {
            (Some(device), _) => Ok(Some(device.ifindex)),
            (None, Some(_)) => Ok(Some(base.ifindex)),
            (None, None) => Err(Unresolved::NoVlanDevice { vlan: id, interface: name.clone() }),
        }
    }

    fn plan<'a>(&'a self, server: &'a Server) -> Result<Plan<'a>, Unresolved> {
        let address = server.wanted.address;
        let oif = self.oif(&server.wanted)?;
        let via = match &server.route {
            None => return Err(Unresolved::LookingUp { address }),
            Some(Route::Unicast(via) | Route::Local(via)) => via,
            Some(Route::None) => {
                let out = oif.or(server.last_out);
                return Err(match out.and_then(|ifindex| self.links.get(&ifindex)) {
                    Some(link) if !link.up => Unresolved::InterfaceDown { interface: link.name.clone() },
                    _ => Unresolved::NoRoute { address },
                });
            }
            Some(Route::Unreachable) => return Err(Unresolved::UnreachableRoute { address }),
            Some(Route::Blackhole) => return Err(Unresolved::BlackholeRoute { address }),
            Some(Route::Prohibited) => return Err(Unresolved::ProhibitRoute { address }),
            Some(Route::Unusable(why)) => {
                return Err(Unresolved::UnusableRoute { address, why: why.clone() });
            }
        };
        let Some(routed) = self.links.get(&via.ifindex) else {
            return Err(Unresolved::NoInterface { interface: format!("with index {}", via.ifindex) });
        };
        // Is the route already in the configured VLAN, or is the tag ours to push?
        let extra =
            server.wanted.vlan.filter(|&id| !matches!(routed.kind, LinkKind::Vlan(tag) if tag.id == id));
        if let (Some(vlan), None) = (extra, server.wanted.mac) {
            return Err(Unresolved::NoVlanDevice { vlan, interface: routed.name.clone() });
        }
        let path = path::egress(&self.links, &self.attached, routed, extra)?;
        Ok(Plan { via, path, interface: &routed.name })
    }

    fn next_hop(&self, server: &Server) -> Result<NextHop, Unresolved> {
        let address = server.wanted.address;
        let unspecified = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        if let Some(Route::Local(via)) = &server.route {
            return Ok(NextHop {
                dmac: Mac::default(),
                smac: Mac::default(),
                ifindex: via.ifindex,
                vlan: Vec::new(),
                mtu: self.links.get(&via.ifindex).map_or(LOOPBACK_MTU, |link| link.mtu),
                source: via.source.unwrap_or(address),
                gateway: None,
                local: true,
            });
        }
        let Plan { via, path, interface } = self.plan(server)?;
        let neighbour = via.gateway.unwrap_or(address);
        let followed = self.followed.get(&(via.ifindex, neighbour));
        let dmac = server.wanted.mac.or_else(|| followed?.mac).ok_or_else(|| Unresolved::NoAnswer {
            neighbour,
            gateway_to: via.gateway.map(|_| address),
            interface: interface.to_owned(),
            last_asked: Asked(followed.and_then(|followed| followed.asked)),
        })?;
        Ok(NextHop {
            dmac,
            smac: path.smac,
            ifindex: path.ifindex,
            vlan: path.tags,
            mtu: via.mtu.map_or(path.mtu, |mtu| mtu.min(path.mtu)),
            source: via.source.unwrap_or(unspecified),
            gateway: via.gateway,
            local: false,
        })
    }

    /// Follows the neighbours needed now and no others. One that is unreachable because its interface is down is not
    /// needed: so its MAC is forgotten, as the kernel forgets it, and nobody is asked in vain.
    fn follow(&mut self, now: Instant) {
        let needed: BTreeSet<Key> = self
            .servers
            .values()
            .filter(|server| server.wanted.mac.is_none() && !matches!(server.route, Some(Route::Local(_))))
            .filter_map(|server| self.plan(server).ok().map(|plan| (plan.via, server.wanted.address)))
            .map(|(via, address)| (via.ifindex, via.gateway.unwrap_or(address)))
            .collect();
        self.followed.retain(|key, _| needed.contains(key));
        for key in needed {
            self.followed.entry(key).or_insert_with(|| {
                let mut followed = Followed::new(now);
                followed.hear(now, self.kernel.get(&key), &self.timing);
                followed
            });
        }
    }

    fn ask_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut asked = 0;
        for (&(ifindex, address), followed) in &mut self.followed {
            followed.expire(now);
            if followed.due.is_none_or(|at| at > now) {
                continue;
            }
            if asked == self.timing.burst {
                followed.due = Some(now + self.timing.burst_pause);
                continue;
            }
            asked += 1;
            actions.push(match followed.ask(now, &self.timing) {
                Question::Find => Action::Solicit { ifindex, address },
                Question::Confirm => Action::Probe { ifindex, address },
            });
        }
    }
}

/// Of `lo`, should the kernel not have told about it.
const LOOPBACK_MTU: u32 = 65536;

#[cfg(test)]
mod tests;
