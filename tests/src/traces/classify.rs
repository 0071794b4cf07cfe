//! Says of a frame that left the director where it went and how it was wrapped, by the rules the recordings were
//! made with, so that another director's frames can be put in a trace's words.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::outcome::{Sighting, To, Via};
use super::scenario::{Method, Server};
use crate::packet::{Mac, ROUTER_MAC, server_mac};

/// The hosts on the segment, as far as the scenario has named them.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    hosts: HashMap<Mac, IpAddr>,
    known: HashSet<IpAddr>,
    gue: HashSet<IpAddr>,
}

impl Segment {
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns of a server: at the start those of the scenario's services and of its `add` events, later those an
    /// event names. UDP to a server that was ever said to take GUE counts as GUE.
    pub fn know(&mut self, server: &Server) {
        if server.method == Some(Method::Gue) {
            self.gue.insert(server.rip);
        }
        self.know_neighbour(server.rip);
    }

    /// Learns of a host that is no server. Of two with one MAC, the one learned of last has it.
    pub fn know_neighbour(&mut self, address: IpAddr) {
        if self.known.insert(address) {
            self.hosts.insert(server_mac(address), address);
        }
    }

    /// Where `frame` went, and as what, when it was the answer to the frame `sent`. None for what the recordings
    /// do not count: broadcast, multicast, ARP, and what is too short to be a frame.
    pub fn classify(&self, frame: &[u8], sent: &[u8]) -> Option<Sighting> {
        let (header, packet) = frame.split_at_checked(14)?;
        let mac = Mac::try_from(&header[..6]).expect("six bytes");
        let ether_type = u16::from_be_bytes([header[12], header[13]]);
        if mac[0] & 1 != 0 || ether_type == 0x0806 {
            return None;
        }
        let to = match self.hosts.get(&mac) {
            _ if mac == ROUTER_MAC => To::Router,
            Some(&rip) => To::Server(rip),
            None => To::Unknown(mac),
        };
        let via = match Outer::parse(ether_type, packet) {
            None => Via::EtherType(ether_type),
            Some(outer) if to == To::Router => outer.to_router(),
            Some(outer) => self.to_server(&outer, to, sent),
        };
        Some(Sighting { to, via })
    }

    fn to_server(&self, outer: &Outer<'_>, to: To, sent: &[u8]) -> Via {
        if Some(outer.dst) == destination(sent) {
            return Via::Dr;
        }
        match outer.protocol {
            4 | 41 => Via::Ipip,
            47 => Via::Gre,
            17 if matches!(to, To::Server(rip) if self.gue.contains(&rip)) => Via::Gue,
            44 => Via::Fragment,
            6 | 17 => Via::Nat(outer.dst, outer.port(2)),
            1 | 58 => Via::IcmpTo { kind: outer.byte(0), code: outer.byte(1), to: outer.dst },
            number => Via::Protocol(number),
        }
    }
}

/// The outermost IP header of a packet, and what follows it.
struct Outer<'a> {
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
    l4: &'a [u8],
}

impl<'a> Outer<'a> {
    fn parse(ether_type: u16, packet: &'a [u8]) -> Option<Self> {
        let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes"));
        let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen bytes"));
        match ether_type {
            0x0800 if packet.len() >= 20 => {
                let header = usize::from(packet[0] & 15) * 4;
                let l4 = &packet[header.min(packet.len())..];
                Some(Self { protocol: packet[9], src: v4(12), dst: v4(16), l4 })
            }
            0x86dd if packet.len() >= 40 => {
                Some(Self { protocol: packet[6], src: v6(8), dst: v6(24), l4: &packet[40..] })
            }
            _ => None,
        }
    }

    fn to_router(&self) -> Via {
        let from = (self.src, self.port(0));
        let to = (self.dst, self.port(2));
        match self.protocol {
            1 | 58 if self.l4.len() >= 8 => {
                let v6 = self.protocol == 58;
                Via::Icmp { v6, kind: self.byte(0), code: self.byte(1), from: self.src }
            }
            6 if self.l4.len() >= 20 => Via::Tcp { flags: self.byte(13), from, to },
            17 if self.l4.len() >= 8 => Via::Udp { from, to },
            number => Via::Protocol(number),
        }
    }

    /// A byte after the IP header; 0 where the packet ends.
    fn byte(&self, at: usize) -> u8 {
        self.l4.get(at).copied().unwrap_or(0)
    }

    fn port(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.byte(at), self.byte(at + 1)])
    }
}

/// The IP destination of a frame that was sent: untagged, as the recordings send them.
fn destination(sent: &[u8]) -> Option<IpAddr> {
    let ether_type = u16::from_be_bytes([*sent.get(12)?, *sent.get(13)?]);
    Outer::parse(ether_type, &sent[14..]).map(|outer| outer.dst)
}
