//! Maglev hashing: a table of 4093 slots in which every server takes turns along its own permutation, so that
//! losing one server moves few clients of the others.

use lb_common::hash::{self, MH_TABLE};
use lb_common::net::Addr;
use lb_common::plan::{PlanKind, Slot, hash_detail};

use super::{Entry, Plan, Warning, sh, wrr};
use crate::model::SchedulerFlags;

/// Turns a visit may give one server at most: 2^6 (IPVS: half of `IP_VS_MH_TAB_INDEX`, in bits).
const TURN_BITS: u32 = 6;

/// Slots go by the last weight that was not 0: a drained or unreachable server keeps its own, and its clients are
/// refused, or move on with mh-fallback.
pub(super) fn plan(entries: &[Entry], flags: SchedulerFlags) -> (Plan, Option<Warning>) {
    let size = MH_TABLE as usize;
    // IPVS refuses a service more servers than slots; the ones it would have refused are the newest.
    let left_out = entries.len().saturating_sub(size);
    let warning =
        (left_out > 0).then_some(Warning::TableFull { servers: entries.len(), slots: size, left_out });
    let entries = &entries[left_out..];
    let slot = |at: usize| Slot::new(entries[at].id, entries[at].live_weight());
    let slots = fill(entries).into_iter().map(slot).collect();
    (Plan::new(PlanKind::Hash, hash_detail::MH | sh::bits(flags), slots), warning)
}

/// Whose slot each is, as an index in the list. Empty if no server ever had a weight.
fn fill(entries: &[Entry]) -> Vec<usize> {
    let size = MH_TABLE as usize;
    let turns = turns(entries);
    if turns.iter().all(|&turns| turns == 0) {
        return Vec::new();
    }
    let mut paths: Vec<Path> = entries.iter().map(Path::of).collect();
    let mut table = vec![None; size];
    let mut free = size;
    loop {
        for (at, path) in paths.iter_mut().enumerate() {
            for _ in 0..turns[at] {
                while table[path.place].is_some() {
                    path.place = (path.place + path.stride) % size;
                }
                table[path.place] = Some(at);
                free -= 1;
                if free == 0 {
                    return table.into_iter().flatten().collect();
                }
            }
        }
    }
}

/// Slots each server takes when its turn comes.
fn turns(entries: &[Entry]) -> Vec<u32> {
    let weights: Vec<u32> = entries.iter().map(|entry| entry.last_weight).collect();
    let divisor = wrr::gcd(&weights);
    let largest = weights.iter().max().unwrap_or(&0) / divisor;
    let shift = (u32::BITS - largest.leading_zeros()).saturating_sub(TURN_BITS);
    let turns = |weight: u32| if weight == 0 { 0 } else { ((weight / divisor) >> shift).max(1) };
    weights.into_iter().map(turns).collect()
}

/// A server's walk through the table. The table's size is prime, so that every stride visits all of it.
struct Path {
    place: usize,
    stride: usize,
}

impl Path {
    fn of(entry: &Entry) -> Self {
        let address = Addr::from(entry.address);
        Self {
            place: (hash::mh(&address, entry.port, 0) % MH_TABLE) as usize,
            stride: (hash::mh_skip(&address, entry.port) % (MH_TABLE - 1) + 1) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(weights: &[(&str, u32)]) -> Vec<Entry> {
        let entry = |(at, (address, weight)): (usize, &(&str, u32))| {
            Entry::new(at as u32 + 1, address.parse().unwrap(), 80, *weight)
        };
        weights.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn walks_and_turns_are_those_of_ipvs() {
        let list = entries(&[("10.0.0.3", 2), ("10.0.0.2", 1), ("10.0.0.1", 1)]);
        let walks: Vec<_> = list.iter().map(Path::of).map(|path| (path.place, path.stride)).collect();
        assert_eq!(walks, [(1631, 3453), (1231, 3544), (3167, 700)]);
        assert_eq!(turns(&list), [2, 1, 1]);
    }

    #[test]
    fn the_table_is_that_of_ipvs() {
        let table = fill(&entries(&[("10.0.0.3", 2), ("10.0.0.2", 1), ("10.0.0.1", 1)]));
        let bytes: Vec<u8> = table.iter().map(|&at| at as u8).collect();
        let first: String = bytes[..32].iter().map(u8::to_string).collect();
        assert_eq!(first, "21000010022112201002000010122001");
        assert_eq!(
            [0, 1, 2].map(|server| bytes.iter().filter(|&&at| at == server).count()),
            [2047, 1023, 1023]
        );
        assert_eq!(crc32fast::hash(&bytes), 0x7aab_a663);
    }

    #[test]
    fn turns_follow_the_weights_within_six_bits() {
        for (case, weights, expected) in [
            ("equal weights", &[7, 7][..], &[1, 1][..]),
            ("a common divisor", &[30, 10], &[3, 1]),
            ("63 still fits", &[63, 1], &[63, 1]),
            ("64 is halved", &[64, 2, 1], &[32, 1, 1]),
            ("a server that never had a weight", &[0, 5], &[0, 1]),
            ("the largest weights", &[i32::MAX as u32, 1], &[63, 1]),
        ] {
            let list: Vec<_> = weights.iter().map(|&weight| ("10.0.0.1", weight)).collect();
            assert_eq!(turns(&entries(&list)), expected, "{case}");
        }
    }
}
