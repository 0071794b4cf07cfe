//! A configuration in a test's words, written to either engine. Plans are stated slot by slot and not asked of the
//! scheduler, so that a test says what the datapath is told and not how the control plane came to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use lb_common::flow::Thresholds;
use lb_common::hash::Seed;
use lb_common::net::{Addr, Be16, Mac, proto};
use lb_common::plan::{PlanHead, PlanKind, Slot};
use lb_common::server::{Method, NO_VLAN, server_flag};
use lb_common::service::{MatchRule, MatchSet, ServiceKey, key_kind, service_flag};
use lb_common::settings::{Settings, feature, switch, timeout};
use lb_common::{sctp, server, service, tcp as tcp_states};
use lb_userspace::maps::MapStore;

use super::{Engine, INGRESS};
use crate::packet::{Address, DIRECTOR_MAC, server_mac};

/// What a service matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address, a protocol number and a port; 0 for any port.
    At(IpAddr, u8, u16),
    /// A prefix, a protocol number (0: any) and ports, both included.
    Within(IpNet, u8, u16, u16),
}

/// A plan, its slots by server id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub kind: PlanKind,
    pub detail: u8,
    pub slots: Vec<Slot>,
}

impl Plan {
    pub fn none() -> Self {
        Self { kind: PlanKind::None, detail: 0, slots: Vec::new() }
    }

    /// The servers in this order, over and over; each skips to the next that is another one.
    pub fn cycle(servers: &[u32]) -> Self {
        let len = servers.len();
        let ahead = |at: usize| {
            (1..len).find(|step| servers[(at + step) % len] != servers[at]).unwrap_or_default() as u32
        };
        let slots = servers.iter().enumerate().map(|(at, server)| Slot::new(*server, ahead(at)));
        Self { kind: PlanKind::Cycle, detail: 0, slots: slots.collect() }
    }

    /// Slots of these (server, number) pairs.
    pub fn of(kind: PlanKind, detail: u8, slots: &[(u32, u32)]) -> Self {
        let slots = slots.iter().map(|(server, number)| Slot::new(*server, *number)).collect();
        Self { kind, detail, slots }
    }
}

/// A virtual service. Its id is its place in the fixture, from 0.
#[derive(Clone, Debug)]
pub struct Service {
    pub places: Vec<Place>,
    pub plan: Plan,
    /// Bits of [`service_flag`] besides `IN_USE`.
    pub flags: u32,
    /// Seconds, and the mask of clients' addresses.
    pub persistence: (u32, IpAddr),
}

/// A service at this address and TCP port.
pub fn tcp(address: &str, port: u16) -> Service {
    Service::at(address, proto::TCP, port)
}

impl Service {
    pub fn at(address: &str, protocol: u8, port: u16) -> Self {
        Self {
            places: vec![Place::At(address.address(), protocol, port)],
            plan: Plan::none(),
            flags: 0,
            persistence: (0, "255.255.255.255".address()),
        }
    }

    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    pub fn flags(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    /// Clients keep to their server this long, in seconds.
    pub fn persistent(mut self, seconds: u32, mask: &str) -> Self {
        self.persistence = (seconds, mask.address());
        self.flags(service_flag::PERSISTENT)
    }
}

/// A real server. Its id is its place in the fixture, from 1.
#[derive(Clone, Debug)]
pub struct Server {
    pub rip: IpAddr,
    pub service: u16,
    pub method: Method,
    /// Bits of [`server_flag`].
    pub flags: u8,
    pub weight: u32,
    pub ifindex: u32,
    pub mtu: u16,
    pub tunnel_port: u16,
    pub vlan: [u16; 2],
    pub thresholds: Thresholds,
}

impl Server {
    fn new(rip: &str, method: Method) -> Self {
        Self {
            rip: rip.address(),
            service: 0,
            method,
            flags: server_flag::AVAILABLE | server_flag::REACHABLE,
            weight: 1,
            ifindex: INGRESS,
            mtu: 1500,
            tunnel_port: 0,
            vlan: [NO_VLAN; 2],
            thresholds: Thresholds::default(),
        }
    }

    pub fn of_service(mut self, service: u16) -> Self {
        self.service = service;
        self
    }

