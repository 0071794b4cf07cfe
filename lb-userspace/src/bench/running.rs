//! A case set up, ready to be run round after round.

use std::sync::Barrier;
use std::thread;

use lb_common::bench::Reset;
use lb_common::counters::{Reason, Verdict};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::BenchError;
use super::case::{Baseline, Case, Loaded, Subject, Traffic};
use super::director::{Counts, Director, Flows};
use super::frame::{self, Segment};
use super::wrapped::{Run, Target, Whose, Wrapped};

/// `enum xdp_action`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
pub(super) const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// First flow of the second CPU, where CPUs open flows of their own.
const SECOND_CPU: u64 = 1 << 31;

/// Packets of known flows that may find theirs evicted from the kernel's LRU hash, one in so many.
const PEER_MISSES: u64 = 50;

/// The wrappers around one program, one a CPU.
pub(super) struct Running {
    case: Case,
    director: Option<Director>,
    wrapped: Vec<Wrapped>,
    /// Flows opened and not forgotten.
    opened: u64,
    /// Half-open flows that had to go since then.
    evicted_before: u64,
    /// Opened by the peer before the rounds, and packets sent since.
    peer_opened: u64,
    peer_packets: u64,
}

/// An empty or nearly empty program, for what of the figures is not the case's own.
pub(super) struct Empty {
    wrapped: Vec<Wrapped>,
    whose: Whose,
}

/// Times flows are opened before it is an error that some are not there.
const TRIES: usize = 4;

/// Runs of baselines in one round.
const EMPTY_REPEAT: u32 = 500_000;

impl Empty {
    pub(super) fn load(bench: &[u8], baseline: Baseline, program: &'static str) -> Result<Self, BenchError> {
        let frame = match baseline.whose {
            Whose::Same6 => frame::v6(Segment::Ack),
            _ => frame::v4(0, frame::VIP4, Segment::Ack),
        };
        let wrapped = (0..baseline.cpus)
            .map(|_| {
                let mut wrapped = Wrapped::load(bench, &Target::Own(program, 0), frame.clone())?;
                wrapped.set(Reset { flows: 1_000_000, ..frame::reset(&frame) })?;
                Ok(wrapped)
            })
            .collect::<Result<_, BenchError>>()?;
        Ok(Self { wrapped, whose: baseline.whose })
    }

    pub(super) fn round(&self, cpus: &[usize], quick: u32) -> Result<f64, BenchError> {
        Ok(mean(&on_cpus(&self.wrapped, cpus, self.whose, EMPTY_REPEAT / quick)?))
    }
}

impl Running {
    pub(super) fn set_up(lb: &[u8], bench: &[u8], case: Case, cpus: &[usize]) -> Result<Self, BenchError> {
        let mut director = match case.subject {
            Subject::Director(setup) => Some(Director::load(lb, setup)?),
            Subject::Plain(_) | Subject::Read | Subject::Peer => None,
        };
        let loaded = match (&mut director, case.subject.own()) {
            (Some(director), _) => Loaded::Other(director.fd()?),
            (None, own) => Loaded::Own(own.ok_or(BenchError::Missing("program"))?),
        };
        let target = match &loaded {
            Loaded::Own(name) => Target::Own(name, case.flows()),
            Loaded::Other(fd) => Target::Other(fd),
        };
        let wrapped = (0..case.cpus)
            .map(|_| Wrapped::load(bench, &target, segment(&case, 0, Segment::Ack)))
            .collect::<Result<_, _>>()?;
        let mut running =
            Self { case, director, wrapped, opened: 0, evicted_before: 0, peer_opened: 0, peer_packets: 0 };
        running.warm_up(cpus[0])?;
        running.try_one()?;
        Ok(running)
    }

