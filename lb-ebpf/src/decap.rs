//! The real server's side: a tunnel packet in, the packet inside it out, to the local stack.
//!
//! For real servers whose kernel has no tunnel devices. A packet is taken out of its tunnel only if the tunnel ends at
//! an address of the host and what is inside is for a VIP; everything else passes untouched. As a tunnel device would,
//! it leaves the time to live inside alone (RFC 2003 §3.1), tells congestion met outside to what is inside (RFC 6040)
//! and verifies a GRE or UDP checksum where there is one.
//!
//! | inside \ outside | IPv4 | IPv6 |
//! |---|---|---|
//! | IPv4 | IPIP, GRE, GUE | 4in6 (RFC 2473), GRE, GUE |
//! | IPv6 | 6in4 (RFC 4213), GRE, GUE | 6in6 (RFC 2473), GRE, GUE |

use crate::{
    checksum,
    frame::{Frame, Room},
    reply::pseudo,
    wire::{eth, gre, gue, ipv4, ipv6, udp},
};
use lb_common::{
    decap::{Reason, Tunnels, method, role},
    net::{Addr, proto},
};

/// What the decapsulator may ask of its maps.
pub trait Ends {
    fn tunnels(&self) -> Option<&Tunnels>;

    /// Bits of [`role`]; 0 for an unknown address.
    fn roles(&self, address: &Addr) -> u32;

    /// Leaves what is known of a packet for the next step, and takes it up there.
    fn leave(&self, opened: &Opened);

    fn opened(&self) -> Option<&Opened>;
}

/// Steps that follow the first, each a program of its own in the kernel: a loop over the packet's bytes and anything
/// that comes after it are too much for the verifier together. Their numbers are the places of their programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// The tunnel's checksum is verified.
    Verify = 0,
    /// The tunnel's headers are taken away.
    Strip = 1,
}

/// What becomes of a packet next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    End(Reason),
    Step(Step),
}

/// A tunnel packet for a VIP, between two steps. Offsets in bytes from the start of the frame.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Bytes of VLAN tags in the link header.
    tags: usize,
    /// What the tunnel's checksum covers.
    covered: usize,
    covered_bytes: usize,
    /// Sum of what it covers besides, a pseudo-header.
    sum: u32,
    inner: Inner,
    /// Type of service of the outer header.
    tos: u8,
    /// What the packet is counted under once it is out.
    reason: Reason,
}

impl Opened {
    /// As the next step takes it up. The verifier does not know what was stored, so the bounds that hold anyway are
    /// stated again: two tags at most, outer headers end within 4 KiB.
    #[inline(always)]
    fn resumed(&self) -> Self {
        let mut opened = *self;
        opened.tags &= 0xc;
        opened.covered &= 0xfff;
        opened.covered_bytes &= 0xffff;
        opened.inner.at &= 0xfff;
        opened
    }
}

/// Takes a packet for a VIP out of its tunnel, as the host runs it: all steps in one go. What the packet is counted
/// under; nothing was changed unless it was decapsulated or dropped.
pub fn decapsulate<R: Room, T: Ends>(frame: &mut Frame<R>, tables: &T) -> Reason {
    let mut next = begin(frame, tables);
    loop {
        next = match next {
            Next::End(reason) => return reason,
            Next::Step(step) => run(step, frame, tables),
        }
    }
}

/// What every packet goes through: whether it is in a tunnel that ends here. The one without a checksum comes out.
#[inline(always)]
pub fn begin<R: Room, T: Ends>(frame: &mut Frame<R>, tables: &T) -> Next {
    let opened = match open(frame, tables) {
        Ok(opened) => opened,
        Err(reason) => return Next::End(reason),
    };
    if opened.covered_bytes == 0 {
        return Next::End(out(frame, &opened));
    }
    tables.leave(&opened);
    Next::Step(Step::Verify)
}

/// Runs a step over what the one before it left.
#[inline(always)]
pub fn run<R: Room, T: Ends>(step: Step, frame: &mut Frame<R>, tables: &T) -> Next {
    let Some(opened) = tables.opened() else { return Next::End(Reason::DroppedNoStep) };
    let opened = opened.resumed();
    match step {
        Step::Verify => match verify(frame, &opened) {
            Ok(()) => Next::Step(Step::Strip),
            Err(reason) => Next::End(reason),
        },
        Step::Strip => Next::End(out(frame, &opened)),
    }
}

