//! The product's own control plane in front of an engine: every command of a scenario becomes an edit of the model,
//! which the reconciler brings to the maps; the sweeper runs as time passes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lb_common::flow::FlowKey;
use lb_common::hash::Seed;
use lb_common::server::server_flag;
use lb_common::settings::{feature, switch};
use lb_userspace::model::{self, Model};
use lb_userspace::reconcile::{Base, Reconciler};
use lb_userspace::sweep::{Pass, Rules, Step};

use super::entries::{self, Remembered};
use super::world::{self, DIRECTOR, Held, KERNEL, Marking, refused};
use crate::engine::Engine as Datapath;
use crate::traces::engine::Refused;
use crate::traces::scenario::{RouteMtu, Scenario, ServiceKey};
use crate::traces::trace::Conn;

mod commands;
mod stores;

use stores::{Localities, Spill};

/// What the program has to be able to do for any recording. The others turn packets away, which needs limits that
/// no recording sets.
pub const FEATURES: u32 = feature::FLOWS
    | feature::ANY_PORT
    | feature::PREFIXES
    | feature::IPV6
    | feature::PERSISTENCE
    | feature::TUNNELS
    | feature::LOCALITY
    | feature::THRESHOLDS
    | feature::FTP;

/// Steps of time. Whole jiffies at every rate a kernel is built with.
const TICK: Duration = Duration::from_millis(20);

/// How long nothing is swept while nothing ends: the rounds of what lblc and lblcr forget.
const IDLE: Duration = Duration::from_secs(60);

/// With `expire_nodest_conn` the kernel takes the flows of a removed server out some ticks after the removal; the daemon's
/// sweeper does so within a second.
const EVICTION: Duration = Duration::from_millis(20);

/// What left the tables other than by a packet of its own: an idle flow or template that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) what: Remembered,
    /// Since the start.
    pub(super) at: Duration,
}

/// A director over an engine.
pub struct Director<'e, E: Datapath> {
    pub(super) engine: &'e mut E,
    reconciler: Reconciler<E::Store>,
    model: Model,
    held: Vec<Held>,
    markings: Vec<Marking>,
    /// Prefixes that are local to the director.
    local: Vec<IpNet>,
    mtu: u32,
    routes: Vec<RouteMtu>,
    /// Of every server that ever was: its service, and where it is listed.
    listed: HashMap<u32, (ServiceKey, SocketAddr)>,
    keys: HashMap<u32, ServiceKey>,
    pass: Pass,
    began: Instant,
    at: Duration,
    swept: Duration,
    /// Since the start, exactly.
    reached: Duration,
    /// When flows of removed servers are taken out.
    evicts: Option<Duration>,
    pub(super) ended: Vec<Ended>,
    /// Counts the sweeper had to put right: each is a fault of the datapath.
    pub corrected: u64,
}

impl<'e, E: Datapath> Director<'e, E> {
    /// Starts with empty maps.
    pub fn new(engine: &'e mut E, scenario: &Scenario) -> Self {
        engine.clear();
        let model = empty_model();
        let base =
            Base { seed: Seed([1, 2, 3, 4, 5, 6]), buckets: engine.sizes().buckets(), hz: engine.hz() };
        let reconciler = Reconciler::new(engine.store(), base, None, Arc::new(model.clone()))
            .expect("maps that are empty can be read");
        let local = DIRECTOR.into_iter().map(IpNet::from).collect();
        let mut director = Self {
            engine,
            reconciler,
            model,
            held: Vec::new(),
            markings: Vec::new(),
            local,
            mtu: scenario.mtu,
            routes: Vec::new(),
            listed: HashMap::new(),
            keys: HashMap::new(),
            pass: Pass::default(),
            began: Instant::now(),
            at: Duration::ZERO,
            swept: Duration::ZERO,
            reached: Duration::ZERO,
            evicts: None,
            ended: Vec::new(),
            corrected: 0,
        };
        director.reconcile().expect("a director without services");
        director
    }

