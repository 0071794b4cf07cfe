//! How full the table gets, what a flow costs in memory, and how well the hash spreads flows over buckets.
#![cfg(not(loom))]

use lb_common::flow::{
    self, AtomicU32, FlowKey, Home, Layout, NewFlow, Opened, SCRATCH, SPILL_WORDS, Shared, Slab, V4, V6,
    WAYS, control, meta,
};
use lb_common::hash::Seed;
use lb_common::net::Addr;
use std::mem::size_of;

/// SplitMix64 (Steele, Lea, Flood, *Fast splittable pseudorandom number generators*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn seed(&mut self) -> Seed {
        Seed(std::array::from_fn(|_| self.next()))
    }
}

fn v4(client: u32, client_port: u16) -> FlowKey {
    let vip = Addr::v4(u32::from_ne_bytes([192, 0, 2, 1]));
    let ports = FlowKey::ports(client_port.to_be(), 80u16.to_be());
    FlowKey { client: Addr::v4(client.to_be()), vip, ports, protocol: 6 }
}

/// A client at `number` in the low 32 bits of its address, or in those of its prefix if `high`.
fn v6(number: u32, client_port: u16, high: bool) -> FlowKey {
    let mut client = [0x2001_0db8_u32.to_be(), 0, 0, 1u32.to_be()];
    client[if high { 1 } else { 3 }] = number.to_be();
    let vip = Addr([0x2001_0db8_u32.to_be(), 0xff_u32.to_be(), 0, 1u32.to_be()]);
    let ports = FlowKey::ports(client_port.to_be(), 443u16.to_be());
    FlowKey { client: Addr(client), vip, ports, protocol: 6 }
}

/// Bytes of a flow in the spill map besides its key and value: the kernel's hash element (two list pointers, an LRU node
/// or a callback's, the hash) and its share of the buckets' heads.
const SPILL_OVERHEAD: usize = 64;

#[test]
fn a_table_at_85_percent_spills_less_than_one_flow_in_100_and_costs_at_most_48_bytes_a_flow() {
    let buckets = (1 << 20) / WAYS;
    let ways = (buckets * WAYS) as usize;
    let words: Vec<_> = (0..buckets * V4::BUCKET).map(|_| AtomicU32::new(0)).collect();
    let scratch = [const { AtomicU32::new(0) }; SCRATCH];
    let (table, scratch) = (Slab::<V4>::new(&words), Shared(&scratch));
    assert_eq!(table.buckets(), buckets);
    let mut random = Random(1);
    let seed = random.seed();

    let flows = ways * 85 / 100;
    let mut spilled = 0;
    for _ in 0..flows {
        let number = random.next();
        let key = v4(number as u32, (number >> 32) as u16);
        let home = flow::home::<V4>(&seed, &key, buckets);
        let (meta, state_bits) = (meta::pack(1, 6, 0), control::CONFIRMED | 1);
        let new = NewFlow { key: &key, meta, state_bits, expires: 900, extra: [0; 2] };
        match flow::open(&table, scratch, &home, &new, 0) {
            Opened::New { evicted, twin, .. } if evicted.who().or(twin.who()).is_none() => {}
            Opened::Full => spilled += 1,
            // No twins: 891,289 keys drawn out of 2^48 are all different, but for a chance of 0.2 %.
            other => panic!("an established flow gave way: {other:?}"),
        }
    }

    let table = size_of::<u32>() * words.len();
    let spill = spilled * (size_of::<FlowKey>() + SPILL_WORDS * size_of::<u32>() + SPILL_OVERHEAD);
    let (share, cost) = (spilled as f64 / flows as f64, (table + spill) as f64 / flows as f64);
    println!(
        "{flows} flows in {ways} ways: {spilled} spilled ({:.3} %), {:.1} bytes a way, {cost:.1} bytes a flow",
        100.0 * share,
        table as f64 / ways as f64
    );
    assert_eq!(table / ways, 24, "bytes an IPv4 way takes");
    assert!(share < 0.01, "{spilled} of {flows} flows spilled");
    assert!(cost <= 48.0, "{cost} bytes a flow");
}