#[inline(always)]
fn open<R: Room, T: Ends>(frame: &Frame<R>, tables: &T) -> Result<Opened, Reason> {
    let outer = Outer::read(frame)?;
    let tunnels = tables.tunnels().ok_or(Reason::PassedNotTunnel)?;
    let reason = kind(frame, &outer, tunnels)?;
    if outer.is_fragment {
        return Err(Reason::PassedFragment);
    }
    let end = if outer.is_v6 {
        Addr(read(frame, outer.l3 + ipv6::DESTINATION)?)
    } else {
        Addr::v4(read(frame, outer.l3 + ipv4::DESTINATION)?)
    };
    if tables.roles(&end) & role::END == 0 {
        return Err(Reason::PassedNotEnd);
    }
    let inner = match reason {
        Reason::DecapsulatedGre => in_gre(frame, outer.next)?,
        Reason::DecapsulatedGue => in_gue(frame, outer.next)?,
        _ => Inner { at: outer.next, is_v6: outer.protocol == proto::IPV6 },
    };
    let vip = destination(frame, &inner, outer.end)?;
    if tables.roles(&vip) & role::VIP == 0 {
        return Err(Reason::PassedNotVip);
    }
    let mut opened = Opened {
        tags: outer.l3 - eth::HEADER,
        covered: outer.next,
        covered_bytes: 0,
        sum: 0,
        inner,
        tos: outer.tos,
        reason,
    };
    cover(frame, &outer, &end, &mut opened)?;
    Ok(opened)
}

/// A value of the packet, which ends before its headers do if there is none.
#[inline(always)]
fn read<R: Room, V: crate::frame::Wire>(frame: &Frame<R>, at: usize) -> Result<V, Reason> {
    frame.read(at).ok_or(Reason::PassedMalformed)
}

/// The header the packet travelled with.
struct Outer {
    l3: usize,
    is_v6: bool,
    /// Of what follows it, which begins at `next`.
    protocol: u8,
    next: usize,
    /// First byte behind the packet, by the header's own account.
    end: usize,
    tos: u8,
    is_fragment: bool,
}

impl Outer {
    #[inline(always)]
    fn read<R: Room>(frame: &Frame<R>) -> Result<Self, Reason> {
        let mut l3 = eth::HEADER;
        let mut ethertype: u16 = read(frame, eth::TYPE)?;
        // Two tags at most (802.1ad). A NIC that strips them shows none.
        let mut tags = 0;
        while tags < 2 && eth::is_vlan(ethertype) {
            ethertype = read(frame, l3 + 2)?;
            l3 += eth::TAG;
            tags += 1;
        }
        let outer = if ethertype == eth::IPV4 {
            Self::v4(frame, l3)?
        } else if ethertype == eth::IPV6 {
            Self::v6(frame, l3)?
        } else {
            return Err(Reason::PassedNotIp);
        };
        if outer.next > outer.end || !frame.holds(outer.end) {
            return Err(Reason::PassedMalformed);
        }
        Ok(outer)
    }

    #[inline(always)]
    fn v4<R: Room>(frame: &Frame<R>, l3: usize) -> Result<Self, Reason> {
        let first: u8 = read(frame, l3)?;
        let header = (first & 15) as usize * 4;
        if first >> 4 != 4 || header < ipv4::HEADER {
            return Err(Reason::PassedMalformed);
        }
        let fragment = u16::from_be(read(frame, l3 + ipv4::FRAGMENT)?);
        Ok(Self {
            l3,
            is_v6: false,
            protocol: read(frame, l3 + ipv4::PROTOCOL)?,
            next: l3 + header,
            end: l3 + u16::from_be(read(frame, l3 + ipv4::LENGTH)?) as usize,
            tos: read(frame, l3 + ipv4::TOS)?,
            is_fragment: fragment & (ipv4::OFFSET_MASK | ipv4::MORE_FRAGMENTS) != 0,
        })
    }