    /// Since the start, in whole steps of time.
    pub fn at(&self) -> Duration {
        self.at
    }

    pub(super) fn hz(&self) -> u32 {
        self.engine.hz()
    }

    pub(super) fn now(&self) -> u32 {
        self.engine.now()
    }

    pub fn is_local(&self, address: IpAddr) -> bool {
        self.local.iter().any(|prefix| prefix.contains(&address))
    }

    /// Everything remembered.
    pub(super) fn remembered(&self) -> Vec<Remembered> {
        entries::all(self.engine, &self.reconciler.contents().settings)
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<Remembered> {
        entries::find(self.engine, &self.reconciler.contents().settings, key)
    }

    /// The connection as IPVS lists it.
    pub(super) fn conn(&self, what: &Remembered) -> Option<Conn> {
        let (service, server) = self.listed.get(&what.flow.server)?;
        Some(super::listing::conn(what, *service, *server, self.engine.now(), self.engine.hz()))
    }

    /// Whether its server was removed and takes its flows along.
    pub(super) fn is_evicted(&self, what: &Remembered) -> bool {
        let contents = self.reconciler.contents();
        let server = contents.servers.get(&what.flow.server);
        contents.settings.is_on(switch::EXPIRE_NODEST_CONN)
            && server.is_none_or(|server| !server.has(server_flag::AVAILABLE))
    }

    /// The service and place of a server.
    pub(super) fn server(&self, id: u32) -> Option<(ServiceKey, SocketAddr)> {
        self.listed.get(&id).copied()
    }

    fn reconcile(&mut self) -> Result<(), Refused> {
        let mut services = Vec::with_capacity(self.held.len());
        for held in &self.held {
            services.push(world::service(held, &self.markings, &self.held)?);
        }
        // IPVS asks for the mark first; of two services for one place the later one has it here.
        services.sort_by_key(|service| matches!(service.selector, model::Selector::Matches(_)));
        self.model.services = services;
        let failed = |error: &dyn std::error::Error| Refused { rc: KERNEL, message: error.to_string() };
        self.reconciler.set_model(Arc::new(self.model.clone())).map_err(|error| failed(&error))?;
        let servers = self.model.services.iter().flat_map(|service| &service.servers);
        let hops = world::next_hops(servers, self.mtu, &self.routes, |address| self.is_local(address));
        self.reconciler.round(&hops, self.began + self.at).map_err(|error| failed(&error))?;
        for (service, assigned) in self.model.services.iter().zip(self.reconciler.assigned()) {
            let held = self.held.iter().find(|held| held.key.to_string() == service.name);
            let held = held.expect("the model is made of what is held");
            self.keys.insert(assigned.id, held.key);
            for server in &assigned.servers {
                let known = &held.servers[server.index];
                let listed = SocketAddr::new(known.server.address, known.port);
                self.listed.insert(server.id, (held.key, listed));
            }
        }
        Ok(())
    }

    /// Applies a change to what is held; it is taken back if it cannot be put in force.
    fn change(&mut self, edit: impl FnOnce(&mut Vec<Held>) -> Result<(), Refused>) -> Result<(), Refused> {
        let before = self.held.clone();
        let done = edit(&mut self.held).and_then(|()| self.reconcile());
        if self.model.ipvs.expire_nodest_conn {
            self.evicts = Some(self.reached + EVICTION);
        }
        if done.is_err() {
            self.held = before;
            self.reconcile().expect("what was in force before");
        }
        done
    }

    /// Sweeps, and notes what that ended.
    fn sweep(&mut self) {
        let before = self.remembered();
        let now = self.engine.now();
        let rules = Rules::of(self.reconciler.contents());
        let mut spill = Spill { flows: self.engine.spills(), gone: Vec::new() };
        let mut locality = Localities { entries: self.engine.localities(), gone: Vec::new() };
        let pass = &mut self.pass;
        let report = self.engine.with_tables(|tables| {
            loop {
                let step = pass.step(&tables, &rules, now, &mut spill, &mut locality);
                if let Step::Done(report) = step.expect("what is in memory can be swept") {
                    return report;
                }
            }
        });
        spill.gone.iter().for_each(|key| self.engine.remove_spill(key));
        locality.gone.iter().for_each(|key| self.engine.remove_locality(key));
        self.corrected += report.corrected;
        let left = self.remembered();
        let is_left = |what: &Remembered| {
            left.iter().any(|other| (other.flow.key, other.is_template) == (what.flow.key, what.is_template))
        };
        let at = self.at;
        self.ended.extend(before.into_iter().filter(|what| !is_left(what)).map(|what| Ended { what, at }));
        // Any day will do: the number of seconds is only ever compared.
        let unix = 1_000_000_000 + self.at.as_secs();
        if self.reconciler.collect(unix, |id| report.tally.is_referenced(id)) {
            self.reconcile().expect("what is in force");
        }
        self.swept = self.at;
        self.evicts = None;
    }

    /// Until when nothing ends.
    fn next_end(&self) -> Option<Duration> {
        let (now, hz) = (self.engine.now(), self.engine.hz());
        let left = self.remembered().iter().map(|what| what.left(now).max(0) as u32).min()?;
        let left = Duration::from_micros(u64::from(left) * 1_000_000 / u64::from(hz));
        Some(ceiled(self.at + left))
    }

    /// A removed server is about to be added again: whether its flows were taken out by then, if they were to be. That
    /// is a race in the kernel, so a recording has to say.
    pub(super) fn settle_evictions(&mut self, taken_out: bool) {
        if self.evicts.take().is_some() && taken_out {
            self.sweep();
        }
    }

    /// What remembers too little to be told apart from a fault.
    pub fn trouble(&self) -> Option<String> {
        use lb_common::counters::Note;
        let noted: Vec<String> = [Note::Spilled, Note::NotRemembered, Note::EvictedHalfOpen]
            .into_iter()
            .filter(|note| self.engine.noted(*note) != 0)
            .map(|note| format!("{note:?} {}", self.engine.noted(note)))
            .collect();
        if self.corrected != 0 {
            return Some(format!("the sweeper corrected counts by {}", self.corrected));
        }
        (!noted.is_empty()).then(|| noted.join(", "))
    }

    fn position(&self, key: &ServiceKey) -> Result<usize, Refused> {
        match self.held.iter().position(|held| held.key == *key) {
            Some(at) => Ok(at),
            None => refused(KERNEL, "No such service"),
        }
    }

    fn set_timeouts(&mut self, seconds: [u64; 3]) {
        let timeouts = &mut self.model.timeouts;
        let all = [&mut timeouts.tcp, &mut timeouts.tcp_fin, &mut timeouts.udp];
        for (timeout, seconds) in all.into_iter().zip(seconds) {
            if seconds != 0 {
                *timeout = Duration::from_secs(seconds);
            }
        }
    }
}

fn floored(time: Duration) -> Duration {
    TICK * (time.as_micros() / TICK.as_micros()) as u32
}

fn ceiled(time: Duration) -> Duration {
    TICK * time.as_micros().div_ceil(TICK.as_micros()) as u32
}

fn empty_model() -> Model {
    Model {
        interfaces: Vec::new(),
        on_exit: model::OnExit::Detach,
        socket: "/run/lb.sock".into(),
        pin: "/sys/fs/bpf/lb".into(),
        vips: model::VipOwner::External,
        flows: model::FlowTables::default(),
        timeouts: model::Timeouts::default(),
        ipvs: model::IpvsKnobs::default(),
        admission: model::Admission::default(),
        // The recordings' director has its limits off.
        icmp_errors_per_second: u32::MAX,
        neighbours: Vec::new(),
        tunnel_source: model::TunnelSources::default(),
        services: Vec::new(),
    }
}
