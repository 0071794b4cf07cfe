//! Lives of packets and waits as byte strings, through everything the datapath can do.
//!
//! The low two bits of the first byte say under which configuration: 1, nobody is denied anything; 2, new flows are not
//! limited. Behind it is one event behind the other, each with a head of two bytes, in network order. The topmost bit says
//! what it is: a wait, its seconds the low ten bits; or a frame, its length the low twelve, and its bytes behind the head.
//! Every byte string is a life: a frame ends with the string at the latest.

use std::cell::RefCell;
use std::sync::LazyLock;
use std::time::Duration;

use lb_common::settings::feature;

use crate::cases::{self, Case};
use crate::engine::{Engine, Fixture, Host, SIZES};
use crate::random::{self, Event, FRAMES};

const WAIT: u16 = 1 << 15;

/// Low enough that an input of waits alone does not take the clock halfway round.
const SECONDS: u16 = (1 << 10) - 1;

const LENGTH: u16 = (1 << 12) - 1;

/// The kernel takes no less than an Ethernet header.
const LEAST: usize = 14;
/// Inputs stay short: jumbo frames are for the cases and for random lives.
const LARGEST: usize = 3500;

static FIXTURES: LazyLock<[Fixture; 4]> = LazyLock::new(|| {
    std::array::from_fn(|which| {
        let mut fixture = random::everything();
        if which & 1 != 0 {
            fixture.denied.clear();
            fixture.features &= !(feature::DENY | feature::ADMISSION);
        }
        if which & 2 != 0 {
            fixture.new_flows_per_second = u32::MAX;
            fixture.source_flows_per_second = u32::MAX;
        }
        fixture
    })
});

thread_local! {
    /// For each fixture, made once: making one takes longer than most lives.
    static ENGINES: RefCell<Vec<Host>> =
        RefCell::new(FIXTURES.iter().map(|fixture| Host::new(SIZES, fixture.features)).collect());
}

/// The place in [`FIXTURES`], and the life.
fn parts(input: &[u8]) -> (usize, &[u8]) {
    let (which, life) = input.split_first().unwrap_or((&0, &[]));
    (usize::from(*which) % FIXTURES.len(), life)
}

/// The configuration an input is played under, and the life it describes.
pub fn story(input: &[u8]) -> (&'static Fixture, Vec<Event>) {
    let (which, events) = parts(input);
    (&FIXTURES[which], life(events))
}

fn life(mut input: &[u8]) -> Vec<Event> {
    let mut life = Vec::new();
    while let Some((head, rest)) = input.split_first_chunk() {
        let head = u16::from_be_bytes(*head);
        if head & WAIT != 0 {
            life.push(Event::Wait(Duration::from_secs(u64::from(head & SECONDS))));
            input = rest;
        } else {
            let length = usize::from(head & LENGTH).min(LARGEST);
            let (bytes, rest) = rest.split_at(rest.len().min(length));
            let mut frame = bytes.to_vec();
            frame.resize(frame.len().max(LEAST), 0);
            life.push(Event::Frame(frame));
            input = rest;
        }
    }
    life
}

/// The input for a configuration and a life, with longer waits and frames cut to what can be described.
fn input(which: usize, life: &[Event]) -> Vec<u8> {
    let mut input = vec![which as u8];
    for event in life {
        match event {
            Event::Wait(time) => {
                let seconds = time.as_secs().min(u64::from(SECONDS)) as u16;
                input.extend((WAIT | seconds).to_be_bytes());
            }
            Event::Frame(frame) => {
                let frame = &frame[..frame.len().min(LARGEST)];
                input.extend((frame.len() as u16).to_be_bytes());
                input.extend(frame);
            }
        }
    }
    input
}

/// Plays an input on the host, and looks at every packet's end and at the books after each.
///
/// # Panics
/// If anything is not as it must be.
pub fn play(input: &[u8]) {
    let (which, events) = parts(input);
    ENGINES.with_borrow_mut(|engines| {
        let engine = &mut engines[which];
        engine.clear();
        FIXTURES[which].write(engine, None);
        lead(engine, &life(events));
    });
}

