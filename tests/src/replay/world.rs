//! A scenario's words turned into the director's own: services of the model, next hops, settings.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::IpNet;
use lb_userspace::model::{
    self, ClientMask, Match, Persistence, Port, PortRange, Ports, Protocol, Scheduler, SchedulerFlags,
    Selector,
};
use lb_userspace::neigh::{NextHop, NextHopTable};

use crate::engine::INGRESS;
use crate::packet::{DIRECTOR_MAC, server_mac};
use crate::traces::engine::Refused;
use crate::traces::scenario::{
    self, Family, Method, Proto, RouteMtu, Scenario, Server, ServiceKey, ServiceOptions, Setting,
};

/// The director's own addresses on the recordings' segment.
pub(super) const DIRECTOR: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
];

/// What ipvsadm says of arguments that contradict each other, and of what the kernel refuses.
pub(super) const USAGE: i32 = 2;
pub(super) const KERNEL: i32 = 255;

pub(super) fn refused<T>(rc: i32, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { rc, message: message.into() })
}

/// A service as it stands: its options, and its servers in the order they were added.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) key: ServiceKey,
    pub(super) options: ServiceOptions,
    pub(super) servers: Vec<HeldServer>,
}

/// A server as it stands.
#[derive(Clone, Debug)]
pub(super) struct HeldServer {
    pub(super) server: model::Server,
    /// Port it is listed with; 0 follows the packet's.
    pub(super) port: u16,
}

/// A family's packets that belong to a mark.
#[derive(Clone, Debug)]
pub(super) struct Marking {
    pub(super) key: ServiceKey,
    pub(super) entries: Vec<Match>,
}

pub(super) fn protocol(proto: Proto) -> Protocol {
    match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
        Proto::Sctp => Protocol::Sctp,
    }
}

fn ports(port: Option<u16>) -> Ports {
    match NonZeroU16::new(port.unwrap_or(0)) {
        None => Ports::Any,
        Some(port) => Ports::Range(PortRange { first: port, last: port }),
    }
}

/// The prefix of a match; the recordings' own text, so a wrong one is a wrong recording.
pub(super) fn prefix(matching: &scenario::Match) -> IpNet {
    let (network, len) =
        matching.prefix().unwrap_or_else(|| panic!("{:?} is not an address or prefix", matching.dst));
    IpNet::new(network, len).unwrap_or_else(|error| panic!("{:?}: {error}", matching.dst)).trunc()
}

/// A match as entries of the model: one a protocol.
pub(super) fn entries(matching: &scenario::Match) -> Vec<Match> {
    let protocols = match matching.proto {
        Some(proto) => vec![protocol(proto)],
        None => vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
    };
    // As in the recordings' rules a port means nothing without a protocol.
    let ports = ports(matching.proto.and(matching.port));
    protocols.into_iter().map(|protocol| Match { prefix: prefix(matching), protocol, ports }).collect()
}

/// The model's service for one that stands, or what ipvsadm would say.
pub(super) fn service(held: &Held, markings: &[Marking], others: &[Held]) -> Result<model::Service, Refused> {
    let options = &held.options;
    let name = options.sched.as_deref().unwrap_or("wlc");
    let Ok(scheduler) = name.parse::<Scheduler>() else {
        return refused(KERNEL, format!("no scheduler {name}"));
    };
    let mut flags = SchedulerFlags::default();
    for flag in options.flags.iter().flat_map(|flags| flags.split(',')) {
        match flag {
            "sh-fallback" | "mh-fallback" | "flag-1" => flags.fallback = true,
            "sh-port" | "mh-port" | "flag-2" => flags.port = true,
            _ => return refused(USAGE, format!("no scheduler flag {flag}")),
        }
    }
    if !matches!(scheduler, Scheduler::Sh | Scheduler::Mh) {
        flags = SchedulerFlags::default();
    }
    let (selector, is_v4) = match held.key {
        ServiceKey::Address { proto, vip, port } => {
            let port = NonZeroU16::new(port).map_or(Port::Any, Port::Number);
            if port == Port::Any && options.persistent.is_none() {
                return refused(USAGE, "Zero port specified for non-persistent service");
            }
            (Selector::Vip { address: vip, port, protocol: protocol(proto) }, vip.is_ipv4())
        }
        ServiceKey::Mark { family, .. } => {
            let entries = marked(held.key, markings, others);
            (Selector::Matches(entries), family == Family::Ipv4)
        }
    };
    let persistence = match options.persistent {
        Some(seconds) => Some(Persistence {
            timeout: Duration::from_secs(seconds.into()),
            mask: mask(options.netmask.as_deref(), is_v4)?,
        }),
        None => None,
    };
    Ok(model::Service {
        name: held.key.to_string(),
        selector,
        scheduler,
        flags,
        persistence,
        one_packet: options.ops,
        stateless: false,
        no_destination: model::NoDestination::Reject,
        servers: held.servers.iter().map(|held| held.server).collect(),
    })
}

/// What belongs to a mark. IPVS asks for the mark before it asks for the address, so the mark's entries are repeated
/// for every place of another service within them: exact places come first here.
fn marked(key: ServiceKey, markings: &[Marking], others: &[Held]) -> Vec<Match> {
    let mut all: Vec<Match> = markings
        .iter()
        .filter(|marking| marking.key == key)
        .flat_map(|marking| marking.entries.iter().copied())
        .collect();
    let mut within = Vec::new();
    for other in others {
        let ServiceKey::Address { proto, vip, port } = other.key else { continue };
        let place = Match { prefix: vip.into(), protocol: protocol(proto), ports: ports(Some(port)) };
        let covers = |entry: &Match| {
            entry.protocol == place.protocol
                && entry.prefix.contains(&vip)
                && match (entry.ports, place.ports) {
                    (Ports::Any, _) => true,
                    (Ports::Range(all), Ports::Range(one)) => all.first <= one.first && one.last <= all.last,
                    (Ports::Range(_), Ports::Any) => false,
                }
        };
        if all.iter().any(covers) && !all.contains(&place) {
            within.push(place);
        }
    }
    all.extend(within);
    all
}

