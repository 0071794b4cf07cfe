//! Builds the frames a recording sent, byte for byte, with the counters its driver kept.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::event::{Body, Packet, PacketEvent, PacketOp};
use super::outcome::{Sighting, To};
use crate::packet::{self, Ip, Transport, eth, filler, server_mac, tcp_flags};

/// A packet that the recording's driver could not have sent either.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("{0:?} is not letters of FSRPAUEC")]
    Flags(String),
    #[error("an ICMP error without inner, inner_last or inner_hex")]
    NothingQuoted,
    #[error("an ICMP error cannot quote the kind {0:?}")]
    Unquotable(PacketOp),
    #[error("frag_order names fragment {index} of {count}")]
    NoSuchFragment { index: usize, count: usize },
    #[error("{src} and {dst} are of different families")]
    Families { src: SocketAddr, dst: SocketAddr },
}

/// The client's, router's and servers' side of a recording: remembers what the frames of one scenario depend on.
#[derive(Clone, Debug, Default)]
pub struct Driver {
    /// Counts IP packets built, quoted ones too.
    ip_id: u16,
    /// Next TCP sequence number from one endpoint to another.
    seqs: HashMap<(SocketAddr, SocketAddr), u32>,
    /// The frame that left the director last for anyone but the router.
    last_out: Vec<u8>,
}

impl Driver {
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a frame that left the director, for errors about "the packet forwarded last".
    pub fn saw(&mut self, frame: &[u8], sighting: &Sighting) {
        if sighting.to != To::Router {
            self.last_out = frame.to_vec();
        }
    }

    /// The frames of an event in the order they are sent, each as often as it is sent.
    pub fn frames(&mut self, event: &PacketEvent) -> Result<Vec<Vec<u8>>, FrameError> {
        let once = match &event.body {
            Body::Raw(frame) => vec![frame.clone()],
            Body::Packet(packet) => self.packet_frames(event, packet)?,
        };
        Ok(once.into_iter().flat_map(|frame| std::iter::repeat_n(frame, event.repeat as usize)).collect())
    }

    fn packet_frames(&mut self, event: &PacketEvent, packet: &Packet) -> Result<Vec<Vec<u8>>, FrameError> {
        // What is listed last takes all that is left, whatever it says.
        let sizes = event.frag.split_last().map_or(&[][..], |(_, sizes)| sizes);
        let all = self.build(event, packet, |packet| packet.fragments(sizes))?;
        let Some(order) = &event.frag_order else { return Ok(all) };
        let count = all.len();
        order
            .iter()
            .map(|&index| all.get(index).cloned().ok_or(FrameError::NoSuchFragment { index, count }))
            .collect()
    }

