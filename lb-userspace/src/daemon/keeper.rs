//! The task that keeps the maps as they should be: the only writer of configuration.

use super::shared::{KnownServer, Shared, View};
use super::state::StateFile;
use super::{Overrides, attached_indexes, bonds, describe_interfaces, vips};
use crate::api::types::Reload;
use crate::api::{OperatorError, ReloadError, changes, describe};
use crate::config;
use crate::maps::kernel::Kernel;
use crate::model::Model;
use crate::neigh::{NextHopTable, Unresolved, WantedServer};
use crate::netlink::Netlink;
use crate::reconcile::{Reconciler, features};
use crate::sweep::{Rules, Tally};
use crate::vips::Vips;
use crate::xdp::Datapath;
use lb_common::settings::feature;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a new daemon goes by the next hops in the maps where the kernel has not told it otherwise.
const REMEMBER: Duration = Duration::from_secs(5);
/// How long a start or reload waits for next hops before it goes on without.
const RESOLVE: Duration = Duration::from_secs(1);

/// What the keeper is asked or told.
pub(super) enum Command {
    Reload(oneshot::Sender<Result<Reload, ReloadError>>),
    /// SIGHUP: a reload nobody waits for.
    Hangup,
    /// A pass over the tables is over.
    Swept(Tally),
}

pub(super) struct Keeper {
    pub(super) reconciler: Reconciler<Kernel>,
    pub(super) datapath: Datapath,
    pub(super) state: StateFile,
    pub(super) shared: Arc<Shared>,
    pub(super) netlink: Netlink,
    /// VIPs this director gave the host (`vips: manage`).
    pub(super) addresses: Vips,
    pub(super) config: PathBuf,
    pub(super) loaded: SystemTime,
    pub(super) overrides: Overrides,
    pub(super) wanted: watch::Sender<Vec<WantedServer>>,
    pub(super) indexes: watch::Sender<BTreeSet<u32>>,
    pub(super) next_hops: watch::Receiver<NextHopTable>,
    /// Next hops the maps held at the start, and until when they count.
    pub(super) remembered: Option<(Instant, NextHopTable)>,
    pub(super) told: BTreeMap<u32, String>,
}

/// The real servers whose next hops are needed, with what is configured by hand.
pub(super) fn wanted(model: &Model) -> Vec<WantedServer> {
    let mut wanted: BTreeMap<IpAddr, WantedServer> = BTreeMap::new();
    for server in model.services.iter().flat_map(|service| &service.servers) {
        let entry = wanted.entry(server.address).or_insert_with(|| WantedServer::new(server.address));
        entry.mac = entry.mac.or(server.mac.map(|mac| mac.0));
    }
    for by_hand in &model.neighbours {
        if let Some(entry) = wanted.get_mut(&by_hand.address) {
            entry.mac = entry.mac.or(Some(by_hand.mac.0));
            entry.interface = Some(by_hand.interface.clone());
            entry.vlan = by_hand.vlan.map(std::num::NonZeroU16::get);
        }
    }
    wanted.into_values().collect()
}

impl Keeper {
    /// Runs until `stop` is done. A failed round is tried again; nothing that happens here ends the datapath.
    pub(super) async fn run(
        &mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        let mut failed = false;
        loop {
            let pause = if failed {
                RETRY
            } else if self.remembered.is_some() {
                REMEMBER / 4
            } else {
                Duration::MAX
            };
            tokio::select! {
                () = &mut stop => return,
                changed = self.next_hops.changed() => {
                    if changed.is_err() {
                        error!("next hops are not followed any more");
                        stop.await;
                        return;
                    }
                    failed = !self.round();
                }
                command = commands.recv() => match command {
                    Some(Command::Reload(answer)) => {
                        // Whoever asked may be gone.
                        let _ = answer.send(self.reload().await);
                    }
                    Some(Command::Hangup) => self.hang_up().await,
                    Some(Command::Swept(tally)) => {
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                        if self.reconciler.collect(now, |id| tally.is_referenced(id)) {
                            failed = !self.round();
                        }
                        self.state.write(self.reconciler.ids());
                    }
                    None => {
                        stop.await;
                        return;
                    }
                },
                () = tokio::time::sleep(pause) => failed = !self.round(),
            }
        }
    }

    /// The next hops to go by.
    fn hops(&mut self) -> NextHopTable {
        let mut table = self.next_hops.borrow_and_update().clone();
        if self.remembered.as_ref().is_some_and(|(until, _)| Instant::now() >= *until) {
            self.remembered = None;
        }
        if let Some((_, remembered)) = &self.remembered {
            for (address, hop) in remembered {
                if !matches!(table.get(address), Some(Ok(_))) {
                    table.insert(*address, hop.clone());
                }
            }
        }
        table
    }

