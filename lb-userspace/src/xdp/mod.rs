//! The program in the kernel: load, pin, attach, replace, detach.
//!
//! Everything lives under one folder on a bpffs, so that the datapath goes on without the daemon and the next daemon
//! finds it:
//!
//! ```text
//! ABI                    version of the maps, lb_common::ABI_VERSION
//! SETTINGS, FLOWS4, …    the maps of lb_common's table
//! STAGES_1               the programs of the stages, for the program that is attached now
//! clock                  the program that reads jiffies
//! link_3_native          the program's link to interface 3, and where in the kernel it runs
//! ```

mod attach;
mod bpffs;
mod object;
mod size;

pub(crate) use attach::attached_program;
pub use attach::{Attached, Attachment, indexes};
pub(crate) use object::is_denied;
pub use size::{Sizes, memory_available};

use crate::jiffies::{Clock, ClockError};
use crate::maps::{MapArrayError, Mapped, StoreError};
use crate::model::AttachMode;
use crate::object::NotBuilt;
use aya::EbpfError;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The datapath cannot be brought up.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    #[error("{what} needs the capabilities BPF and NET_ADMIN (and SYS_ADMIN to mount a bpffs): run as root")]
    Privilege {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("mounting a bpffs on {}", at.display())]
    Mount {
        at: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not on a bpffs; `mount -t bpf bpf FOLDER` makes one, {} has one by default", pin.display(), bpffs::DEFAULT)]
    NotBpffs { pin: PathBuf },
    #[error("{what} {}", path.display())]
    Folder {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another lb is running with the maps in {}", pin.display())]
    Running { pin: PathBuf },
    #[error(
        "the maps in {} were made by {}, this lb has version {own}; stop forwarding by removing that folder's files, \
         and start again", pin.display(), found.map_or("something else".into(), |found| format!("version {found}"))
    )]
    OtherVersion { pin: PathBuf, found: Option<u32>, own: u32 },
    #[error(
        "the flow tables in {} have room for {pinned}, the configuration asks for {wanted}, and {live} live flows would \
         be lost; set `flows` back, or stop lb with `on_exit: detach` first", pin.display()
    )]
    OtherSize { pin: PathBuf, pinned: Sizes, wanted: Sizes, live: u64 },
    #[error(
        "no memory for map {map}: the flow tables need {} MiB, {} MiB are available; a smaller `flows` needs less",
        needed >> 20, available.map_or("an unknown number of".into(), |bytes| (bytes >> 20).to_string())
    )]
    Memory {
        map: String,
        needed: u64,
        available: Option<u64>,
        #[source]
        source: io::Error,
    },
    #[error("loading the eBPF object")]
    Load(#[source] Box<EbpfError>),
    #[error("the eBPF object has no XDP program `{0}`")]
    NoProgram(&'static str),
    #[error("the kernel's verifier refuses program `{name}`: {last}")]
    Rejected {
        name: &'static str,
        /// The end of its log.
        last: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the kernel does not take program `{name}` at all: XDP programs for frames of several buffers need Linux 5.18"
    )]
    NoFrags {
        name: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the kernel refuses program `{name}`")]
    Program {
        name: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    #[error("pinning {}", path.display())]
    Pin {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("there is no interface {name}; there are {}", existing.join(", "))]
    NoInterface { name: String, existing: Vec<String> },
    #[error("listing the interfaces")]
    Interfaces(#[source] io::Error),
    #[error("another XDP program is attached to {interface}; `ip link set {interface} xdp off` removes it")]
    Occupied { interface: String },
    #[error("attaching to {interface} in {mode} mode")]
    Attach {
        interface: String,
        mode: AttachMode,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Map(#[from] MapArrayError),
    #[error(transparent)]
    Clock(#[from] ClockError),
}

/// The arrays that are mapped into this process.
#[derive(Debug)]
pub struct Arrays {
    pub flows4: Mapped,
    pub flows6: Mapped,
    pub templates: Mapped,
    pub slots: Arc<Mapped>,
    pub loads: Arc<Mapped>,
    pub spilled: Mapped,
}

/// The loaded datapath: its maps are pinned, its program is in the kernel, not necessarily attached.
pub struct Datapath {
    pin: PathBuf,
    object: object::Loaded,
    arrays: Arc<Arrays>,
    attached: Vec<Attachment>,
    /// Held for as long as this daemon is the one with these maps. Last, so that it is let go of last.
    folder: bpffs::Folder,
}

impl Datapath {
    /// Loads the program, with the maps pinned in `pin` if there are any that fit, else with new ones. `features` are
    /// bits of [`lb_common::settings::feature`].
    ///
    /// # Errors
    /// See [`XdpError`]; nothing is attached then, and what was running goes on.
    pub fn load(pin: &Path, sizes: Sizes, features: u32) -> Result<Self, XdpError> {
        let elf = crate::object::embedded()?;
        Self::load_object(elf, pin, sizes, features)
    }

    /// As [`Datapath::load`], with another object than the one embedded here.
    ///
    /// # Errors
    /// See [`Datapath::load`].
    pub fn load_object(
        elf: &'static [u8],
        pin: &Path,
        sizes: Sizes,
        features: u32,
    ) -> Result<Self, XdpError> {
        let folder = bpffs::prepare(pin)?;
        object::check_version(pin)?;
        object::check_sizes(pin, sizes)?;
        let object = object::Loaded::load(elf, pin, sizes, features)?;
        let arrays = Arc::new(object::map_arrays(pin)?);
        Ok(Self { pin: pin.to_owned(), object, arrays, attached: Vec::new(), folder })
    }

    pub fn pin(&self) -> &Path {
        &self.pin
    }

    pub fn arrays(&self) -> &Arc<Arrays> {
        &self.arrays
    }

    /// What the loaded program can do.
    pub fn features(&self) -> u32 {
        self.object.features()
    }

    /// The eBPF object, for its log.
    pub fn ebpf_mut(&mut self) -> &mut aya::Ebpf {
        self.object.ebpf_mut()
    }

    /// A reader of jiffies, independent of this.
    ///
    /// # Errors
    /// What was pinned a moment ago is gone.
    pub fn clock(&mut self) -> Result<Clock, XdpError> {
        self.object.clock(&self.pin)
    }

    /// Attaches the program to these interfaces, or puts it in the place of the one attached there, at once and
    /// without a packet in between. Interfaces it was attached to and that are not among these are left.
    ///
    /// # Errors
    /// An interface does not exist or cannot take the program. No interface has it then that had none.
    pub fn attach(&mut self, interfaces: &[crate::model::Interface]) -> Result<&[Attachment], XdpError> {
        self.attached = attach::attach(self.object.program()?, &self.pin, interfaces)?;
        self.folder.keep = true;
        self.object.forget_others(&self.pin)?;
        Ok(&self.attached)
    }

    pub fn attached(&self) -> &[Attachment] {
        &self.attached
    }

    /// Indexes of the interfaces a program is attached to, by an earlier daemon if not yet by this one.
    ///
    /// # Errors
    /// The folder of the pins could not be read.
    pub fn in_use(&self) -> Result<BTreeSet<u32>, XdpError> {
        attach::in_use(&self.pin)
    }

    /// Puts a program that can do `features` in the place of the attached one.
    ///
    /// # Errors
    /// As for [`Datapath::load`] and [`Datapath::attach`]; the old program goes on.
    pub fn replace(
        &mut self,
        features: u32,
        interfaces: &[crate::model::Interface],
    ) -> Result<&[Attachment], XdpError> {
        let mut object = self.object.again(&self.pin, features)?;
        let attached = attach::attach(object.program()?, &self.pin, interfaces)?;
        self.object = object;
        self.attached = attached;
        self.object.forget_others(&self.pin)?;
        Ok(&self.attached)
    }

    /// Takes the program off all interfaces and removes everything pinned.
    ///
    /// # Errors
    /// A file could not be removed.
    pub fn detach(mut self) -> Result<(), XdpError> {
        self.attached.clear();
        self.folder.keep = true;
        bpffs::remove_all(&self.pin)
    }
}
