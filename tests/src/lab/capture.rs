//! Raw frames of an interface: sent, received, and recorded.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc::{self, tpacket_auxdata, tpacket_stats};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    setsockopt, socket,
};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

use super::LabError;
use crate::netns::Namespace;

sockopt_impl!(
    /// Asks for a `tpacket_auxdata` with every frame.
    PacketAuxData, SetOnly, libc::SOL_PACKET, libc::PACKET_AUXDATA, bool
);
sockopt_impl!(
    /// Frames delivered, and frames lost for want of buffer, since the last call.
    PacketStatistics, GetOnly, libc::SOL_PACKET, libc::PACKET_STATISTICS, tpacket_stats
);

/// Receive buffer of a raw socket, bytes: some thousand frames.
const BUFFER: usize = 16 << 20;
/// Most frames a [`Capture`] keeps.
const MAX_FRAMES: usize = 200_000;
const ETH_P_8021Q: u16 = 0x8100;
const AUXDATA_LEN: usize = size_of::<tpacket_auxdata>();

/// Which way a frame passed the interface, seen from its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Received,
    Sent,
}

/// An Ethernet frame as on the wire, 802.1Q tag included, without FCS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub direction: Direction,
    pub bytes: Vec<u8>,
}

impl Frame {
    /// VLAN id of an 802.1Q tag.
    pub fn vlan(&self) -> Option<u16> {
        match *self.bytes.get(12..16)? {
            [0x81, 0x00, high, low] => Some(u16::from_be_bytes([high, low]) & 0xfff),
            _ => None,
        }
    }

    /// The same frame with its tag replaced, added or taken away.
    pub fn with_vlan(&self, vlan: Option<u16>) -> Frame {
        let mut bytes = self.bytes.clone();
        if self.vlan().is_some() {
            bytes.drain(12..16);
        }
        if let Some(vlan) = vlan {
            tag(&mut bytes, vlan);
        }
        Frame { direction: self.direction, bytes }
    }

    /// Outermost IP source and destination; `None` for anything but IP.
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match SlicedPacket::from_ethernet(&self.bytes).ok()?.net? {
            NetSlice::Ipv4(ip) => {
                Some((ip.header().source_addr().into(), ip.header().destination_addr().into()))
            }
            NetSlice::Ipv6(ip) => {
                Some((ip.header().source_addr().into(), ip.header().destination_addr().into()))
            }
            NetSlice::Arp(_) => None,
        }
    }
}

fn tag(bytes: &mut Vec<u8>, tci: u16) {
    let tag = ETH_P_8021Q.to_be_bytes().into_iter().chain(tci.to_be_bytes());
    bytes.splice(12..12, tag);
}

/// A raw socket on one interface.
#[derive(Debug)]
pub struct RawLink {
    socket: OwnedFd,
}

impl RawLink {
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self, LabError> {
        namespace.run(|| open(interface))?.map_err(|source| LabError::RawLink {
            namespace: namespace.name().to_owned(),
            interface: interface.to_owned(),
            source,
        })
    }

    /// Sends a whole Ethernet frame, without FCS.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        Ok(nix::sys::socket::send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)?)
    }

    /// Next frame, waiting up to `wait` for one.
    pub fn receive(&self, wait: Duration) -> io::Result<Option<Frame>> {
        match self.next()? {
            None if readable(&[self.as_fd()], wait)?.contains(&true) => self.next(),
            frame => Ok(frame),
        }
    }

    /// Next frame that is there already.
    pub(crate) fn next(&self) -> io::Result<Option<Frame>> {
        let mut bytes = vec![0; usize::from(u16::MAX) + 1];
        let mut aux = nix::cmsg_space!([u8; AUXDATA_LEN]);
        let (length, direction, tci) = {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let fd = self.socket.as_raw_fd();
            let received = match recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut aux), MsgFlags::empty()) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let outgoing =
                received.address.is_some_and(|address| address.as_ref().sll_pkttype == libc::PACKET_OUTGOING);
            let direction = if outgoing { Direction::Sent } else { Direction::Received };
            let tci = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Unknown(message) => stripped_tag(&message.data_bytes),
                _ => None,
            });
            (received.bytes, direction, tci)
        };
        bytes.truncate(length);
        if let Some(tci) = tci {
            tag(&mut bytes, tci);
        }
        Ok(Some(Frame { direction, bytes }))
    }

    /// Frames lost since the last call because nobody received them in time.
    pub fn lost(&self) -> io::Result<u32> {
        Ok(nix::sys::socket::getsockopt(&self.socket, PacketStatistics)?.tp_drops)
    }
}