    /// Of extension headers only one of destination options is looked behind: what a tunnel's entry may add is its
    /// encapsulation limit (RFC 2473 §4.1.1).
    #[inline(always)]
    fn v6<R: Room>(frame: &Frame<R>, l3: usize) -> Result<Self, Reason> {
        let word = u16::from_be(read(frame, l3)?);
        if word >> 12 != 6 {
            return Err(Reason::PassedMalformed);
        }
        let mut protocol: u8 = read(frame, l3 + ipv6::NEXT_HEADER)?;
        let mut next = l3 + ipv6::HEADER;
        if protocol == ipv6::DESTINATION_OPTIONS {
            protocol = read(frame, next)?;
            next += (read::<R, u8>(frame, next + 1)? as usize + 1) * 8;
        }
        Ok(Self {
            l3,
            is_v6: true,
            protocol,
            next,
            end: l3 + ipv6::HEADER + u16::from_be(read(frame, l3 + ipv6::LENGTH)?) as usize,
            tos: (word >> 4) as u8,
            is_fragment: protocol == ipv6::FRAGMENT,
        })
    }
}

/// The tunnel a packet is in, if it is one that is opened here, as what it will be counted under.
#[inline(always)]
fn kind<R: Room>(frame: &Frame<R>, outer: &Outer, tunnels: &Tunnels) -> Result<Reason, Reason> {
    let (reason, method) = match outer.protocol {
        proto::IPIP | proto::IPV6 => (Reason::DecapsulatedIpip, method::IPIP),
        proto::GRE => (Reason::DecapsulatedGre, method::GRE),
        // A later fragment shows no port, an IPv6 fragment not even its protocol: both are the stack's as it is.
        proto::UDP if !outer.is_fragment => {
            if read::<R, u16>(frame, outer.next + 2)? != tunnels.gue_port.to_wire() {
                return Err(Reason::PassedNotTunnel);
            }
            (Reason::DecapsulatedGue, method::GUE)
        }
        _ => return Err(Reason::PassedNotTunnel),
    };
    if tunnels.methods & method == 0 { Err(Reason::PassedNotTunnel) } else { Ok(reason) }
}

/// Where the packet inside begins, from the start of the frame.
#[derive(Clone, Copy, Debug)]
struct Inner {
    at: usize,
    is_v6: bool,
}

#[inline(always)]
fn in_gre<R: Room>(frame: &Frame<R>, at: usize) -> Result<Inner, Reason> {
    let flags = u16::from_be(read(frame, at)?);
    let ethertype: u16 = read(frame, at + 2)?;
    if flags & !gre::CHECKSUM_PRESENT != 0 || (ethertype != eth::IPV4 && ethertype != eth::IPV6) {
        return Err(Reason::PassedUnsupported);
    }
    let header = if flags == 0 { gre::HEADER } else { gre::HEADER + gre::CHECKSUM };
    Ok(Inner { at: at + header, is_v6: ethertype == eth::IPV6 })
}

/// A plain data packet: an optional field may ask for more than taking the headers away, as remote checksum offload does.
#[inline(always)]
fn in_gue<R: Room>(frame: &Frame<R>, at: usize) -> Result<Inner, Reason> {
    let at = at + udp::HEADER;
    let first: u8 = read(frame, at)?;
    let protocol: u8 = read(frame, at + 1)?;
    let flags: u16 = read(frame, at + 2)?;
    // Version 0, no control message, no further words.
    if first != 0 || flags != 0 || (protocol != proto::IPIP && protocol != proto::IPV6) {
        return Err(Reason::PassedUnsupported);
    }
    Ok(Inner { at: at + gue::HEADER, is_v6: protocol == proto::IPV6 })
}

/// Whom the packet inside is for; it has to end where the outer packet does, or before.
#[inline(always)]
fn destination<R: Room>(frame: &Frame<R>, inner: &Inner, end: usize) -> Result<Addr, Reason> {
    let version = read::<R, u8>(frame, inner.at)? >> 4;
    let (length, least, address) = if inner.is_v6 {
        let payload = u16::from_be(read(frame, inner.at + ipv6::LENGTH)?) as usize;
        (ipv6::HEADER + payload, ipv6::HEADER, Addr(read(frame, inner.at + ipv6::DESTINATION)?))
    } else {
        let length = u16::from_be(read(frame, inner.at + ipv4::LENGTH)?) as usize;
        (length, ipv4::HEADER, Addr::v4(read(frame, inner.at + ipv4::DESTINATION)?))
    };
    if version != if inner.is_v6 { 6 } else { 4 } || length < least || inner.at + length > end {
        return Err(Reason::PassedMalformed);
    }
    Ok(address)
}

