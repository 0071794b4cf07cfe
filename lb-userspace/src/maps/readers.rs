//! Maps the datapath writes, read on behalf of the operator; and what of them the sweeper removes.

use super::StoreError;
use super::kernel::open;
use crate::sweep::{LocalityStore, SpillStore};
use aya::Pod;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use lb_common::counters::{Counters, Note, Reason};
use lb_common::flow::{AtomicU32, FlowKey, SPILL_WORDS};
use lb_common::locality::{LOCALITY_WORDS, LocalityKey};
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::Ordering::AcqRel;

/// Counters of all CPUs.
pub struct CounterMaps {
    counters: PerCpuArray<MapData, Counters>,
    reasons: PerCpuArray<MapData, u64>,
    notes: PerCpuArray<MapData, u64>,
}

fn failed<K: Debug>(action: &'static str, map: &'static str, key: K) -> impl FnOnce(MapError) -> StoreError {
    move |source| StoreError { action, map, key: format!("{key:?}"), source: Box::new(source) }
}

fn cpus<V: Pod>(map: &PerCpuArray<MapData, V>, name: &'static str, at: u32) -> Result<Vec<V>, StoreError> {
    Ok(map.get(&at, 0).map_err(failed("reading", name, at))?.iter().copied().collect())
}

impl CounterMaps {
    /// # Errors
    /// A map is not pinned in the folder.
    pub fn open(pin: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            counters: open(pin, "COUNTERS")?,
            reasons: open(pin, "REASONS")?,
            notes: open(pin, "NOTES")?,
        })
    }

    /// # Errors
    /// The map cannot be read; here and below.
    pub fn server(&self, id: u32) -> Result<Counters, StoreError> {
        let all = cpus(&self.counters, "COUNTERS", id)?;
        Ok(all.iter().fold(Counters::default(), |sum, cpu| Counters {
            connections: sum.connections + cpu.connections,
            packets: sum.packets + cpu.packets,
            bytes: sum.bytes + cpu.bytes,
        }))
    }

    pub fn reason(&self, reason: Reason) -> Result<u64, StoreError> {
        Ok(cpus(&self.reasons, "REASONS", reason as u32)?.iter().sum())
    }

    pub fn note(&self, note: Note) -> Result<u64, StoreError> {
        Ok(cpus(&self.notes, "NOTES", note as u32)?.iter().sum())
    }
}

/// The kernel's spill map, and the mapped count of what is in it.
pub struct KernelSpill<'a> {
    map: HashMap<MapData, FlowKey, [u32; SPILL_WORDS]>,
    spilled: &'a AtomicU32,
}

impl<'a> KernelSpill<'a> {
    /// # Errors
    /// The map is not pinned in the folder.
    pub fn open(pin: &Path, spilled: &'a AtomicU32) -> Result<Self, StoreError> {
        Ok(Self { map: open(pin, "SPILL")?, spilled })
    }
}

impl SpillStore for KernelSpill<'_> {
    fn is_empty(&self) -> bool {
        self.spilled.load(std::sync::atomic::Ordering::Acquire) == 0
    }

    fn entries(&self) -> Result<Vec<(FlowKey, [u32; SPILL_WORDS])>, StoreError> {
        self.map.iter().map(|entry| entry.map_err(failed("reading", "SPILL", "all"))).collect()
    }

    fn remove(&mut self, key: &FlowKey) -> Result<bool, StoreError> {
        match self.map.remove(key) {
            Ok(()) => {
                self.spilled.fetch_sub(1, AcqRel);
                Ok(true)
            }
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
                Ok(false)
            }
            Err(error) => Err(failed("removing from", "SPILL", key)(error)),
        }
    }
}

/// The kernel's map of destinations.
pub struct KernelLocality {
    map: HashMap<MapData, LocalityKey, [u32; LOCALITY_WORDS]>,
}

impl KernelLocality {
    /// # Errors
    /// The map is not pinned in the folder.
    pub fn open(pin: &Path) -> Result<Self, StoreError> {
        Ok(Self { map: open(pin, "LOCALITY")? })
    }
}

impl LocalityStore for KernelLocality {
    fn entries(&self) -> Result<Vec<(LocalityKey, [u32; LOCALITY_WORDS])>, StoreError> {
        self.map.iter().map(|entry| entry.map_err(failed("reading", "LOCALITY", "all"))).collect()
    }

    fn remove(&mut self, key: &LocalityKey) -> Result<(), StoreError> {
        super::kernel::absent_is_fine(self.map.remove(key)).map_err(failed("removing from", "LOCALITY", key))
    }
}
