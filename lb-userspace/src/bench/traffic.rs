//! Traffic for a director that runs elsewhere, over a link to it or through its program: established flows that are
//! watched one by one, and a flood beside them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lb_common::bench::Reset;

use super::BenchError;
use super::frame::{self, Segment};
use super::running::move_to;
use super::wrapped::{Run, Target, Whose, Wrapped};
use crate::object;
use crate::xdp;

/// The service the traffic is for, and the address the director must have on the link.
pub const VIP: std::net::Ipv4Addr = frame::VIP4;
pub const PORT: u16 = frame::PORT;
pub const DIRECTOR: [u8; 6] = frame::DIRECTOR.0;

/// Packets handed to the kernel at once: tens of milliseconds.
const CHUNK: u32 = 1 << 16;

/// Packets of a run that is timed: few enough that some are not interrupted on a busy machine.
const SHORT: u32 = 100_000;

/// Only packets that open flows, for as long as a run may be.
pub const FLOOD_ALONE: u32 = u32::MAX;

/// Flows of the flood that a CPU or a probe may open before it meets another one's, and CPUs there is room for.
const SHARE: u64 = 1 << 29;
pub const MOST_CPUS: usize = 7;

/// How long packets may be on their way after the last was sent.
const PATIENCE: Duration = Duration::from_secs(1);

/// The generator's end of a link to a director.
pub struct Traffic {
    /// One a CPU; the first one's maps are those of the program that watches.
    wrapped: Vec<Wrapped>,
    cpus: Vec<usize>,
    ifindex: u32,
    flows: u32,
}

/// Packets of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sent {
    pub packets: u64,
    /// Of these, of established flows.
    pub established: u64,
    /// Packets that came back, those sent too late to be waited for excepted.
    pub arrived: u64,
    pub seconds: f64,
}

/// What came back of the established flows, since the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub arrived: u64,
    /// Packets that went to another server than the first one of their flow.
    pub elsewhere: u64,
    /// By the flow's number: the last four bytes of its server's MAC, as a big-endian number; 0 if nothing came.
    pub servers: Vec<u32>,
}

impl Traffic {
    /// Of so many established flows, out of the interface of that index, from these CPUs, [`MOST_CPUS`] at most.
    ///
    /// # Errors
    /// The programs cannot be loaded.
    pub fn new(flows: u32, ifindex: u32, cpus: &[usize]) -> Result<Self, BenchError> {
        let bench = object::bench()?;
        let packet = frame::v4(0, VIP, Segment::Syn);
        let cpus = &cpus[..cpus.len().min(MOST_CPUS)];
        let load = |_| Wrapped::watching(bench, &Target::Own("empty", 0), packet.clone(), flows);
        let wrapped = cpus.iter().map(load).collect::<Result<_, _>>()?;
        Ok(Self { wrapped, cpus: cpus.to_vec(), ifindex, flows })
    }

    /// Attaches what watches the packets that come back. To be called in the generator's network namespace.
    ///
    /// # Errors
    /// The interface takes no program in its driver.
    pub fn attach(&mut self) -> Result<(), BenchError> {
        self.wrapped[0].attach("witness", self.ifindex)
    }

    /// Sends the two packets that establish each flow, one flow after another. To be called in the generator's network
    /// namespace.
    ///
    /// # Errors
    /// The kernel cannot send.
    pub fn establish(&mut self) -> Result<Sent, BenchError> {
        let mut sent = Sent::default();
        for kind in [Segment::Syn, Segment::Ack] {
            let reset = Reset { next: 0, ..frame::reset(&frame::v4(0, VIP, kind)) };
            self.wrapped[0].set(reset)?;
            let before = self.arrived()?;
            let begin = Instant::now();
            self.wrapped[0].send(Whose::Next, self.flows, self.ifindex)?;
            sent.packets += u64::from(self.flows);
            sent.arrived += self.wait(before, u64::from(self.flows))?;
            sent.seconds += begin.elapsed().as_secs_f64();
        }
        sent.established = sent.packets;
        Ok(sent)
    }

