//! The network layer: IPv4 with options, IPv6 with extension headers, fragments of both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    EtherType, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel,
    Ipv6FragmentHeader, Ipv6Header,
};

use super::Eth;

/// What can stand for an IP address in a test.
pub trait Address {
    fn address(self) -> IpAddr;
}

impl Address for &str {
    fn address(self) -> IpAddr {
        self.parse().unwrap_or_else(|_| panic!("{self:?} is not an IP address"))
    }
}

impl Address for IpAddr {
    fn address(self) -> IpAddr {
        self
    }
}

impl Address for Ipv4Addr {
    fn address(self) -> IpAddr {
        self.into()
    }
}

impl Address for Ipv6Addr {
    fn address(self) -> IpAddr {
        self.into()
    }
}

impl Address for SocketAddr {
    fn address(self) -> IpAddr {
        self.ip()
    }
}

/// The network layer of a packet whose transport is still to be named.
#[derive(Clone, Debug)]
pub struct Ip {
    eth: Eth,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    ttl: u8,
    tos: u8,
    id: u32,
    df: Option<bool>,
    options: Vec<u8>,
    flow_label: u32,
    extensions: Vec<(u8, Vec<u8>)>,
}

impl Ip {
    pub(super) fn new(eth: Eth, src: IpAddr, dst: IpAddr) -> Self {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "{src} and {dst} are of different families");
        Self {
            eth,
            src,
            dst,
            ttl: 64,
            tos: 0,
            id: 1,
            df: None,
            options: Vec::new(),
            flow_label: 0,
            extensions: Vec::new(),
        }
    }

    pub fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    /// TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// TOS byte or traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// The IPv4 identification (its lower 16 bits), or that of the IPv6 fragment headers.
    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    /// IPv4's "don't fragment". Unsaid it is set on unfragmented TCP.
    pub fn df(mut self, df: bool) -> Self {
        self.df = Some(df);
        self
    }

    /// IPv4 options as on the wire: up to 40 bytes, a multiple of 4.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// The IPv6 flow label, 20 bits.
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    /// Adds an IPv6 extension header: its number, and all its bytes, of which the first (the next header) is
    /// filled in when the packet is built.
    pub fn extension(mut self, number: u8, bytes: &[u8]) -> Self {
        assert!(!self.is_v4() && !bytes.is_empty(), "an extension header needs IPv6 and a body");
        self.extensions.push((number, bytes.to_vec()));
        self
    }

    /// Adds a hop-by-hop header of 8 bytes, all padding.
    pub fn hop_by_hop(self) -> Self {
        self.extension(0, &[0, 0, 1, 4, 0, 0, 0, 0])
    }

    /// Adds a destination options header of 8 bytes, all padding.
    pub fn destination_options(self) -> Self {
        self.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
    }

    pub(super) fn with<T: Transport>(self, l4: T) -> Packet<T> {
        Packet { ip: self, l4 }
    }

    /// The IP packets that carry `parts` (offset, bytes) of a transport's bytes.
    fn packets(&self, protocol: u8, parts: Vec<(usize, &[u8])>) -> Vec<Vec<u8>> {
        let last = parts.len() - 1;
        parts
            .into_iter()
            .enumerate()
            .map(|(i, (offset, part))| match (self.src, self.dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    let df = self.df.unwrap_or(protocol == 6 && last == 0);
                    self.v4(src, dst, protocol, offset, i < last, df, part)
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    let fragment = (last > 0).then_some((offset, i < last));
                    self.v6(src, dst, protocol, fragment, part)
                }
                _ => unreachable!("families were compared when the packet was started"),
            })
            .collect()
    }

    #[expect(clippy::too_many_arguments, reason = "one call, right above")]
    fn v4(
        &self,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        protocol: u8,
        offset: usize,
        more: bool,
        df: bool,
        part: &[u8],
    ) -> Vec<u8> {
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.tos >> 2).expect("six bits"),
            ecn: IpEcn::try_new(self.tos & 3).expect("two bits"),
            identification: self.id as u16,
            dont_fragment: df,
            more_fragments: more,
            fragment_offset: fragment_offset(offset),
            time_to_live: self.ttl,
            protocol: IpNumber(protocol),
            source: src.octets(),
            destination: dst.octets(),
            options: Ipv4Options::try_from(self.options.as_slice())
                .expect("IPv4 options: 4n bytes, at most 40"),
            ..Default::default()
        };
        header.set_payload_len(part.len()).expect("an IPv4 packet is at most 65535 bytes");
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes(), part].concat()
    }

    fn v6(
        &self,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        protocol: u8,
        fragment: Option<(usize, bool)>,
        part: &[u8],
    ) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if let Some((offset, more)) = fragment {
            let header = Ipv6FragmentHeader {
                next_header: IpNumber(0),
                fragment_offset: fragment_offset(offset),
                more_fragments: more,
                identification: self.id,
            };
            chain.push((44, header.to_bytes().to_vec()));
        }
        let numbers: Vec<u8> = chain.iter().map(|header| header.0).chain([protocol]).collect();
        let mut body = Vec::new();
        for ((_, mut bytes), &next) in chain.into_iter().zip(&numbers[1..]) {
            bytes[0] = next;
            body.extend(bytes);
        }
        body.extend(part);
        let header = Ipv6Header {
            traffic_class: self.tos,
            flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("a flow label has 20 bits"),
            payload_length: u16::try_from(body.len()).expect("an IPv6 payload is at most 65535 bytes"),
            next_header: IpNumber(numbers[0]),
            hop_limit: self.ttl,
            source: src.octets(),
            destination: dst.octets(),
        };
        [&header.to_bytes(), body.as_slice()].concat()
    }
}