    pub(super) fn name(&self) -> &'static str {
        self.case.name
    }

    /// One round: nanoseconds a packet, the mean of the CPUs.
    pub(super) fn round(&mut self, cpus: &[usize], quick: u32) -> Result<f64, BenchError> {
        let repeat = self.case.repeat() / quick;
        let packets = u64::from(repeat) * self.case.cpus as u64;
        if self.case.traffic == Traffic::New && self.opened + packets > self.case.room() {
            self.check_flows()?;
            self.forget()?;
        }
        let before = self.counts()?;
        let runs = on_cpus(&self.wrapped, cpus, self.case.whose(), repeat)?;
        let expected = action(&self.case);
        if let Some(run) = runs.iter().find(|run| run.action != expected) {
            return Err(self.wrong(format!("the program returned {} and not {expected}", run.action)));
        }
        if self.case.traffic == Traffic::New {
            self.opened += packets;
        }
        self.peer_packets += packets;
        if let (Some(director), Some(before), Some(after)) = (&self.director, before, self.counts()?) {
            let wanted = Counts {
                expected: before.expected + packets,
                all: before.all + packets,
                evicted: after.evicted,
                not_remembered: before.not_remembered,
            };
            if after != wanted {
                let reasons = director.reasons()?;
                return Err(self.wrong(format!(
                    "not all of {packets} packets went the way that is measured: {after:?}, not {wanted:?} ({reasons})"
                )));
            }
        }
        Ok(mean(&runs))
    }

    /// Puts the case's program on an interface of this thread's network namespace.
    pub(super) fn attach(&mut self, ifindex: u32) -> Result<(), BenchError> {
        match (&mut self.director, self.case.subject.own()) {
            (Some(director), _) => director.attach(ifindex),
            (None, Some(own)) => self.wrapped[0].attach(own, ifindex),
            (None, None) => Err(BenchError::Missing("program")),
        }
    }

    /// Packets a director has sent by the interface they came in by; nothing where the program does not count.
    pub(super) fn transmitted(&self) -> Result<Option<u64>, BenchError> {
        let counts =
            self.director.as_ref().map(|director| director.counts(Reason::Transmitted)).transpose()?;
        Ok(counts.map(|counts| counts.expected))
    }

    /// What must be so when all rounds are over.
    pub(super) fn finish(&self) -> Result<(), BenchError> {
        self.check_flows()?;
        if matches!(self.case.subject, Subject::Peer) && self.case.traffic != Traffic::New {
            let missed = self.peer_opened()? - self.peer_opened;
            if missed > self.peer_packets / PEER_MISSES {
                return Err(self.wrong(format!("{missed} of {} packets found no flow", self.peer_packets)));
            }
        }
        Ok(())
    }

    /// Opens the flows that packets of the case are of.
    fn warm_up(&mut self, cpu: usize) -> Result<(), BenchError> {
        let case = self.case;
        let (flows, is_flood) = match case.traffic {
            Traffic::Established(flows) => (flows, false),
            Traffic::Flood(flows) => (flows, true),
            Traffic::New | Traffic::Strange => (0, false),
        };
        if flows > 0 && case.remembers() && !matches!(case.subject, Subject::Plain(_) | Subject::Read) {
            self.establish(cpu, flows)?;
            self.check_flows()?;
            self.peer_opened = self.peer_opened()?;
        }
        let kind = match case.traffic {
            Traffic::Established(_) | Traffic::Strange => Segment::Ack,
            Traffic::New | Traffic::Flood(_) => Segment::Syn,
        };
        for (at, wrapped) in self.wrapped.iter_mut().enumerate() {
            let first = u64::from(flows) + at as u64 * SECOND_CPU;
            let next = if case.whose() == Whose::Next { first } else { 1 + at as u64 };
            wrapped.set(Reset { flows, next, ..frame::reset(&segment(&case, at as u32, kind)) })?;
        }
        if is_flood {
            // As many again as the table has room for: from here on each has to take another's place.
            on_cpus(&self.wrapped, &[cpu], Whose::Next, 4 * flows)?;
        }
        self.evicted_before = self.evicted()?;
        Ok(())
    }

    /// Opens so many flows and sends a second packet of each. Where the table is crowded a half-open flow may be evicted
    /// before its second packet comes; then everyone tries again.
    fn establish(&mut self, cpu: usize, flows: u32) -> Result<(), BenchError> {
        let case = self.case;
        let whose = if case.is_v6() { Whose::Same6 } else { Whose::Next };
        for _ in 0..TRIES {
            for kind in [Segment::Syn, Segment::Ack] {
                let reset = Reset { next: 0, ..frame::reset(&segment(&case, 0, kind)) };
                self.wrapped[0].set(reset)?;
                on_cpus(&self.wrapped[..1], &[cpu], whose, flows)?;
            }
            match &self.director {
                Some(director) if director.flows()?.confirmed < u64::from(flows) => {}
                _ => break,
            }
        }
        Ok(())
    }

    /// Sends one packet and looks at it.
    fn try_one(&mut self) -> Result<(), BenchError> {
        let (returned, out) = self.wrapped[0].once(self.case.whose())?;
        if self.case.traffic == Traffic::New {
            self.opened += 1;
        }
        let expected = action(&self.case);
        let sent = segment(&self.case, 0, Segment::Ack);
        if returned != expected || out.len() != sent.len() + self.case.grows {
            return Err(self.wrong(format!("the packet came back as {returned} with {} bytes", out.len())));
        }
        if let Some(director) = &self.director
            && self.case.traffic != Traffic::Strange
            && !director.is_sent(&out)
        {
            return Err(self.wrong(format!("the packet went to {:02x?}", &out[..12])));
        }
        Ok(())
    }

    fn forget(&mut self) -> Result<(), BenchError> {
        if let Some(director) = &mut self.director {
            director.forget()?;
        }
        self.opened = 0;
        self.evicted_before = self.evicted()?;
        Ok(())
    }

    /// As many flows are known as were opened, and as many established as must be.
    fn check_flows(&self) -> Result<(), BenchError> {
        let Some(director) = &self.director else { return Ok(()) };
        if !self.case.remembers() {
            return Ok(());
        }
        let known = director.flows()?;
        let wanted = match self.case.traffic {
            Traffic::Established(flows) => Flows { live: flows.into(), confirmed: flows.into() },
            Traffic::Flood(flows) => Flows { confirmed: flows.into(), ..known },
            Traffic::New => {
                Flows { live: self.opened - (self.evicted()? - self.evicted_before), confirmed: 0 }
            }
            Traffic::Strange => Flows::default(),
        };
        if known != wanted {
            return Err(self.wrong(format!("the table has {known:?} and not {wanted:?}")));
        }
        Ok(())
    }

    fn counts(&self) -> Result<Option<Counts>, BenchError> {
        self.director.as_ref().map(|director| director.counts(self.case.reason())).transpose()
    }

    fn evicted(&self) -> Result<u64, BenchError> {
        Ok(self.counts()?.map_or(0, |counts| counts.evicted))
    }

    fn peer_opened(&self) -> Result<u64, BenchError> {
        self.wrapped.iter().map(Wrapped::peer_opened).sum()
    }

    fn wrong(&self, what: String) -> BenchError {
        BenchError::Wrong { case: self.case.name, what }
    }
}

