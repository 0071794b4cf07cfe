//! The eBPF object and its pinned maps.

use super::{Arrays, Sizes, XdpError, bpffs, memory_available};
use crate::jiffies::Clock;
use crate::maps::{Mapped, StoreError};
use crate::sweep::live;
use aya::maps::{Array, MapData, MapError, MapInfo, ProgramArray};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use lb_common::ABI_VERSION;
use lb_common::flow::{Slab, Templates, V4, V6};
use lb_common::stage::Stage;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The maps that outlive the daemon: those of `lb_common`'s table.
const PINNED: [&str; 23] = [
    "SETTINGS",
    "SERVICES",
    "PREFIXES",
    "MATCHES",
    "SERVICE",
    "PLANS",
    "SLOTS",
    "SERVERS",
    "THRESHOLDS",
    "LOADS",
    "FLOWS4",
    "FLOWS6",
    "TEMPLATES",
    "SPILL",
    "SPILLED",
    "LOCALITY",
    "FRAGMENTS",
    "PATHS",
    "DENIED",
    "SOURCES",
    "COUNTERS",
    "REASONS",
    "NOTES",
];

const ABI: &str = "ABI";
const CLOCK: &str = "clock";
const PROGRAM: &str = "lb";
/// Lines of the verifier's log that say what was wrong: its last ones.
const LOG_LINES: usize = 4;
/// What the names of pinned program arrays begin with. Every loaded program has its own, numbered, so that it can
/// take another's place at once. Pinned, because the kernel empties a program array nobody in userspace holds.
const STAGES: &str = "STAGES_";

/// A loaded object: its programs are in the kernel, its maps pinned.
pub(super) struct Loaded {
    elf: &'static [u8],
    sizes: Sizes,
    features: u32,
    /// Name of the pinned program array.
    stages: String,
    ebpf: Ebpf,
}

impl Loaded {
    pub(super) fn load(
        elf: &'static [u8],
        pin: &Path,
        sizes: Sizes,
        features: u32,
    ) -> Result<Self, XdpError> {
        let mut loader = EbpfLoader::new();
        loader.override_global("FEATURES", &features, true);
        for name in PINNED {
            loader.map_pin_path(name, pin.join(name));
        }
        for (name, entries) in [
            ("FLOWS4", sizes.v4),
            ("FLOWS6", sizes.v6),
            ("TEMPLATES", sizes.templates),
            ("SPILL", sizes.spill()),
        ] {
            loader.map_max_entries(name, entries);
        }
        let stages = free_stages(pin)?;
        loader.map_pin_path("STAGES", pin.join(&stages));
        let mut ebpf = loader.load(elf).map_err(|error| refused(error, sizes))?;
        fill_stages(&mut ebpf, pin)?;
        for name in [PROGRAM, "clock"] {
            program(&mut ebpf, name)?.load().map_err(|source| program_refused(name, source))?;
        }
        Ok(Self { elf, sizes, features, stages, ebpf })
    }

    /// Removes the program arrays of programs this one has taken the place of.
    pub(super) fn forget_others(&self, pin: &Path) -> Result<(), XdpError> {
        let names = bpffs::pinned(pin)?.into_iter();
        let mut others = names.filter(|name| name.starts_with(STAGES) && *name != self.stages);
        others.try_for_each(|name| bpffs::remove(&pin.join(name)))
    }

    /// The same object loaded once more, to do other things.
    pub(super) fn again(&self, pin: &Path, features: u32) -> Result<Self, XdpError> {
        Self::load(self.elf, pin, self.sizes, features)
    }

    pub(super) fn features(&self) -> u32 {
        self.features
    }

    pub(super) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    pub(super) fn program(&mut self) -> Result<&mut Xdp, XdpError> {
        program(&mut self.ebpf, PROGRAM)
    }

    pub(super) fn clock(&mut self, pin: &Path) -> Result<Clock, XdpError> {
        let path = pin.join(CLOCK);
        // Of an earlier object: it writes to a map nobody reads any more.
        bpffs::remove(&path)?;
        let pinning =
            |source: Box<dyn std::error::Error + Send + Sync>| XdpError::Pin { path: path.clone(), source };
        program(&mut self.ebpf, "clock")?.pin(&path).map_err(|error| pinning(Box::new(error)))?;
        let program =
            Xdp::from_pin(&path, XdpAttachType::Interface).map_err(|error| pinning(Box::new(error)))?;
        let map = self.ebpf.take_map("CLOCK").ok_or(XdpError::NoProgram("clock"))?;
        let map = Array::try_from(map).map_err(|source| open_failed("CLOCK", pin, source))?;
        Ok(Clock::new(program, map))
    }
}

