//! A director of the benchmark's own: the real programs over maps nobody else has, filled by hand.

use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray};
use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use lb_common::counters::{Note, Reason};
use lb_common::flow::{Entry, Layout, Shared, V4, V6, WAYS, control};
use lb_common::hash::{MH_TABLE, Seed};
use lb_common::net::{Addr, Be16, Mac, proto};
use lb_common::plan::{PlanHead, PlanKind, Slot, cost, hash_detail};
use lb_common::server::{Method, NO_VLAN, Server, server_flag};
use lb_common::service::{Service, ServiceKey, key_kind, service_flag};
use lb_common::settings::{Settings, switch, timeout};
use lb_common::stage::Stage;
use lb_common::{limits, tcp};

use super::{BenchError, frame};

/// Service and plan of every director here.
const SERVICE: u32 = 0;

/// Entries of the deny list, which is looked at if the features say so.
const DENIED: u8 = 16;

/// Occupancy a flow table is made for, in percent: as the director sizes its own.
const FULL: u64 = 85;

/// Where `BPF_PROG_TEST_RUN` says packets came in: the loopback interface, whose index is 1 in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// How the service schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// rr.
    Cycle,
    /// wlc.
    Least,
    /// mh, for every packet anew.
    Stateless,
}

/// What a director has and does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// See `lb_common::settings::feature`: what a configuration like this gets, and no more.
    pub(super) features: u32,
    pub(super) is_v6: bool,
    /// Flows the table is made for.
    pub(super) table: u32,
    pub(super) servers: u32,
    pub(super) plan: Plan,
    pub(super) method: Method,
    /// GRE and GUE: with a checksum.
    pub(super) checksum: bool,
    /// The interface servers are behind; what comes in by the same one is sent by `XDP_TX`.
    pub(super) ifindex: u32,
}

/// Buckets of a table for so many flows.
pub(super) fn buckets(flows: u32) -> u32 {
    (u64::from(flows) * 100).div_ceil(FULL).div_ceil(WAYS.into()).max(1) as u32
}

pub(super) struct Director {
    ebpf: Ebpf,
    setup: Setup,
}

/// Flows of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flows {
    pub(super) live: u64,
    /// Of those, beyond the first packet.
    pub(super) confirmed: u64,
}

/// Every packet's end, and what else is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets that ended for the reason asked about, and for any.
    pub(super) expected: u64,
    pub(super) all: u64,
    /// Half-open flows that gave their place to newer ones.
    pub(super) evicted: u64,
    pub(super) not_remembered: u64,
}

impl Director {
    pub(super) fn load(elf: &[u8], setup: Setup) -> Result<Self, BenchError> {
        let buckets = buckets(setup.table);
        let (v4, v6) = if setup.is_v6 { (1, buckets) } else { (buckets, 1) };
        let mut loader = EbpfLoader::new();
        loader.override_global("FEATURES", &setup.features, true);
        for (name, entries) in [("FLOWS4", v4), ("FLOWS6", v6), ("TEMPLATES", 1), ("SPILL", limits::SPILL)] {
            loader.map_max_entries(name, entries);
        }
        let ebpf = loader.load(elf).map_err(BenchError::load)?;
        let mut director = Self { ebpf, setup };
        director.settings([v4, v6, 1])?;
        director.service()?;
        director.servers()?;
        director.plan()?;
        director.deny()?;
        director.stages()?;
        director.program("lb")?.load().map_err(|source| BenchError::program("lb", source))?;
        Ok(director)
    }

    /// The program that is attached to interfaces elsewhere.
    pub(super) fn fd(&mut self) -> Result<ProgramFd, BenchError> {
        super::fd(self.program("lb")?, "lb")
    }

    /// Puts the program on an interface of this thread's network namespace, in its driver, for as long as the director
    /// lives.
    pub(super) fn attach(&mut self, ifindex: u32) -> Result<(), BenchError> {
        super::attach(self.program("lb")?, "lb", ifindex)
    }

