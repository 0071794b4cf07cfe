//! A program behind the wrapper that makes its packet anew for each run.

use aya::maps::HashMap;
use aya::maps::{Array, PerCpuArray, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::bench::{PEER_FLOWS, PEER_SERVERS, PeerServer, PeerService, Reset, Witnessed};
use lb_common::flow::{Layout, V4};
use lb_common::net::{Be16, Mac, proto};
use nix::time::{ClockId, clock_gettime};

use super::director::{LOOPBACK, buckets};
use super::{BenchError, frame};

/// Which wrapper: whose packet it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// One client's, over IPv4 or IPv6.
    Same,
    Same6,
    /// Of one of `Reset::flows`, at random.
    Random,
    /// Of a flow that none was of before.
    Next,
    /// One of `Reset::every` is as [`Whose::Random`], the others are as [`Whose::Next`].
    Mixed,
}

impl Whose {
    const ALL: [Self; 5] = [Self::Same, Self::Same6, Self::Random, Self::Next, Self::Mixed];

    const fn program(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Same6 => "same6",
            Self::Random => "random_flow",
            Self::Next => "next_flow",
            Self::Mixed => "mixed",
        }
    }
}

/// What is behind the wrapper.
pub(super) enum Target<'a> {
    /// A program of the benchmark's own object, by name, and how many flows its memory is made for.
    Own(&'static str, u32),
    Other(&'a ProgramFd),
}

/// The program over kernel hash maps.
pub(super) const PEER: &str = "hash_lru";

/// The program that waits for memory and does nothing else.
pub(super) const READ: &str = "read";

/// Words of a cache line.
const LINE: u32 = 16;

/// Room for flows in a peer's table that is not used; the kernel takes no less for an LRU map's CPUs.
const NO_PEER: u32 = 1024;

/// Frames handed over at once: what a busy network card's driver does, too.
const BATCH: u32 = 64;

pub(super) struct Wrapped {
    ebpf: Ebpf,
    frame: Vec<u8>,
    /// Where packets are said to come in when the program is only run.
    ifindex: u32,
}

/// What became of the last packet, and what one cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) action: u32,
    /// Nanoseconds of this thread's time.
    pub(super) each: f64,
}

impl Wrapped {
    /// `frame`: what the first run is given, and sets the headroom. The wrapper then makes its own.
    pub(super) fn load(elf: &[u8], target: &Target<'_>, frame: Vec<u8>) -> Result<Self, BenchError> {
        Self::watching(elf, target, frame, 1)
    }

    /// As [`Wrapped::load`], with room for what the program `witness` sees of so many flows.
    pub(super) fn watching(
        elf: &[u8],
        target: &Target<'_>,
        frame: Vec<u8>,
        flows: u32,
    ) -> Result<Self, BenchError> {
        let is_peer = matches!(target, Target::Own(PEER, _));
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("PEER_TABLE", if is_peer { PEER_FLOWS } else { NO_PEER });
        loader.map_max_entries("WITNESSED", flows);
        let lines = match target {
            Target::Own(READ, flows) => buckets(*flows) * V4::BUCKET / LINE,
            _ => 1,
        };
        loader.map_max_entries("MEMORY", lines);
        loader.override_global("LINES", &lines, true);
        let ebpf = loader.load(elf).map_err(BenchError::load)?;
        let mut wrapped = Self { ebpf, frame, ifindex: LOOPBACK };
        if is_peer {
            wrapped.fill_peer()?;
        }
        let own;
        let fd = match target {
            Target::Own(name, _) => {
                let program = wrapped.program_mut(name)?;
                program.load().map_err(|source| BenchError::program(name, source))?;
                own = super::fd(program, name)?;
                &own
            }
            Target::Other(fd) => *fd,
        };
        let failed = |source| BenchError::map("TARGET", source);
        let map = wrapped.ebpf.map_mut("TARGET").ok_or(BenchError::Missing("TARGET"))?;
        ProgramArray::try_from(map).and_then(|mut target| target.set(0, fd, 0)).map_err(failed)?;
        for whose in Whose::ALL {
            let name = whose.program();
            wrapped.program_mut(name)?.load().map_err(|source| BenchError::program(name, source))?;
        }
        Ok(wrapped)
    }

    /// How packets are made from now on.
    pub(super) fn set(&mut self, reset: Reset) -> Result<(), BenchError> {
        let failed = |source| BenchError::map("RESET", source);
        let map = self.ebpf.map_mut("RESET").ok_or(BenchError::Missing("RESET"))?;
        Array::try_from(map).and_then(|mut map| map.set(0, reset, 0)).map_err(failed)
    }

    /// How packets are made; what the wrapper writes is as of its latest one.
    pub(super) fn reset(&self) -> Result<Reset, BenchError> {
        let failed = |source| BenchError::map("RESET", source);
        let map = self.ebpf.map("RESET").ok_or(BenchError::Missing("RESET"))?;
        Array::try_from(map).and_then(|map| map.get(&0, 0)).map_err(failed)
    }

    /// Packets come in by another interface than the loopback one from now on, one of the network namespace that
    /// [`Wrapped::run`] is called in.
    pub(super) fn come_in_by(&mut self, ifindex: u32) {
        self.ifindex = ifindex;
    }

