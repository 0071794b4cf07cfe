//! An 802.1Q trunk: one tagged link to the director, untagged access links into the segments.
//!
//! Done in userspace over raw sockets, so that the lab needs neither VLAN devices nor a VLAN-filtering bridge of the
//! kernel (CONFIG_VLAN_8021Q, which minimal kernels are built without).

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::LabError;
use super::capture::{Direction, RawLink, readable};
use crate::netns::Namespace;

/// How often the thread looks whether it should stop.
const TICK: Duration = Duration::from_millis(50);

/// Carries frames between a tagged interface and untagged ones until dropped.
#[derive(Debug)]
pub(crate) struct Trunk {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Trunk {
    /// `access` are pairs of VLAN id and interface; all interfaces are in `namespace`.
    pub(crate) fn start(
        namespace: &Namespace,
        tagged: &str,
        access: &[(u16, String)],
    ) -> Result<Self, LabError> {
        let tagged = RawLink::open(namespace, tagged)?;
        let access = access
            .iter()
            .map(|(vlan, interface)| Ok((*vlan, RawLink::open(namespace, interface)?)))
            .collect::<Result<Vec<_>, LabError>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = carry(&tagged, &access) {
                    tracing::warn!(%error, "the trunk lost a frame");
                }
            }
        });
        Ok(Trunk { stop, thread: Some(thread) })
    }
}

/// Waits for frames and carries all there are. Frames of unknown VLANs, and untagged ones on the trunk, go nowhere, as
/// on a switch.
fn carry(tagged: &RawLink, access: &[(u16, RawLink)]) -> io::Result<()> {
    let fds: Vec<_> =
        std::iter::once(tagged.as_fd()).chain(access.iter().map(|(_, link)| link.as_fd())).collect();
    readable(&fds, TICK)?;
    while let Some(frame) = tagged.next()? {
        if frame.direction == Direction::Received
            && let Some((_, link)) = access.iter().find(|(vlan, _)| frame.vlan() == Some(*vlan))
        {
            link.send(&frame.with_vlan(None).bytes)?;
        }
    }
    for (vlan, link) in access {
        while let Some(frame) = link.next()? {
            if frame.direction == Direction::Received {
                tagged.send(&frame.with_vlan(Some(*vlan)).bytes)?;
            }
        }
    }
    Ok(())
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