    /// Sends as fast as it can from every CPU for that long: one packet in `every` of an established flow, the others
    /// opening a flow each. To be called in the generator's network namespace.
    ///
    /// # Errors
    /// The kernel cannot send.
    pub fn flood(&mut self, every: u32, lasts: Duration) -> Result<Sent, BenchError> {
        let end = Instant::now() + lasts;
        self.mix(self.cpus.len(), every, || Instant::now() < end, || ()).map(|(sent, ())| sent)
    }

    /// Nanoseconds from one packet to the next of a short run from one CPU: sending, the link twice, the director,
    /// watching. One packet in `every` is of an established flow. To be called in the generator's network namespace.
    ///
    /// # Errors
    /// The kernel cannot send.
    pub fn pace(&mut self, every: u32) -> Result<f64, BenchError> {
        self.prepare(1, every)?;
        let (wrapped, cpu, ifindex) = (&self.wrapped[0], self.cpus[0], self.ifindex);
        let send = || {
            move_to(cpu)?;
            let begin = Instant::now();
            wrapped.send(Whose::Mixed, SHORT, ifindex)?;
            Ok(begin.elapsed().as_nanos() as f64 / f64::from(SHORT))
        };
        thread::scope(|scope| scope.spawn(send).join().expect("sending does not panic"))
    }

    /// As [`Traffic::flood`], but from the first CPU alone and for as long as `work` takes.
    ///
    /// # Errors
    /// The kernel cannot send.
    pub fn flood_beside<T>(&mut self, every: u32, work: impl FnOnce() -> T) -> Result<(Sent, T), BenchError> {
        let done = AtomicBool::new(false);
        let until_done = || {
            let _end = End(&done);
            work()
        };
        self.mix(1, every, || !done.load(Ordering::Relaxed), until_done)
    }

    fn mix<T>(
        &mut self,
        cpus: usize,
        every: u32,
        goes_on: impl Fn() -> bool + Sync,
        work: impl FnOnce() -> T,
    ) -> Result<(Sent, T), BenchError> {
        self.prepare(cpus, every)?;
        let before = self.arrived()?;
        let begin = Instant::now();
        let (packets, worked) = thread::scope(|scope| {
            let threads: Vec<_> = self.wrapped[..cpus]
                .iter()
                .zip(&self.cpus)
                .map(|(wrapped, &cpu)| {
                    let (goes_on, ifindex) = (&goes_on, self.ifindex);
                    scope.spawn(move || {
                        move_to(cpu)?;
                        let mut packets = 0;
                        while goes_on() {
                            wrapped.send(Whose::Mixed, CHUNK, ifindex)?;
                            packets += u64::from(CHUNK);
                        }
                        Ok(packets)
                    })
                })
                .collect();
            let worked = work();
            let packets: Result<u64, BenchError> =
                threads.into_iter().map(|thread| thread.join().expect("sending does not panic")).sum();
            (packets, worked)
        });
        let seconds = begin.elapsed().as_secs_f64();
        let packets = packets?;
        let arrived = self.wait(before, packets)?;
        let picked: Result<u64, BenchError> =
            self.wrapped[..cpus].iter().map(|wrapped| Ok(wrapped.reset()?.picked)).sum();
        Ok((Sent { packets, established: picked?, arrived, seconds }, worked))
    }

    /// Tells the wrappers what to make.
    fn prepare(&mut self, cpus: usize, every: u32) -> Result<(), BenchError> {
        let packet = frame::v4(0, VIP, Segment::Syn);
        for (cpu, wrapped) in (0..).zip(&mut self.wrapped[..cpus]) {
            let before = wrapped.reset()?;
            let first = u64::from(self.flows) + cpu * SHARE;
            wrapped.set(Reset {
                flows: self.flows,
                every,
                // A flood goes on where the one before it ended.
                next: before.next.max(first),
                random: before.random.wrapping_add(cpu),
                ..frame::reset(&packet)
            })?;
        }
        Ok(())
    }