    fn settings(&mut self, buckets: [u32; 3]) -> Result<(), BenchError> {
        // As if jiffies were milliseconds: where they are longer so are the timeouts, and none must end in between.
        let hz = 1000;
        let mut timeouts = [0; 32];
        for (slot, seconds) in timeouts[timeout::TCP as usize..].iter_mut().zip(&tcp::TIMEOUTS) {
            *slot = seconds * hz;
        }
        let settings = Settings {
            seed: Seed([
                0x9e37_79b9_7f4a_7c15,
                0xf39c_c060_5ced_c834,
                0x1082_276b_f3a2_7251,
                0xb492_b66f_be98_f273,
                0x9ae1_6a3b_2f90_404f,
                0xd1b5_4a32_d192_ed03,
            ]),
            timeouts,
            buckets,
            hz,
            switches: switch::PMTU_DISC,
            conn_reuse_mode: 1,
            icmp_per_second: 1000,
            // Looked at if the features say so, and never reached.
            new_flows_per_second: u32::MAX,
            source_flows_per_second: u32::MAX,
            source_mask_v4: Addr([u32::MAX; 4]),
            source_mask_v6: Addr([u32::MAX; 4]),
            ..Settings::default()
        };
        self.array("SETTINGS")?.set(0, settings, 0).map_err(|source| BenchError::map("SETTINGS", source))
    }

    fn service(&mut self) -> Result<(), BenchError> {
        let flags = if self.setup.plan == Plan::Stateless { service_flag::STATELESS } else { 0 };
        let service = Service {
            flags: service_flag::IN_USE | flags,
            port: Be16::from_host(frame::PORT),
            protocol: proto::TCP,
            ..Service::default()
        };
        self.array("SERVICE")?
            .set(SERVICE, service, 0)
            .map_err(|source| BenchError::map("SERVICE", source))?;
        let vip = if self.setup.is_v6 { IpAddr::V6(frame::VIP6) } else { IpAddr::V4(frame::VIP4) };
        let vip = Addr::from(vip);
        let failed = |source| BenchError::map("SERVICES", source);
        let map = self.ebpf.map_mut("SERVICES").ok_or(BenchError::Missing("SERVICES"))?;
        let mut services = HashMap::<_, ServiceKey, u32>::try_from(map).map_err(failed)?;
        let place = ServiceKey {
            address: vip,
            port: Be16::from_host(frame::PORT),
            protocol: proto::TCP,
            kind: key_kind::SERVICE,
        };
        services.insert(place, SERVICE, 0).map_err(failed)?;
        let address = ServiceKey { address: vip, kind: key_kind::VIP, ..ServiceKey::default() };
        services.insert(address, SERVICE, 0).map_err(failed)
    }

    /// Ids from 1 on.
    fn servers(&mut self) -> Result<(), BenchError> {
        let Setup { servers, method, checksum, is_v6, ifindex, .. } = self.setup;
        let checksum = if checksum { server_flag::CHECKSUM } else { 0 };
        let mut map = self.array("SERVERS")?;
        for id in 1..=servers {
            let server = Server {
                dmac: mac(id),
                smac: frame::DIRECTOR,
                ifindex,
                method: method as u8,
                flags: server_flag::AVAILABLE | server_flag::REACHABLE | checksum,
                mtu: 1500,
                service: SERVICE as u16,
                tunnel_port: Be16::from_host(6080),
                weight: 1,
                vlan: [NO_VLAN; 2],
                rip: rip(id, is_v6),
                source: rip(0, is_v6),
            };
            map.set(id, server, 0).map_err(|source| BenchError::map("SERVERS", source))?;
        }
        Ok(())
    }

