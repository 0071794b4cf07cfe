//! Fuzzes the real server's side: every byte string is one packet, perhaps in a tunnel.
#![no_main]

use lb_tests::fuzz::decap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| decap::play(input));
