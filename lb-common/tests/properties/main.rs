//! The flow table does what a map would, whatever is done with it: over few keys and small tables, so that ways are
//! fought for, and across the wrap of the 32-bit clock.
#![cfg(not(loom))]

mod model;

use lb_common::flow::{AtomicU32, FlowKey, Layout, SCRATCH, Templates, V4, V6};
use lb_common::hash::Seed;
use lb_common::net::Addr;
use model::{Both, Step};
use proptest::prelude::*;

const KEYS: u32 = 48;
const LONGEST: u32 = 300;

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let timeout = || 1..LONGEST;
    prop_oneof![
        12 => (key(), any::<bool>(), timeout())
            .prop_map(|(key, confirmed, timeout)| Step::Open { key, confirmed, timeout }),
        2 => (key(), timeout()).prop_map(|(key, timeout)| Step::OpenTwice { key, timeout }),
        4 => (key(), 0..16u8, any::<bool>(), any::<bool>(), timeout()).prop_map(
            |(key, state, confirmed, active, timeout)| Step::Move { key, state, confirmed, active, timeout }
        ),
        1 => (key(), any::<u32>()).prop_map(|(key, extra)| Step::Mark { key, extra }),
        1 => key().prop_map(|key| Step::Expire { key }),
        2 => key().prop_map(|key| Step::Remove { key }),
        1 => Just(Step::UseAfterRemoval),
        1 => (0..20u32).prop_map(|age| if age == 0 { Step::Sweep } else { Step::UseAfterRemoval }),
        3 => (0..60u32).prop_map(|jiffies| Step::Wait { jiffies }),
    ]
}

/// Tables of one to four buckets, at a time that may be about to wrap.
fn table() -> impl Strategy<Value = (usize, [u64; 6], u32)> {
    (1..=4usize, any::<[u64; 6]>(), prop_oneof![Just(u32::MAX - 400), any::<u32>()])
}

fn run<L: Layout + std::fmt::Debug>(
    (buckets, seed, now): (usize, [u64; 6], u32),
    key: fn(u32) -> FlowKey,
    steps: &[Step],
) {
    let words: Vec<_> = (0..buckets * L::BUCKET as usize).map(|_| AtomicU32::new(0)).collect();
    let scratch = [const { AtomicU32::new(0) }; SCRATCH];
    let mut both = Both::<L>::new(&words, &scratch, Seed(seed), now, key);
    for &step in steps {
        both.step(step);
    }
}

/// Keys that differ in one part only, each part for some of them.
fn differing(number: u32, one: fn(u32) -> Addr) -> FlowKey {
    let (part, value) = (number % 4, number / 4 + 1);
    let of = |this, base| if part == this { base + value } else { base };
    FlowKey {
        client: one(of(0, 100)),
        vip: one(of(1, 200)),
        ports: of(2, 300) << 16 | of(3, 400),
        protocol: if number % 8 < 4 { 6 } else { 17 },
    }
}

fn v4(number: u32) -> FlowKey {
    differing(number, Addr::v4)
}

fn v6(number: u32) -> FlowKey {
    // The difference wanders through the words of the address.
    differing(number, |value| {
        let mut words = [0x0db8_0120; 4];
        words[(value % 4) as usize] = value;
        Addr(words)
    })
}

/// Both families, no ports, the protocol that spans all.
fn template(number: u32) -> FlowKey {
    let key = if number < KEYS / 2 { v4(number) } else { v6(number) };
    FlowKey { ports: number << 16, protocol: 0, ..key }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ipv4_flows_are_what_a_map_would_hold(table in table(), steps in prop::collection::vec(step(), 0..400)) {
        run::<V4>(table, v4, &steps);
    }

    #[test]
    fn ipv6_flows_are_what_a_map_would_hold(table in table(), steps in prop::collection::vec(step(), 0..400)) {
        run::<V6>(table, v6, &steps);
    }

    #[test]
    fn templates_are_what_a_map_would_hold(table in table(), steps in prop::collection::vec(step(), 0..400)) {
        run::<Templates>(table, template, &steps);
    }
}
