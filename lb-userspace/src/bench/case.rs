//! What is measured.

use aya::programs::ProgramFd;
use lb_common::counters::Reason;
use lb_common::server::Method;
use lb_common::settings::feature;

use super::director::{LOOPBACK, Plan, Setup};
use super::wrapped::{PEER, READ, Whose};

/// The program of a case.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    /// Of the benchmark's own object: does nothing, or nearly so.
    Plain(&'static str),
    /// Waits for one read of a table for as many flows.
    Read,
    /// The one over kernel hash maps.
    Peer,
    Director(Setup),
}

impl Subject {
    pub(super) fn own(&self) -> Option<&'static str> {
        match self {
            Self::Plain(name) => Some(name),
            Self::Read => Some(READ),
            Self::Peer => Some(PEER),
            Self::Director(_) => None,
        }
    }
}

/// What packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Segments of established connections, so many.
    Established(u32),
    /// The first segment of a new connection each, into a table that never gets more than half full.
    New,
    /// The same into a table that so many established connections and a flood before have filled.
    Flood(u32),
    /// Segments to an address that is no VIP.
    Strange,
}

/// One row of the report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) subject: Subject,
    pub(super) traffic: Traffic,
    /// CPUs at work at once.
    pub(super) cpus: usize,
    /// Bytes the program adds in front of the packet.
    pub(super) grows: usize,
}

/// Flows a table is made for unless the case is about its size.
const MILLION: u32 = 1_000_000;

/// Servers behind the VIP unless the case is about their number.
const SERVERS: u32 = 256;

const PLAIN: Setup = Setup {
    features: feature::FLOWS,
    is_v6: false,
    table: MILLION,
    servers: SERVERS,
    plan: Plan::Cycle,
    method: Method::Dr,
    checksum: false,
    ifindex: LOOPBACK,
};

const fn case(name: &'static str, setup: Setup, traffic: Traffic) -> Case {
    Case { name, subject: Subject::Director(setup), traffic, cpus: 1, grows: 0 }
}

/// What servers behind a tunnel need.
const TUNNEL: Setup = Setup { features: feature::FLOWS | feature::TUNNELS, ..PLAIN };

/// `grows`: bytes of the outer headers.
const fn through(name: &'static str, setup: Setup, grows: usize) -> Case {
    Case { grows, ..case(name, setup, Established(1)) }
}

const fn tunnel(name: &'static str, method: Method, grows: usize) -> Case {
    through(name, Setup { method, ..TUNNEL }, grows)
}

/// GRE or GUE with a checksum, over the least of packets.
const fn summed(name: &'static str, method: Method, grows: usize) -> Case {
    through(name, Setup { method, checksum: true, ..TUNNEL }, grows)
}

/// IPv6 in IPv6.
const fn tunnel6(name: &'static str, method: Method, grows: usize) -> Case {
    let features = TUNNEL.features | feature::IPV6;
    through(name, Setup { features, is_v6: true, method, ..TUNNEL }, grows)
}

const fn peer(name: &'static str, flows: u32) -> Case {
    Case { name, subject: Subject::Peer, traffic: Established(flows), cpus: 1, grows: 0 }
}

const fn plain(name: &'static str, traffic: Traffic) -> Case {
    Case { name, subject: Subject::Plain("empty"), traffic, cpus: 1, grows: 0 }
}

use Traffic::{Established, Flood, New, Strange};

/// An established flow's packet where one more feature is configured, which it does not need.
const fn with(name: &'static str, feature: u32) -> Case {
    case(name, Setup { features: feature::FLOWS | feature, ..PLAIN }, Established(1))
}

const fn read(name: &'static str, flows: u32) -> Case {
    Case { subject: Subject::Read, ..plain(name, Established(flows)) }
}

