//! Tunnelled packets as a real server should receive them. Addresses, TTL, TOS, DF and identification of the
//! outer header are the caller's to say: they are what a test is about.

use etherparse::checksum::Sum16BitWords;

use super::{Ip, Other, Packet, Udp};

impl Ip {
    /// IP in IP: `inner` is a whole IP packet of either family.
    pub fn ipip(self, inner: &[u8]) -> Packet<Other> {
        self.protocol(ip_in_ip(inner), inner)
    }

    /// GRE (RFC 2784), with its checksum if asked for. `inner` is a whole IP packet of either family.
    pub fn gre(self, inner: &[u8], checksum: bool) -> Packet<Other> {
        let ether_type: u16 = if ip_in_ip(inner) == 4 { 0x0800 } else { 0x86dd };
        let mut body = vec![if checksum { 0x80 } else { 0 }, 0];
        body.extend(ether_type.to_be_bytes());
        if checksum {
            body.extend([0; 4]);
        }
        body.extend(inner);
        if checksum {
            let sum = Sum16BitWords::new().add_slice(&body).ones_complement();
            // The sum is kept in the order of the bytes summed, whatever the machine's.
            body[4..6].copy_from_slice(&sum.to_ne_bytes());
        }
        self.protocol(47, &body)
    }

    /// GUE variant 0 without optional fields, in UDP with a checksum; see [`Packet::no_checksum`]. `inner` is a
    /// whole IP packet of either family.
    pub fn gue(self, sport: u16, dport: u16, inner: &[u8]) -> Packet<Udp> {
        let header = [0, ip_in_ip(inner), 0, 0];
        self.udp(sport, dport).payload(&[&header, inner].concat())
    }
}

/// The protocol number under which a tunnel carries this packet.
fn ip_in_ip(inner: &[u8]) -> u8 {
    match inner.first().map(|first| first >> 4) {
        Some(4) => 4,
        Some(6) => 41,
        _ => panic!("the inner packet is neither IPv4 nor IPv6"),
    }
}