    pub fn with(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    pub fn without(mut self, flags: u8) -> Self {
        self.flags &= !flags;
        self
    }

    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    pub fn behind(mut self, ifindex: u32) -> Self {
        self.ifindex = ifindex;
        self
    }

    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// Tags, outermost first.
    pub fn vlan(mut self, vlan: [u16; 2]) -> Self {
        self.vlan = vlan;
        self
    }

    pub fn thresholds(mut self, upper: u32, lower: u32) -> Self {
        self.thresholds = Thresholds { upper, lower };
        self.with(server_flag::THRESHOLDS)
    }

    fn entry(&self) -> server::Server {
        let is_tunnel = self.method != Method::Dr;
        let source = if self.rip.is_ipv4() { "10.0.0.1" } else { "fd00::1" };
        server::Server {
            dmac: Mac(server_mac(self.rip)),
            smac: Mac(DIRECTOR_MAC),
            ifindex: self.ifindex,
            method: self.method as u8,
            flags: self.flags,
            mtu: self.mtu,
            service: self.service,
            tunnel_port: Be16::from_host(self.tunnel_port),
            weight: self.weight,
            vlan: self.vlan,
            rip: Addr::from(self.rip),
            source: if is_tunnel { Addr::from(source.address()) } else { Addr::default() },
        }
    }

    /// Where errors about its tunnel packets are looked up.
    fn tunnel(&self) -> Option<ServiceKey> {
        let (protocol, port) = match self.method {
            Method::Dr => return None,
            Method::Ipip => (proto::IPIP, 0),
            Method::Gre => (proto::GRE, 0),
            Method::Gue => (proto::UDP, self.tunnel_port),
        };
        let address = Addr::from(self.rip);
        Some(ServiceKey { address, port: Be16::from_host(port), protocol, kind: key_kind::TUNNEL })
    }
}

pub fn dr(rip: &str) -> Server {
    Server::new(rip, Method::Dr)
}

pub fn ipip(rip: &str) -> Server {
    Server::new(rip, Method::Ipip)
}

pub fn gre(rip: &str) -> Server {
    Server::new(rip, Method::Gre)
}

/// GUE to port 6080.
pub fn gue(rip: &str) -> Server {
    Server { tunnel_port: 6080, ..Server::new(rip, Method::Gue) }
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Fixture {
    pub features: u32,
    /// Idle timeouts in seconds, see [`timeout`].
    pub timeouts: [u32; 32],
    /// Bits of [`switch`].
    pub switches: u32,
    pub conn_reuse_mode: u32,
    /// Seconds after which lblc and lblcr forget or thin out.
    pub locality_expiration: u32,
    pub icmp_per_second: u32,
    pub new_flows_per_second: u32,
    pub source_flows_per_second: u32,
    /// Masks of the source prefixes new flows are limited by.
    pub source_masks: [IpAddr; 2],
    pub services: Vec<Service>,
    pub servers: Vec<Server>,
    pub denied: Vec<IpNet>,
}

/// All timeouts are IPVS's, nothing is limited, everything the program can do is on but the limit of sources, which
/// would count new flows in every case.
impl Default for Fixture {
    fn default() -> Self {
        let mut timeouts = [0; 32];
        timeouts[timeout::TCP as usize..][..11].copy_from_slice(&tcp_states::TIMEOUTS);
        timeouts[timeout::UDP as usize] = 300;
        timeouts[timeout::SCTP as usize..][..14].copy_from_slice(&sctp::TIMEOUTS);
        Self {
            features: feature::ALL & !feature::SOURCE_LIMIT,
            timeouts,
            switches: switch::PMTU_DISC | switch::OVERHEAD_2026,
            conn_reuse_mode: 1,
            locality_expiration: 86_400,
            icmp_per_second: 1000,
            new_flows_per_second: u32::MAX,
            source_flows_per_second: u32::MAX,
            source_masks: ["255.255.255.0".address(), "ffff:ffff:ffff:ffff::".address()],
            services: Vec::new(),
            servers: Vec::new(),
            denied: Vec::new(),
        }
    }
}

/// Cells a service's plan has for itself.
const CELLS: u32 = 8192;

impl Fixture {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    pub fn server(mut self, server: Server) -> Self {
        self.servers.push(server);
        self
    }

    pub fn switch(mut self, switch: u32) -> Self {
        self.switches |= switch;
        self
    }

    pub fn deny(mut self, prefix: &str) -> Self {
        self.denied.push(prefix.parse().expect("a prefix"));
        self
    }

    /// Puts this in the engine's maps in the place of `before`, or of nothing. Cursors of plans stay where they are.
    pub fn write<E: Engine>(&self, engine: &E, before: Option<&Fixture>) {
        let store = &mut engine.store();
        let written = "a test's configuration fits the maps";
        store.put_settings(&self.settings(engine)).expect(written);
        for (id, server) in (1..).zip(&self.servers) {
            store.put_server(id, &server.entry()).expect(written);
            store.put_thresholds(id, &server.thresholds).expect(written);
        }
        for (id, service) in (0..).zip(&self.services) {
            store.put_service(id, &self.entry(service, engine.hz())).expect(written);
            let Plan { kind, detail, slots } = &service.plan;
            assert!(slots.len() < CELLS as usize, "plans have {CELLS} cells each");
            let cells: Vec<u64> = slots.iter().map(|slot| slot.0).collect();
            store.put_cells(id * CELLS + 1, &cells).expect(written);
            let head = PlanHead::new(*kind, *detail, id * CELLS, slots.len() as u32);
            store.put_plan(id, head).expect(written);
        }
        let (places, sets) = (self.places(), self.match_sets());
        let (old_places, old_sets) = before.map(|old| (old.places(), old.match_sets())).unwrap_or_default();
        for (place, id) in &places {
            store.put_place(place, *id).expect(written);
        }
        for (place, _) in old_places.iter().filter(|(place, _)| !places.iter().any(|(new, _)| new == place)) {
            store.remove_place(place).expect(written);
        }
        for (id, (prefix, set)) in (0..).zip(&sets) {
            store.put_match_set(id, set).expect(written);
            store.put_prefix(*prefix, id).expect(written);
        }
        for prefix in old_sets.keys().filter(|prefix| !sets.contains_key(prefix)) {
            store.remove_prefix(*prefix).expect(written);
        }
        for prefix in &self.denied {
            store.deny(*prefix).expect(written);
        }
        let old_denied: BTreeSet<IpNet> =
            before.map(|old| old.denied.clone()).into_iter().flatten().collect();
        for prefix in old_denied.iter().filter(|prefix| !self.denied.contains(prefix)) {
            store.allow(*prefix).expect(written);
        }
    }

    fn settings<E: Engine>(&self, engine: &E) -> Settings {
        let hz = engine.hz();
        Settings {
            seed: Seed([1, 0x9e37_79b9_7f4a_7c15, 3, 0xbf58_476d_1ce4_e5b9, 5, 0x94d0_49bb_1331_11eb]),
            timeouts: self.timeouts.map(|seconds| seconds * hz),
            buckets: engine.sizes().buckets(),
            hz,
            switches: self.switches,
            conn_reuse_mode: self.conn_reuse_mode,
            lblc_expiration: self.locality_expiration * hz,
            lblcr_expiration: self.locality_expiration * hz,
            icmp_per_second: self.icmp_per_second,
            new_flows_per_second: self.new_flows_per_second,
            source_flows_per_second: self.source_flows_per_second,
            source_mask_v4: Addr::from(self.source_masks[0]),
            source_mask_v6: Addr::from(self.source_masks[1]),
            own_v6: Addr::default(),
            pad: 0,
        }
    }

    fn entry(&self, service: &Service, hz: u32) -> service::Service {
        let (port, protocol) = match service.places[..] {
            [Place::At(_, protocol, port)] => (port, protocol),
            _ => (0, 0),
        };
        let many = if matches!(service.places[..], [Place::At(..)]) { 0 } else { service_flag::MANY };
        service::Service {
            flags: service.flags | service_flag::IN_USE | many,
            persistence: service.persistence.0 * hz,
            persistence_mask: mask(service.persistence.1),
            port: Be16::from_host(port),
            protocol,
            pad: [0; 5],
        }
    }

    /// Exact keys: services, their addresses, tunnels.
    fn places(&self) -> Vec<(ServiceKey, u32)> {
        let mut places = Vec::new();
        for (id, service) in (0..).zip(&self.services) {
            for place in &service.places {
                let Place::At(address, protocol, port) = *place else { continue };
                let (address, port) = (Addr::from(address), Be16::from_host(port));
                places.push((ServiceKey { address, port, protocol, kind: key_kind::SERVICE }, id));
                places.push((ServiceKey { address, kind: key_kind::VIP, ..ServiceKey::default() }, id));
            }
        }
        let tunnels = (1..).zip(&self.servers).filter_map(|(id, server)| Some((server.tunnel()?, id)));
        places.extend(tunnels);
        places
    }

    /// By prefix its rules; those of wider prefixes follow, as the datapath asks for the longest only.
    fn match_sets(&self) -> BTreeMap<IpNet, MatchSet> {
        let mut rules: Vec<(IpNet, MatchRule)> = Vec::new();
        for (id, service) in (0..).zip(&self.services) {
            for place in &service.places {
                if let Place::Within(prefix, protocol, from, to) = *place {
                    rules.push((prefix, MatchRule { from, to, protocol, pad: [0; 3], service: id }));
                }
            }
        }
        rules.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
        let set = |prefix: IpNet| {
            let mut set = MatchSet { count: 0, rules: [MatchRule::default(); _] };
            for (_, rule) in rules.iter().filter(|(wider, _)| wider.contains(&prefix)) {
                set.rules[set.count as usize] = *rule;
                set.count += 1;
            }
            set
        };
        rules.iter().map(|(prefix, _)| (*prefix, set(*prefix))).collect()
    }
}

/// An IPv4 mask as one of the mapped address, whose other words stay as they are.
fn mask(mask: IpAddr) -> Addr {
    let Addr([a, b, c, d]) = Addr::from(mask);
    if mask.is_ipv4() { Addr([u32::MAX, u32::MAX, u32::MAX, d]) } else { Addr([a, b, c, d]) }
}
