//! A flood of SYNs beside established flows, through a running director: `lb run` on one end of a link, generators and a
//! watcher of every flow on the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use lb_common::counters::{Note, Reason};
use lb_userspace::api::types::{FlowFilter, Stats, Status};
use lb_userspace::bench::BenchError;
use lb_userspace::bench::traffic::{self, Packets, Probe, Seen, Sent, Traffic};
use lb_userspace::client::ClientError;
use serde::Serialize;

use crate::director::{Director, DirectorError};
use crate::lab::link::{self, ETHERNET_MTU, End};
use crate::lab::{LabError, Mac};
use crate::netns::{Namespace, NetnsError, unique_prefix};

/// Real servers. Nobody is behind their addresses: the watcher takes what is for them.
const SERVERS: u8 = 16;

/// Times the flows' first packets are sent before it is an error that some are not established.
const TRIES: usize = 4;

/// How much to send.
#[derive(Clone, Debug)]
pub struct Options {
    /// Established flows.
    pub flows: u32,
    pub lasts: Duration,
    /// One packet in so many is of an established flow.
    pub every: u32,
    /// CPUs to send from.
    pub cpus: Vec<usize>,
    /// Times costs are measured.
    pub rounds: u16,
    /// Room in the director's table, as `flows:` has it.
    pub table: String,
    /// More lines of configuration.
    pub more: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum FloodError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Director(#[from] DirectorError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("making a folder, or running lb")]
    System(#[from] std::io::Error),
    #[error("of {wanted} flows {established} are established")]
    NotEstablished { wanted: u32, established: usize },
    #[error("measuring beside a flood takes two CPUs, this process may use {0}")]
    Cpus(usize),
}

/// A director, and a generator at the other end of its only link. A queue a CPU: what a CPU sends it sees through to the
/// watcher, as with a network card that spreads packets over its queues.
pub struct Rig {
    // In the order of their end.
    pub director: Director,
    traffic: Traffic,
    generator: Namespace,
    namespace: Namespace,
    _folder: tempfile::TempDir,
    options: Options,
    ifindex: u32,
}

impl Rig {
    /// Running, with every flow established.
    ///
    /// # Errors
    /// Namespaces, links or programs cannot be had, or the director does not start.
    pub fn set_up(options: &Options) -> Result<Self, FloodError> {
        let prefix = unique_prefix();
        let generator = Namespace::create(&format!("{prefix}-generator"))?;
        let namespace = Namespace::create(&format!("{prefix}-director"))?;
        for namespace in [&generator, &namespace] {
            // Nothing but the packets sent here comes in then: nobody solicits routers.
            namespace.sysctl(&[
                ("net.ipv6.conf.all.disable_ipv6", "1"),
                ("net.ipv6.conf.default.disable_ipv6", "1"),
            ])?;
        }
        let far = End { namespace: &generator, interface: "gen0", mac: None };
        let near = End { namespace: &namespace, interface: "eth0", mac: Some(Mac(traffic::DIRECTOR)) };
        link::connect_wide(&far, &near, ETHERNET_MTU, options.cpus.len())?;
        namespace.ip(["address add 10.0.0.1/24 dev eth0"])?;
        let mut traffic = Traffic::new(options.flows, link::index(&generator, "gen0")?, &options.cpus)?;
        generator.run(|| traffic.attach())??;

        let folder = tempfile::tempdir()?;
        let mut director = Director::alone(&namespace, folder.path(), &prefix)?;
        director.configure(&configuration(options))?;
        director.start_and_wait()?;
        let ifindex = link::index(&namespace, "eth0")?;
        let options = options.clone();
        let mut rig = Rig { director, traffic, generator, namespace, _folder: folder, options, ifindex };
        rig.establish()?;
        Ok(rig)
    }

    /// Opens the flows. Where a link loses packets everyone tries again.
    fn establish(&mut self) -> Result<(), FloodError> {
        let wanted = self.options.flows;
        let mut established = 0;
        for _ in 0..TRIES {
            self.generator.run(|| self.traffic.establish())??;
            established = self.established()?.len();
            if established == wanted as usize {
                return Ok(());
            }
        }
        Err(FloodError::NotEstablished { wanted, established })
    }

    /// Clients of the established flows, and each one's server.
    ///
    /// # Errors
    /// The director does not answer.
    pub fn established(&self) -> Result<HashMap<SocketAddr, SocketAddr>, FloodError> {
        let state = "ESTABLISHED".parse().expect("a state's name");
        let filter = FlowFilter { state: Some(state), ..FlowFilter::default() };
        let flows = self.director.flows(&filter)?;
        Ok(flows.into_iter().map(|flow| (flow.client, flow.server)).collect())
    }

    /// Floods, and looks at every end of it.
    ///
    /// # Errors
    /// The kernel cannot send, or the director does not answer.
    pub fn flood(&mut self) -> Result<Flood, FloodError> {
        let servers = self.established()?;
        let (stats, seen) = (self.director.stats()?, self.traffic.seen()?);
        let received = link::counters(&self.namespace, "eth0")?.rx_packets;
        let Options { every, lasts, .. } = self.options;
        let sent = self.generator.run(|| self.traffic.flood(every, lasts))??;
        let received = link::counters(&self.namespace, "eth0")?.rx_packets - received;
        let after = self.director.stats()?;
        let seen_after = self.traffic.seen()?;
        let servers_after = self.established()?;
        let status = self.director.status()?;
        Ok(Flood {
            sent,
            received,
            verdicts: verdicts(&after) - verdicts(&stats),
            transmitted: packets(&after, Reason::Transmitted) - packets(&stats, Reason::Transmitted),
            established: Fate::of(&seen, &seen_after, sent.established, &servers, &servers_after),
            noted: Note::ALL
                .iter()
                .map(|note| (note.name(), times(&after, *note) - times(&stats, *note)))
                .filter(|(_, times)| *times > 0)
                .collect(),
            half_open: status.flow_tables.ipv4.flows.saturating_sub(servers_after.len() as u64),
            status,
        })
    }

    /// To measure on the last CPU, which then is not the one that floods beside it.
    ///
    /// # Errors
    /// The director's program is not to be had.
    pub fn probe(&self) -> Result<Probe, FloodError> {
        let cpu = self.options.cpus.last().copied().unwrap_or(0);
        let (pin, flows) = (&self.director.pin, self.options.flows);
        Ok(Probe::new(pin, self.ifindex, flows, cpu)?)
    }

    /// What an established flow's packet costs, with the flows the director has.
    ///
    /// # Errors
    /// The program does not send the packets on.
    pub fn cost(&mut self, probe: &mut Probe) -> Result<Cost, FloodError> {
        let rounds = self.options.rounds;
        let program = self.namespace.run(|| median(probe, Packets::Established, rounds))??;
        let mut whole = f64::INFINITY;
        for _ in 0..self.options.rounds {
            whole = whole.min(self.generator.run(|| self.traffic.pace(1))??);
        }
        Ok(Cost { program, whole })
    }

    /// What it costs in turn with packets of the flood on one CPU: what the two cost, less one of the flood by itself.
    /// And that one.
    ///
    /// # Errors
    /// As for [`Rig::cost`].
    pub fn cost_between(&mut self, probe: &mut Probe) -> Result<(Cost, Cost), FloodError> {
        let mut programs = [Vec::new(), Vec::new()];
        let mut whole = [f64::INFINITY; 2];
        for _ in 0..self.options.rounds {
            for (costs, packets) in programs.iter_mut().zip([Packets::Half, Packets::Flood]) {
                costs.push(self.namespace.run(|| probe.round(packets))??);
            }
            for (cost, every) in whole.iter_mut().zip([2, traffic::FLOOD_ALONE]) {
                *cost = cost.min(self.generator.run(|| self.traffic.pace(every))??);
            }
        }
        let [half, flood] = programs.map(middle);
        let flood = Cost { program: flood, whole: whole[1] };
        Ok((Cost { program: 2.0 * half - flood.program, whole: 2.0 * whole[0] - flood.whole }, flood))
    }

    /// What it costs in the program while another CPU sends, one packet in `every` of an established flow.
    ///
    /// # Errors
    /// As for [`Rig::cost`], or there is one CPU only.
    pub fn cost_beside(&mut self, probe: &mut Probe, every: u32) -> Result<f64, FloodError> {
        if self.options.cpus.len() < 2 {
            return Err(FloodError::Cpus(self.options.cpus.len()));
        }
        let rounds = self.options.rounds;
        let Rig { namespace, generator, traffic, .. } = self;
        let probe = || namespace.run(|| median(probe, Packets::Established, rounds));
        let (_, cost) = generator.run(|| traffic.flood_beside(every, probe))??;
        Ok(cost??)
    }

    /// Sends packets of established flows alone.
    ///
    /// # Errors
    /// The kernel cannot send.
    pub fn ordinary(&mut self, lasts: Duration) -> Result<Sent, FloodError> {
        Ok(self.generator.run(|| self.traffic.flood(1, lasts))??)
    }
}

fn median(probe: &mut Probe, packets: Packets, rounds: u16) -> Result<f64, BenchError> {
    (0..rounds).map(|_| probe.round(packets)).collect::<Result<Vec<f64>, _>>().map(middle)
}

fn middle(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

fn configuration(options: &Options) -> String {
    let Options { table, more, .. } = options;
    let mut yaml = format!("interfaces: [{{name: eth0, mode: native}}]\nflows: {table}\n{more}\nservices:\n");
    yaml += &format!("  - {{address: {}, port: {}, servers: [", traffic::VIP, traffic::PORT);
    for number in 1..=SERVERS {
        let host = 100 + number;
        yaml += &format!("{{address: 10.0.0.{host}, mac: \"02:01:00:00:00:{number:02x}\"}}, ");
    }
    yaml + "]}\n"
}

/// The last four bytes of a server's MAC, as the watcher tells it.
fn server_mark(server: &SocketAddr) -> u32 {
    match server {
        SocketAddr::V4(server) => u32::from(server.ip().octets()[3]) - 100,
        SocketAddr::V6(_) => 0,
    }
}

fn verdicts(stats: &Stats) -> u64 {
    stats.reasons.iter().map(|reason| reason.packets).sum()
}

fn packets(stats: &Stats, reason: Reason) -> u64 {
    stats.reasons.iter().filter(|count| count.name == reason.name()).map(|count| count.packets).sum()
}

fn times(stats: &Stats, note: Note) -> u64 {
    stats.notes.iter().filter(|count| count.name == note.name()).map(|count| count.times).sum()
}

/// A flood, from every side.
#[derive(Clone, Debug)]
pub struct Flood {
    pub sent: Sent,
    /// Frames the director's interface got.
    pub received: u64,
    /// Packets the director counted under any reason, and those it sent on.
    pub verdicts: u64,
    pub transmitted: u64,
    pub established: Fate,
    /// What else the director noted, by name.
    pub noted: Vec<(&'static str, u64)>,
    /// Flows in its table that are not established, as of its latest sweep.
    pub half_open: u64,
    pub status: Status,
}

/// What became of the established flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fate {
    pub flows: u64,
    /// Of these, flows the director does not know any more, or with another server.
    pub lost: u64,
    pub packets: u64,
    /// Of these, packets that did not come back.
    pub missing: u64,
    /// Packets that went to another server than their flow's.
    pub elsewhere: u64,
}

impl Fate {
    fn of(
        before: &Seen,
        after: &Seen,
        packets: u64,
        servers: &HashMap<SocketAddr, SocketAddr>,
        servers_after: &HashMap<SocketAddr, SocketAddr>,
    ) -> Self {
        let kept = servers.iter().filter(|(client, server)| servers_after.get(client) == Some(server));
        // The watcher and the director must mean the same server, too.
        let agrees = (0..).zip(&after.servers).filter(|(number, mark)| {
            let client = SocketAddr::V4(traffic::client(*number));
            servers.get(&client).is_some_and(|server| server_mark(server) == **mark)
        });
        let flows = servers.len() as u64;
        let lost = flows - (kept.count() as u64).min(agrees.count() as u64);
        Self {
            flows,
            lost,
            packets,
            missing: packets.saturating_sub(after.arrived - before.arrived),
            elsewhere: after.elsewhere - before.elsewhere,
        }
    }
}

/// Nanoseconds of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// In the director's program, an empty one's taken off; the median.
    pub program: f64,
    /// From one packet to the next over the link: sending, both ways, the program, watching; the least.
    pub whole: f64,
}

/// What the whole exercise showed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seconds: f64,
    /// Million packets a second, of all CPUs together: of the flood, and of established flows alone before and after.
    pub flood_mpps: f64,
    pub before_mpps: f64,
    pub after_mpps: f64,
    pub syns: u64,
    pub established: Fate,
    /// Packets the link lost on the way to the director and back.
    pub lost_before: u64,
    pub lost_behind: u64,
    /// Packets the director did anything else with than sending them on.
    pub not_sent_on: u64,
    pub half_open: u64,
    pub noted: Vec<(&'static str, u64)>,
    /// Of an established flow's packet, before the flood and after it, the other CPU idle.
    pub quiet: Cost,
    pub after: Cost,
    /// See [`Rig::cost_between`].
    pub between: Cost,
    pub of_flood: Cost,
    /// In the program, while the other CPU sends packets of established flows, and while it floods.
    pub beside_ordinary: f64,
    pub beside_flood: f64,
}

/// All of it.
///
/// # Errors
/// See [`FloodError`].
pub fn run(options: &Options) -> Result<Report, FloodError> {
    const ORDINARY: Duration = Duration::from_secs(1);
    let mut rig = Rig::set_up(options)?;
    let mut probe = rig.probe()?;
    let mpps = |sent: &Sent| sent.packets as f64 / sent.seconds / 1e6;
    let quiet = rig.cost(&mut probe)?;
    let beside_ordinary = rig.cost_beside(&mut probe, 1)?;
    let before = rig.ordinary(ORDINARY)?;
    let flood = rig.flood()?;
    let after = rig.cost(&mut probe)?;
    let alone = rig.ordinary(ORDINARY)?;
    let beside_flood = rig.cost_beside(&mut probe, options.every)?;
    let (between, of_flood) = rig.cost_between(&mut probe)?;
    Ok(Report {
        seconds: flood.sent.seconds,
        flood_mpps: mpps(&flood.sent),
        before_mpps: mpps(&before),
        after_mpps: mpps(&alone),
        syns: flood.sent.packets - flood.sent.established,
        established: flood.established,
        lost_before: flood.sent.packets.saturating_sub(flood.verdicts),
        lost_behind: flood.transmitted.saturating_sub(flood.sent.arrived),
        not_sent_on: flood.verdicts - flood.transmitted,
        half_open: flood.half_open,
        noted: flood.noted,
        quiet,
        after,
        between,
        of_flood,
        beside_ordinary,
        beside_flood,
    })
}

/// The CPUs this process may use.
///
/// # Errors
/// The kernel does not say.
pub fn cpus() -> nix::Result<Vec<usize>> {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    let count = nix::sched::CpuSet::count();
    Ok((0..count).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect())
}
