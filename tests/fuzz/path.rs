//! Fuzzes the datapath: every byte string is a life of packets and waits.
#![no_main]

use lb_tests::fuzz::path;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|input: &[u8]| path::play(input));

fuzz_mutator!(|input: &mut [u8], len: usize, most: usize, seed: u32| {
    path::mutate(input, len, most, seed, fuzzer_mutate)
});