/// A name no program array has.
fn free_stages(pin: &Path) -> Result<String, XdpError> {
    let names = bpffs::pinned(pin)?;
    let number = |name: &String| name.strip_prefix(STAGES)?.parse::<u64>().ok();
    let last = names.iter().filter_map(number).max().unwrap_or(0);
    Ok(format!("{STAGES}{}", last + 1))
}

/// Loads the stages' programs and puts them in their places.
fn fill_stages(ebpf: &mut Ebpf, pin: &Path) -> Result<(), XdpError> {
    let mut fds = Vec::with_capacity(Stage::ALL.len());
    for (stage, name) in Stage::ALL {
        let program = program(ebpf, name)?;
        program.load().map_err(|source| program_refused(name, source))?;
        let fd = program.fd().map_err(|source| program_refused(name, source))?;
        let fd = fd.try_clone().map_err(|source| program_refused(name, ProgramError::IOError(source)))?;
        fds.push((stage as u32, fd));
    }
    let failed = |source| open_failed("STAGES", pin, source);
    let map = ebpf.map_mut("STAGES").ok_or(XdpError::NoProgram("STAGES"))?;
    let mut stages = ProgramArray::try_from(map).map_err(failed)?;
    fds.iter().try_for_each(|(at, fd)| stages.set(*at, fd, 0)).map_err(failed)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, XdpError> {
    let program = ebpf.program_mut(name).ok_or(XdpError::NoProgram(name))?;
    program.try_into().map_err(|_: ProgramError| XdpError::NoProgram(name))
}

/// Out of memory and out of rights have their own words.
fn refused(error: EbpfError, sizes: Sizes) -> XdpError {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => match io_error.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::ArgumentListTooLong => XdpError::Memory {
                map: name,
                needed: sizes.bytes(),
                available: memory_available(),
                source: io_error,
            },
            io::ErrorKind::PermissionDenied => {
                XdpError::Privilege { what: format!("creating map {name}"), source: Box::new(io_error) }
            }
            _ => XdpError::Load(Box::new(EbpfError::MapError(MapError::CreateError { name, io_error }))),
        },
        other => XdpError::Load(Box::new(other)),
    }
}

fn program_refused(name: &'static str, source: ProgramError) -> XdpError {
    match source {
        ProgramError::LoadError { io_error, verifier_log }
            if io_error.kind() == io::ErrorKind::PermissionDenied && verifier_log.to_string().is_empty() =>
        {
            XdpError::Privilege { what: format!("loading program {name}"), source: Box::new(io_error) }
        }
        // Refused before the verifier looked at it.
        ProgramError::LoadError { io_error, verifier_log }
            if io_error.kind() == io::ErrorKind::InvalidInput && verifier_log.to_string().is_empty() =>
        {
            XdpError::NoFrags { name, source: io_error }
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            tracing::debug!(name, log, "the verifier's log");
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("; ");
            XdpError::Rejected { name, last, source: io_error }
        }
        source => XdpError::Program { name, source: Box::new(source) },
    }
}

fn open_failed(map: &'static str, pin: &Path, source: MapError) -> XdpError {
    if is_denied(&source) {
        return XdpError::Privilege { what: format!("opening map {map}"), source: Box::new(source) };
    }
    let key = pin.join(map).display().to_string();
    XdpError::Store(StoreError { action: "opening", map, key, source: Box::new(source) })
}

/// True if it comes of a missing capability.
pub(crate) fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Refuses maps of another version; marks new ones with this one's.
pub(super) fn check_version(pin: &Path) -> Result<(), XdpError> {
    let names = bpffs::pinned(pin)?;
    let path = pin.join(ABI);
    if names.iter().any(|name| name == ABI) {
        let abi = MapData::from_pin(&path).map_err(|source| open_failed(ABI, pin, source))?;
        let abi = aya::maps::Map::from_map_data(abi).and_then(Array::<_, u32>::try_from);
        let abi = abi.map_err(|source| open_failed(ABI, pin, source))?;
        let found = abi.get(&0, 0).map_err(|source| open_failed(ABI, pin, source))?;
        if found != ABI_VERSION {
            return Err(XdpError::OtherVersion { pin: pin.to_owned(), found: Some(found), own: ABI_VERSION });
        }
        return Ok(());
    }
    if !names.is_empty() {
        return Err(XdpError::OtherVersion { pin: pin.to_owned(), found: None, own: ABI_VERSION });
    }
    let privilege = |source: MapError| match source {
        MapError::CreateError { io_error, .. } if io_error.kind() == io::ErrorKind::PermissionDenied => {
            XdpError::Privilege { what: "creating a map".into(), source: Box::new(io_error) }
        }
        source => open_failed(ABI, pin, source),
    };
    let mut abi = Array::<MapData, u32>::create(1, 0).map_err(privilege)?;
    abi.set(0, ABI_VERSION, 0).map_err(|source| open_failed(ABI, pin, source))?;
    abi.pin(&path).map_err(|source| XdpError::Pin { path, source: Box::new(source) })
}