/// The key of a client by its number.
type Client = fn(u32) -> FlowKey;

/// Populations of clients whose keys differ little, as real ones do.
fn populations() -> [(&'static str, Client); 6] {
    [
        ("addresses in sequence, one port", |n| v4(0x0a00_0000 + n, 40_000)),
        ("one address, ports in sequence", |n| v4(0x0a00_0001 + (n >> 16), n as u16)),
        ("a /24 with 256 ports each", |n| v4(0x0a00_0000 + (n & 0xff), 1024 + (n >> 8) as u16)),
        ("every 256th address", |n| v4(n << 8, 40_000)),
        ("IPv6 interface identifiers in sequence", |n| v6(n, 40_000, false)),
        ("IPv6 prefixes in sequence", |n| v6(n, 40_000, true)),
    ]
}

fn home(seed: &Seed, key: &FlowKey, buckets: u32) -> Home {
    if key.client.is_v4() {
        flow::home::<V4>(seed, key, buckets)
    } else {
        flow::home::<V6>(seed, key, buckets)
    }
}

/// How many standard deviations the chi-square statistic of `counts` is off what even chance gives.
fn deviation(counts: &[u32]) -> f64 {
    let total: u32 = counts.iter().sum();
    let expected = total as f64 / counts.len() as f64;
    let statistic: f64 = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    let freedom = (counts.len() - 1) as f64;
    (statistic - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn clients_in_sequence_spread_over_buckets_as_random_ones_would() {
    const BUCKETS: u32 = 4096;
    const FLOWS: u32 = 1 << 16;
    for (what, key) in populations() {
        for round in 0..8 {
            let seed = Random(round).seed();
            let mut first = vec![0; BUCKETS as usize];
            let mut second = vec![0; BUCKETS as usize];
            // Both buckets together, 64 groups of either: the second choice must not follow from the first.
            let mut pairs = vec![0; 64 * 64];
            let mut tags = vec![0; 4096];
            for number in 0..FLOWS {
                let home = home(&seed, &key(number), BUCKETS);
                first[home.first as usize] += 1;
                second[home.second as usize] += 1;
                pairs[(home.first / 64 * 64 + home.second / 64) as usize] += 1;
                // Tag and first bucket together: the flows of one bucket must differ in their tags.
                tags[((home.tag >> 26) * 64 + home.first / 64) as usize] += 1;
            }
            for (part, counts) in [("first", &first), ("second", &second), ("both", &pairs), ("tag", &tags)] {
                let deviation = deviation(counts);
                assert!(deviation < 6.0, "{what}, {part}: {deviation:.1} standard deviations too uneven");
            }
        }
    }
}

#[test]
fn a_seed_says_nothing_of_where_another_places_flows() {
    const BUCKETS: u32 = 256;
    const FLOWS: u32 = 1 << 16;
    for (what, key) in populations() {
        let seeds = [Random(1).seed(), Random(2).seed()];
        let mut pairs = vec![0; 64 * 64];
        let mut same = 0;
        for number in 0..FLOWS {
            let [one, other] = seeds.map(|seed| home(&seed, &key(number), BUCKETS));
            same += (one.first == other.first) as u32;
            pairs[(one.first / 4 * 64 + other.first / 4) as usize] += 1;
        }
        // One in 256 by chance: 256 of 65,536, of which a standard deviation is 16.
        assert!(
            same.abs_diff(FLOWS / BUCKETS) < 6 * 16,
            "{what}: {same} flows are in the same bucket with both"
        );
        let deviation = deviation(&pairs);
        assert!(deviation < 6.0, "{what}: {deviation:.1} standard deviations from independent");
    }
}
