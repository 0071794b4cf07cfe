//! The tables over ordinary shared memory: the host engine's own, or the kernel's mapped into the control plane.

use super::{Buckets, Layout, Words};
use core::marker::PhantomData;

#[cfg(loom)]
use loom::sync::atomic::fence;

#[cfg(loom)]
pub use loom::sync::atomic::AtomicU32;

#[cfg(not(loom))]
use core::sync::atomic::fence;

#[cfg(not(loom))]
pub use core::sync::atomic::AtomicU32;

use core::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};

/// Words of shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a>(pub &'a [AtomicU32]);

impl Words for Shared<'_> {
    #[inline(always)]
    fn load(self, at: u32) -> u32 {
        self.0[at as usize].load(Acquire)
    }

    #[inline(always)]
    fn store(self, at: u32, value: u32) {
        self.0[at as usize].store(value, Release);
    }

    #[inline(always)]
    fn swap(self, at: u32, old: u32, new: u32) -> bool {
        let done = self.0[at as usize].compare_exchange(old, new, AcqRel, Acquire).is_ok();
        // In this language a swap alone orders no later load of another word, however it is done.
        fence(SeqCst);
        done
    }

    #[inline(always)]
    fn add(self, at: u32, delta: u32) -> u32 {
        self.0[at as usize].fetch_add(delta, AcqRel)
    }
}

/// A whole table of layout `L` in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Slab<'a, L> {
    words: &'a [AtomicU32],
    layout: PhantomData<L>,
}

impl<'a, L: Layout> Slab<'a, L> {
    /// A trailing part shorter than a bucket is left unused.
    pub fn new(words: &'a [AtomicU32]) -> Self {
        Self { words, layout: PhantomData }
    }

    /// Number of buckets.
    pub fn buckets(&self) -> u32 {
        (self.words.len() / L::BUCKET as usize) as u32
    }
}

impl<'a, L: Layout> Buckets<L> for Slab<'a, L> {
    type Words = Shared<'a>;

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<Shared<'a>> {
        let at = index as usize * L::BUCKET as usize;
        self.words.get(at..at + L::BUCKET as usize).map(Shared)
    }
}
