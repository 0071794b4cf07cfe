//! What `lb bench` and its programs share. No part of a running director.
//!
//! `BPF_PROG_TEST_RUN` runs a program over and over on one packet and does not undo what the program did to it. So the
//! program under test runs behind a wrapper that makes the packet anew each time, as [`Reset`] says.

use crate::net::{Be16, Mac};

/// Bytes of a frame the wrapper writes: all headers of TCP over IPv4, and over IPv6.
pub const HEADERS_V4: usize = 54;
pub const HEADERS_V6: usize = 74;

/// Room for either.
pub const HEADERS: usize = 80;

/// How a wrapper makes its packet. Map `RESET`, of one entry; written by the runner, `next` by the wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Reset {
    /// The frame's first bytes.
    pub header: [u8; HEADERS],
    /// Bytes of the frame.
    pub length: u32,
    /// How many flows the wrapper that picks them at random picks among.
    pub flows: u32,
    /// State of that wrapper's random numbers; for those that take flows in turn, the next one's number.
    pub next: u64,
    /// For the wrapper that mixes: one packet of so many is of one of `flows` flows at random, the others each of the
    /// next one. At least 1.
    pub every: u32,
    /// Where that wrapper is: packets since the last one of a flow at random. Written by the wrapper.
    pub turn: u32,
    /// State of its random numbers.
    pub random: u64,
    /// Packets it has made of flows at random.
    pub picked: u64,
}

/// What names flow `number` among those of a benchmark: client address and port, as on the wire. Different for every
/// number; flows that follow each other have nothing in common.
#[inline(always)]
pub const fn client(number: u32) -> (u32, Be16) {
    let host = number.wrapping_mul(0x9e_3779) & 0xff_ffff;
    ((10 << 24 | host).to_be(), Be16::from_host(0x8000 | (number >> 24) as u16))
}

/// The number of the flow that [`client`] names so.
#[inline(always)]
pub const fn number(address: u32, port: Be16) -> u32 {
    // Of `client`'s factor, modulo 2^24.
    const INVERSE: u32 = 0xb3_82c9;
    let host = u32::from_be(address) & 0xff_ffff;
    (port.to_host() as u32 & 0xff) << 24 | host.wrapping_mul(INVERSE) & 0xff_ffff
}

/// What the far end of a link saw of one flow on one CPU. Map `WITNESSED`, per CPU, by the flow's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Witnessed {
    pub arrived: u64,
    /// Where its first packet went: the last four bytes of the destination MAC as a big-endian number.
    pub server: u32,
    /// Packets that went anywhere else.
    pub elsewhere: u32,
}

/// The next random number's state, and from its upper half the number of one of `flows` flows (Knuth's MMIX constants).
#[inline(always)]
pub const fn random(state: u64, flows: u32) -> (u64, u32) {
    let state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (state, (((state >> 32) * flows as u64) >> 32) as u32)
}

/// Key of the reference program's services: what a kernel hash map is asked for per packet elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PeerService {
    /// As on the wire.
    pub vip: u32,
    pub port: Be16,
    pub protocol: u8,
    pub pad: u8,
}

/// Key of the reference program's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PeerKey {
    /// As on the wire, ports as in [`crate::flow::FlowKey`].
    pub client: u32,
    pub vip: u32,
    pub ports: u32,
    pub protocol: u32,
}

/// Value of the reference program's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PeerFlow {
    pub server: u32,
    pub pad: u32,
    /// Jiffies.
    pub seen: u64,
}

/// The reference program's server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PeerServer {
    pub dmac: Mac,
    pub smac: Mac,
}

/// Servers of the reference program, a power of two.
pub const PEER_SERVERS: u32 = 256;

/// Room for flows in the reference program's LRU hash.
pub const PEER_FLOWS: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_another_name() {
        let mut seen = [0u64; 1 << 10];
        for number in 0..1 << 16 {
            // The low 16 bits of the host part are a bijection of the number's.
            let at = u32::from_be(client(number).0) & 0xffff;
            assert_eq!(seen[at as usize / 64] >> (at % 64) & 1, 0, "flow {number}");
            seen[at as usize / 64] |= 1 << (at % 64);
        }
        assert_eq!(client(5).0, client(5 + (1 << 24)).0);
        assert_ne!(client(5).1, client(5 + (1 << 24)).1);
    }

    #[test]
    fn a_flows_number_is_read_from_its_name() {
        for number in [0, 1, 2, 9_999, 0xff_ffff, 0x100_0000, 0x8000_0005, u32::MAX] {
            let (address, port) = client(number);
            assert_eq!(super::number(address, port), number);
        }
    }

    #[test]
    fn random_numbers_stay_below_the_number_of_flows() {
        let mut state = 1;
        for flows in [1, 2, 1000, u32::MAX] {
            for _ in 0..1000 {
                let (next, number) = random(state, flows);
                assert!(number < flows);
                state = next;
            }
        }
    }
}