/// The cases, in the order of the report.
pub(super) const CASES: [Case; 46] = [
    plain("empty", Established(1)),
    Case { subject: Subject::Plain("floor"), ..plain("floor", Established(1)) },
    case("dr_hot", PLAIN, Established(1)),
    case("dr_10k", PLAIN, Established(10_000)),
    case("dr_100k", PLAIN, Established(100_000)),
    case("dr_1m", PLAIN, Established(MILLION)),
    case("dr_4m", Setup { table: 4 * MILLION, ..PLAIN }, Established(4 * MILLION)),
    case("new_flow", PLAIN, New),
    case("new_flow_small", Setup { table: 100_000, ..PLAIN }, New),
    case("syn_flood", PLAIN, Flood(MILLION / 2)),
    case("not_a_vip", PLAIN, Strange),
    tunnel("ipip_hot", Method::Ipip, 20),
    tunnel("gre_hot", Method::Gre, 24),
    tunnel("gue_hot", Method::Gue, 32),
    summed("gre_checksum_hot", Method::Gre, 28),
    summed("gue_checksum_hot", Method::Gue, 32),
    tunnel6("ipip6_hot", Method::Ipip, 40),
    tunnel6("gre6_hot", Method::Gre, 44),
    tunnel6("gue6_hot", Method::Gue, 52),
    case("dr6_hot", Setup { features: feature::FLOWS | feature::IPV6, is_v6: true, ..PLAIN }, Established(1)),
    case("least_256", Setup { plan: Plan::Least, ..PLAIN }, New),
    case("least_1000", Setup { plan: Plan::Least, servers: 1000, ..PLAIN }, New),
    case("stateless", Setup { features: 0, plan: Plan::Stateless, ..PLAIN }, Established(MILLION)),
    with("with_any_port", feature::ANY_PORT),
    with("with_prefixes", feature::PREFIXES),
    with("with_deny_list", feature::DENY),
    with("with_source_limit", feature::SOURCE_LIMIT),
    with("with_admission", feature::ADMISSION),
    with("with_ipv6", feature::IPV6),
    with("with_persistence", feature::PERSISTENCE),
    with("with_tunnels", feature::TUNNELS),
    with("with_vlan", feature::VLAN),
    with("with_locality", feature::LOCALITY),
    with("with_thresholds", feature::THRESHOLDS),
    with("with_ftp", feature::FTP),
    case("all_features_hot", Setup { features: feature::ALL, ..PLAIN }, Established(1)),
    case("all_features_new_flow", Setup { features: feature::ALL, ..PLAIN }, New),
    Case { cpus: 2, ..case("dr_hot_2cpu", PLAIN, Established(2)) },
    Case { cpus: 2, ..case("dr_1m_2cpu", PLAIN, Established(MILLION)) },
    Case { cpus: 2, ..case("new_flow_2cpu", PLAIN, New) },
    read("read_1m", MILLION),
    read("read_4m", 4 * MILLION),
    peer("hash_lru_1", 1),
    peer("hash_lru_100k", 100_000),
    peer("hash_lru_1m", MILLION),
    Case { traffic: New, ..peer("hash_lru_new_flow", 1) },
];

/// Names of all cases, in the order of the report.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

impl Case {
    pub(super) fn is_v6(&self) -> bool {
        matches!(self.subject, Subject::Director(Setup { is_v6: true, .. }))
    }

    pub(super) fn whose(&self) -> Whose {
        match self.traffic {
            Established(_) if self.is_v6() => Whose::Same6,
            // A packet of each CPU's own flow.
            Established(flows) if flows as usize <= self.cpus => Whose::Same,
            Established(_) => Whose::Random,
            New | Flood(_) => Whose::Next,
            Strange => Whose::Same,
        }
    }

    /// Flows that packets are of, as the report says it; 0 for a new one each.
    pub(super) fn flows(&self) -> u32 {
        match self.traffic {
            Established(flows) => flows,
            New | Strange => 0,
            Flood(flows) => flows,
        }
    }

    /// Runs of the program in one round: few where they fill a table, and enough elsewhere for a tenth of a second.
    pub(super) fn repeat(&self) -> u32 {
        match self.traffic {
            New => 40_000,
            Flood(_) => 200_000,
            Established(flows) if flows >= 100_000 => 500_000,
            Established(_) | Strange => 1_000_000,
        }
    }

    /// Flows new ones may make up before the table is emptied.
    pub(super) fn room(&self) -> u64 {
        match self.subject {
            Subject::Director(setup) => u64::from(setup.table / 2),
            Subject::Plain(_) | Subject::Read | Subject::Peer => u64::MAX,
        }
    }

    pub(super) fn reason(&self) -> Reason {
        match self.traffic {
            Strange => Reason::PassedNoService,
            Established(_) | New | Flood(_) => match self.subject {
                Subject::Director(Setup { ifindex, .. }) if ifindex != LOOPBACK => Reason::Redirected,
                _ => Reason::Transmitted,
            },
        }
    }

    /// True if the director is to remember the flows.
    pub(super) fn remembers(&self) -> bool {
        !matches!(self.subject, Subject::Director(Setup { plan: Plan::Stateless, .. }))
    }

    /// What of the measured time is not the program's own: the same wrapper around nothing.
    pub(super) fn baseline(&self) -> Baseline {
        Baseline { whose: self.whose(), cpus: self.cpus }
    }
}

/// An empty program behind a wrapper, on so many CPUs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Baseline {
    pub(super) whose: Whose,
    pub(super) cpus: usize,
}

impl Baseline {
    pub(super) fn name(&self) -> String {
        let wrapper = match self.whose {
            Whose::Same => "empty_same",
            Whose::Same6 => "empty_same_v6",
            Whose::Random => "empty_random",
            Whose::Next => "empty_next",
            Whose::Mixed => "empty_mixed",
        };
        if self.cpus == 1 { wrapper.to_owned() } else { format!("{wrapper}_{}cpu", self.cpus) }
    }
}

/// A loaded program's descriptor, or the name of one of the benchmark's own.
pub(super) enum Loaded {
    Own(&'static str),
    Other(ProgramFd),
}
