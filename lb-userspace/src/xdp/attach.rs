//! The program on its interfaces.

use super::{XdpError, bpffs};
use crate::model::{AttachMode, Interface};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, ProgramFd, Xdp, XdpMode, loaded_programs};
use nix::errno::Errno;
use nix::net::if_::if_nameindex;
use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;
use tracing::{debug, info, warn};

/// What the names of pinned links begin with.
pub(super) const LINK: &str = "link_";

/// How often and after which pause an occupied interface is tried again.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// Where in the kernel the program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the generic hook; why not in the driver, if that was wanted.
    Generic { why: Option<String> },
}

/// An interface with the program. The link is pinned and outlives this.
#[derive(Debug)]
pub struct Attachment {
    pub interface: String,
    pub ifindex: u32,
    pub mode: Attached,
    _link: PinnedLink,
}

fn boxed(error: impl Error + Send + Sync + 'static) -> Box<dyn Error + Send + Sync> {
    Box::new(error)
}

/// Name of a link's pin. By index, because names may hold dots, which a bpffs does not take.
fn link_name(ifindex: u32, native: bool) -> String {
    format!("{LINK}{ifindex}_{}", if native { "native" } else { "generic" })
}

/// Indexes of the interfaces with a pinned link.
pub(super) fn in_use(pin: &Path) -> Result<BTreeSet<u32>, XdpError> {
    let ifindex = |name: &String| name.strip_prefix(LINK)?.split('_').next()?.parse().ok();
    Ok(bpffs::pinned(pin)?.iter().filter_map(ifindex).collect())
}

pub(super) fn attach(
    program: &mut Xdp,
    pin: &Path,
    interfaces: &[Interface],
) -> Result<Vec<Attachment>, XdpError> {
    let indexes = indexes(interfaces)?;
    let mut attached = Vec::with_capacity(interfaces.len());
    let mut used = BTreeSet::new();
    let before = bpffs::pinned(pin)?;
    for (interface, ifindex) in interfaces.iter().zip(indexes) {
        let attachment = match one(program, pin, interface, ifindex) {
            Ok(attachment) => attachment,
            Err(error) => {
                // Back to where it was, as far as interfaces are concerned that had no program.
                let new = used.iter().filter(|name| !before.contains(name));
                new.into_iter().try_for_each(|name| bpffs::remove(&pin.join(name)))?;
                return Err(error);
            }
        };
        used.insert(link_name(ifindex, attachment.mode == Attached::Native));
        attached.push(attachment);
    }
    for name in bpffs::pinned(pin)? {
        if name.starts_with(LINK) && !used.contains(&name) {
            info!(link = name, "detached from an interface that is not configured any more");
            bpffs::remove(&pin.join(name))?;
        }
    }
    Ok(attached)
}

/// Indexes of the interfaces, in their order.
///
/// # Errors
/// [`XdpError::NoInterface`] names those that exist.
pub fn indexes(interfaces: &[Interface]) -> Result<Vec<u32>, XdpError> {
    let known = if_nameindex().map_err(|errno| XdpError::Interfaces(errno.into()))?;
    let known: Vec<(String, u32)> =
        known.iter().map(|entry| (entry.name().to_string_lossy().into_owned(), entry.index())).collect();
    let find = |interface: &Interface| match known.iter().find(|(name, _)| *name == interface.name) {
        Some((_, ifindex)) => Ok(*ifindex),
        None => Err(XdpError::NoInterface {
            name: interface.name.clone(),
            existing: known.iter().map(|(name, _)| name.clone()).collect(),
        }),
    };
    interfaces.iter().map(find).collect()
}

/// The program that is attached to the interface's driver by the director whose pins are in `pin`.
pub(crate) fn attached_program(pin: &Path, ifindex: u32) -> Result<ProgramFd, Box<dyn Error + Send + Sync>> {
    let link = FdLink::from(PinnedLink::from_pin(pin.join(link_name(ifindex, true)))?);
    let wanted = link.info()?.program_id();
    for program in loaded_programs() {
        let program = program?;
        if program.id() == wanted {
            return Ok(program.fd()?);
        }
    }
    Err(format!("program {wanted} was replaced just now").into())
}

