//! The director as a process: what is started in which order, and how it ends.
//!
//! ```text
//! load ▶ learn HZ ▶ read what the maps hold ▶ next hops ▶ first round ▶ attach ▶ sweep, answer, follow
//! ```
//!
//! The maps are complete before the first packet meets the program. When an earlier daemon left the datapath running,
//! its maps, flows and numbers are taken over and its program is replaced without a packet in between.

mod bonds;
mod keeper;
mod operator;
mod shared;
mod state;
mod sweeper;
mod vips;

use crate::api::types::{self, Mode};
use crate::api::{BindError, Socket, serve};
use crate::config::{self, Report};
use crate::jiffies::ClockError;
use crate::maps::kernel::Kernel;
use crate::maps::{MapStore, StoreError};
use crate::model::{AttachMode, Interface, Mac, Model, OnExit};
use crate::neigh::{self, NextHopTable, Timing};
use crate::netlink::{Link, LinkKind, Netlink, NetlinkError};
use crate::reconcile::{Base, DesiredError, ReconcileError, Reconciler, features, remembered};
use crate::sweep::Rules;
use crate::vips::Vips;
use crate::xdp::{Attached, Datapath, Sizes, XdpError};
use keeper::{Command, Keeper, wanted};
use lb_common::hash::Seed;
use operator::Daemon;
use shared::{Shared, View};
use state::StateFile;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use sweeper::Sweeper;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

/// How long a new daemon goes by the next hops it found in the maps.
const REMEMBER: Duration = Duration::from_secs(5);

/// How often the program's log is looked at; it is for rare events.
const LOG_EVERY: Duration = Duration::from_millis(200);

/// What the command line says over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Attach to these instead; empty: to those of the file.
    pub interfaces: Vec<String>,
}

impl Overrides {
    fn apply(&self, mut model: Model) -> Model {
        if !self.interfaces.is_empty() {
            let mode = |name: &String| {
                model
                    .interfaces
                    .iter()
                    .find(|known| known.name == *name)
                    .map_or(AttachMode::Auto, |known| known.mode)
            };
            let named = self.interfaces.iter().map(|name| Interface { name: name.clone(), mode: mode(name) });
            model.interfaces = named.collect();
        }
        model
    }
}

