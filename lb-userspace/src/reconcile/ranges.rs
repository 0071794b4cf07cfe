//! Free ranges of cells and free numbers, not reused while a packet may still be reading them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long what was given back rests. A packet takes microseconds; a second allows for a stalled CPU.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Ranges of `0..size`, first fit.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    /// Length by start; neighbours are merged.
    free: BTreeMap<u32, u32>,
    resting: VecDeque<(Instant, u32, u32)>,
}

impl Ranges {
    pub(super) fn new(size: u32) -> Self {
        Self { free: BTreeMap::from([(0, size)]), resting: VecDeque::new() }
    }

    /// Marks a range as used that was so when the maps were read. False if part of it already was.
    pub(super) fn reserve(&mut self, start: u32, len: u32) -> bool {
        let hole = self.free.range(..=start).next_back().map(|(at, len)| (*at, *len));
        let Some((at, size)) = hole.filter(|(at, size)| start + len <= at + size) else { return len == 0 };
        self.free.remove(&at);
        self.put(at, start - at);
        self.put(start + len, at + size - start - len);
        true
    }

    /// A free range of `len`, or none.
    pub(super) fn take(&mut self, len: u32, now: Instant) -> Option<u32> {
        while let Some((_, start, len)) = self.resting.pop_front_if(|(since, ..)| now >= *since + GRACE) {
            self.merge(start, len);
        }
        let (&start, &size) = self.free.iter().find(|(_, size)| **size >= len)?;
        self.free.remove(&start);
        self.put(start + len, size - len);
        Some(start)
    }

    pub(super) fn give_back(&mut self, start: u32, len: u32, now: Instant) {
        if len > 0 {
            self.resting.push_back((now, start, len));
        }
    }

    fn put(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.free.insert(start, len);
        }
    }

    fn merge(&mut self, mut start: u32, mut len: u32) {
        if let Some((&at, &size)) = self.free.range(..start).next_back()
            && at + size == start
        {
            self.free.remove(&at);
            (start, len) = (at, size + len);
        }
        if let Some(size) = self.free.remove(&(start + len)) {
            len += size;
        }
        self.put(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_given_back_rests_for_the_grace_period() {
        let now = Instant::now();
        let mut ranges = Ranges::new(10);
        assert_eq!(ranges.take(6, now), Some(0));
        assert_eq!(ranges.take(4, now), Some(6));
        ranges.give_back(0, 6, now);
        assert_eq!(ranges.take(1, now), None);
        assert_eq!(ranges.take(1, now + GRACE / 2), None);
        assert_eq!(ranges.take(6, now + GRACE), Some(0));
    }

    #[test]
    fn reserved_ranges_are_not_handed_out() {
        let mut ranges = Ranges::new(10);
        assert!(ranges.reserve(3, 4));
        assert!(!ranges.reserve(6, 2), "6 is taken");
        assert_eq!(ranges.take(3, Instant::now()), Some(0));
        assert_eq!(ranges.take(3, Instant::now()), Some(7));
    }

    proptest! {
        #[test]
        fn ranges_in_use_never_overlap_and_nothing_is_lost(steps in prop::collection::vec((0u32..8, any::<bool>()), 0..60)) {
            let mut now = Instant::now();
            let mut ranges = Ranges::new(40);
            let mut used: Vec<(u32, u32)> = Vec::new();
            for (len, take) in steps {
                now += GRACE;
                if take {
                    if let Some(start) = ranges.take(len, now) {
                        for (other, size) in &used {
                            prop_assert!(start + len <= *other || other + size <= start || len == 0 || *size == 0);
                        }
                        prop_assert!(start + len <= 40);
                        used.push((start, len));
                    }
                } else if let Some((start, len)) = used.pop() {
                    ranges.give_back(start, len, now);
                }
            }
            for (start, len) in used.drain(..) {
                ranges.give_back(start, len, now);
            }
            prop_assert_eq!(ranges.take(40, now + GRACE), Some(0));
        }
    }
}
