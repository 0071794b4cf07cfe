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

/// Bytes [`of_frame`] can sum: a jumbo frame.
const LONGEST: usize = 9216;
const _: () = assert!(LONGEST < 0x3fff);

/// The sum of `length` bytes from `at` on, at most [`LONGEST`]; `None` for more, or past the end.
#[inline(always)]
pub fn of_frame<R: Room>(frame: &Frame<R>, at: usize, length: usize) -> Option<u32> {
    if length > LONGEST {
        return None;
    }
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
        // An odd byte counts as if a zero followed (RFC 1071 §1).
        sum += u16::from_be_bytes([frame.read::<u8>(at)?, 0]).to_be() as u64;
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    Some(fold(words(sum as u32)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(words: &[u16]) -> u16 {
        !fold(words.iter().map(|&w| w as u32).sum())
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