    /// Packets that came back since `before` of them had, once all did or no more are to be expected.
    fn wait(&self, before: u64, sent: u64) -> Result<u64, BenchError> {
        let begin = Instant::now();
        loop {
            let arrived = self.arrived()? - before;
            if arrived >= sent || begin.elapsed() > PATIENCE {
                return Ok(arrived);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn arrived(&self) -> Result<u64, BenchError> {
        self.wrapped[0].arrived()
    }

    /// What has come back of the established flows.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn seen(&self) -> Result<Seen, BenchError> {
        let mut seen = Seen::default();
        for flow in 0..self.flows {
            let mut server = 0;
            for cpu in self.wrapped[0].witnessed(flow)? {
                if cpu.arrived == 0 {
                    continue;
                }
                if server == 0 {
                    server = cpu.server;
                }
                seen.arrived += cpu.arrived;
                // Two CPUs that agree with themselves need not agree with each other.
                seen.elsewhere += if cpu.server == server { u64::from(cpu.elsewhere) } else { cpu.arrived };
            }
            seen.servers.push(server);
        }
        Ok(seen)
    }
}

/// Tells that something is done when it is dropped, also by a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The client of flow `number`.
pub fn client(number: u32) -> std::net::SocketAddrV4 {
    let (address, port) = lb_common::bench::client(number);
    std::net::SocketAddrV4::new(address.to_ne_bytes().into(), port.to_host())
}

/// What a packet costs in the program a running director has attached, with its flows as they are.
pub struct Probe {
    program: Wrapped,
    empty: Wrapped,
    flows: u32,
    cpu: usize,
    /// Number of the next flow it opens.
    next: u64,
}

/// Packets a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// Of established flows at random.
    Established,
    /// Each opening a flow.
    Flood,
    /// In turn.
    Half,
}

/// Packets of one probe, some tens of milliseconds.
const PROBE: u32 = 100_000;

impl Probe {
    /// `pin`: the director's folder; `ifindex`: an interface it has attached the program to in the driver. To be called,
    /// as all of this, in the director's network namespace.
    ///
    /// # Errors
    /// No director has its program there.
    pub fn new(pin: &Path, ifindex: u32, flows: u32, cpu: usize) -> Result<Self, BenchError> {
        let attached = xdp::attached_program(pin, ifindex).map_err(BenchError::NoDirector)?;
        let bench = object::bench()?;
        let packet = frame::v4(0, VIP, Segment::Ack);
        let load = |target: &Target<'_>| {
            let mut wrapped = Wrapped::load(bench, target, packet.clone())?;
            wrapped.come_in_by(ifindex);
            Ok::<_, BenchError>(wrapped)
        };
        let (program, empty) = (load(&Target::Other(&attached))?, load(&Target::Own("empty", 0))?);
        Ok(Self { program, empty, flows, cpu, next: u64::from(flows) + MOST_CPUS as u64 * SHARE })
    }

    /// Nanoseconds of a packet, the empty program's taken off.
    ///
    /// # Errors
    /// The kernel cannot run the program, or it did not send the packets on.
    pub fn round(&mut self, packets: Packets) -> Result<f64, BenchError> {
        let (whose, kind) = match packets {
            Packets::Established => (Whose::Random, Segment::Ack),
            Packets::Flood => (Whose::Next, Segment::Syn),
            Packets::Half => (Whose::Mixed, Segment::Syn),
        };
        let next = if packets == Packets::Established { 1 } else { self.next };
        let reset = Reset { flows: self.flows, next, every: 2, ..frame::reset(&frame::v4(0, VIP, kind)) };
        if packets != Packets::Established {
            self.next += u64::from(PROBE);
        }
        let mut costs = [0.0; 2];
        for (cost, wrapped) in costs.iter_mut().zip([&mut self.empty, &mut self.program]) {
            wrapped.set(reset)?;
            *cost = run_on(wrapped, self.cpu, whose)?.each;
        }
        Ok(costs[1] - costs[0])
    }
}

/// On a thread of its own, which inherits the network namespace, so that the caller stays where it is.
fn run_on(wrapped: &Wrapped, cpu: usize, whose: Whose) -> Result<Run, BenchError> {
    let run = || {
        move_to(cpu)?;
        wrapped.run(whose, PROBE)
    };
    thread::scope(|scope| scope.spawn(run).join().expect("a run does not panic")).and_then(|run| {
        if run.action == super::running::XDP_TX {
            return Ok(run);
        }
        Err(BenchError::Wrong { case: "probe", what: format!("the program returned {}", run.action) })
    })
}
