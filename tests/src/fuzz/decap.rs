//! One packet for a real server, perhaps in a tunnel. The first byte of an input says which methods are opened, the
//! rest is the frame.

use lb_common::counters::Verdict;
use lb_common::decap::{Reason, Tunnels};

use crate::decap::{ALL, Host, cases, tunnels};

/// The kernel takes no less than an Ethernet header.
const LEAST: usize = 14;

/// The tunnels that are opened, and the frame.
pub fn packet(input: &[u8]) -> (Tunnels, Vec<u8>) {
    let (methods, frame) = input.split_first().unwrap_or((&0, &[]));
    let mut frame = frame.to_vec();
    frame.resize(frame.len().max(LEAST), 0);
    (tunnels(u32::from(*methods) & ALL), frame)
}

/// Plays an input on the host.
///
/// # Panics
/// If anything is not as it must be.
pub fn play(input: &[u8]) {
    let (tunnels, frame) = packet(input);
    let (reason, bytes) = Host::new(tunnels).run(&frame);
    check(&frame, reason, &bytes);
}

/// What is true of any packet: it was changed only if it was taken out of a tunnel, and then its headers are gone and
/// the link's addresses are still there.
///
/// # Panics
/// If it is not.
pub fn check(frame: &[u8], reason: Reason, bytes: &[u8]) {
    use Reason::{DecapsulatedGre, DecapsulatedGue, DecapsulatedIpip};
    if matches!(reason, DecapsulatedIpip | DecapsulatedGre | DecapsulatedGue) {
        assert_eq!(reason.verdict(), Verdict::Pass);
        assert!(bytes.len() + 20 <= frame.len() && bytes.len() >= LEAST + 20, "{}", reason.name());
        assert_eq!(bytes[..12], frame[..12], "{}", reason.name());
    } else {
        assert_eq!(bytes, frame, "{}", reason.name());
    }
}

/// The cases, as inputs.
pub fn seeds() -> Vec<Vec<u8>> {
    let input = |methods: u32, frame: &[u8]| [&[methods as u8], frame].concat();
    cases().iter().map(|case| input(case.tunnels.methods, &case.frame)).collect()
}
