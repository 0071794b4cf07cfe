//! Arrays of the kernel's mapped into this process: sweeping, listing and moving cursors need no system calls.
//! The crate's only unsafe code.

use lb_common::flow::AtomicU32;
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicU64;

/// A map could not be mapped into memory.
#[derive(Debug, thiserror::Error)]
#[error("mapping {bytes} bytes of map {map} into memory")]
pub struct MapArrayError {
    pub map: String,
    pub bytes: usize,
    #[source]
    pub source: std::io::Error,
}

/// A whole `BPF_F_MMAPABLE` array, shared with the kernel, readable and writable.
#[derive(Debug)]
pub struct Mapped {
    memory: MmapRaw,
    bytes: usize,
}

impl Mapped {
    /// Maps `entries` values of `value_size` bytes, a multiple of 8, which is how the kernel spaces them.
    ///
    /// # Errors
    /// The map was not made mappable, or the sizes are not its own.
    pub fn of_map(name: &str, map: impl AsFd, entries: u32, value_size: u32) -> Result<Self, MapArrayError> {
        let bytes = entries as usize * value_size.next_multiple_of(8) as usize;
        let mapped = MmapOptions::new().len(bytes).map_raw(map.as_fd().as_raw_fd());
        match mapped {
            Ok(memory) => Ok(Self { memory, bytes }),
            Err(source) => Err(MapArrayError { map: name.into(), bytes, source }),
        }
    }

    /// Zeroed memory of this process alone, for tests and benchmarks.
    ///
    /// # Errors
    /// There is not as much.
    pub fn private(bytes: usize) -> Result<Self, MapArrayError> {
        match MmapOptions::new().len(bytes.max(1)).map_anon() {
            Ok(memory) => Ok(Self { memory: memory.into(), bytes }),
            Err(source) => Err(MapArrayError { map: "of this process".into(), bytes, source }),
        }
    }

    /// The array as 32-bit words.
    #[allow(unsafe_code)]
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is `bytes` long, readable, writable, page-aligned and lives as long as `self`. It is
        // never handed out but as atomics, which the kernel's concurrent writes do not make undefined.
        unsafe { std::slice::from_raw_parts(self.memory.as_mut_ptr().cast::<AtomicU32>(), self.bytes / 4) }
    }

    /// The array as 64-bit cells.
    #[allow(unsafe_code)]
    pub fn cells(&self) -> &[AtomicU64] {
        // SAFETY: as for `words`.
        unsafe { std::slice::from_raw_parts(self.memory.as_mut_ptr().cast::<AtomicU64>(), self.bytes / 8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn words_and_cells_are_the_same_memory() {
        let memory = Mapped::private(24).unwrap();
        memory.cells()[1].store(0x1122_3344_5566_7788_u64.to_le(), Relaxed);
        assert_eq!(memory.words().len(), 6);
        assert_eq!(memory.words()[2].load(Relaxed).to_le(), 0x5566_7788);
        assert_eq!(memory.words()[5].load(Relaxed), 0);
    }
}
