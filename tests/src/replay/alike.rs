//! Whether two things are alike, and what kind of packet one is.

use lb_common::flow::FlowKey;
use lb_common::net::{Addr, proto};

use super::played::Wrong;
use crate::traces::compare;
use crate::traces::event::{Body, Packet, PacketEvent, PacketOp};
use crate::traces::outcome::{Sighting, To, Via};

pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, got: &T) -> Result<(), Wrong> {
    if wanted == got {
        return Ok(());
    }
    Err(Wrong::Different(format!("{what}: expected {wanted:?}, got {got:?}")))
}

pub(super) fn same_sightings(wanted: &[Sighting], got: &[(Sighting, Vec<u8>)]) -> Result<(), Wrong> {
    let got: Vec<Sighting> = got.iter().map(|(sighting, _)| sighting.clone()).collect();
    if wanted == got {
        return Ok(());
    }
    Err(Wrong::Different(format!("expected {}, got {}", shown(wanted), shown(&got))))
}

/// Bytes of an IPIP packet that IPVS needs to see quoted: two headers and the ports.
pub(super) const IPIP_QUOTE: usize = 20 + 20 + 8;

/// An error about one of the director's tunnel packets that reports an MTU.
pub(super) fn reports_mtu(event: &PacketEvent) -> bool {
    let Body::Packet(packet) = &event.body else { return false };
    packet.op == PacketOp::IcmpErr
        && packet.inner_last
        && (packet.kind.unwrap_or(3), packet.code.unwrap_or(4)) == (3, 4)
}

/// Bytes of a frame in front of what an ICMP error quotes.
pub(super) const HEAD: usize = 14 + 20 + 8;

/// The first bytes of an ICMP error with zeros for the MTU it reports and its checksum.
pub(super) fn without_mtu(frame: &[u8], shown: usize) -> Vec<u8> {
    let mut frame = frame[..shown.min(frame.len())].to_vec();
    for field in [36..38, 40..42] {
        if let Some(bytes) = frame.get_mut(field) {
            bytes.fill(0);
        }
    }
    frame
}

/// Whether a packet asks for a strict or loose source route with its first option.
pub(super) fn has_source_route(event: &PacketEvent) -> bool {
    let Body::Packet(packet) = &event.body else { return false };
    matches!(packet.ipopts.0.first(), Some(131 | 137))
}

pub(super) fn is_sent_to_server(got: &[(Sighting, Vec<u8>)]) -> bool {
    got.iter().all(|(sighting, _)| matches!(sighting.to, To::Server(_)))
}

pub(super) fn is_too_big(got: &[(Sighting, Vec<u8>)]) -> bool {
    let too_big = |via: &Via| matches!(via, Via::Icmp { v6: false, kind: 3, code: 4, .. });
    matches!(got, [(sighting, _)] if sighting.to == To::Router && too_big(&sighting.via))
}

/// Whether the kernel sent a packet on in fragments that the director answered with "fragmentation needed".
pub(super) fn is_refused(wanted: &[Sighting], got: &[(Sighting, Vec<u8>)]) -> bool {
    let to_server = |sighting: &Sighting| matches!(sighting.to, To::Server(_));
    wanted.len() > 1 && wanted.iter().all(to_server) && is_too_big(got)
}

pub(super) fn same_frame(wanted: &[u8], got: &[u8], via: &Via) -> Result<(), Wrong> {
    let (wanted, got) = (compare::masked(wanted, via), compare::masked(got, via));
    if wanted == got {
        return Ok(());
    }
    let at = wanted.iter().zip(&got).position(|(a, b)| a != b).unwrap_or(wanted.len().min(got.len()));
    let near = |frame: &[u8]| {
        let bytes = &frame[at.saturating_sub(4).min(frame.len())..(at + 12).min(frame.len())];
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    Err(Wrong::Different(format!(
        "{via}: from byte {at} on, of {} expected ..{}.., got of {} ..{}..",
        wanted.len(),
        near(&wanted),
        got.len(),
        near(&got)
    )))
}

pub(super) fn shown(all: &[Sighting]) -> String {
    match all {
        [] => "nothing".to_owned(),
        all => all.iter().map(|one| format!("{} {}", one.to, one.via)).collect::<Vec<_>>().join(", "),
    }
}

/// The flow a packet belongs to.
pub(super) fn flow_key(event: &PacketEvent) -> Option<FlowKey> {
    let Body::Packet(packet) = &event.body else { return None };
    let Packet { op, src, dst, .. } = **packet;
    let protocol = match op {
        PacketOp::Udp => proto::UDP,
        PacketOp::IcmpEcho | PacketOp::IcmpEchoReply | PacketOp::IcmpErr | PacketOp::Proto => return None,
        _ => proto::TCP,
    };
    Some(FlowKey {
        client: Addr::from(src.ip()),
        vip: Addr::from(dst.ip()),
        ports: FlowKey::ports(src.port().to_be(), dst.port().to_be()),
        protocol: protocol.into(),
    })
}