    /// One round; false if it has to be tried again.
    pub(super) fn round(&mut self) -> bool {
        match self.try_round() {
            Ok(()) => true,
            Err(error) => {
                warn!(error = &*error, "the maps are not as they should be yet; trying again");
                false
            }
        }
    }

    fn try_round(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let hops = self.hops();
        self.widen(&hops)?;
        let outcome = self.reconciler.round(&hops, Instant::now());
        // Also after a failure: what was done is to be known.
        self.shared.set_rules(Rules::of(self.reconciler.contents()));
        self.publish(hops);
        self.state.write(self.reconciler.ids());
        let steps = outcome?;
        if steps > 0 {
            debug!(steps, "maps brought up to date");
        }
        self.tell();
        Ok(())
    }

    /// A tagged next hop needs a program that can tag.
    fn widen(&mut self, hops: &NextHopTable) -> Result<(), Box<dyn Error + Send + Sync>> {
        let tagged = hops.values().flatten().any(|hop| !hop.vlan.is_empty());
        let loaded = self.datapath.features();
        if tagged && loaded & feature::VLAN == 0 {
            let interfaces = self.reconciler.model().interfaces.clone();
            self.datapath.replace(loaded | feature::VLAN, &interfaces)?;
            info!("the program was replaced by one that can tag for VLANs");
        }
        Ok(())
    }

    /// Logs servers that become or cease to be reachable.
    fn tell(&mut self) {
        let now = self.reconciler.why_not().clone();
        let name = |id: &u32| {
            let servers = self.shared.view().servers.clone();
            let known = servers.get(id).map(|known| format!("{} of {}", known.address, known.service));
            known.unwrap_or_else(|| id.to_string())
        };
        for (id, why) in &now {
            if self.told.get(id) != Some(why) {
                warn!(server = name(id), why, "server gets no new flows");
            }
        }
        let assigned = self.reconciler.assigned().iter().flat_map(|service| &service.servers);
        let there: BTreeSet<u32> = assigned.map(|server| server.id).collect();
        for id in self.told.keys().filter(|id| !now.contains_key(id) && there.contains(id)) {
            info!(server = name(id), "server gets new flows again");
        }
        self.told = now;
    }

    fn publish(&self, next_hops: NextHopTable) {
        let before = self.shared.view();
        let model = self.reconciler.model().clone();
        let assigned = self.reconciler.assigned().to_vec();
        let servers = known_servers(&before, &model, &assigned, self.reconciler.contents().servers.keys());
        self.shared.set_view(View {
            config: self.config.clone(),
            loaded: self.loaded,
            why_not: self.reconciler.why_not().clone(),
            next_hops,
            servers: Arc::new(servers),
            model,
            assigned,
            ..(*before).clone()
        });
    }

    async fn hang_up(&mut self) {
        match self.reload().await {
            Ok(reload) => info!(changes = reload.changes.len(), "configuration reloaded"),
            Err(ReloadError::Invalid { file, findings }) => {
                error!(file, "the configuration is not valid; what was in force still is");
                for finding in findings {
                    error!("{}", finding.text);
                }
            }
            Err(error) => error!(error = &error as &dyn Error, "not reloaded; what was in force still is"),
        }
    }

    async fn reload(&mut self) -> Result<Reload, ReloadError> {
        let file = self.config.display().to_string();
        let path = self.config.clone();
        let loaded = tokio::task::spawn_blocking(move || config::load(&path)).await;
        let loaded = loaded.map_err(|_| OperatorError::NotReady("stopping"))?;
        let valid = loaded.map_err(|report| ReloadError::Invalid {
            file: file.clone(),
            findings: describe::findings(&report),
        })?;
        let old = self.reconciler.model().clone();
        let new = Arc::new(self.overrides.apply(valid.model));
        if let Some(what) = needs_restart(&old, &new) {
            return Err(ReloadError::NeedsRestart { what });
        }
        if let Err(source) = self.take_over(&new).await {
            warn!(
                error = &*source,
                "the new configuration could not be put in force, returning to the old one"
            );
            if let Err(error) = self.take_over(&old).await {
                error!(error = &*error, "nor could the old one; trying on");
            }
            return Err(ReloadError::Apply { file, source });
        }
        self.look_for_vips(&new).await;
        self.loaded = SystemTime::now();
        self.publish(self.shared.view().next_hops.clone());
        Ok(Reload {
            file,
            changes: changes::between(&old, &new),
            findings: describe::findings(&valid.warnings),
        })
    }

