//! The hashes both planes must agree on: IPVS's schedulers' and the flow table's.

use crate::net::Addr;

/// Golden ratio in 32 bits, the multiplier of `hash_32` (sh, dh, lblc).
const GOLDEN_RATIO_32: u32 = 0x61C8_8647;

/// Buckets of the sh and dh tables (Kconfig `IP_VS_SH_TAB_BITS`, `IP_VS_DH_TAB_BITS`: 8).
pub const SH_TABLE: u32 = 256;

/// Slots of the Maglev table (Kconfig `IP_VS_MH_TAB_INDEX` 12).
pub const MH_TABLE: u32 = 4093;

/// Halves of the two SipHash keys of mh.
const MH_KEY1: u64 = 2_654_435_761;
const MH_KEY2: u64 = 2_654_446_892;

/// Bucket of sh: `port` in host order, 0 unless the flag sh-port is set. `offset` is 0 for the first try.
#[inline(always)]
pub const fn sh(addr: &Addr, port: u16, offset: u32) -> u32 {
    let key = (port as u32).wrapping_add(addr.fold());
    offset.wrapping_add(key.wrapping_mul(GOLDEN_RATIO_32) >> 24) & (SH_TABLE - 1)
}

/// Bucket of dh, from the packet's destination address.
#[inline(always)]
pub const fn dh(addr: &Addr) -> u32 {
    addr.fold().wrapping_mul(GOLDEN_RATIO_32) >> 24
}

/// Spreads flows that cannot be remembered over a plan's slots: the same slot for every packet of a flow.
#[inline(always)]
pub const fn stateless(addr: &Addr, port: u16) -> u32 {
    let mixed = addr.fold().wrapping_add((port as u32) << 16 | port as u32).wrapping_mul(GOLDEN_RATIO_32);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x2c1b_3c6d);
    mixed ^ mixed >> 12
}

/// First hash of mh: the place in the table. `port` in host order.
#[inline(always)]
pub const fn mh(addr: &Addr, port: u16, offset: u32) -> u32 {
    siphash13_u32(offset.wrapping_add(port as u32).wrapping_add(addr.fold()), MH_KEY1)
}

/// Second hash of mh: a server's stride through the table.
#[inline(always)]
pub const fn mh_skip(addr: &Addr, port: u16) -> u32 {
    siphash13_u32((port as u32).wrapping_add(addr.fold()), MH_KEY2)
}

/// SipHash-1-3 of the four bytes of `value` (little endian), both key halves equal; the low 32 bits.
#[inline(always)]
const fn siphash13_u32(value: u32, key: u64) -> u32 {
    let mut v = [
        0x736f_6d65_7073_6575 ^ key,
        0x646f_7261_6e64_6f6d ^ key,
        0x6c79_6765_6e65_7261 ^ key,
        0x7465_6462_7974_6573 ^ key,
    ];
    // The only block: four bytes of message and the length in the top byte.
    let block = (4u64 << 56) | value as u64;
    v[3] ^= block;
    v = sip_round(v);
    v[0] ^= block;
    v[2] ^= 0xff;
    v = sip_round(sip_round(sip_round(v)));
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

#[inline(always)]
const fn sip_round(mut v: [u64; 4]) -> [u64; 4] {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
    v
}

/// Secret of the flow tables' hash, drawn once when the table is made and kept with it.
///
/// The hash is multilinear over 64-bit secrets (Lemire and Kaser, *Strongly universal string hashing is fast*)
/// with a final mix, so a client who does not know the seed cannot aim at one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seed(pub [u64; 6]);

impl Seed {
    /// Hash of a flow key given as its address words folded to at most four 64-bit parts.
    #[inline(always)]
    pub const fn hash(&self, parts: [u64; 4], ports: u32, protocol: u8) -> u64 {
        let k = &self.0;
        let mut h = k[0];
        // Odd multipliers keep every input bit; `| 1` costs nothing and spares a rule for the seed.
        h = h.wrapping_add((parts[0] ^ k[1]).wrapping_mul(k[2] | 1));
        h = (h ^ (h >> 32)).wrapping_add((parts[1] ^ k[3]).wrapping_mul(k[4] | 1));
        if parts[2] | parts[3] != 0 {
            h = (h ^ (h >> 29)).wrapping_add((parts[2] ^ k[2]).wrapping_mul(k[1] | 1));
            h = (h ^ (h >> 31)).wrapping_add((parts[3] ^ k[4]).wrapping_mul(k[3] | 1));
        }
        h ^= h >> 32;
        h = h.wrapping_add(((ports as u64) << 8 | protocol as u64) ^ k[5]).wrapping_mul(k[5] | 1);
        h ^= h >> 29;
        h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn sh_and_dh_buckets_are_those_of_ipvs() {
        for (text, bucket, with_port) in [
            ("192.0.2.1", 50, 249),
            ("198.51.100.9", 110, 53),
            ("10.0.0.1", 39, 238),
            ("255.255.255.255", 158, 100),
            ("2001:db8::1", 63, 5),
        ] {
            assert_eq!(sh(&addr(text), 0, 0), bucket, "{text}");
            assert_eq!(dh(&addr(text)), bucket, "{text}");
            assert_eq!(sh(&addr(text), 49_153, 0), with_port, "{text} with a port");
        }
    }

    #[test]
    fn mh_hashes_are_those_of_ipvs() {
        let client = addr("198.51.100.9");
        assert_eq!(mh(&client, 0, 0), 0xa709_3b00);
        assert_eq!(mh(&client, 0, 0) % MH_TABLE, 667);
        assert_eq!(mh_skip(&client, 0), 0x164a_f99b);
        assert_eq!(mh(&client, 49_153, 0), 0x4238_2ef6);
        assert_eq!(mh(&addr("10.0.0.1"), 80, 0), 0x439c_0cbe);
        assert_eq!(mh_skip(&addr("10.0.0.1"), 80), 0x97b3_dc47);
        assert_eq!(mh(&addr("2001:db8::1"), 0, 0), 0xcdc3_f189);
    }
}