/// What the program is to return for the case's packets.
fn action(case: &Case) -> u32 {
    match case.reason().verdict() {
        Verdict::Transmit | Verdict::Reply => XDP_TX,
        Verdict::Redirect => XDP_REDIRECT,
        Verdict::Pass => XDP_PASS,
        Verdict::Drop => XDP_DROP,
    }
}

/// A packet of the case's first flows.
pub(super) fn segment(case: &Case, number: u32, kind: Segment) -> Vec<u8> {
    if case.is_v6() {
        return frame::v6(kind);
    }
    let to = if case.traffic == Traffic::Strange { frame::OTHER4 } else { frame::VIP4 };
    frame::v4(number, to, kind)
}

fn mean(runs: &[Run]) -> f64 {
    runs.iter().map(|run| run.each).sum::<f64>() / runs.len() as f64
}

/// Runs each on a CPU of its own, all at once.
fn on_cpus(wrapped: &[Wrapped], cpus: &[usize], whose: Whose, repeat: u32) -> Result<Vec<Run>, BenchError> {
    let together = Barrier::new(wrapped.len());
    thread::scope(|scope| {
        let threads: Vec<_> = wrapped
            .iter()
            .zip(cpus)
            .map(|(wrapped, &cpu)| {
                let together = &together;
                scope.spawn(move || {
                    let moved = move_to(cpu);
                    together.wait();
                    moved?;
                    wrapped.run(whose, repeat)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a run does not panic")).collect()
    })
}

pub(super) fn move_to(cpu: usize) -> Result<(), BenchError> {
    let mut only = CpuSet::new();
    let failed = |source| BenchError::Cpu { cpu, source };
    only.set(cpu).map_err(failed)?;
    sched_setaffinity(Pid::from_raw(0), &only).map_err(failed)
}