fn lead(engine: &mut Host, life: &[Event]) {
    let mut packets = 0;
    for event in life {
        let Some(output) = random::apply(engine, event) else { continue };
        packets += 1;
        let Event::Frame(frame) = event else { unreachable!("a wait has no output") };
        let checked = random::check_output(frame, &output)
            .and_then(|()| random::check_counted(engine, packets))
            .and_then(|()| random::check_books(engine));
        if let Err(wrong) = checked {
            panic!("packet {packets}, {}: {wrong}", output.reason.name());
        }
    }
}

/// The cases as lives, with everything there is and with nobody denied.
pub fn seeds() -> Vec<Vec<u8>> {
    let lives: Vec<_> = cases::all().iter().map(Case::life).collect();
    [0, 3].iter().flat_map(|which| lives.iter().map(|life| input(*which, life))).collect()
}

/// What changes the bytes of a frame: in the buffer, of so many bytes, to at most so many; how many they are then.
pub type Mutator = fn(&mut [u8], usize, usize) -> usize;

/// Bytes a frame grows by at most in one change.
const GROWTH: usize = 64;

/// Changes the input that is the first `len` bytes of `buffer` event by event, so that a frame that grows does not
/// become part of the next. At most `most` bytes, and how many they are.
pub fn mutate(buffer: &mut [u8], len: usize, most: usize, seed: u32, mutator: Mutator) -> usize {
    let mut seed = seed as usize;
    let mut pick = |below: usize| {
        let picked = seed % below;
        seed /= below;
        picked
    };
    let (mut which, events) = parts(&buffer[..len]);
    let mut life = life(events);
    let change = pick(20);
    let at = pick(life.len() + 1);
    match (change, life.get_mut(at)) {
        (0..12, Some(Event::Frame(frame))) => {
            let len = frame.len();
            let most = (len + GROWTH).min(LARGEST);
            frame.resize(most, 0);
            let len = mutator(frame, len, most);
            frame.truncate(len);
        }
        (12..14, Some(_)) => drop(life.remove(at)),
        (14..16, Some(event)) => {
            let event = event.clone();
            life.insert(pick(life.len() + 1), event);
        }
        (16, _) => which = pick(FIXTURES.len()),
        (17, _) => life.insert(at, Event::Wait(Duration::from_secs(1 << pick(10)))),
        _ => life.insert(at, Event::Frame(FRAMES[pick(FRAMES.len())].clone())),
    }
    let input = input(which, &life);
    if input.len() > most {
        return mutator(buffer, len, most);
    }
    buffer[..input.len()].copy_from_slice(&input);
    input.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_life_is_read_as_it_was_written(which in 0usize..4, life in random::life()) {
            let input = input(which, &life);
            prop_assert_eq!(parts(&input).0, which);
            let mut expected = life;
            for event in &mut expected {
                if let Event::Frame(frame) = event {
                    frame.truncate(LARGEST);
                }
            }
            prop_assert_eq!(super::life(parts(&input).1), expected);
        }

        #[test]
        fn every_byte_string_is_a_life(bytes in vec(any::<u8>(), 0..400)) {
            for event in life(&bytes) {
                prop_assert!(!matches!(event, Event::Frame(frame) if frame.len() < LEAST));
            }
        }

        #[test]
        fn a_changed_life_keeps_its_bounds(
            life in random::life(),
            seed in any::<u32>(),
            room in 0usize..2000,
        ) {
            let mut buffer = input(0, &life);
            let (len, most) = (buffer.len(), buffer.len() + room);
            buffer.resize(most, 0);
            let grow: Mutator = |bytes, len, most| {
                bytes[len - 1] ^= 1;
                (len + 1).min(most)
            };
            let changed = mutate(&mut buffer, len, most, seed, grow);
            prop_assert!((1..=most).contains(&changed));
        }
    }
}
