//! Maps that are not arrays.

use super::{increment, words};
use lb_common::{
    flow::{AtomicU32, Shared},
    net::Addr,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::Hash,
    sync::atomic::Ordering::SeqCst,
};

/// The leading bits of an address.
pub(super) fn leading(address: Addr, bits: u32) -> Addr {
    let word = |i: u32, word: u32| {
        let kept = bits.saturating_sub(32 * i).min(32);
        word & u32::MAX.checked_shl(32 - kept).unwrap_or(0).to_be()
    };
    let [a, b, c, d] = address.0;
    Addr([word(0, a), word(1, b), word(2, c), word(3, d)])
}

/// The value of the longest prefix that holds the address.
pub(super) fn longest<V: Copy>(trie: &HashMap<(u32, Addr), V>, address: &Addr) -> Option<V> {
    if trie.is_empty() {
        return None;
    }
    (0..=128).rev().find_map(|bits| trie.get(&(bits, leading(*address, bits))).copied())
}

/// A hash map whose values are shared words, all there from the beginning so that they can be lent out.
#[derive(Debug)]
pub(super) struct Store<K> {
    places: RefCell<HashMap<K, usize>>,
    free: RefCell<Vec<usize>>,
    words: Vec<AtomicU32>,
    of_value: usize,
}

impl<K: Hash + Eq + Copy> Store<K> {
    pub(super) fn new(capacity: u32, of_value: usize) -> Self {
        Self {
            places: RefCell::default(),
            free: RefCell::new((0..capacity as usize).rev().collect()),
            words: words(capacity as usize * of_value),
            of_value,
        }
    }

    fn at(&self, place: usize) -> Shared<'_> {
        Shared(&self.words[place * self.of_value..(place + 1) * self.of_value])
    }

    pub(super) fn get(&self, key: &K) -> Option<Shared<'_>> {
        self.places.borrow().get(key).map(|&place| self.at(place))
    }

    /// The value of a key that was there or is there now; zeroes. `None` if the map is full.
    pub(super) fn insert(&self, key: &K) -> Option<Shared<'_>> {
        let mut places = self.places.borrow_mut();
        let place = match places.get(key) {
            Some(&place) => place,
            None => self.free.borrow_mut().pop()?,
        };
        places.insert(*key, place);
        for word in self.at(place).0 {
            word.store(0, SeqCst);
        }
        Some(self.at(place))
    }

    pub(super) fn remove(&self, key: &K) -> bool {
        match self.places.borrow_mut().remove(key) {
            Some(place) => {
                self.free.borrow_mut().push(place);
                true
            }
            None => false,
        }
    }

    pub(super) fn clear(&mut self) {
        let freed = self.places.get_mut().drain().map(|(_, place)| place);
        self.free.get_mut().extend(freed);
    }

    pub(super) fn all(&self) -> Vec<(K, Shared<'_>)> {
        self.places.borrow().iter().map(|(key, &place)| (*key, self.at(place))).collect()
    }
}

/// A hash map that forgets what was written longest ago, for the kernel's LRU maps, whose order is not exact either.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: RefCell<HashMap<K, (u64, V)>>,
    written: Cell<u64>,
    capacity: usize,
}

impl<K: Hash + Eq + Copy, V: Copy> Recent<K, V> {
    pub(super) fn new(capacity: u32) -> Self {
        Self { entries: RefCell::default(), written: Cell::new(0), capacity: capacity as usize }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.entries.borrow().get(key).map(|entry| entry.1)
    }

    pub(super) fn insert(&self, key: &K, value: V) {
        increment(&self.written);
        let mut entries = self.entries.borrow_mut();
        entries.insert(*key, (self.written.get(), value));
        if entries.len() > self.capacity {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.0).map(|(key, _)| *key);
            oldest.and_then(|key| entries.remove(&key));
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.get_mut().clear();
        self.written.set(0);
    }

    pub(super) fn all(&self) -> Vec<(K, V)> {
        self.entries.borrow().iter().map(|(key, entry)| (*key, entry.1)).collect()
    }
}