/// The fragment offset of a byte; on the wire it counts units of 8, so what is below is lost.
fn fragment_offset(byte: usize) -> IpFragOffset {
    let units = u16::try_from(byte / 8).expect("a fragment starts below 65536");
    IpFragOffset::try_new(units).expect("a fragment offset has 13 bits")
}

/// A transport: what an IP packet carries.
pub trait Transport {
    /// The protocol number under these addresses' family.
    fn protocol(&self, v4: bool) -> u8;

    /// Header and payload, with the checksum for these addresses.
    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8>;
}

/// A packet ready to be built; each transport adds its own settings.
#[derive(Clone, Debug)]
pub struct Packet<T> {
    pub(super) ip: Ip,
    pub(super) l4: T,
}

impl<T: Transport> Packet<T> {
    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        self.frame(&self.ip_bytes())
    }

    /// The IP packet without the link layer, as a tunnel carries it or an ICMP error quotes it.
    pub fn ip_bytes(&self) -> Vec<u8> {
        self.ip_fragments(&[]).remove(0)
    }

    /// The frames of this packet cut into pieces: `sizes` are the bytes each piece takes of header and payload of
    /// the transport, and one piece more takes what is left. On the wire offsets count units of 8 bytes.
    pub fn fragments(&self, sizes: &[usize]) -> Vec<Vec<u8>> {
        self.ip_fragments(sizes).iter().map(|packet| self.frame(packet)).collect()
    }

    /// As [`Self::fragments`], without the link layer.
    pub fn ip_fragments(&self, sizes: &[usize]) -> Vec<Vec<u8>> {
        let bytes = self.l4.bytes(self.ip.src, self.ip.dst);
        let mut parts = Vec::new();
        let mut at = 0;
        for size in sizes {
            let end = (at + size).min(bytes.len());
            parts.push((at, &bytes[at..end]));
            at = end;
        }
        parts.push((at, &bytes[at..]));
        self.ip.packets(self.l4.protocol(self.ip.is_v4()), parts)
    }

    fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let ether_type = if self.ip.is_v4() { EtherType::IPV4 } else { EtherType::IPV6 };
        self.ip.eth.frame(ether_type, packet)
    }
}