fn one(program: &mut Xdp, pin: &Path, interface: &Interface, ifindex: u32) -> Result<Attachment, XdpError> {
    let done = |mode, link| Attachment { interface: interface.name.clone(), ifindex, mode, _link: link };
    for native in [true, false] {
        let path = pin.join(link_name(ifindex, native));
        if !path.exists() {
            continue;
        }
        let fits = match interface.mode {
            AttachMode::Auto => true,
            AttachMode::Native => native,
            AttachMode::Generic => !native,
        };
        match if fits { replace(program, &path) } else { Err("another mode is configured".into()) } {
            Ok(link) => {
                debug!(interface = interface.name, "the program was replaced");
                let why =
                    || (interface.mode == AttachMode::Auto).then(|| "as it was attached before".to_owned());
                let mode = if native { Attached::Native } else { Attached::Generic { why: why() } };
                return Ok(done(mode, link));
            }
            Err(error) => {
                // Such as an interface that went and came back: its link is dead.
                info!(interface = interface.name, error, "the old link is of no more use, attaching anew");
                bpffs::remove(&path)?;
            }
        }
    }
    let failed = |mode, source| XdpError::Attach { interface: interface.name.clone(), mode, source };
    let mut why = None;
    if interface.mode != AttachMode::Generic {
        match attach_new(program, pin, ifindex, true) {
            Ok(link) => return Ok(done(Attached::Native, link)),
            Err(error) if is(&error, Errno::EBUSY) || is(&error, Errno::EEXIST) => {
                return Err(XdpError::Occupied { interface: interface.name.clone() });
            }
            Err(error) if is(&error, Errno::EPERM) => {
                let what = format!("attaching to {}", interface.name);
                return Err(XdpError::Privilege { what, source: boxed(error) });
            }
            Err(error) if interface.mode == AttachMode::Native => {
                return Err(failed(AttachMode::Native, boxed(error)));
            }
            Err(error) => {
                let text = chain(&error);
                warn!(
                    interface = interface.name,
                    why = text,
                    "not in the driver but in the generic hook, which is slower"
                );
                why = Some(text);
            }
        }
    }
    match attach_new(program, pin, ifindex, false) {
        Ok(link) => Ok(done(Attached::Generic { why }, link)),
        Err(error) if is(&error, Errno::EBUSY) || is(&error, Errno::EEXIST) => {
            Err(XdpError::Occupied { interface: interface.name.clone() })
        }
        Err(error) => Err(failed(AttachMode::Generic, boxed(error))),
    }
}

/// What can go wrong between program and interface.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("attaching the program")]
    Program(#[from] ProgramError),
    #[error("the kernel has no links for XDP programs; Linux 5.9 is needed")]
    NoLinks,
    #[error("pinning the link")]
    Pin(#[from] aya::pin::PinError),
}

/// Attaches to an interface without a program, or one that is just losing it: the kernel takes a program off some
/// milliseconds after its link was removed, so that a director started right after another one ended may come too early.
fn attach_new(program: &mut Xdp, pin: &Path, ifindex: u32, native: bool) -> Result<PinnedLink, LinkError> {
    for _ in 0..TRIES {
        match attach_now(program, pin, ifindex, native) {
            Err(error) if is(&error, Errno::EBUSY) || is(&error, Errno::EEXIST) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    attach_now(program, pin, ifindex, native)
}

fn attach_now(program: &mut Xdp, pin: &Path, ifindex: u32, native: bool) -> Result<PinnedLink, LinkError> {
    let mode = if native { XdpMode::Driver } else { XdpMode::Skb };
    let id = program.attach_to_if_index(ifindex, mode)?;
    let link = own(program, id)?;
    Ok(link.pin(pin.join(link_name(ifindex, native)))?)
}

fn own(program: &mut Xdp, id: XdpLinkId) -> Result<FdLink, LinkError> {
    program.take_link(id)?.try_into().map_err(|_| LinkError::NoLinks)
}

/// Puts the program behind an existing link, in place of the one there.
fn replace(program: &mut Xdp, path: &Path) -> Result<PinnedLink, String> {
    let link = PinnedLink::from_pin(path).map_err(|error| chain(&error))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| chain(&error))?;
    let id = program.attach_to_link(link).map_err(|error| chain(&error))?;
    // The program would let go of the link with itself; the pin holds it.
    drop(program.take_link(id).map_err(|error| chain(&error))?);
    PinnedLink::from_pin(path).map_err(|error| chain(&error))
}

fn is(error: &(dyn Error + 'static), errno: Errno) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|io| io.raw_os_error() == Some(errno as i32)) {
            return true;
        }
        next = error.source();
    }
    false
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}
