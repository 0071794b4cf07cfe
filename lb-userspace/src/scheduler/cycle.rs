//! Slots of a `Cycle`: rr, wrr, fo.

use std::ops::Range;

use lb_common::plan::Slot;

/// Most slots of one `Cycle`. A wrr period longer than this is scaled down.
pub const CYCLE_SLOTS: usize = 65_536;

/// Servers the datapath looks at, skipping overloaded ones, before it takes the first usable one among the last
/// `CYCLE_TRIES` slots. IPVS looks at all of them; the two differ once this many tries in a row found an overloaded
/// server.
pub const CYCLE_TRIES: usize = 256;

/// Slots of a sequence of server ids, each with the distance to the next with another server, 0 if there is none.
///
/// `rewinds`: where a flow that begins there and finds every server overloaded puts the cursor back to 0
/// instead of leaving it alone. See [`super::Plan::slots`].
pub(super) fn slots(servers: &[u32], rewinds: Range<usize>) -> Vec<Slot> {
    let len = servers.len();
    let mut distance = vec![0; len];
    // Backwards from the end of any run, every slot is one further from the next run than the slot behind it.
    if let Some(end) = (0..len).find(|&at| servers[at] != servers[(at + 1) % len]) {
        for at in (end + 1..end + 1 + len).rev().map(|at| at % len) {
            let next = (at + 1) % len;
            distance[at] = if servers[at] == servers[next] { distance[next] + 1 } else { 1 };
        }
    }
    let number = |at: usize| distance[at] + if rewinds.contains(&at) { len } else { 0 };
    (0..len).map(|at| Slot::new(servers[at], number(at) as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_knows_how_far_the_next_server_is() {
        for (case, servers, numbers) in [
            ("no server", &[][..], &[][..]),
            ("one server", &[1], &[0]),
            ("one server twice", &[1, 1], &[0, 0]),
            ("alternating", &[1, 2, 1, 2], &[1, 1, 1, 1]),
            ("a run", &[1, 1, 1, 2], &[3, 2, 1, 1]),
            ("a run around the end", &[1, 2, 2, 1, 1], &[1, 2, 1, 3, 2]),
        ] {
            let got: Vec<u32> = slots(servers, 0..0).iter().map(|slot| slot.number()).collect();
            assert_eq!(got, numbers, "{case}");
        }
    }

    #[test]
    fn a_rewind_leaves_the_distance_modulo_the_length() {
        let plain = slots(&[1, 1, 2], 0..0);
        let marked = slots(&[1, 1, 2], 1..3);
        assert_eq!(marked.iter().map(|slot| slot.number()).collect::<Vec<_>>(), [2, 4, 4]);
        assert!(plain.iter().zip(&marked).all(|(a, b)| a.number() == b.number() % 3));
    }
}