    /// Builds a packet and hands it over to be made into frames or bytes.
    fn build<R>(
        &mut self,
        event: &PacketEvent,
        packet: &Packet,
        done: impl Fn(&dyn Build) -> R,
    ) -> Result<R, FrameError> {
        let &Packet { src, dst, .. } = packet;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(FrameError::Families { src, dst });
        }
        let v4 = src.is_ipv4();
        let made = match packet.op {
            PacketOp::Udp => self.udp(event, packet),
            PacketOp::IcmpEcho | PacketOp::IcmpEchoReply => {
                let (ident, seq) = (packet.ident.unwrap_or(7), packet.iseq.unwrap_or(1));
                let ip = self.ip(event, packet);
                let echo = match packet.op {
                    PacketOp::IcmpEcho => ip.icmp_echo(ident, seq),
                    _ => ip.icmp_echo_reply(ident, seq),
                };
                Box::new(echo.payload_len(packet.len.unwrap_or(32)))
            }
            PacketOp::IcmpErr => {
                let mut quoted = self.quoted(packet)?;
                quoted.truncate(packet.inner_len.unwrap_or(if v4 { 28 } else { 1232 }));
                let mtu = packet.mtu.unwrap_or(1400);
                let mtu = if v4 { mtu & 0xffff } else { mtu };
                let (kind, code) = (packet.kind.unwrap_or(3), packet.code.unwrap_or(4));
                Box::new(self.ip(event, packet).icmp_error(kind, code, mtu, &quoted))
            }
            PacketOp::Proto => {
                let body = packet.body.as_ref().map_or_else(default_body, |body| body.0.clone());
                Box::new(self.ip(event, packet).protocol(packet.proto.unwrap_or(132), &body))
            }
            _ => self.tcp(event, packet)?,
        };
        Ok(done(made.as_ref()))
    }

    fn udp(&mut self, event: &PacketEvent, packet: &Packet) -> Box<dyn Build> {
        let datagram = self
            .ip(event, packet)
            .udp(packet.src.port(), packet.dst.port())
            .payload_len(packet.len.unwrap_or(10));
        Box::new(match (packet.nocsum, packet.badcsum) {
            (true, _) => datagram.no_checksum(),
            (false, true) => datagram.wrong_checksum(),
            (false, false) => datagram,
        })
    }

    fn tcp(&mut self, event: &PacketEvent, packet: &Packet) -> Result<Box<dyn Build>, FrameError> {
        let letters = match packet.op {
            PacketOp::Syn => "S",
            PacketOp::Synack => "SA",
            PacketOp::Data => "PA",
            PacketOp::Fin => "FA",
            PacketOp::Finonly => "F",
            PacketOp::Rst => "R",
            PacketOp::Rstack => "RA",
            PacketOp::Null => "0",
            PacketOp::Tcp => packet.flags.as_deref().unwrap_or("A"),
            _ => "A",
        };
        let flags = tcp_flags(letters).ok_or_else(|| FrameError::Flags(letters.to_owned()))?;
        let len = packet.len.unwrap_or(if packet.op == PacketOp::Data { 10 } else { 0 });
        let next = self.seqs.entry((packet.src, packet.dst)).or_insert(1000);
        let seq = packet.seq.unwrap_or(*next);
        let (fin, syn, ack) = (flags & 1, flags >> 1 & 1, flags & 0x10 != 0);
        *next = seq.wrapping_add(len as u32).wrapping_add(u32::from(syn + fin));
        let segment = self
            .ip(event, packet)
            .tcp(packet.src.port(), packet.dst.port())
            .flags(letters)
            .seq(seq)
            .ack_number(packet.ack.unwrap_or(if ack { 5001 } else { 0 }))
            .tcp_options(&packet.opts.0)
            .payload(&filler(len));
        Ok(Box::new(if packet.badcsum { segment.wrong_checksum() } else { segment }))
    }

    /// The bytes an ICMP error quotes, before they are cut.
    fn quoted(&mut self, packet: &Packet) -> Result<Vec<u8>, FrameError> {
        if packet.inner_last {
            return Ok(self.last_out.get(14..).unwrap_or_default().to_vec());
        }
        if let Some(bytes) = &packet.inner_hex {
            return Ok(bytes.0.clone());
        }
        let inner = packet.inner.as_deref().ok_or(FrameError::NothingQuoted)?;
        if matches!(inner.op, PacketOp::IcmpEchoReply | PacketOp::Proto) {
            return Err(FrameError::Unquotable(inner.op));
        }
        let whole = PacketEvent::whole(inner.clone());
        self.build(&whole, inner, |packet| packet.ip_bytes())
    }

    /// The network layer; counts the packet.
    fn ip(&mut self, event: &PacketEvent, packet: &Packet) -> Ip {
        self.ip_id = self.ip_id.wrapping_add(1);
        let eth = match event.from {
            Some(server) => eth().from(server_mac(server)),
            None => eth(),
        };
        let mut ip = eth
            .ip(packet.src, packet.dst)
            .ttl(packet.ttl.unwrap_or(64))
            .tos(packet.tos.unwrap_or(0))
            .flow_label(packet.flowlabel);
        if let Some(df) = packet.df {
            ip = ip.df(df);
        }
        if ip.is_v4() {
            // An IPv6 fragment header has the count, whatever `id` says.
            return ip.id(packet.id.unwrap_or(self.ip_id).into()).options(&packet.ipopts.0);
        }
        packet
            .ext
            .iter()
            .fold(ip.id(self.ip_id.into()), |ip, (number, bytes)| ip.extension(*number, &bytes.0))
    }
}

impl PacketEvent {
    /// A packet sent once, whole, by the router.
    pub fn whole(packet: Packet) -> Self {
        Self {
            body: Body::Packet(Box::new(packet)),
            from: None,
            frag: Vec::new(),
            frag_order: None,
            repeat: 1,
            wait: None,
            hex: None,
        }
    }
}

/// An SCTP header from port 80 to port 80.
fn default_body() -> Vec<u8> {
    [&[0, 80, 0, 80], [0; 12].as_slice()].concat()
}

/// A packet of any transport.
trait Build {
    fn fragments(&self, sizes: &[usize]) -> Vec<Vec<u8>>;
    fn ip_bytes(&self) -> Vec<u8>;
}

impl<T: Transport> Build for packet::Packet<T> {
    fn fragments(&self, sizes: &[usize]) -> Vec<Vec<u8>> {
        packet::Packet::fragments(self, sizes)
    }

    fn ip_bytes(&self) -> Vec<u8> {
        packet::Packet::ip_bytes(self)
    }
}
