//! Warnings: services that work as IPVS would make them work, but hardly as they were meant.

use super::server::Found;
use crate::config::read::{Place, Reader};
use crate::config::values::Wrong;
use crate::model::{Protocol, Scheduler, Selector, Service};

/// Buckets of sh and dh.
const HASH_BUCKETS: usize = 256;

/// Where the parts of a service stand.
pub(super) struct Places<'a> {
    pub(super) service: Place,
    /// Of the scheduler, or of the service if it has none.
    pub(super) scheduler: Place,
    pub(super) servers: &'a [Found],
}

pub(super) fn advise(service: &Service, places: &Places<'_>, r: &mut Reader) {
    let Service { name, scheduler, .. } = service;
    let drained = places.servers.iter().filter(|found| found.server.weight == 0);
    if places.servers.is_empty() {
        let what = format!("service `{name}` has no servers, no client gets through");
        r.warning(&places.service, Wrong::new(what, "at least one under `servers:`"));
    } else if drained.clone().count() == places.servers.len() {
        let what = format!("every server of service `{name}` has weight 0, no new client gets through");
        r.warning(&places.service, Wrong::new(what, "at least one weight above 0"));
    } else if matches!(scheduler, Scheduler::Sh | Scheduler::Mh) && !service.flags.fallback {
        for found in drained {
            let what =
                format!("{scheduler} still hashes clients to a server with weight 0, and turns them away");
            r.warning(
                &found.weight,
                Wrong::new(what, format!("`flags: [{scheduler}-fallback]`, or no such server")),
            );
        }
    }
    match scheduler {
        Scheduler::Rr | Scheduler::Lc | Scheduler::Dh => unused_weights(service, places, r),
        _ => {}
    }
    if matches!(scheduler, Scheduler::Dh | Scheduler::Lblc | Scheduler::Lblcr)
        && one_address(&service.selector)
    {
        let what = format!("{scheduler} decides by the destination, and service `{name}` has only one");
        r.warning(&places.scheduler, Wrong::new(what, "several addresses or a prefix under `match:`"));
    }
    if matches!(scheduler, Scheduler::Sed | Scheduler::Nq | Scheduler::Ovf)
        && service.selector.matches().iter().all(|entry| entry.protocol == Protocol::Udp)
    {
        let what = format!("{scheduler} counts active connections, and UDP never has any");
        r.warning(&places.scheduler, Wrong::new(what, "wlc or lc, which count all of them"));
    }
    if matches!(scheduler, Scheduler::Sh | Scheduler::Dh) && places.servers.len() > HASH_BUCKETS {
        let what = format!("{scheduler} has {HASH_BUCKETS} buckets for {} servers", places.servers.len());
        r.warning(&places.scheduler, Wrong::new(what, "mh, which has 4093"));
    }
    if service.stateless && service.one_packet {
        let what = format!("`one_packet` changes nothing in the stateless service `{name}`");
        r.warning(&places.service, Wrong::new(what, "either the one or the other"));
    }
}

/// Schedulers that only ask whether the weight is 0.
fn unused_weights(service: &Service, places: &Places<'_>, r: &mut Reader) {
    let mut weights = places.servers.iter().filter(|found| found.server.weight != 0);
    let Some(first) = weights.next() else { return };
    if let Some(other) = weights.find(|found| found.server.weight != first.server.weight) {
        let what = format!("{} takes all weights above 0 for the same", service.scheduler);
        r.warning(&other.weight, Wrong::new(what, "equal weights, or another scheduler, like wrr or wlc"));
    }
}

fn one_address(selector: &Selector) -> bool {
    let entries = selector.matches();
    let first = entries.first().map(|entry| entry.prefix);
    entries.iter().all(|entry| {
        Some(entry.prefix) == first && entry.prefix.prefix_len() == entry.prefix.max_prefix_len()
    })
}