    fn plan(&mut self) -> Result<(), BenchError> {
        let servers = self.setup.servers;
        let (kind, detail, len) = match self.setup.plan {
            Plan::Cycle => (PlanKind::Cycle, 0, servers),
            Plan::Least => (PlanKind::Least, cost::WLC, servers),
            Plan::Stateless => (PlanKind::Hash, hash_detail::MH, MH_TABLE),
        };
        let mut slots = self.array::<u64>("SLOTS")?;
        for at in 0..len {
            // The number is 1 in every kind: the next slot has another server, the server's weight.
            slots
                .set(1 + at, Slot::new(1 + at % servers, 1).0, 0)
                .map_err(|source| BenchError::map("SLOTS", source))?;
        }
        let head = PlanHead::new(kind, detail, 0, len).0;
        self.array("PLANS")?.set(SERVICE, head, 0).map_err(|source| BenchError::map("PLANS", source))
    }

    /// Denies some addresses no packet here is from.
    fn deny(&mut self) -> Result<(), BenchError> {
        let failed = |source| BenchError::map("DENIED", source);
        let map = self.ebpf.map_mut("DENIED").ok_or(BenchError::Missing("DENIED"))?;
        let mut denied = LpmTrie::<_, Addr, u32>::try_from(map).map_err(failed)?;
        (0..DENIED)
            .try_for_each(|host| {
                let address = Addr::from(IpAddr::from([203, 0, 113, host]));
                denied.insert(&Key::new(128, address), 1, 0)
            })
            .map_err(failed)
    }

    fn stages(&mut self) -> Result<(), BenchError> {
        let mut programs = Vec::new();
        for (stage, name) in Stage::ALL {
            let program = self.program(name)?;
            program.load().map_err(|source| BenchError::program(name, source))?;
            programs.push((stage as u32, super::fd(program, name)?));
        }
        let failed = |source| BenchError::map("STAGES", source);
        let map = self.ebpf.map_mut("STAGES").ok_or(BenchError::Missing("STAGES"))?;
        let mut stages = ProgramArray::try_from(map).map_err(failed)?;
        programs.iter().try_for_each(|(at, fd)| stages.set(*at, fd, 0)).map_err(failed)
    }

    /// What the director has counted so far, `reason` apart.
    pub(super) fn counts(&self, reason: Reason) -> Result<Counts, BenchError> {
        let reasons = self.per_cpu("REASONS")?;
        let notes = self.per_cpu("NOTES")?;
        let mut counts = Counts::default();
        for &known in Reason::ALL {
            let packets = sum(&reasons, known as u32).map_err(|source| BenchError::map("REASONS", source))?;
            counts.all += packets;
            if known == reason {
                counts.expected = packets;
            }
        }
        let note = |note| sum(&notes, note as u32).map_err(|source| BenchError::map("NOTES", source));
        counts.evicted = note(Note::EvictedHalfOpen)?;
        counts.not_remembered = note(Note::NotRemembered)?;
        Ok(counts)
    }

    /// Every reason packets ended for, for a complaint.
    pub(super) fn reasons(&self) -> Result<String, BenchError> {
        let reasons = self.per_cpu("REASONS")?;
        let mut text = Vec::new();
        for &known in Reason::ALL {
            let packets = sum(&reasons, known as u32).map_err(|source| BenchError::map("REASONS", source))?;
            if packets != 0 {
                text.push(format!("{} {packets}", known.name()));
            }
        }
        Ok(text.join(", "))
    }

    /// Counts the flows the director knows, the few in the spill map included.
    pub(super) fn flows(&self) -> Result<Flows, BenchError> {
        let mut flows = if self.setup.is_v6 {
            self.count::<V6, { V6::BUCKET as usize }>("FLOWS6")?
        } else {
            self.count::<V4, { V4::BUCKET as usize }>("FLOWS4")?
        };
        let map = self.ebpf.map("SPILL").ok_or(BenchError::Missing("SPILL"))?;
        let failed = |source| BenchError::map("SPILL", source);
        type Spill<'a> =
            HashMap<&'a aya::maps::MapData, lb_common::flow::FlowKey, [u32; lb_common::flow::SPILL_WORDS]>;
        for entry in Spill::try_from(map).map_err(failed)?.iter() {
            let (_, words) = entry.map_err(failed)?;
            flows.live += 1;
            flows.confirmed += u64::from(!control::is_half_open(words[0]));
        }
        Ok(flows)
    }

