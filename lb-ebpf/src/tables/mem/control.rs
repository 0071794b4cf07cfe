//! The maps as the control plane and tests see them.

use super::{MemTables, store::leading};
use lb_common::{
    counters::{Counters, Note, Reason},
    flow::{AtomicU32, FlowKey, LOAD_WORDS, Shared, Thresholds, Words},
    fragment::{FragmentKey, FragmentRoute},
    limits,
    locality::LocalityKey,
    net::Addr,
    path::PathMtu,
    plan::PlanHead,
    server::Server,
    service::{MatchSet, Service, ServiceKey},
    settings::Settings,
};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// What the control plane writes. Ids beyond an array's end panic: the kernel would refuse them.
impl MemTables {
    pub fn put_settings(&mut self, settings: &Settings) {
        self.settings = *settings;
    }

    /// The settings as they stand.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn put_place(&mut self, place: &ServiceKey, id: u32) {
        self.services.insert(*place, id);
        assert!(self.services.len() <= limits::SERVICES as usize * 4, "the services map is full");
    }

    /// All of `SERVICES`.
    pub fn places(&self) -> impl Iterator<Item = (ServiceKey, u32)> {
        self.services.iter().map(|(key, id)| (*key, *id))
    }

    pub fn remove_place(&mut self, place: &ServiceKey) {
        self.services.remove(place);
    }

    /// `bits` of the mapped address for IPv4: 96 more than the prefix has.
    pub fn put_prefix(&mut self, bits: u32, address: Addr, match_set: u32) {
        self.prefixes.insert((bits, leading(address, bits)), match_set);
        assert!(self.prefixes.len() <= limits::MATCH_PREFIXES as usize, "the prefix map is full");
    }

    /// All of `PREFIXES`: bits, address, match set.
    pub fn prefixes(&self) -> impl Iterator<Item = (u32, Addr, u32)> {
        self.prefixes.iter().map(|(&(bits, address), id)| (bits, address, *id))
    }

    pub fn remove_prefix(&mut self, bits: u32, address: Addr) {
        self.prefixes.remove(&(bits, leading(address, bits)));
    }

    pub fn put_match_set(&mut self, id: u32, set: &MatchSet) {
        assert!(id < limits::MATCH_PREFIXES, "match set {id}");
        self.matches.insert(id, *set);
    }

    pub fn match_set(&self, id: u32) -> Option<&MatchSet> {
        self.matches.get(&id)
    }

    pub fn put_service(&mut self, id: u32, service: &Service) {
        self.service[id as usize] = *service;
    }

    pub fn put_plan(&mut self, service: u32, head: PlanHead) {
        self.reserve_cells(head.start() as usize + 1 + head.len() as usize);
        self.plans[service as usize] = head;
    }

    /// Cells of the slot map from `start` on.
    pub fn put_cells(&mut self, start: u32, cells: &[u64]) {
        let start = start as usize;
        self.reserve_cells(start + cells.len());
        for (cell, value) in self.slots[start..].iter().zip(cells) {
            cell.store(*value, SeqCst);
        }
    }

    /// `count` cells from `start` on.
    pub fn cells(&self, start: u32, count: u32) -> Vec<u64> {
        let at = |cell| self.slots.get(cell as usize).map_or(0, |cell: &AtomicU64| cell.load(SeqCst));
        (start..start + count).map(at).collect()
    }

    fn reserve_cells(&mut self, count: usize) {
        assert!(count <= limits::SLOTS as usize, "{count} cells");
        while self.slots.len() < count {
            self.slots.push(AtomicU64::new(0));
        }
    }

    pub fn put_server(&mut self, id: u32, server: &Server) {
        self.servers[id as usize] = *server;
    }

    pub fn put_thresholds(&mut self, server: u32, thresholds: &Thresholds) {
        self.thresholds[server as usize] = *thresholds;
    }

    /// Clears the counters and the load of a server, for one that takes over its id.
    pub fn forget_server(&mut self, id: u32) {
        self.counters[id as usize].take();
        for at in 0..LOAD_WORDS {
            self.load_words(id).store(at, 0);
        }
    }

    pub fn deny(&mut self, bits: u32, prefix: Addr) {
        self.denied.insert((bits, leading(prefix, bits)), ());
        assert!(self.denied.len() <= limits::DENIED as usize, "the deny list is full");
    }

    /// All of `DENIED`: bits and address.
    pub fn denied(&self) -> impl Iterator<Item = (u32, Addr)> {
        self.denied.keys().copied()
    }

    pub fn allow(&mut self, bits: u32, prefix: Addr) {
        self.denied.remove(&(bits, leading(prefix, bits)));
    }
}

/// What the path left.
impl MemTables {
    pub fn counters(&self, server: u32) -> Counters {
        self.counters[server as usize].get()
    }

    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize].get()
    }

    pub fn noted(&self, note: Note) -> u64 {
        self.notes[note as usize].get()
    }

    /// Words of a server's load, see `lb_common::flow::load_word`.
    pub fn load_words(&self, server: u32) -> Shared<'_> {
        let at = server as usize * LOAD_WORDS as usize;
        Shared(&self.loads[at..at + LOAD_WORDS as usize])
    }

    /// The words of `LOADS`.
    pub fn loads(&self) -> &[AtomicU32] {
        &self.loads
    }

    /// The words of `FLOWS4`.
    pub fn flows4(&self) -> &[AtomicU32] {
        &self.flows4
    }

    /// The words of `FLOWS6`.
    pub fn flows6(&self) -> &[AtomicU32] {
        &self.flows6
    }

    /// The words of `TEMPLATES`.
    pub fn templates(&self) -> &[AtomicU32] {
        &self.templates
    }

    /// The flows in the spill map, each laid out as a bucket of one way.
    pub fn spills(&self) -> Vec<(FlowKey, Shared<'_>)> {
        self.spill.all()
    }

    /// Takes a flow out of the spill map, as the sweeper does.
    pub fn remove_spill(&self, key: &FlowKey) {
        if self.spill.remove(key) {
            self.spilled.fetch_sub(1, SeqCst);
        }
    }

    /// What lblc and lblcr remember, laid out as `lb_common::locality::word` says.
    pub fn localities(&self) -> Vec<(LocalityKey, Shared<'_>)> {
        self.locality.all()
    }

    pub fn remove_locality(&self, key: &LocalityKey) {
        self.locality.remove(key);
    }

    pub fn fragments(&self) -> Vec<(FragmentKey, FragmentRoute)> {
        self.fragments.all()
    }

    /// What was learned of paths, expired or not.
    pub fn paths(&self) -> Vec<PathMtu> {
        self.paths.borrow().values().copied().collect()
    }

    /// Source prefixes with the second their count is for, and the count.
    pub fn sources(&self) -> Vec<(Addr, [u32; 2])> {
        self.sources.all()
    }
}
