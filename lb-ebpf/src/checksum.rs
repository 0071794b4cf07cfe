//! The Internet checksum, changed where a field changes (RFC 1624).

use crate::frame::{Frame, Room};

/// Folds a sum of 16-bit words into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum after one of the words it covers went from `old` to `new` (RFC 1624, equation 3). All three as they
/// stand in memory: the sum does not depend on byte order (RFC 1071 §2).
#[inline(always)]
pub const fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    !fold((!checksum) as u32 + (!old) as u32 + new as u32)
}

/// The sum of the 16-bit words of a 32-bit field.
#[inline(always)]
pub const fn words(field: u32) -> u32 {
    (field & 0xffff) + (field >> 16)
}

/// Bytes [`of_frame`] sums where they lie in one buffer: a jumbo frame.
const LONGEST: usize = 9216;
const _: () = assert!(LONGEST < 0x3fff);

/// The sum of `length` bytes from `at` on, which are those of one packet; `None` past the end.
#[inline(always)]
pub fn of_frame<R: Room>(frame: &Frame<R>, at: usize, length: usize) -> Option<u32> {
    if length <= LONGEST && at + length <= frame.len() {
        return of_first(frame, at, length);
    }
    Some(shorten(in_any(frame, at, length)?))
}

/// As [`of_frame`], of at most [`LONGEST`] bytes in the first buffer.
#[inline(always)]
pub fn of_first<R: Room>(frame: &Frame<R>, at: usize, length: usize) -> Option<u32> {
    Some(shorten(in_first(frame, at, length)?))
}

/// Brings a sum of 32-bit words down to one of 16 bits.
#[inline(always)]
fn shorten(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    fold(words(sum as u32)) as u32
}

/// The sum of bytes in the first buffer.
#[inline(always)]
fn in_first<R: Room>(frame: &Frame<R>, at: usize, length: usize) -> Option<u64> {
    let mut sum = 0u64;
    let mut done = 0;
    while done < LONGEST {
        if done + 8 > length {
            break;
        }
        let part: u64 = frame.read(at + done)?;
        sum += (part & 0xffff_ffff) + (part >> 32);
        done += 8;
    }
    // What is left is shorter than eight bytes. Verifier: the mask restates the bound.
    let mut at = at + (length & 0x3ff8);
    if length & 4 != 0 {
        sum += frame.read::<u32>(at)? as u64;
        at += 4;
    }
    if length & 2 != 0 {
        sum += frame.read::<u16>(at)? as u64;
        at += 2;
    }
    if length & 1 != 0 {
        sum += odd(frame.read(at)?);
    }
    Some(sum)
}

/// Words [`in_any`] fetches at once: as much as is cheap for a helper call, and little of a program's stack.
const FETCHED: usize = 16;
/// As many times at most: an IP packet.
const FETCHES: usize = (u16::MAX as usize + 1) / (FETCHED * 8);

/// The sum of bytes in whichever buffers.
#[inline(always)]
fn in_any<R: Room>(frame: &Frame<R>, mut at: usize, length: usize) -> Option<u64> {
    let mut sum = 0;
    let mut done = 0;
    while done < FETCHES {
        if (done + 1) * FETCHED * 8 > length {
            break;
        }
        sum += fetched::<R, FETCHED>(frame, at)?;
        at += FETCHED * 8;
        done += 1;
    }
    // What is left is shorter than that.
    if length & 64 != 0 {
        sum += fetched::<R, 8>(frame, at)?;
        at += 64;
    }
    if length & 32 != 0 {
        sum += fetched::<R, 4>(frame, at)?;
        at += 32;
    }
    if length & 16 != 0 {
        sum += fetched::<R, 2>(frame, at)?;
        at += 16;
    }
    if length & 8 != 0 {
        sum += fetched::<R, 1>(frame, at)?;
        at += 8;
    }
    if length & 4 != 0 {
        sum += frame.fetch::<u32>(at)? as u64;
        at += 4;
    }
    if length & 2 != 0 {
        sum += frame.fetch::<u16>(at)? as u64;
        at += 2;
    }
    if length & 1 != 0 {
        sum += odd(frame.fetch(at)?);
    }
    Some(sum)
}

#[inline(always)]
fn fetched<R: Room, const N: usize>(frame: &Frame<R>, at: usize) -> Option<u64> {
    let parts: [u64; N] = frame.fetch(at)?;
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += (parts[i] & 0xffff_ffff) + (parts[i] >> 32);
        i += 1;
    }
    Some(sum)
}

/// An odd byte at the end counts as if a zero followed (RFC 1071 §1).
#[inline(always)]
fn odd(byte: u8) -> u64 {
    u16::from_be_bytes([byte, 0]).to_be() as u64
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;
    use crate::frame::Buffer;

    fn whole(words: &[u16]) -> u16 {
        !fold(words.iter().map(|&w| w as u32).sum())
    }

    #[test]
    fn a_sum_is_the_same_in_whichever_buffers_the_bytes_lie() {
        let bytes: Vec<u8> = (0..10_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in (0..300).chain([9216, 9217, 9987]) {
            let plain = bytes[14..14 + length].chunks(2).fold(0, |sum, pair| {
                sum + u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
            });
            for first in [14, 15, 77, 10_001] {
                let sum = Buffer::split(&bytes, first).lend(|frame| of_frame(frame, 14, length));
                assert_eq!(sum.map(fold), Some(fold(plain)), "{length} bytes, {first} in the first buffer");
                let beyond = Buffer::split(&bytes, first).lend(|frame| of_frame(frame, 14, 9988));
                assert_eq!(beyond, None);
            }
        }
    }

    #[test]
    fn replacing_a_word_is_recomputing_the_whole() {
        for (old, new) in [(0x4006, 0x3f06), (0, 0xffff), (0xffff, 0), (0x0001, 0x0000), (0x1234, 0x1234)] {
            let before = whole(&[0x4500, 0x003c, old, 0xabcd]);
            let after = whole(&[0x4500, 0x003c, new, 0xabcd]);
            assert_eq!(replace(before, old, new), after, "{old:#x} to {new:#x}");
        }
    }
}
