//! The decapsulator, packet by packet: one table through the library and, with the rights of root (feature
//! `privileged`), through the loaded program.

use lb_common::decap::Reason;
use lb_tests::decap::{Case, Host, cases};
use lb_tests::fuzz::Target;

fn expect(case: &Case, reason: Reason, bytes: &[u8]) {
    assert_eq!(reason, case.reason, "{}", case.sentence);
    let out = case.out.as_ref().unwrap_or(&case.frame);
    assert_eq!(bytes, out, "{}", case.sentence);
}

#[test]
fn packets_for_vips_come_out_of_their_tunnels_and_nothing_else_is_touched() {
    for case in cases() {
        let (reason, bytes) = Host::new(case.tunnels).run(&case.frame);
        expect(&case, reason, &bytes);
    }
}

/// Whatever is cut off, the rest passes or is dropped; it never comes out as if it were whole.
#[test]
fn no_length_of_a_tunnel_packet_is_read_past_its_end() {
    for case in cases().iter().filter(|case| case.out.is_some()) {
        let mut host = Host::new(case.tunnels);
        let padding = if case.sentence.contains("padding") { 9 } else { 0 };
        for length in 14..case.frame.len() - padding {
            let (reason, bytes) = host.run(&case.frame[..length]);
            assert_eq!(reason, Reason::PassedMalformed, "{}, cut to {length} bytes", case.sentence);
            assert_eq!(bytes, &case.frame[..length], "{}", case.sentence);
        }
    }
}

#[test]
fn what_the_fuzzer_kept_holds_on_the_host() {
    let kept = Target::Decap.kept().expect("the corpus is in the repository");
    assert!(!kept.is_empty());
    kept.values().for_each(|input| Target::Decap.play(input));
}

#[cfg(feature = "privileged")]
mod kernel {
    use super::*;
    use std::collections::HashMap;
    use std::net::IpAddr;

    use aya::programs::{TestRun, TestRunOptions};
    use lb_common::counters::Verdict;
    use lb_common::decap::Tunnels;
    use lb_tests::decap::{ALL, addresses, tunnels};
    use lb_tests::fuzz::decap;
    use lb_userspace::realserver::decap::Decapsulator;

    /// Decapsulators by what they open: loading takes longer than all the packets together.
    #[derive(Default)]
    struct Loaded(HashMap<u32, Decapsulator>);

    impl Loaded {
        /// What a packet is counted under and what it is afterwards.
        fn run(&mut self, tunnels: Tunnels, frame: &[u8], name: &str) -> (Reason, Vec<u8>) {
            let decapsulator = self.0.entry(tunnels.methods).or_insert_with(|| {
                let mut decapsulator = Decapsulator::load(tunnels).expect("cargo xtask build, and root");
                decapsulator.set_addresses(&addresses().into_iter().collect()).unwrap();
                decapsulator
            });
            let before = decapsulator.counts().unwrap();
            let mut out = vec![0; frame.len() + 64];
            let options =
                TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
            let result = decapsulator.program().unwrap().test_run(options).expect(name);
            out.truncate(result.data_size_out as usize);
            let after = decapsulator.counts().unwrap();
            let counted =
                before.iter().zip(after).map(|((reason, before), (_, after))| (*reason, after - before));
            let counted: Vec<_> = counted.filter(|(_, packets)| *packets > 0).collect();
            let [(reason, 1)] = counted[..] else { panic!("{name}: counted under {counted:?}") };
            let action = if reason.verdict() == Verdict::Drop { 1 } else { 2 };
            assert_eq!(result.return_value, action, "{name}");
            (reason, out)
        }
    }

    #[test]
    fn the_loaded_program_does_the_same() {
        let mut loaded = Loaded::default();
        for case in &cases() {
            let (reason, bytes) = loaded.run(case.tunnels, &case.frame, case.sentence);
            expect(case, reason, &bytes);
        }
    }

    #[test]
    fn what_the_fuzzer_kept_the_loaded_program_does_as_the_library() {
        let mut loaded = Loaded::default();
        for (name, input) in Target::Decap.kept().expect("the corpus is in the repository") {
            let (tunnels, frame) = decap::packet(&input);
            let expected = Host::new(tunnels).run(&frame);
            assert_eq!(loaded.run(tunnels, &frame, &name), expected, "{name}");
        }
    }

    #[test]
    fn addresses_come_and_go() {
        let mut decapsulator = Decapsulator::load(tunnels(ALL)).expect("cargo xtask build, and root");
        let frame = &cases()[0].frame;
        let mut ask = |addresses: HashMap<IpAddr, u32>| {
            decapsulator.set_addresses(&addresses.into_iter().collect()).unwrap();
            let mut out = vec![0; 1500];
            let options =
                TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
            decapsulator.program().unwrap().test_run(options).unwrap().data_size_out as usize
        };
        assert_eq!(ask(addresses()), frame.len() - 20);
        assert_eq!(ask(HashMap::new()), frame.len());
        assert_eq!(ask(addresses()), frame.len() - 20);
    }
}