/// Why there is no director.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{0}")]
    Config(Report),
    #[error(transparent)]
    Xdp(#[from] XdpError),
    #[error("learning the kernel's clock rate")]
    Clock(#[from] ClockError),
    #[error("drawing the flow tables' seed: {0}")]
    Seed(getrandom::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the configuration does not fit the maps")]
    Desired(#[from] DesiredError),
    #[error("working out what the maps should hold")]
    Reconcile(#[from] ReconcileError),
    #[error("following the kernel's routes and neighbours")]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("{what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::System { what, source }
}

/// Is the director until SIGTERM or SIGINT; SIGHUP reloads the configuration. To be called in a multi-threaded tokio
/// runtime, all of whose threads are in the network namespace to work in.
///
/// # Errors
/// It cannot be started; what was running before goes on. Once it runs, failures are logged and overcome.
pub async fn run(config: PathBuf, overrides: Overrides) -> Result<(), DaemonError> {
    let config = std::path::absolute(&config).map_err(system("finding the configuration"))?;
    let valid = config::load(&config).map_err(DaemonError::Config)?;
    for warning in valid.warnings.lines() {
        warn!("{warning}");
    }
    let model = Arc::new(overrides.apply(valid.model));
    let mut signals = Signals::new()?;

    let netlink = Netlink::open()?;
    let links = netlink.links().await?;
    let tagged = links.iter().any(|link| matches!(link.kind, LinkKind::Vlan(_)));
    bonds::warn_of_members(&links, &model.interfaces);
    let sizes = Sizes::of(model.flows);
    let mut datapath = Datapath::load(&model.pin, sizes, features(&model, tagged)?)?;
    let clock = datapath.clock()?;
    let hz = clock.learn_hz()?;
    let arrays = datapath.arrays().clone();
    let mut store = Kernel::open(&model.pin, arrays.slots.clone(), arrays.loads.clone())?;
    let base = base(&mut store, sizes, hz)?;
    let state = StateFile::beside(&model.socket);
    let reconciler = Reconciler::new(store, base, state.read(), model.clone())?;
    // Before anything is touched: another director may be answering there.
    let socket = Socket::bind(&model.socket)?;
    log_of_program(&mut datapath);

    let remembered = remembered(reconciler.contents());
    let before = datapath.in_use()?;
    let known = crate::xdp::indexes(&model.interfaces)?;
    let (wanted_in, wanted_out) = watch::channel(wanted(&model));
    let (indexes_in, indexes_out) = watch::channel(known.into_iter().collect::<BTreeSet<u32>>());
    let (hops_in, hops_out) = watch::channel(NextHopTable::new());
    let mut neighbours = tokio::spawn(neigh::task::run(Timing::default(), wanted_out, indexes_out, hops_in));

    let view = View {
        config: config.clone(),
        loaded: SystemTime::now(),
        model: model.clone(),
        assigned: Vec::new(),
        why_not: BTreeMap::new(),
        next_hops: NextHopTable::new(),
        interfaces: Vec::new(),
        links: HashMap::new(),
        servers: Arc::default(),
    };
    let shared = Arc::new(Shared::new(&model.pin, arrays, hz, clock.now()? as u32, view)?);
    let mut keeper = Keeper {
        reconciler,
        datapath,
        state,
        shared: shared.clone(),
        addresses: Vips::new(netlink.clone(), before),
        netlink,
        config,
        loaded: SystemTime::now(),
        overrides,
        wanted: wanted_in,
        indexes: indexes_in,
        next_hops: hops_out,
        remembered: (!remembered.is_empty()).then(|| (Instant::now() + REMEMBER, remembered)),
        told: BTreeMap::new(),
    };
    tokio::select! {
        () = keeper.resolve(&model) => {}
        ended = &mut neighbours => {
            ended.map_err(|error| system("following next hops")(io::Error::other(error)))??;
        }
    }
    let complete = keeper.round();
    for (service, warning) in keeper.reconciler.warnings() {
        warn!(service, "{warning}");
    }
    keeper.datapath.attach(&model.interfaces)?;
    keeper.look_at_interfaces().await;
    for attachment in keeper.datapath.attached() {
        info!(interface = attachment.interface, mode = ?attachment.mode, "attached");
    }
    keeper.look_for_vips(&model).await;
    shared.set_rules(Rules::of(keeper.reconciler.contents()));

    let (commands, orders) = mpsc::unbounded_channel();
    let sweeper =
        Sweeper::start(shared.clone(), clock, commands.clone()).map_err(system("starting the sweeper"))?;
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let operator = Arc::new(Daemon { shared, commands: commands.clone() });
    let api = tokio::spawn(serve(socket, operator, async {
        // Dropped is as good as told.
        let _ = api_stopped.await;
    }));
    info!(services = model.services.len(), hz, complete, "the director is ready");
    notify(sd_notify::NotifyState::Ready);

    let stop = signals.until_told_to_stop(commands);
    keeper.run(orders, stop).await;

    notify(sd_notify::NotifyState::Stopping);
    drop(stop_api);
    match api.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "the API ended badly"),
        Err(error) => warn!(%error, "the API panicked"),
    }
    sweeper.stop();
    neighbours.abort();
    keeper.end().await
}

impl Keeper {
    /// Leaves the datapath as `on_exit` wants it.
    async fn end(mut self) -> Result<(), DaemonError> {
        match self.reconciler.model().on_exit {
            OnExit::Keep => {
                self.state.write(self.reconciler.ids());
                info!("stopped; the datapath goes on from the last plan");
            }
            OnExit::Detach => {
                if let Err(error) = self.addresses.withdraw().await {
                    warn!(%error, "VIPs stay behind");
                }
                self.state.remove();
                self.datapath.detach()?;
                info!("stopped and detached");
            }
        }
        Ok(())
    }
}

/// Seed and sizes of the tables: the ones they were made with, or for new tables fresh ones.
fn base(store: &mut Kernel, sizes: Sizes, hz: u32) -> Result<Base, DaemonError> {
    let settings = store.settings()?;
    if settings.hz != 0 {
        return Ok(Base { seed: settings.seed, buckets: sizes.buckets(), hz });
    }
    let mut seed = Seed::default();
    for word in &mut seed.0 {
        *word = getrandom::u64().map_err(DaemonError::Seed)?;
    }
    Ok(Base { seed, buckets: sizes.buckets(), hz })
}

/// Indexes of the interfaces with the program.
fn attached_indexes(datapath: &Datapath) -> BTreeSet<u32> {
    datapath.attached().iter().map(|attachment| attachment.ifindex).collect()
}

/// The attached interfaces in the API's words.
fn describe_interfaces(datapath: &Datapath, links: &[Link]) -> Vec<types::Interface> {
    let describe = |attachment: &crate::xdp::Attachment| {
        let link = links.iter().find(|link| link.ifindex == attachment.ifindex);
        let (mode, why_generic) = match &attachment.mode {
            Attached::Native => (Mode::Native, None),
            Attached::Generic { why } => {
                (Mode::Generic, Some(why.clone().unwrap_or_else(|| "as configured".to_owned())))
            }
        };
        types::Interface {
            name: attachment.interface.clone(),
            ifindex: attachment.ifindex,
            mode,
            why_generic,
            mac: Mac(link.and_then(|link| link.mac).unwrap_or_default()).to_string(),
            mtu: link.map_or(0, |link| link.mtu),
        }
    };
    datapath.attached().iter().map(describe).collect()
}

/// Passes on what the program logs, if it was built to.
fn log_of_program(datapath: &mut Datapath) {
    if datapath.ebpf_mut().map("AYA_LOGS").is_none() {
        return;
    }
    match aya_log::EbpfLogger::init(datapath.ebpf_mut()) {
        Ok(mut logger) => {
            tokio::spawn(async move {
                loop {
                    logger.flush();
                    tokio::time::sleep(LOG_EVERY).await;
                }
            });
        }
        Err(error) => warn!(%error, "what the program logs is not shown"),
    }
}

/// Tells the service manager, if there is one.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the service manager could not be told");
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let listen = |kind| signal(kind).map_err(system("listening for signals"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn until_told_to_stop(&mut self, commands: mpsc::UnboundedSender<Command>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if commands.send(Command::Hangup).is_err() {
                        error!("nobody is left to reload the configuration");
                    }
                }
            }
        }
    }
}