    /// Runs the program `repeat` times.
    pub(super) fn run(&self, whose: Whose, repeat: u32) -> Result<Run, BenchError> {
        let name = whose.program();
        let context = self.context(self.ifindex);
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        let program = self.program(name)?;
        let before = thread_time()?;
        let result = program.test_run(options).map_err(|source| BenchError::program(name, source))?;
        let after = thread_time()?;
        Ok(Run { action: result.return_value, each: (after - before) / f64::from(repeat) })
    }

    /// Sends so many frames out of an interface of this thread's network namespace. The target must return `XDP_TX`.
    pub(super) fn send(&self, whose: Whose, packets: u32, ifindex: u32) -> Result<(), BenchError> {
        let name = whose.program();
        let context = self.context(ifindex);
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        self.program(name)?.test_run(options).map_err(|source| BenchError::program(name, source)).map(drop)
    }

    /// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    fn context(&self, ifindex: u32) -> Vec<u8> {
        let words = [0, self.frame.len() as u32, 0, ifindex, 0, 0];
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// Attaches a program of the benchmark's own, loading it if it is not the target.
    pub(super) fn attach(&mut self, name: &'static str, ifindex: u32) -> Result<(), BenchError> {
        let program = self.program_mut(name)?;
        if program.fd().is_err() {
            program.load().map_err(|source| BenchError::program(name, source))?;
        }
        super::attach(program, name, ifindex)
    }

    /// What the program `witness` saw of a flow, on each CPU.
    pub(super) fn witnessed(&self, flow: u32) -> Result<Vec<Witnessed>, BenchError> {
        let failed = |source| BenchError::map("WITNESSED", source);
        let map = self.ebpf.map("WITNESSED").ok_or(BenchError::Missing("WITNESSED"))?;
        let seen = PerCpuArray::<_, Witnessed>::try_from(map).and_then(|map| map.get(&flow, 0));
        seen.map(|seen| seen.to_vec()).map_err(failed)
    }

    /// Packets that came to the programs `sink` and `witness`.
    pub(super) fn arrived(&self) -> Result<u64, BenchError> {
        let failed = |source| BenchError::map("ARRIVED", source);
        let map = self.ebpf.map("ARRIVED").ok_or(BenchError::Missing("ARRIVED"))?;
        let arrived = PerCpuArray::<_, u64>::try_from(map).and_then(|map| map.get(&0, 0)).map_err(failed)?;
        Ok(arrived.iter().sum())
    }

    /// Runs the program once; its verdict and the packet.
    pub(super) fn once(&self, whose: Whose) -> Result<(u32, Vec<u8>), BenchError> {
        let name = whose.program();
        let mut out = vec![0; 256];
        let options =
            TestRunOptions { data_in: Some(&self.frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result =
            self.program(name)?.test_run(options).map_err(|source| BenchError::program(name, source))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// Flows the program over kernel hash maps has opened.
    pub(super) fn peer_opened(&self) -> Result<u64, BenchError> {
        let failed = |source| BenchError::map("PEER_OPENED", source);
        let map = self.ebpf.map("PEER_OPENED").ok_or(BenchError::Missing("PEER_OPENED"))?;
        let opened = PerCpuArray::<_, u64>::try_from(map).and_then(|map| map.get(&0, 0)).map_err(failed)?;
        Ok(opened.iter().sum())
    }

    fn fill_peer(&mut self) -> Result<(), BenchError> {
        let failed = |source| BenchError::map("PEER_VIPS", source);
        let map = self.ebpf.map_mut("PEER_VIPS").ok_or(BenchError::Missing("PEER_VIPS"))?;
        let mut services = HashMap::<_, PeerService, u32>::try_from(map).map_err(failed)?;
        let service = PeerService {
            vip: u32::from_ne_bytes(frame::VIP4.octets()),
            port: Be16::from_host(frame::PORT),
            protocol: proto::TCP,
            pad: 0,
        };
        services.insert(service, 1, 0).map_err(failed)?;
        let failed = |source| BenchError::map("PEER_REALS", source);
        let map = self.ebpf.map_mut("PEER_REALS").ok_or(BenchError::Missing("PEER_REALS"))?;
        let mut servers = Array::<_, PeerServer>::try_from(map).map_err(failed)?;
        (0..PEER_SERVERS)
            .try_for_each(|id| {
                let dmac = Mac([2, 1, 0, 0, 0, id as u8]);
                servers.set(id, PeerServer { dmac, smac: frame::DIRECTOR }, 0)
            })
            .map_err(failed)
    }

    fn program(&self, name: &'static str) -> Result<&Xdp, BenchError> {
        let program = self.ebpf.program(name).ok_or(BenchError::Missing(name))?;
        program.try_into().map_err(|source| BenchError::program(name, source))
    }

    fn program_mut(&mut self, name: &'static str) -> Result<&mut Xdp, BenchError> {
        let program = self.ebpf.program_mut(name).ok_or(BenchError::Missing(name))?;
        program.try_into().map_err(|source| BenchError::program(name, source))
    }
}

/// Time this thread has run, in nanoseconds.
fn thread_time() -> Result<f64, BenchError> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_err(BenchError::Clock)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}
