//! No packet may belong to two services by the same right.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use crate::config::read::{Located, Place, Reader};
use crate::config::values::Wrong;
use crate::model::{Match, PortRange, Ports, Protocol};

/// What each service claims, in the order of the file.
///
/// Two claims collide when they have the same prefix and protocol and share a port. A longer prefix within a shorter
/// one does not collide, nor does a port beside `any`: the more specific claim wins, as in IPVS, where a service with
/// a port comes before the one for port 0 of the same address.
#[derive(Default)]
pub(super) struct Claims {
    claims: Vec<Claim>,
}

struct Claim {
    entry: Match,
    service: String,
    place: Place,
}

impl Claims {
    pub(super) fn add(&mut self, service: &str, entries: Vec<Located<Match>>) {
        let claim = |Located { value: entry, place }| Claim { entry, service: service.to_owned(), place };
        self.claims.extend(entries.into_iter().map(claim));
    }

    /// Complains about each claim that collides with an earlier one, once for each line of the file.
    pub(super) fn check(&self, r: &mut Reader) {
        let mut told = HashSet::new();
        let mut collisions = self.collisions();
        collisions.sort_unstable();
        for (later, earlier) in collisions {
            let (later, earlier) = (&self.claims[later], &self.claims[earlier]);
            if !told.insert(&later.place.path) {
                continue;
            }
            let what = if later.service == earlier.service && later.place.path != earlier.place.path {
                format!("{} is in this service already, as {}", later.entry, earlier.entry)
            } else {
                format!(
                    "{} belongs to service `{}` already, as {}",
                    later.entry, earlier.service, earlier.entry
                )
            };
            r.clash(
                &later.place,
                Wrong::new(what, "another address, protocol or port, or a longer prefix"),
                &earlier.place,
            );
        }
    }

    /// Pairs of colliding claims as indexes, the later one first.
    fn collisions(&self) -> Vec<(usize, usize)> {
        let mut any: HashMap<(IpNet, Protocol), usize> = HashMap::new();
        let mut ranges: HashMap<(IpNet, Protocol), Vec<(PortRange, usize)>> = HashMap::new();
        let mut found = Vec::new();
        for (index, Claim { entry, .. }) in self.claims.iter().enumerate() {
            let key = (entry.prefix, entry.protocol);
            match entry.ports {
                Ports::Any => {
                    let first = *any.entry(key).or_insert(index);
                    if first != index {
                        found.push((index, first));
                    }
                }
                Ports::Range(range) => ranges.entry(key).or_default().push((range, index)),
            }
        }
        for mut ranges in ranges.into_values() {
            ranges.sort_unstable();
            // Sorted by first port, a range overlaps an earlier one exactly if it starts within the one that
            // reaches furthest so far.
            let mut furthest: Option<(PortRange, usize)> = None;
            for (range, index) in ranges {
                match furthest {
                    Some((reach, other)) if range.first <= reach.last => {
                        found.push((index.max(other), index.min(other)));
                        if range.last > reach.last {
                            furthest = Some((range, index));
                        }
                    }
                    _ => furthest = Some((range, index)),
                }
            }
        }
        found
    }
}
