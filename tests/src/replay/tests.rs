//! The judge judges: what is changed in a recording is found.

use super::{FEATURES, Played, SIZES, play};
use crate::engine::Host;
use crate::traces::trace::{Outcome, Record};
use crate::traces::{Recording, store};

fn recording(label: &str) -> Recording {
    let all = store::load(&[store::own_folder()]).unwrap_or_else(|error| panic!("{error}"));
    all.into_iter().find(|one| one.label() == label).unwrap_or_else(|| panic!("no recording {label}"))
}

fn played(recording: &Recording) -> Played {
    play(recording, &mut Host::new(SIZES, FEATURES))
}

/// Where a packet of some recording went first to one server and then to another.
fn exchanged(recording: &mut Recording) {
    let outcomes: Vec<&mut Outcome> = recording
        .trace
        .events
        .iter_mut()
        .filter_map(|event| match &mut event.record {
            Record::Packet { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect();
    let mut outcomes = outcomes.into_iter();
    let first = outcomes.next().expect("a packet");
    let other = outcomes.find(|other| **other != *first).expect("a packet to another server");
    std::mem::swap(first, other);
}

#[test]
fn two_packets_exchanged_are_two_differences() {
    let mut recording = recording("A/rr-eq5");
    assert_eq!(played(&recording).differences.len(), 0);
    exchanged(&mut recording);
    let played = played(&recording);
    assert_eq!((played.decisions.different(), played.differences.len()), (2, 2), "{:?}", played.differences);
}

#[test]
fn another_state_of_a_connection_and_another_count_are_differences() {
    let mut recording = recording("C/fwmark-and-vip");
    let events = &mut recording.trace.events;
    events[3].conns.as_mut().expect("connections are recorded")[0].state = "CLOSE".to_owned();
    let counts = events[5].st.values_mut().next().expect("a SYN counts").as_mut().expect("a server");
    counts.active += 1;
    let played = played(&recording);
    assert_eq!(played.conns.different(), 1, "{:?}", played.differences);
    // It is told when it changes, and stays wrong from there on.
    assert_eq!(played.counts.different(), 4, "{:?}", played.differences);
}

#[test]
fn one_bit_of_a_frame_is_a_difference_unless_the_kernel_draws_it() {
    for (byte, different) in [(14 + 8, 1), (14 + 20 + 8, 1), (14 + 4, 0)] {
        let mut recording = recording("D/ipip-udp4");
        let Record::Packet { frames, .. } = &mut recording.trace.events[0].record else {
            panic!("the first event is a packet")
        };
        frames.as_mut().expect("frames are recorded").out[0][byte] ^= 1;
        let played = played(&recording);
        assert_eq!(played.frames.different(), different, "byte {byte}: {:?}", played.differences);
    }
}
