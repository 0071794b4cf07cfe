//! The folder on a bpffs.

use super::XdpError;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// Where the kernel offers a mount point for a bpffs.
pub(super) const DEFAULT: &str = "/sys/fs/bpf";

/// The folder, locked; the kernel lets go of the lock when the process ends, however it ends.
///
/// Dropped before the program is attached anywhere, it takes what was pinned with it: a start that failed leaves
/// nothing behind.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
    pub(super) keep: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        let is_link = |name: &String| name.starts_with(super::attach::LINK);
        let in_use = self.keep || pinned(&self.path).is_ok_and(|names| names.iter().any(is_link));
        if !in_use && let Err(error) = remove_all(&self.path) {
            warn!(error = &error as &dyn std::error::Error, "what was pinned could not be removed");
        }
    }
}

/// Sees to it that the folder exists, on a bpffs, and locks it.
pub(super) fn prepare(pin: &Path) -> Result<Folder, XdpError> {
    let existing = pin.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if !is_bpffs(existing)? {
        if !pin.starts_with(DEFAULT) {
            return Err(XdpError::NotBpffs { pin: pin.to_owned() });
        }
        mount_default()?;
    }
    fs::create_dir_all(pin).map_err(|source| folder("creating", pin, source))?;
    let file = File::open(pin).map_err(|source| folder("opening", pin, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Folder { path: pin.to_owned(), _lock: file, keep: false }),
        Err(TryLockError::WouldBlock) => Err(XdpError::Running { pin: pin.to_owned() }),
        Err(TryLockError::Error(source)) => Err(folder("locking", pin, source)),
    }
}

fn folder(what: &'static str, path: &Path, source: io::Error) -> XdpError {
    if source.kind() == io::ErrorKind::PermissionDenied {
        return XdpError::Privilege { what: format!("{what} {}", path.display()), source: Box::new(source) };
    }
    XdpError::Folder { what, path: path.to_owned(), source }
}

fn is_bpffs(path: &Path) -> Result<bool, XdpError> {
    let about = statfs(path).map_err(|errno| folder("looking at", path, errno.into()))?;
    Ok(about.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_default() -> Result<(), XdpError> {
    let none: Option<&str> = None;
    match mount(Some("bpf"), DEFAULT, Some("bpf"), MsFlags::empty(), none) {
        Ok(()) => {
            info!(at = DEFAULT, "mounted a bpffs");
            Ok(())
        }
        Err(nix::errno::Errno::EPERM) => Err(XdpError::Privilege {
            what: format!("mounting a bpffs on {DEFAULT}"),
            source: Box::new(io::Error::from(nix::errno::Errno::EPERM)),
        }),
        Err(errno) => Err(XdpError::Mount { at: PathBuf::from(DEFAULT), source: errno.into() }),
    }
}

/// Names of what is pinned in the folder.
pub(super) fn pinned(pin: &Path) -> Result<Vec<String>, XdpError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(pin)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(|source| folder("listing", pin, source))
}

/// Removes one pin; that it is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), XdpError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(folder("removing", path, source)),
        _ => Ok(()),
    }
}

/// Removes all pins and the folder: links first, so that no packet meets a program without its maps' owner.
pub(super) fn remove_all(pin: &Path) -> Result<(), XdpError> {
    let mut names = pinned(pin)?;
    names.sort_by_key(|name| !name.starts_with(super::attach::LINK));
    for name in names {
        remove(&pin.join(name))?;
    }
    fs::remove_dir(pin).map_err(|source| folder("removing", pin, source))
}