impl AsFd for RawLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(interface: &str) -> io::Result<RawLink> {
    let address = getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or(io::ErrorKind::NotFound)?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    bind(socket.as_raw_fd(), &address)?;
    setsockopt(&socket, PacketAuxData, &true)?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    let link = RawLink { socket };
    // Between socket and bind it heard every interface.
    while link.next()?.is_some() {}
    Ok(link)
}

/// The tag control information of a tag the kernel took out of a received frame: `tpacket_auxdata` is status, lengths
/// and offsets in 16 bytes, then `tp_vlan_tci`, all in host order.
fn stripped_tag(auxdata: &[u8]) -> Option<u16> {
    let status = u32::from_ne_bytes(auxdata.get(..4)?.try_into().ok()?);
    let tci = u16::from_ne_bytes(auxdata.get(16..18)?.try_into().ok()?);
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tci)
}

/// Which of the descriptors have something to read, waiting up to `wait` for the first.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], wait: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut polled, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
        Ok(_) => Ok(polled.iter().map(|fd| fd.any().unwrap_or(false)).collect()),
        Err(Errno::EINTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

/// Records what passes an interface, from [`Capture::start`] to [`Capture::finish`].
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<io::Result<Vec<Frame>>>>,
}

impl Capture {
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self, LabError> {
        let link = RawLink::open(namespace, interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || record(&link, &stopped)));
        Ok(Capture { stop, thread })
    }

    /// Everything recorded, in order.
    ///
    /// # Panics
    /// When the record is incomplete: frames were lost, or there were more than 200,000.
    pub fn finish(mut self) -> Vec<Frame> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken here alone");
        thread.join().expect("recording does not panic").expect("the record is complete")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn record(link: &RawLink, stop: &AtomicBool) -> io::Result<Vec<Frame>> {
    let mut frames = Vec::new();
    loop {
        // Read before the drain below: what arrived before the stop is recorded.
        let last = stop.load(Ordering::Relaxed);
        readable(&[link.as_fd()], if last { Duration::ZERO } else { Duration::from_millis(20) })?;
        while let Some(frame) = link.next()? {
            if frames.len() == MAX_FRAMES {
                return Err(io::Error::other(format!("more than {MAX_FRAMES} frames")));
            }
            frames.push(frame);
        }
        if last {
            return match link.lost()? {
                0 => Ok(frames),
                lost => Err(io::Error::other(format!("{lost} frames lost"))),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Frame};

    #[test]
    fn a_tag_is_added_replaced_and_taken_away() {
        let plain = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
        let frame =
            |tail: &[u8]| Frame { direction: Direction::Received, bytes: [&plain[..], tail].concat() };
        let untagged = frame(&[0x08, 0x00, 0x45]);
        let in_10 = frame(&[0x81, 0x00, 0x00, 0x0a, 0x08, 0x00, 0x45]);
        let in_300 = frame(&[0x81, 0x00, 0x01, 0x2c, 0x08, 0x00, 0x45]);
        for (what, from, vlan, to) in [
            ("added", &untagged, Some(10), &in_10),
            ("replaced", &in_10, Some(300), &in_300),
            ("taken away", &in_300, None, &untagged),
            ("absent", &untagged, None, &untagged),
        ] {
            let changed = from.with_vlan(vlan);
            assert_eq!((&changed, changed.vlan()), (to, vlan), "{what}");
        }
    }
}
