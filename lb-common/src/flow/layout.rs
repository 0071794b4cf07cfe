use super::FlowKey;
use crate::net::Addr;

/// Ways of a bucket. Eight ways and two candidate buckets hold 85 % occupancy with 0.5 % spilt.
pub const WAYS: u32 = 8;

/// First word of the expiry times.
pub(super) const EXPIRES: u32 = WAYS;
/// First word of the entries.
pub(super) const ENTRIES: u32 = 2 * WAYS;

/// Shared 32-bit words: a bucket, a server's load. The memory seam: a raw map value in the kernel, atomics on the
/// host, loom's atomics under the model checker. `at` is an index in words and must be in bounds.
pub trait Words: Copy {
    fn load(self, at: u32) -> u32;

    fn store(self, at: u32, value: u32);

    /// Stores `new` if the word is still `old`; a full barrier either way. True if it stored.
    fn swap(self, at: u32, old: u32, new: u32) -> bool;

    /// Adds with wrap-around, atomically; the value before.
    fn add(self, at: u32, delta: u32) -> u32;
}

/// How a family lays its entries out.
pub trait Layout: Copy {
    /// Words of an address.
    const ADDRESS: u32;
    /// Words behind the fixed part.
    const EXTRA: u32;
    /// Words of an entry.
    const ENTRY: u32 = 2 * Self::ADDRESS + 2 + Self::EXTRA;
    /// Words of a bucket.
    const BUCKET: u32 = ENTRIES + WAYS * Self::ENTRY;

    /// Word `i` of an address that stands first in memory.
    #[inline(always)]
    fn word(address: &Addr, i: u32) -> u32 {
        address.0[((4 - Self::ADDRESS + i) & 3) as usize]
    }

    /// The address whose words these are.
    #[inline(always)]
    fn address(word: impl Fn(u32) -> u32) -> Addr {
        if Self::ADDRESS == 1 { Addr::v4(word(0)) } else { Addr([word(0), word(1), word(2), word(3)]) }
    }

    /// The key folded to the parts the hash takes.
    #[inline(always)]
    fn parts(key: &FlowKey) -> [u64; 4] {
        let pair = |a: u32, b: u32| (a as u64) << 32 | b as u64;
        if Self::ADDRESS == 1 {
            [pair(key.client.0[3], key.vip.0[3]), 0, 0, 0]
        } else {
            let (c, v) = (&key.client.0, &key.vip.0);
            [pair(c[0], c[1]), pair(c[2], c[3]), pair(v[0], v[1]), pair(v[2], v[3])]
        }
    }
}

/// IPv4 flows: 16-byte entries, 192-byte buckets, 24 bytes a way.
#[derive(Clone, Copy, Debug)]
pub struct V4;

/// IPv6 flows: 40-byte entries, 384-byte buckets, 48 bytes a way.
#[derive(Clone, Copy, Debug)]
pub struct V6;

/// Persistence templates of both families. Two words more than a flow: the template's timeout in jiffies, which
/// falls to 60 s when it ends under live flows (IPVS: `ip_vs_conn_expire`), and how many flows it has.
#[derive(Clone, Copy, Debug)]
pub struct Templates;

impl Templates {
    /// Extra word: timeout in jiffies.
    pub const TIMEOUT: u32 = 0;
    /// Extra word: flows that belong to the template. Raised by the kernel, recounted by every full sweep.
    pub const CHILDREN: u32 = 1;
}

impl Layout for V4 {
    const ADDRESS: u32 = 1;
    const EXTRA: u32 = 0;
}

impl Layout for V6 {
    const ADDRESS: u32 = 4;
    const EXTRA: u32 = 0;
}

impl Layout for Templates {
    const ADDRESS: u32 = 4;
    const EXTRA: u32 = 2;
}

const _: () = assert!(V4::BUCKET == 48 && V6::BUCKET == 96 && Templates::BUCKET == 112);
