//! lblc and lblcr with their cache of destinations.

use std::collections::HashMap;

use lb_common::net::Addr;

use super::{Moment, Server, Service, least};

pub(super) type Cache = HashMap<Addr, Cached>;

#[derive(Clone, Debug)]
pub(super) struct Cached {
    /// Seconds of the latest insertion or removal.
    lastmod: u64,
    /// The newest first; one under lblc. Removed servers stay.
    set: Vec<u32>,
}

/// Destinations IPVS stops at: 1.5 times 1024 buckets of 16.
const MOST_ENTRIES: usize = 24_576;

impl Service {
    pub(super) fn lblc(&mut self, moment: &Moment) -> Option<u32> {
        let destination = moment.packet.destination;
        if let Some(cached) = self.cache.get(&destination)
            && let Some(at) = self.place(cached.set[0])
            && self.list[at].weight() > 0
            && !self.is_crowded(&self.list[at])
        {
            return Some(cached.set[0]);
        }
        let server = self.list[least::wlc(&self.list, self.since_2026)?].entry.id;
        if self.cache.contains_key(&destination) || self.cache.len() < MOST_ENTRIES {
            self.cache.insert(destination, Cached { lastmod: moment.now, set: vec![server] });
        }
        Some(server)
    }

    pub(super) fn lblcr(&mut self, moment: &Moment) -> Option<u32> {
        let destination = moment.packet.destination;
        let Some(mut cached) = self.cache.remove(&destination) else {
            let server = self.list[least::wlc(&self.list, self.since_2026)?].entry.id;
            if self.cache.len() < MOST_ENTRIES {
                self.cache.insert(destination, Cached { lastmod: moment.now, set: vec![server] });
            }
            return Some(server);
        };
        let chosen = self.choose_from_set(&mut cached, moment.now);
        self.cache.insert(destination, cached);
        chosen
    }

    fn choose_from_set(&self, cached: &mut Cached, now: u64) -> Option<u32> {
        let cost = |server: &Server| least::ovh(server, self.since_2026);
        let mut least: Option<&Server> = None;
        for server in cached.set.iter().filter_map(|&id| self.place(id)).map(|at| &self.list[at]) {
            if server.is_ok() && least.is_none_or(|held| least::cheaper(server, held, cost)) {
                least = Some(server);
            }
        }
        if cached.set.len() > 1 && now > cached.lastmod + self.lblcr_expiration {
            let mut most: Option<&Server> = None;
            for &id in &cached.set {
                let server = self.list.iter().chain(&self.trash).find(|server| server.entry.id == id);
                let server = server.expect("removed servers stay in the trash");
                if server.weight() > 0 && most.is_none_or(|held| least::cheaper(held, server, cost)) {
                    most = Some(server);
                }
            }
            if let Some(most) = most {
                cached.set.retain(|&id| id != most.entry.id);
                cached.lastmod = now;
            }
        }
        if let Some(server) = least
            && !self.is_crowded(server)
        {
            return Some(server.entry.id);
        }
        let server = self.list[least::wlc(&self.list, self.since_2026)?].entry.id;
        if !cached.set.contains(&server) {
            cached.set.insert(0, server);
            cached.lastmod = now;
        }
        Some(server)
    }

    fn is_crowded(&self, server: &Server) -> bool {
        server.load.active > server.weight()
            && self.list.iter().any(|other| 2 * u64::from(other.load.active) < u64::from(other.weight()))
    }
}