    fn count<L: Layout, const WORDS: usize>(&self, name: &'static str) -> Result<Flows, BenchError>
    where
        [u32; WORDS]: Pod,
    {
        let failed = |source| BenchError::map(name, source);
        let map = self.ebpf.map(name).ok_or(BenchError::Missing(name))?;
        let table = Array::<_, [u32; WORDS]>::try_from(map).map_err(failed)?;
        let mut flows = Flows::default();
        for index in 0..table.len() {
            let bucket = table.get(&index, 0).map_err(failed)?.map(lb_common::flow::AtomicU32::new);
            for way in 0..WAYS {
                if let Some((entry, _)) = Entry::<L, _>::at(Shared(&bucket), way) {
                    flows.live += 1;
                    flows.confirmed += u64::from(!control::is_half_open(entry.control));
                }
            }
        }
        Ok(flows)
    }

    /// Forgets all IPv4 flows and servers' loads.
    pub(super) fn forget(&mut self) -> Result<(), BenchError> {
        let failed = |source| BenchError::map("FLOWS4", source);
        let mut table = self.array::<[u32; V4::BUCKET as usize]>("FLOWS4")?;
        for index in 0..table.len() {
            table.set(index, [0; V4::BUCKET as usize], 0).map_err(failed)?;
        }
        let servers = self.setup.servers;
        let mut loads = self.array::<[u32; lb_common::flow::LOAD_WORDS as usize]>("LOADS")?;
        (1..=servers)
            .try_for_each(|id| loads.set(id, [0; 4], 0))
            .map_err(|source| BenchError::map("LOADS", source))
    }

    /// True if a frame went to one of the servers, by its addresses.
    pub(super) fn is_sent(&self, frame: &[u8]) -> bool {
        let id = u32::from_be_bytes([0, 0, frame[4], frame[5]]);
        (1..=self.setup.servers).contains(&id) && frame[..6] == mac(id).0 && frame[6..12] == frame::DIRECTOR.0
    }

    fn program(&mut self, name: &'static str) -> Result<&mut Xdp, BenchError> {
        let program = self.ebpf.program_mut(name).ok_or(BenchError::Missing(name))?;
        program.try_into().map_err(|source| BenchError::program(name, source))
    }

    fn array<V: Pod>(&mut self, name: &'static str) -> Result<Array<&mut aya::maps::MapData, V>, BenchError> {
        let map = self.ebpf.map_mut(name).ok_or(BenchError::Missing(name))?;
        Array::try_from(map).map_err(|source| BenchError::map(name, source))
    }

    fn per_cpu(&self, name: &'static str) -> Result<PerCpuArray<&aya::maps::MapData, u64>, BenchError> {
        let map = self.ebpf.map(name).ok_or(BenchError::Missing(name))?;
        PerCpuArray::try_from(map).map_err(|source| BenchError::map(name, source))
    }
}

fn sum(map: &PerCpuArray<&aya::maps::MapData, u64>, index: u32) -> Result<u64, aya::maps::MapError> {
    Ok(map.get(&index, 0)?.iter().sum())
}

fn mac(id: u32) -> Mac {
    let [.., high, low] = id.to_be_bytes();
    Mac([2, 1, 0, 0, high, low])
}

fn rip(id: u32, is_v6: bool) -> Addr {
    let [.., high, low] = id.to_be_bytes();
    Addr::from(if is_v6 {
        IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, high, low])
    } else {
        IpAddr::from([172, 16, high, low])
    })
}
