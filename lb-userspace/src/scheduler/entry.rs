//! A service's list of servers and how edits change it.

use std::collections::HashMap;
use std::net::IpAddr;

/// A real server in a service's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Server id, 1 or more.
    pub id: u32,
    pub address: IpAddr,
    /// Host order; mh hashes it. 0 in a service for any port.
    pub port: u16,
    /// 0 to 2^31 - 1. 0: drained, no new flows.
    pub weight: u32,
    /// The last weight set that was not 0; what mh gives slots for. A new server's is its weight, even 0.
    pub last_weight: u32,
    /// Healthy, and its next hop is known.
    pub reachable: bool,
}

impl Entry {
    /// A reachable server that was just added.
    pub fn new(id: u32, address: IpAddr, port: u16, weight: u32) -> Self {
        Self { id, address, port, weight, last_weight: weight, reachable: true }
    }

    /// Weight when choosing: 0 while it is not reachable.
    pub fn live_weight(&self) -> u32 {
        if self.reachable { self.weight } else { 0 }
    }

    /// Equal but for `last_weight`, which follows from the history.
    fn is_same(&self, other: &Self) -> bool {
        Self { last_weight: other.last_weight, ..*self } == *other
    }
}

/// One step in the life of a list. A change of health or of the next hop is a `Change` too.
///
/// `last_weight` of the entry is not used: [`apply`] keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// To the head of the list.
    Add(Entry),
    /// The server with this id is now as given. Also if nothing is different: `ipvsadm -e` with the same weight
    /// makes wrr go on from the first server of its level, in IPVS as here.
    Change(Entry),
    Remove(u32),
}

/// Apply one edit. A change or removal of a server that is not in the list does nothing.
pub fn apply(list: &mut Vec<Entry>, edit: &Edit) {
    match *edit {
        Edit::Add(entry) => list.insert(0, Entry { last_weight: entry.weight, ..entry }),
        Edit::Change(entry) => {
            if let Some(old) = list.iter_mut().find(|old| old.id == entry.id) {
                let last_weight = if entry.weight == 0 { old.last_weight } else { entry.weight };
                *old = Entry { last_weight, ..entry };
            }
        }
        Edit::Remove(id) => list.retain(|entry| entry.id != id),
    }
}

/// The edits that lead from a list to what a configuration wants: removals, changes, then additions in the order of
/// the configuration, so that its last server ends up at the head as if added one by one.
///
/// Servers that stay keep their order, whatever the configuration's. `wanted` is in the configuration's order.
pub fn edits_between(list: &[Entry], wanted: &[Entry]) -> Vec<Edit> {
    let old: HashMap<u32, &Entry> = list.iter().map(|entry| (entry.id, entry)).collect();
    let new: HashMap<u32, &Entry> = wanted.iter().map(|entry| (entry.id, entry)).collect();
    let removed =
        list.iter().filter(|entry| !new.contains_key(&entry.id)).map(|entry| Edit::Remove(entry.id));
    let changed = wanted.iter().filter(|entry| old.get(&entry.id).is_some_and(|old| !old.is_same(entry)));
    let added = wanted.iter().filter(|entry| !old.contains_key(&entry.id));
    removed.chain(changed.copied().map(Edit::Change)).chain(added.copied().map(Edit::Add)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u32, weight: u32) -> Entry {
        Entry::new(id, format!("10.0.0.{id}").parse().unwrap(), 80, weight)
    }

    fn ids(list: &[Entry]) -> Vec<u32> {
        list.iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn a_new_server_goes_to_the_head_and_a_changed_one_stays() {
        let mut list = Vec::new();
        for edit in [Edit::Add(entry(1, 1)), Edit::Add(entry(2, 1)), Edit::Change(entry(1, 5))] {
            apply(&mut list, &edit);
        }
        assert_eq!(ids(&list), [2, 1]);
        apply(&mut list, &Edit::Remove(1));
        apply(&mut list, &Edit::Add(entry(1, 1)));
        assert_eq!(ids(&list), [1, 2]);
    }

    #[test]
    fn the_last_weight_outlives_draining_but_not_a_new_addition() {
        let mut list = vec![entry(1, 7)];
        apply(&mut list, &Edit::Change(entry(1, 0)));
        assert_eq!((list[0].weight, list[0].last_weight), (0, 7));
        apply(&mut list, &Edit::Remove(1));
        apply(&mut list, &Edit::Add(entry(1, 0)));
        assert_eq!((list[0].weight, list[0].last_weight), (0, 0));
    }

    #[test]
    fn a_reload_removes_then_changes_then_adds() {
        let mut list = vec![entry(3, 1), entry(2, 1), entry(1, 1)];
        let wanted = [entry(5, 1), entry(1, 1), entry(2, 9), entry(4, 1)];
        let edits = edits_between(&list, &wanted);
        assert_eq!(
            edits,
            [Edit::Remove(3), Edit::Change(entry(2, 9)), Edit::Add(entry(5, 1)), Edit::Add(entry(4, 1))]
        );
        edits.iter().for_each(|edit| apply(&mut list, edit));
        assert_eq!(ids(&list), [4, 5, 2, 1]);
        assert_eq!(edits_between(&list, &wanted), []);
    }

    #[test]
    fn a_drained_server_is_not_changed_again_by_the_next_reload() {
        let mut list = vec![entry(1, 7)];
        apply(&mut list, &Edit::Change(entry(1, 0)));
        assert_eq!(edits_between(&list, &[entry(1, 0)]), []);
    }
}
