//! The transports: TCP, UDP, ICMP of both families, and anything else as bytes.

use std::net::IpAddr;

use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, TcpHeader, UdpHeader};

use super::{Ip, Packet, Transport};

/// Bits flipped in a checksum that is to be wrong.
const WRONG: u16 = 0x5555;

/// `len` bytes of payload: a to z, over and over.
pub fn filler(len: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(len).collect()
}

impl Ip {
    /// TCP without flags, sequence number 1000, window 64240, no payload.
    pub fn tcp(self, sport: u16, dport: u16) -> Packet<Tcp> {
        let header = TcpHeader::new(sport, dport, 1000, 64240);
        self.with(Tcp { header, payload: Vec::new(), wrong: false })
    }

    /// UDP without payload.
    pub fn udp(self, sport: u16, dport: u16) -> Packet<Udp> {
        self.with(Udp { sport, dport, payload: Vec::new(), checksum: UdpChecksum::Right })
    }

    /// An echo request of the packet's family without data.
    pub fn icmp_echo(self, ident: u16, seq: u16) -> Packet<Icmp> {
        let kind = if self.is_v4() { 8 } else { 128 };
        self.icmp(kind, 0, u32::from(ident) << 16 | u32::from(seq))
    }

    /// An echo reply of the packet's family without data.
    pub fn icmp_echo_reply(self, ident: u16, seq: u16) -> Packet<Icmp> {
        let kind = if self.is_v4() { 0 } else { 129 };
        self.icmp(kind, 0, u32::from(ident) << 16 | u32::from(seq))
    }

    /// An ICMP error that quotes a packet. `rest` is the header's second word, host order: the MTU of "too big".
    pub fn icmp_error(self, kind: u8, code: u8, rest: u32, quoted: &[u8]) -> Packet<Icmp> {
        self.icmp(kind, code, rest).payload(quoted)
    }

    /// ICMP, or ICMPv6 in an IPv6 packet, without body. `rest` is the header's second word, host order.
    pub fn icmp(self, kind: u8, code: u8, rest: u32) -> Packet<Icmp> {
        self.with(Icmp { kind, code, rest, body: Vec::new() })
    }

    /// Any other protocol.
    pub fn protocol(self, number: u8, body: &[u8]) -> Packet<Other> {
        self.with(Other { number, body: body.to_vec() })
    }
}

/// A TCP segment.
#[derive(Clone, Debug)]
pub struct Tcp {
    header: TcpHeader,
    payload: Vec<u8>,
    wrong: bool,
}

/// The flag bits of a TCP header from their letters: `FSRPAUEC`, and `0` for none.
pub fn tcp_flags(letters: &str) -> Option<u8> {
    letters.chars().try_fold(0, |flags, letter| match letter {
        '0' => Some(flags),
        letter => "FSRPAUEC".find(letter).map(|bit| flags | 1 << bit),
    })
}

impl Packet<Tcp> {
    /// Sets exactly the flags with these letters of `FSRPAUEC`.
    pub fn flags(mut self, letters: &str) -> Self {
        let flags =
            tcp_flags(letters).unwrap_or_else(|| panic!("TCP flags {letters:?}: letters are FSRPAUEC"));
        let header = &mut self.l4.header;
        let set = |bit: u8| flags & 1 << bit != 0;
        (header.fin, header.syn, header.rst, header.psh) = (set(0), set(1), set(2), set(3));
        (header.ack, header.urg, header.ece, header.cwr) = (set(4), set(5), set(6), set(7));
        self
    }

    pub fn syn(mut self) -> Self {
        self.l4.header.syn = true;
        self
    }

    pub fn fin(mut self) -> Self {
        self.l4.header.fin = true;
        self
    }

    pub fn rst(mut self) -> Self {
        self.l4.header.rst = true;
        self
    }

    pub fn psh(mut self) -> Self {
        self.l4.header.psh = true;
        self
    }

    /// Sets the ACK flag and the number acknowledged.
    pub fn ack(mut self, number: u32) -> Self {
        self.l4.header.ack = true;
        self.ack_number(number)
    }

    /// Sets the number acknowledged, whatever the flag.
    pub fn ack_number(mut self, number: u32) -> Self {
        self.l4.header.acknowledgment_number = number;
        self
    }

