//! Links: veth pairs that behave like cables between NICs without offloads, fit for native XDP.

use std::process::Command;

use super::xdp::{self, Verdict};
use super::{LabError, Mac};
use crate::netns::Namespace;

/// Offloads of every veth end in a lab, all off.
///
/// * `tx` (takes `sg`, `tso` and UDP segmentation with it): a veth otherwise hands over frames whose TCP or UDP
///   checksum is still to be completed. XDP works on bytes, so such a frame, sent on by XDP_TX or a redirect, reaches
///   the real server with a wrong checksum and is dropped there. With it on, an XDP program would also meet
///   super-packets of up to 64 KB, as no NIC delivers. What counts is the end that sends into the director;
///   it is off everywhere so that captures show frames as a wire would carry them.
/// * `gro`: merges frames into super-packets on their way out of the director again.
/// * `rxvlan`, `txvlan`: keep 802.1Q tags out of the bytes, where an XDP program looks for them.
const OFFLOADS: [&str; 5] = ["tx", "tso", "gro", "rxvlan", "txvlan"];

/// MTU of Ethernet, bytes.
pub(crate) const ETHERNET_MTU: u32 = 1500;

/// One end of a veth pair to be.
pub(crate) struct End<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) interface: &'a str,
    /// `None`: the kernel chooses.
    pub(crate) mac: Option<Mac>,
}

/// Makes a veth pair of the given MTU, up at both ends.
pub(crate) fn connect(a: &End<'_>, b: &End<'_>, mtu: u32) -> Result<(), LabError> {
    connect_wide(a, b, mtu, 1)
}

/// Makes a veth pair with so many queues. A frame stays on the CPU that sent it if there are as many as CPUs.
pub(crate) fn connect_wide(a: &End<'_>, b: &End<'_>, mtu: u32, queues: usize) -> Result<(), LabError> {
    let address = |end: &End<'_>| end.mac.map(|mac| format!("address {mac}")).unwrap_or_default();
    let wide = format!("numtxqueues {queues} numrxqueues {queues}");
    a.namespace.ip([format!(
        "link add {} {} mtu {mtu} {wide} type veth peer name {} {} mtu {mtu} {wide} netns {}",
        a.interface,
        address(a),
        b.interface,
        address(b),
        b.namespace.name(),
    )])?;
    for End { namespace, interface, .. } in [a, b] {
        let off = OFFLOADS.iter().flat_map(|offload| [offload, "off"]);
        namespace.output(Command::new("ethtool").args(["-K", interface]).args(off))?;
        namespace.ip([format!("link set {interface} up")])?;
    }
    Ok(())
}

/// Makes a veth pair whose end `nic` is for an XDP program that sends frames, by XDP_TX or a redirect.
///
/// A veth takes such frames only if the *other* end runs NAPI. GRO starts NAPI too, and is enough for redirected frames,
/// but frames of XDP_TX then wait in the ring until something else wakes it, and are lost once it is full: the kernel
/// (6.18) wakes the other end only if that has an XDP program. So it gets one, that passes everything.
pub(crate) fn connect_director(nic: &End<'_>, port: &End<'_>, mtu: u32) -> Result<(), LabError> {
    connect(nic, port, mtu)?;
    xdp::attach(port.namespace, port.interface, Verdict::Pass)
}

/// Index of an interface in its namespace.
pub fn index(namespace: &Namespace, interface: &str) -> Result<u32, LabError> {
    let output = namespace.output(Command::new("ip").args(["-j", "link", "show", "dev", interface]))?;
    serde_json::from_str(&output)
        .ok()
        .and_then(|json: serde_json::Value| u32::try_from(json[0]["ifindex"].as_u64()?).ok())
        .ok_or(LabError::Counters { interface: interface.to_owned(), output })
}

/// Frames an interface has passed, XDP's included, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCounters {
    pub rx_packets: u64,
    pub tx_packets: u64,
}

/// Reads the counters of an interface.
pub fn counters(namespace: &Namespace, interface: &str) -> Result<LinkCounters, LabError> {
    let output = namespace.output(Command::new("ip").args(["-s", "-j", "link", "show", "dev", interface]))?;
    let field = |json: &serde_json::Value, direction: &str| json[0]["stats64"][direction]["packets"].as_u64();
    serde_json::from_str(&output)
        .ok()
        .and_then(|json: serde_json::Value| {
            Some(LinkCounters { rx_packets: field(&json, "rx")?, tx_packets: field(&json, "tx")? })
        })
        .ok_or(LabError::Counters { interface: interface.to_owned(), output })
}