fn mask(text: Option<&str>, is_v4: bool) -> Result<ClientMask, Refused> {
    let wrong = || Refused { rc: USAGE, message: format!("netmask {text:?}") };
    match (text, is_v4) {
        (None, true) => Ok(ClientMask::V4([255; 4].into())),
        (None, false) => Ok(ClientMask::V6(128)),
        (Some(mask), true) => mask.parse().map(ClientMask::V4).map_err(|_| wrong()),
        (Some(bits), false) => match bits.parse() {
            Ok(bits @ 1..=128) => Ok(ClientMask::V6(bits)),
            _ => Err(wrong()),
        },
    }
}

/// The model's server for one a scenario asks for.
pub(super) fn server(server: &Server) -> Result<model::Server, Refused> {
    let Ok(weight) = u32::try_from(server.weight.unwrap_or(1)) else {
        return refused(USAGE, format!("weight {:?}", server.weight));
    };
    let (upper, lower) = (server.uthresh.unwrap_or(0), server.lthresh.unwrap_or(0));
    if lower > upper {
        return refused(KERNEL, format!("lower threshold {lower} above the upper {upper}"));
    }
    // IPVS knows of a third kind, remote checksum offload, which it uses only for packets whose checksum the host has
    // still to fill in; those that are forwarded are sent as with a checksum.
    let checksum = server.args.iter().any(|arg| arg == "--tun-csum" || arg == "--tun-remcsum");
    let method = match server.method.unwrap_or(Method::Dr) {
        Method::Dr => model::Method::Dr,
        Method::Ipip => model::Method::Ipip,
        Method::Gre => model::Method::Gre { checksum },
        Method::Gue => {
            let port = server.tun_port.unwrap_or(6080);
            let Some(port) = NonZeroU16::new(port) else {
                return refused(USAGE, "GUE without a port");
            };
            model::Method::Gue { port, checksum }
        }
        Method::Masq => return refused(KERNEL, "NAT is left for later"),
    };
    Ok(model::Server {
        address: server.rip,
        weight,
        method,
        upper_threshold: upper,
        lower_threshold: lower,
        mac: None,
    })
}

/// Why the director cannot play a scenario at all: for now NAT.
pub(super) fn needs_nat(scenario: &Scenario) -> bool {
    use crate::traces::event::Action;
    let is_nat = |server: &Server| server.method == Some(Method::Masq);
    let by_event = scenario.events.iter().any(|event| match &event.action {
        Action::AddServer(change) | Action::EditServer(change) => is_nat(&change.server),
        Action::AddService(service) => service.servers.iter().any(is_nat),
        _ => false,
    });
    by_event || scenario.services.iter().flat_map(|service| &service.servers).any(is_nat)
}

/// The segment as the director's next hops: every server is a neighbour behind the one interface.
pub(super) fn next_hops<'a>(
    servers: impl IntoIterator<Item = &'a model::Server>,
    mtu: u32,
    routes: &[RouteMtu],
    is_local: impl Fn(IpAddr) -> bool,
) -> NextHopTable {
    let hop = |rip: IpAddr| {
        let of_route = routes.iter().rev().find(|route| {
            IpNet::new(route.network, route.prefix_len).is_ok_and(|network| network.contains(&rip))
        });
        let local = is_local(rip);
        NextHop {
            dmac: if local { [0; 6] } else { server_mac(rip) },
            smac: if local { [0; 6] } else { DIRECTOR_MAC },
            ifindex: INGRESS,
            vlan: Vec::new(),
            mtu: of_route.map_or(mtu, |route| route.mtu.min(mtu)),
            source: if rip.is_ipv4() { DIRECTOR[0] } else { DIRECTOR[1] },
            gateway: None,
            local,
        }
    };
    servers.into_iter().map(|server| (server.address, Ok(hop(server.address)))).collect()
}

/// Changes a setting of `net.ipv4.vs`.
pub(super) fn set(knobs: &mut model::IpvsKnobs, setting: &str, value: &Setting) -> Result<(), Refused> {
    let unknown = || refused(1, format!("{setting} = {value:?}"));
    let Some(name) = setting.strip_prefix("net.ipv4.vs.") else { return unknown() };
    let Ok(number) = value.0.parse::<u32>() else { return unknown() };
    let on = number != 0;
    match (name, number) {
        ("sloppy_tcp", _) => knobs.sloppy_tcp = on,
        ("sloppy_sctp", _) => knobs.sloppy_sctp = on,
        ("conn_reuse_mode", 0..=3) => knobs.conn_reuse_mode = number as u8,
        ("expire_nodest_conn", _) => knobs.expire_nodest_conn = on,
        ("expire_quiescent_template", _) => knobs.expire_quiescent_template = on,
        ("schedule_icmp", _) => knobs.schedule_icmp = on,
        ("pmtu_disc", _) => knobs.pmtu_disc = on,
        ("secure_tcp", 0 | 3) => knobs.secure_tcp = on,
        ("lblc_expiration", 1..) => knobs.lblc_expiration = Duration::from_secs(number.into()),
        ("lblcr_expiration", 1..) => knobs.lblcr_expiration = Duration::from_secs(number.into()),
        // Only for destinations that are not local to the director, and all of a recording's are.
        ("cache_bypass", 0 | 1) => {}
        _ => return unknown(),
    }
    Ok(())
}