/// Tables of another size are refused while they hold flows, and removed, so that new ones are made, if not.
pub(super) fn check_sizes(pin: &Path, wanted: Sizes) -> Result<(), XdpError> {
    let entries = |name: &'static str| -> Result<Option<u32>, XdpError> {
        if !pin.join(name).exists() {
            return Ok(None);
        }
        let info = MapInfo::from_pin(pin.join(name)).map_err(|source| open_failed(name, pin, source))?;
        Ok(Some(info.max_entries()))
    };
    let (Some(v4), Some(v6), Some(templates)) =
        (entries("FLOWS4")?, entries("FLOWS6")?, entries("TEMPLATES")?)
    else {
        return Ok(());
    };
    let pinned = Sizes { v4, v6, templates };
    if pinned == wanted {
        return Ok(());
    }
    let flows4 = Slab::<V4>::new;
    let arrays = map_arrays(pin)?;
    let live = live(&flows4(arrays.flows4.words()))
        + live(&Slab::<V6>::new(arrays.flows6.words()))
        + live(&Slab::<Templates>::new(arrays.templates.words()));
    if live > 0 {
        return Err(XdpError::OtherSize { pin: pin.to_owned(), pinned, wanted, live });
    }
    tracing::info!(%pinned, %wanted, "the flow tables are empty and are made anew");
    PINNED.into_iter().try_for_each(|name| bpffs::remove(&pin.join(name)))
}

/// Maps the arrays pinned in the folder into memory.
pub(super) fn map_arrays(pin: &Path) -> Result<Arrays, XdpError> {
    let map = |name: &'static str| -> Result<Mapped, XdpError> {
        let data = MapData::from_pin(pin.join(name)).map_err(|source| open_failed(name, pin, source))?;
        let info = data.info().map_err(|source| open_failed(name, pin, source))?;
        Ok(Mapped::of_map(name, data.fd(), info.max_entries(), info.value_size())?)
    };
    Ok(Arrays {
        flows4: map("FLOWS4")?,
        flows6: map("FLOWS6")?,
        templates: map("TEMPLATES")?,
        slots: Arc::new(map("SLOTS")?),
        loads: Arc::new(map("LOADS")?),
        spilled: map("SPILLED")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FlowTables;
    use aya_obj::VerifierLog;

    #[test]
    fn tables_too_large_for_this_machine_are_refused_with_what_they_would_need() {
        let io_error = io::Error::from(io::ErrorKind::OutOfMemory);
        let error = EbpfError::MapError(MapError::CreateError { name: "FLOWS4".to_owned(), io_error });
        let refused = refused(error, Sizes::of(FlowTables { ipv4: 1 << 20, ipv6: 1 << 17 }));
        let text = refused.to_string();
        assert!(text.starts_with("no memory for map FLOWS4: the flow tables need 53 MiB, "), "{text}");
        assert!(text.ends_with(" MiB are available; a smaller `flows` needs less"), "{text}");
    }

    #[test]
    fn what_the_kernel_has_against_a_program_is_said() {
        let refused = |errno, log: &str| {
            let io_error = io::Error::from_raw_os_error(errno);
            program_refused(
                "lb",
                ProgramError::LoadError { io_error, verifier_log: VerifierLog::new(log.into()) },
            )
            .to_string()
        };
        for (errno, log, said) in [
            (libc::EPERM, "", "loading program lb needs the capabilities BPF and NET_ADMIN"),
            (
                libc::EINVAL,
                "",
                "the kernel does not take program `lb` at all: XDP programs for frames of several buffers",
            ),
            (libc::EINVAL, "a\n\nb\n", "the kernel's verifier refuses program `lb`: a; b"),
            (libc::EACCES, "1: bad", "the kernel's verifier refuses program `lb`: 1: bad"),
        ] {
            let text = refused(errno, log);
            assert!(text.starts_with(said), "{text}");
        }
    }
}
