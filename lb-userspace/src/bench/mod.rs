//! What a packet costs, measured with `BPF_PROG_TEST_RUN`: the director's real programs over maps of the benchmark's
//! own, so that a running director is not disturbed.
//!
//! * A wrapper makes the packet anew before each run (`lb_common::bench`), and an empty program behind the same wrapper,
//!   measured in the same run, is subtracted: the *net* cost. What is left is the program's own.
//! * All cases take turns, each round beginning with another, so that what else the machine does hits them alike.
//!   Compare figures of one run with each other, ratios between runs.
//! * Every case is checked: the first packet's verdict and addresses, and after each round that every packet ended
//!   for the expected reason and that as many flows are known as there must be.

mod case;
mod director;
mod frame;
mod live;
mod measure;
mod report;
mod running;
pub mod traffic;
mod wrapped;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::{ProgramError, ProgramFd, Xdp, XdpMode};
use nix::errno::Errno;

pub use live::{LiveRound, Station, live_cases};
pub use measure::{Options, run};
pub use report::{Figure, Report};

/// Why nothing, or nothing to be trusted, was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    NotBuilt(#[from] crate::object::NotBuilt),
    #[error("measuring needs the capabilities BPF and NET_ADMIN: run as root")]
    Privilege(#[source] EbpfError),
    #[error("loading programs and maps")]
    Load(#[source] EbpfError),
    #[error("program {name}")]
    Program {
        name: &'static str,
        #[source]
        source: Box<ProgramError>,
    },
    #[error("map {name}")]
    Map {
        name: &'static str,
        #[source]
        source: Box<MapError>,
    },
    #[error("the object has no {0}")]
    Missing(&'static str),
    #[error("finding the program of a running director")]
    NoDirector(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("reading the thread's clock")]
    Clock(#[source] Errno),
    #[error("moving to CPU {cpu}")]
    Cpu {
        cpu: usize,
        #[source]
        source: Errno,
    },
    #[error("this process may not use CPU {cpu}; it may use {allowed:?}")]
    NoCpu { cpu: usize, allowed: Vec<usize> },
    #[error("no case has {0:?} in its name; there are {names}", names = case::names().collect::<Vec<_>>().join(", "))]
    NoCase(String),
    #[error("case {case}: {what}")]
    Wrong { case: &'static str, what: String },
}

impl BenchError {
    fn load(source: EbpfError) -> Self {
        if crate::xdp::is_denied(&source) { Self::Privilege(source) } else { Self::Load(source) }
    }

    fn program(name: &'static str, source: ProgramError) -> Self {
        Self::Program { name, source: Box::new(source) }
    }

    fn map(name: &'static str, source: MapError) -> Self {
        Self::Map { name, source: Box::new(source) }
    }
}

/// A loaded program's descriptor, to be put in another object's program array.
fn fd(program: &Xdp, name: &'static str) -> Result<ProgramFd, BenchError> {
    let fd = program.fd().map_err(|source| BenchError::program(name, source))?;
    fd.try_clone().map_err(|source| BenchError::program(name, ProgramError::IOError(source)))
}

/// Attaches a loaded program to an interface's driver.
fn attach(program: &mut Xdp, name: &'static str, ifindex: u32) -> Result<(), BenchError> {
    program
        .attach_to_if_index(ifindex, XdpMode::Driver)
        .map(drop)
        .map_err(|source| BenchError::program(name, source))
}