    /// Puts a model in force.
    async fn take_over(&mut self, model: &Arc<Model>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let required = features(model, false)?;
        let loaded = self.datapath.features();
        if required & !loaded != 0 {
            self.datapath.replace(required | loaded, &model.interfaces)?;
            info!("the program was replaced by one that can do what the configuration asks for");
        } else if model.interfaces != self.reconciler.model().interfaces {
            bonds::warn_of_members(&self.netlink.links().await?, &model.interfaces);
            self.datapath.attach(&model.interfaces)?;
        }
        self.look_at_interfaces().await;
        self.indexes.send_replace(attached_indexes(&self.datapath));
        self.wanted.send_replace(wanted(model));
        self.resolve(model).await;
        self.reconciler.set_model(model.clone())?;
        self.try_round()
    }

    /// Waits for the next hops of servers that were not wanted before.
    pub(super) async fn resolve(&mut self, model: &Model) {
        let addresses: Vec<IpAddr> = wanted(model).into_iter().map(|server| server.address).collect();
        let known = |table: &NextHopTable| {
            addresses.iter().all(|address| {
                !matches!(
                    table.get(address),
                    None | Some(Err(Unresolved::LookingUp { .. } | Unresolved::NoAnswer { .. }))
                )
            })
        };
        // Those that have not answered by then are told of by the round that follows.
        let _ = timeout(RESOLVE, self.next_hops.wait_for(known)).await;
    }

    /// Warns of VIPs that are not addresses of this host. A backup director has none: it is no error.
    pub(super) async fn look_for_vips(&mut self, model: &Model) {
        if let Err(error) = self.addresses.keep(model).await {
            warn!(%error, "VIPs are not all where `vips: manage` wants them");
        }
        match vips::missing(&self.netlink, model).await {
            Ok(None) => {}
            Ok(Some(vips)) => {
                warn!(
                    vips,
                    "not addresses of this host: ARP for these VIPs is not answered here, only routed packets come"
                );
            }
            Err(error) => warn!(error = &error as &dyn Error, "VIPs could not be looked for"),
        }
    }

    /// Learns names, addresses and MTUs of the interfaces for the API.
    pub(super) async fn look_at_interfaces(&mut self) {
        match self.netlink.links().await {
            Ok(links) => {
                let view = (*self.shared.view()).clone();
                let names: HashMap<u32, String> =
                    links.iter().map(|link| (link.ifindex, link.name.clone())).collect();
                let interfaces = describe_interfaces(&self.datapath, &links);
                self.shared.set_view(View { interfaces, links: names, ..view });
            }
            Err(error) => warn!(error = &error as &dyn Error, "the interfaces could not be listed"),
        }
    }
}

/// Who every server id in the maps is, by the model or, for removed ones, by what was known before.
fn known_servers<'a>(
    before: &View,
    model: &Model,
    assigned: &[crate::reconcile::AssignedService],
    in_maps: impl Iterator<Item = &'a u32>,
) -> HashMap<u32, KnownServer> {
    let in_maps: BTreeSet<u32> = in_maps.copied().collect();
    let mut known: HashMap<u32, KnownServer> = before
        .servers
        .iter()
        .filter(|(id, _)| in_maps.contains(id))
        .map(|(id, server)| (*id, server.clone()))
        .collect();
    for (service, assigned) in model.services.iter().zip(assigned) {
        let name: Arc<str> = service.name.as_str().into();
        for server in &assigned.servers {
            let address = service.servers[server.index].address;
            known.insert(server.id, KnownServer { service: name.clone(), address });
        }
    }
    known
}

/// What a running director cannot change.
fn needs_restart(old: &Model, new: &Model) -> Option<String> {
    let mut changed = Vec::new();
    if old.pin != new.pin {
        changed.push(format!("pin {} → {}", old.pin.display(), new.pin.display()));
    }
    if old.socket != new.socket {
        changed.push(format!("socket {} → {}", old.socket.display(), new.socket.display()));
    }
    for (key, old, new) in
        [("flows.ipv4", old.flows.ipv4, new.flows.ipv4), ("flows.ipv6", old.flows.ipv6, new.flows.ipv6)]
    {
        if old != new {
            changed.push(format!("{key} {old} → {new}"));
        }
    }
    (!changed.is_empty()).then(|| changed.join(", "))
}
