//! Packets over a link: the kernel sends frames out of one end of a veth pair, the program under test at the other end
//! sends them back, a third program counts and drops them. All of it on one CPU, as veth has it.

use std::thread;
use std::time::{Duration, Instant};

use lb_common::bench::Reset;

use super::BenchError;
use super::case::{CASES, Case, Subject};
use super::director::Setup;
use super::frame::{self, Segment};
use super::running::{Running, move_to, segment};
use super::wrapped::{Target, Wrapped};
use crate::object;

/// Cases of the benchmark that make sense over a link.
const LIVE: [&str; 7] = ["floor", "dr_hot", "dr_100k", "dr_1m", "hash_lru_1", "hash_lru_100k", "hash_lru_1m"];

/// Their names, in the order of a report.
pub fn live_cases() -> impl Iterator<Item = &'static str> {
    LIVE.into_iter()
}

/// One case at one link.
pub struct Station {
    case: Case,
    running: Running,
    generator: Wrapped,
    /// The generator's end and the director's, each an index in its own network namespace.
    ends: [u32; 2],
}

/// What came of one run of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveRound {
    pub sent: u64,
    pub arrived: u64,
    /// From the first packet sent to the last one back.
    pub took: Duration,
}

/// How long packets may be on their way after the last was sent.
const PATIENCE: Duration = Duration::from_secs(1);

impl Station {
    /// Loads the programs of case `name` and opens its flows. `ends`: indexes of the generator's and of the director's
    /// interface.
    ///
    /// # Errors
    /// There is no such case, or it cannot be loaded.
    pub fn set_up(name: &str, ends: [u32; 2], cpu: usize) -> Result<Self, BenchError> {
        let unknown = || BenchError::NoCase(name.to_owned());
        let live = LIVE.iter().find(|live| **live == name).ok_or_else(unknown)?;
        let mut case = *CASES.iter().find(|case| case.name == *live).ok_or_else(unknown)?;
        if let Subject::Director(setup) = case.subject {
            case.subject = Subject::Director(Setup { ifindex: ends[1], ..setup });
        }
        let bench = object::bench()?;
        let running = Running::set_up(object::embedded()?, bench, case, &[cpu])?;
        let packet = segment(&case, 0, Segment::Ack);
        let mut generator = Wrapped::load(bench, &Target::Own("empty", 0), packet.clone())?;
        generator.set(Reset { flows: case.flows(), ..frame::reset(&packet) })?;
        Ok(Self { case, running, generator, ends })
    }

    /// Attaches the program under test. To be called in the director's network namespace.
    ///
    /// # Errors
    /// The interface takes no program in its driver.
    pub fn attach_director(&mut self) -> Result<(), BenchError> {
        self.running.attach(self.ends[1])
    }

    /// Attaches what counts the packets that come back. To be called in the generator's network namespace.
    ///
    /// # Errors
    /// As for [`Station::attach_director`].
    pub fn attach_sink(&mut self) -> Result<(), BenchError> {
        self.generator.attach("sink", self.ends[0])
    }

    /// Sends packets and waits for them. To be called in the generator's network namespace, on a thread that may be
    /// bound to `cpu`.
    ///
    /// # Errors
    /// The kernel cannot send, or the director sent other packets back than it got.
    pub fn round(&self, packets: u32, cpu: usize) -> Result<LiveRound, BenchError> {
        move_to(cpu)?;
        let before = self.generator.arrived()?;
        let transmitted = self.running.transmitted()?;
        let sent = u64::from(packets);
        let begin = Instant::now();
        self.generator.send(self.case.whose(), packets, self.ends[0])?;
        let sending = begin.elapsed();
        let mut arrived = self.generator.arrived()? - before;
        let mut took = sending;
        while arrived < sent && begin.elapsed() < sending + PATIENCE {
            thread::sleep(Duration::from_millis(1));
            arrived = self.generator.arrived()? - before;
            took = begin.elapsed();
        }
        if arrived < sent {
            // Lost ones are not waited for in the figure.
            took = sending;
        }
        if let (Some(before), Some(after)) = (transmitted, self.running.transmitted()?)
            && after - before < arrived
        {
            let what = format!("{arrived} packets came back, the director sent {}", after - before);
            return Err(BenchError::Wrong { case: self.case.name, what });
        }
        Ok(LiveRound { sent, arrived, took })
    }
}