/// What the tunnel's checksum covers, if there is one. UDP over IPv6 may leave it out, too, where it carries a tunnel
/// (RFC 6935).
#[inline(always)]
fn cover<R: Room>(frame: &Frame<R>, outer: &Outer, end: &Addr, opened: &mut Opened) -> Result<(), Reason> {
    let at = outer.next;
    if let Reason::DecapsulatedGre = opened.reason {
        if read::<R, u16>(frame, at)? != 0 {
            opened.covered_bytes = outer.end - at;
        }
    } else if let Reason::DecapsulatedGue = opened.reason {
        let length = u16::from_be(read(frame, at + udp::LENGTH)?);
        if (length as usize) < opened.inner.at - at || length as usize > outer.end - at {
            return Err(Reason::PassedMalformed);
        }
        if read::<R, u16>(frame, at + udp::CHECKSUM)? != 0 {
            let source = if outer.is_v6 {
                Addr(read(frame, outer.l3 + ipv6::SOURCE)?)
            } else {
                Addr::v4(read(frame, outer.l3 + ipv4::SOURCE)?)
            };
            opened.covered_bytes = length as usize;
            opened.sum = pseudo(&source, end, length, proto::UDP);
        }
    }
    Ok(())
}

#[inline(always)]
fn verify<R: Room>(frame: &Frame<R>, opened: &Opened) -> Result<(), Reason> {
    // `None` for bytes behind the first 64 KiB, which a program cannot read.
    let sum =
        checksum::of_frame(frame, opened.covered, opened.covered_bytes).ok_or(Reason::PassedMalformed)?;
    if checksum::fold(sum + opened.sum) == 0xffff { Ok(()) } else { Err(Reason::DroppedChecksum) }
}

/// Out of the tunnel.
#[inline(always)]
fn out<R: Room>(frame: &mut Frame<R>, opened: &Opened) -> Reason {
    match congestion(frame, opened.tos, &opened.inner) {
        Err(reason) => reason,
        Ok(()) => match strip(frame, opened.tags, &opened.inner) {
            Some(()) => opened.reason,
            None => Reason::DroppedNoRoom,
        },
    }
}

/// Tells the packet inside what its outer header met (RFC 6040 §4.2, figure 4).
#[inline(always)]
fn congestion<R: Room>(frame: &mut Frame<R>, tos: u8, inner: &Inner) -> Result<(), Reason> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    let at = inner.at;
    let old = u16::from_be(read(frame, at)?);
    // In both families the first two bytes hold it: at the end in IPv4, four bits before it in IPv6.
    let shift = if inner.is_v6 { 4 } else { 0 };
    let inside = (old >> shift) as u8 & 3;
    let told = match (tos & 3, inside) {
        (CE, NOT_ECT) => return Err(Reason::DroppedCongestion),
        (CE, _) => CE,
        (ECT_1, ECT_0) => ECT_1,
        _ => return Ok(()),
    };
    let new = old & !(3 << shift) | (told as u16) << shift;
    if !inner.is_v6 {
        let sum: u16 = read(frame, at + ipv4::CHECKSUM)?;
        let sum = checksum::replace(sum, old.to_be(), new.to_be());
        frame.write(at + ipv4::CHECKSUM, sum).ok_or(Reason::PassedMalformed)?;
    }
    frame.write(at, new.to_be()).ok_or(Reason::PassedMalformed)
}

/// Most tags a link header has.
const TAGS: usize = 2;

/// Takes everything between link header and inner packet away.
#[inline(always)]
fn strip<R: Room>(frame: &mut Frame<R>, tags: usize, inner: &Inner) -> Option<()> {
    let addresses: [u32; 3] = frame.read(eth::DESTINATION)?;
    // Verifier: tags are moved whole. Asked of each half whether it is there, it follows lengths between 4 and 8 bytes that
    // do not exist, and loses the pointer behind them. (rejected on 6.1)
    let mut words = [0u32; TAGS];
    let mut i = 0;
    while i < TAGS {
        if eth::TAG * i < tags {
            words[i] = frame.read(eth::TYPE + eth::TAG * i)?;
        }
        i += 1;
    }
    frame.grow_front((eth::HEADER + tags) as i32 - inner.at as i32)?;
    frame.write(eth::DESTINATION, addresses)?;
    let mut i = 0;
    while i < TAGS {
        if eth::TAG * i < tags {
            frame.write(eth::TYPE + eth::TAG * i, words[i])?;
        }
        i += 1;
    }
    frame.write(eth::TYPE + tags, if inner.is_v6 { eth::IPV6 } else { eth::IPV4 })
}