    pub fn seq(mut self, number: u32) -> Self {
        self.l4.header.sequence_number = number;
        self
    }

    pub fn window(mut self, window: u16) -> Self {
        self.l4.header.window_size = window;
        self
    }

    /// TCP options as on the wire: up to 40 bytes, a multiple of 4.
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        assert!(options.len().is_multiple_of(4), "TCP options: 4n bytes");
        self.l4.header.set_options_raw(options).expect("TCP options: at most 40 bytes");
        self
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.l4.payload = payload.to_vec();
        self
    }

    /// A payload of this many bytes of [`filler`].
    pub fn payload_len(self, len: usize) -> Self {
        self.payload(&filler(len))
    }

    pub fn wrong_checksum(mut self) -> Self {
        self.l4.wrong = true;
        self
    }
}

impl Transport for Tcp {
    fn protocol(&self, _: bool) -> u8 {
        6
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let mut header = self.header.clone();
        let sum = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &self.payload)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), &self.payload)
            }
            _ => unreachable!("families were compared when the packet was started"),
        };
        header.checksum = sum.expect("a TCP segment fits an IP packet");
        if self.wrong {
            header.checksum ^= WRONG;
        }
        [&header.to_bytes(), self.payload.as_slice()].concat()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum UdpChecksum {
    Right,
    Wrong,
    None,
}

/// A UDP datagram.
#[derive(Clone, Debug)]
pub struct Udp {
    sport: u16,
    dport: u16,
    payload: Vec<u8>,
    checksum: UdpChecksum,
}

impl Packet<Udp> {
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.l4.payload = payload.to_vec();
        self
    }

    /// A payload of this many bytes of [`filler`].
    pub fn payload_len(self, len: usize) -> Self {
        self.payload(&filler(len))
    }

    pub fn wrong_checksum(mut self) -> Self {
        self.l4.checksum = UdpChecksum::Wrong;
        self
    }

    /// A checksum field of 0: the sender computed none.
    pub fn no_checksum(mut self) -> Self {
        self.l4.checksum = UdpChecksum::None;
        self
    }
}

impl Transport for Udp {
    fn protocol(&self, _: bool) -> u8 {
        17
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let length = u16::try_from(8 + self.payload.len()).expect("a UDP datagram is at most 65535 bytes");
        let mut header =
            UdpHeader { source_port: self.sport, destination_port: self.dport, length, checksum: 0 };
        if self.checksum != UdpChecksum::None {
            let sum = match (src, dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &self.payload)
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), &self.payload)
                }
                _ => unreachable!("families were compared when the packet was started"),
            };
            header.checksum = sum.expect("the length was just checked");
        }
        if self.checksum == UdpChecksum::Wrong {
            header.checksum ^= WRONG;
        }
        [header.to_bytes().as_slice(), &self.payload].concat()
    }
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug)]
pub struct Icmp {
    kind: u8,
    code: u8,
    rest: u32,
    body: Vec<u8>,
}

impl Packet<Icmp> {
    pub fn payload(mut self, body: &[u8]) -> Self {
        self.l4.body = body.to_vec();
        self
    }

    /// A body of this many bytes of [`filler`].
    pub fn payload_len(self, len: usize) -> Self {
        self.payload(&filler(len))
    }
}

impl Transport for Icmp {
    fn protocol(&self, v4: bool) -> u8 {
        if v4 { 1 } else { 58 }
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let (type_u8, code_u8, bytes5to8) = (self.kind, self.code, self.rest.to_be_bytes());
        let header = match (src, dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
                Icmpv4Header::with_checksum(kind, &self.body).to_bytes().to_vec()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 };
                let header = Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), &self.body);
                header.expect("an ICMPv6 message fits an IPv6 packet").to_bytes().to_vec()
            }
            _ => unreachable!("families were compared when the packet was started"),
        };
        [header, self.body.clone()].concat()
    }
}

/// Bytes under a protocol number.
#[derive(Clone, Debug)]
pub struct Other {
    number: u8,
    body: Vec<u8>,
}

impl Transport for Other {
    fn protocol(&self, _: bool) -> u8 {
        self.number
    }

    fn bytes(&self, _: IpAddr, _: IpAddr) -> Vec<u8> {
        self.body.clone()
    }
}
