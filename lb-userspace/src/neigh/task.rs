//! Drives the machine of [`super::state`]: clock, netlink sockets and channels.

use std::{
    collections::BTreeSet,
    future::pending,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    NextHopTable, Timing, WantedServer,
    state::{Action, NextHops},
};
use crate::netlink::{Event, Netlink, NetlinkError, Route, Subscription};

/// Pause before the sockets are opened anew after they failed.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Pause before everything is read because notifications were lost. The kernel reports the loss ahead of the
/// notifications still queued: those are older than what will be read and have to be taken in before it.
const REREAD_AFTER: Duration = Duration::from_millis(200);

/// A burst of notifications is gathered until none came for this long, before next hops are computed from it …
const GATHER: Duration = Duration::from_millis(1);

/// … or until it lasted this long.
const GATHER_AT_MOST: Duration = Duration::from_millis(20);

/// Keeps `out` at the next hops of the `wanted` servers, sending out of the `attached` interfaces (those with the XDP
/// program, by index).
///
/// `out` is marked as changed only when a next hop or a reason changed. The time a silent neighbour was last asked is
/// kept up to date in it without that.
///
/// Runs in the network namespace of the calling thread, so of a current-thread runtime or of the whole process. Needs
/// `CAP_NET_ADMIN`. Returns when one of the channels has lost its other end; an error only if netlink cannot be opened
/// or read at the start. Later failures are logged, and overcome by opening anew and reading everything; the
/// published next hops stay meanwhile.
pub async fn run(
    timing: Timing,
    mut wanted: watch::Receiver<Vec<WantedServer>>,
    mut attached: watch::Receiver<BTreeSet<u32>>,
    out: watch::Sender<NextHopTable>,
) -> Result<(), NetlinkError> {
    let mut machine = NextHops::new(timing);
    machine.want(Instant::now(), &wanted.borrow_and_update());
    machine.attached(&attached.borrow_and_update());
    let mut kernel = Kernel::open(&mut machine).await?;
    loop {
        match follow(&mut machine, &mut kernel, &mut wanted, &mut attached, &out).await {
            Ok(()) => return Ok(()),
            Err(Lost) => kernel = reopen(&mut machine).await,
        }
    }
}

/// The sockets are of no more use.
struct Lost;

struct Kernel {
    netlink: Netlink,
    events: Subscription,
}

impl Kernel {
    /// Listens, then reads: so that nothing falls in between.
    async fn open(machine: &mut NextHops) -> Result<Self, NetlinkError> {
        let events = Subscription::open()?;
        let netlink = Netlink::open()?;
        read_all(&netlink, machine).await?;
        Ok(Self { netlink, events })
    }
}

async fn read_all(netlink: &Netlink, machine: &mut NextHops) -> Result<(), NetlinkError> {
    let links = netlink.links().await?;
    let neighbours = netlink.neighbours().await?;
    machine.snapshot(Instant::now(), links, neighbours);
    Ok(())
}

async fn carry_out(netlink: &Netlink, action: Action, machine: &mut NextHops) {
    let outcome = match action {
        Action::LookUpRoute { server, oif } => {
            let route = netlink.route(server, oif).await;
            let route = route.unwrap_or_else(|error| Route::Unusable(chain(&error)));
            machine.route_found(server, route);
            return;
        }
        Action::Solicit { ifindex, address } => netlink.solicit(ifindex, address).await,
        Action::Probe { ifindex, address } => netlink.probe(ifindex, address).await,
    };
    // Often the interface has just gone, which an event will tell; else the machine asks again.
    if let Err(error) = outcome {
        debug!(error = chain(&error), "a neighbour could not be asked");
    }
}

async fn reopen(machine: &mut NextHops) -> Kernel {
    loop {
        sleep(REOPEN_AFTER).await;
        match Kernel::open(machine).await {
            Ok(kernel) => return kernel,
            Err(error) => warn!(error = chain(&error), "next hops are not followed: netlink failed"),
        }
    }
}

async fn follow(
    machine: &mut NextHops,
    kernel: &mut Kernel,
    wanted: &mut watch::Receiver<Vec<WantedServer>>,
    attached: &mut watch::Receiver<BTreeSet<u32>>,
    out: &watch::Sender<NextHopTable>,
) -> Result<(), Lost> {
    let mut reread: Option<Instant> = None;
    loop {
        if reread.is_some_and(|at| at <= Instant::now()) {
            read_all(&kernel.netlink, machine).await.map_err(|error| {
                warn!(error = chain(&error), "next hops are not followed: netlink failed");
                Lost
            })?;
            reread = None;
        }
        loop {
            let actions = machine.poll(Instant::now());
            if actions.is_empty() {
                break;
            }
            for action in actions {
                carry_out(&kernel.netlink, action, machine).await;
            }
        }
        publish(machine.table(), out);

        let wake = machine.wake_at().into_iter().chain(reread).min();
        tokio::select! {
            event = kernel.events.next() => {
                let mut event = event.ok_or_else(|| {
                    warn!("the netlink subscription ended");
                    Lost
                })?;
                let began = Instant::now();
                loop {
                    if event == Event::Overrun {
                        debug!("netlink notifications were lost, reading everything again");
                        reread = reread.or(Some(Instant::now() + REREAD_AFTER));
                    } else {
                        machine.event(Instant::now(), event);
                    }
                    if began.elapsed() > GATHER_AT_MOST {
                        break;
                    }
                    match timeout(GATHER, kernel.events.next()).await {
                        Ok(Some(next)) => event = next,
                        _ => break,
                    }
                }
            }
            changed = wanted.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                machine.want(Instant::now(), &wanted.borrow_and_update());
            }
            changed = attached.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                machine.attached(&attached.borrow_and_update());
            }
            () = async { match wake {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            } } => {}
            () = out.closed() => return Ok(()),
        }
    }
}

fn publish(table: NextHopTable, out: &watch::Sender<NextHopTable>) {
    out.send_if_modified(|published| {
        let changed = *published != table;
        if changed {
            log_changes(published, &table);
        }
        // Also when equal: the times of the latest questions are not compared.
        *published = table;
        changed
    });
}

fn log_changes(before: &NextHopTable, after: &NextHopTable) {
    for (rip, now) in after {
        match (before.get(rip), now) {
            (Some(then), now) if then == now => {}
            (then, Ok(hop)) => {
                let previous = then.map(|then| match then {
                    Ok(hop) => format!("{hop:?}"),
                    Err(why) => why.to_string(),
                });
                info!(%rip, ?hop, previous, "next hop found");
            }
            (Some(Ok(hop)), Err(why)) => warn!(%rip, %why, previous = ?hop, "next hop lost"),
            (_, Err(why)) => info!(%rip, %why, "no next hop"),
        }
    }
}

/// The error and its causes on one line.
fn chain(error: &NetlinkError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
