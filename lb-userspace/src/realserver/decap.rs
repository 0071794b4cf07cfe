//! The decapsulator on a real server's interface, for as long as this process lives.

use crate::model::AttachMode;
use crate::netlink::{Event, Netlink, NetlinkError, Subscription};
use crate::object::NotBuilt;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, ProgramArray};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_obj::Object;
use lb_common::decap::{ADDRESSES, Reason, Tunnels, role};
use lb_common::net::Addr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tracing::{info, warn};

/// Name of the program, by which `check` recognises it.
pub const PROGRAM: &str = "decap";

/// Why there is no decapsulator.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    #[error("there is no interface {0}")]
    NoInterface(String),
    #[error("{given} addresses are more than the {ADDRESSES} a decapsulator can know")]
    TooMany { given: usize },
    #[error("reading the eBPF object")]
    Object(#[from] aya_obj::ParseError),
    #[error("loading the eBPF object; it takes root, or the capabilities BPF and NET_ADMIN")]
    Load(#[source] Box<EbpfError>),
    #[error("the eBPF object has no `{0}`")]
    Missing(&'static str),
    #[error("the kernel refuses the decapsulator")]
    Program(#[source] Box<ProgramError>),
    #[error(
        "attaching the decapsulator to {interface} in {mode} mode; `ip link show {interface}` says whether another \
         XDP program is there"
    )]
    Attach {
        interface: String,
        mode: AttachMode,
        #[source]
        source: Box<ProgramError>,
    },
    #[error("{action} the decapsulator's map {map}")]
    Map {
        action: &'static str,
        map: &'static str,
        #[source]
        source: MapError,
    },
    #[error("following the addresses of this host")]
    Netlink(#[from] NetlinkError),
}

/// What is to be opened, for whom.
#[derive(Clone, Debug)]
pub struct Options {
    pub interface: String,
    pub mode: AttachMode,
    pub vips: BTreeSet<IpAddr>,
    pub tunnels: Tunnels,
}

/// The decapsulator in the kernel; dropping it takes it off its interface.
pub struct Decapsulator {
    /// Holds the program and its link.
    ebpf: Ebpf,
    /// The kernel empties a program array nobody in userspace holds.
    _steps: ProgramArray<MapData>,
    addresses: HashMap<MapData, Addr, u32>,
    counts: PerCpuArray<MapData, u64>,
}

impl Decapsulator {
    /// Loads the decapsulator. Until it is told addresses it opens nothing.
    ///
    /// # Errors
    /// See [`DecapError`].
    pub fn load(tunnels: Tunnels) -> Result<Self, DecapError> {
        let elf = crate::object::embedded()?;
        let mut loader = EbpfLoader::new();
        // The object holds the director's maps as well, made for millions of flows. Here they are never used.
        let maps: Vec<String> = Object::parse(elf)?.maps.into_keys().collect();
        let own = [CONFIGURATION_MAP, ADDRESS_MAP, COUNT_MAP, STEP_MAP];
        for name in maps.iter().filter(|name| !own.contains(&name.as_str()) && !name.starts_with('.')) {
            loader.map_max_entries(name, 1);
        }
        let mut ebpf = loader.load(elf).map_err(|error| DecapError::Load(Box::new(error)))?;

        let failed = |action, map| move |source| DecapError::Map { action, map, source };
        let mut configuration = Array::try_from(take(&mut ebpf, CONFIGURATION_MAP)?)
            .map_err(failed("opening", CONFIGURATION_MAP))?;
        configuration.set(0, tunnels, 0).map_err(failed("writing", CONFIGURATION_MAP))?;
        let addresses =
            HashMap::try_from(take(&mut ebpf, ADDRESS_MAP)?).map_err(failed("opening", ADDRESS_MAP))?;
        let counts =
            PerCpuArray::try_from(take(&mut ebpf, COUNT_MAP)?).map_err(failed("opening", COUNT_MAP))?;
        let mut steps =
            ProgramArray::try_from(take(&mut ebpf, STEP_MAP)?).map_err(failed("opening", STEP_MAP))?;
        for (place, name) in (0..).zip(STEPS) {
            let step = load(&mut ebpf, name)?.fd().map_err(|error| DecapError::Program(Box::new(error)))?;
            steps.set(place, step, 0).map_err(failed("writing", STEP_MAP))?;
        }
        load(&mut ebpf, PROGRAM)?;
        Ok(Self { ebpf, _steps: steps, addresses, counts })
    }

    /// The program that runs first.
    ///
    /// # Errors
    /// None once it was loaded.
    pub fn program(&mut self) -> Result<&mut Xdp, DecapError> {
        program(&mut self.ebpf, PROGRAM)
    }

    /// Puts it on an interface. True if it runs in the driver there, false if in the generic hook.
    ///
    /// # Errors
    /// The interface takes no program, or has one.
    pub fn attach(&mut self, interface: &str, ifindex: u32, mode: AttachMode) -> Result<bool, DecapError> {
        let program = self.program()?;
        let failed = |mode| {
            move |source| DecapError::Attach {
                interface: interface.to_owned(),
                mode,
                source: Box::new(source),
            }
        };
        if mode != AttachMode::Generic {
            match program.attach_to_if_index(ifindex, XdpMode::Driver) {
                Ok(_) => return Ok(true),
                Err(error) if mode == AttachMode::Native => return Err(failed(mode)(error)),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    warn!(interface, error, "not in the driver but in the generic hook, which is slower");
                }
            }
        }
        program.attach_to_if_index(ifindex, XdpMode::Skb).map_err(failed(AttachMode::Generic))?;
        Ok(false)
    }

    /// Makes exactly these the addresses known.
    ///
    /// # Errors
    /// There are too many, or the map cannot be written.
    pub fn set_addresses(&mut self, wanted: &BTreeMap<IpAddr, u32>) -> Result<(), DecapError> {
        if wanted.len() > ADDRESSES as usize {
            return Err(DecapError::TooMany { given: wanted.len() });
        }
        let failed = |action| move |source| DecapError::Map { action, map: ADDRESS_MAP, source };
        let known: Vec<Addr> = self.addresses.keys().collect::<Result<_, _>>().map_err(failed("reading"))?;
        for gone in known.iter().filter(|known| !wanted.contains_key(&known.to_ip())) {
            self.addresses.remove(gone).map_err(failed("removing from"))?;
        }
        for (address, roles) in wanted {
            self.addresses.insert(Addr::from(*address), roles, 0).map_err(failed("writing"))?;
        }
        Ok(())
    }

    /// Packets by what became of them, since it was attached.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counts(&self) -> Result<Vec<(Reason, u64)>, DecapError> {
        let read = |&reason: &Reason| {
            let counts = self.counts.get(&(reason as u32), 0);
            let counts =
                counts.map_err(|source| DecapError::Map { action: "reading", map: COUNT_MAP, source })?;
            Ok((reason, counts.iter().sum()))
        };
        Reason::ALL.iter().map(read).collect()
    }
}

const CONFIGURATION_MAP: &str = "TUNNELS";
const ADDRESS_MAP: &str = "TUNNEL_ADDRESSES";
const COUNT_MAP: &str = "DECAPSULATED";
const STEP_MAP: &str = "TUNNEL_STEPS";

/// Programs of the steps, in the order of `lb_ebpf::decap::Step`.
const STEPS: [&str; 2] = ["decap_verify", "decap_strip"];

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DecapError> {
    let program = ebpf.program_mut(name).ok_or(DecapError::Missing(name))?;
    program.try_into().map_err(|_: ProgramError| DecapError::Missing(name))
}

fn load<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DecapError> {
    let program = program(ebpf, name)?;
    program.load().map_err(|error| DecapError::Program(Box::new(error)))?;
    Ok(program)
}

fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<aya::maps::Map, DecapError> {
    ebpf.take_map(map).ok_or(DecapError::Missing(map))
}

/// What the decapsulator has to know of each address: VIPs, and the host's others, at which tunnels may end.
pub fn roles(vips: &BTreeSet<IpAddr>, present: impl IntoIterator<Item = IpAddr>) -> BTreeMap<IpAddr, u32> {
    let ends = present.into_iter().filter(|address| !address.is_loopback());
    let ends = ends.filter(|address| !vips.contains(address)).map(|address| (address, role::END));
    ends.chain(vips.iter().map(|vip| (*vip, role::VIP))).collect()
}

/// Is the decapsulator until `stop` is done. Tunnels may end at every address this host has but VIPs and loopback, also
/// at those it gets meanwhile. To be called within a tokio runtime.
///
/// # Errors
/// It cannot be brought up. Once it is, failures are logged.
pub async fn run(
    options: &Options,
    stop: impl Future<Output = ()>,
) -> Result<Vec<(Reason, u64)>, DecapError> {
    // Before the first look, to miss no change.
    let mut changes = Subscription::open()?;
    let netlink = Netlink::open()?;
    let link = netlink.link_named(&options.interface).await?;
    let link = link.ok_or_else(|| DecapError::NoInterface(options.interface.clone()))?;
    let mut decapsulator = Decapsulator::load(options.tunnels)?;
    let mut known = present(&netlink, options).await?;
    decapsulator.set_addresses(&known)?;
    let native = decapsulator.attach(&options.interface, link.ifindex, options.mode)?;
    info!(interface = options.interface, native, vips = options.vips.len(), "decapsulating");
    tokio::pin!(stop);
    loop {
        let event = tokio::select! {
            () = &mut stop => break,
            event = changes.next() => event,
        };
        match event {
            Some(Event::Addresses | Event::Overrun) => {}
            Some(_) => continue,
            None => changes = Subscription::open()?,
        }
        let now = present(&netlink, options).await?;
        if now != known {
            info!(before = known.len(), now = now.len(), "the addresses of this host changed");
            decapsulator.set_addresses(&now)?;
            known = now;
        }
    }
    let counts = decapsulator.counts()?;
    info!(interface = options.interface, "stopped; tunnel packets go to the stack as they are");
    Ok(counts)
}

async fn present(netlink: &Netlink, options: &Options) -> Result<BTreeMap<IpAddr, u32>, DecapError> {
    let addresses = netlink.addresses().await?;
    Ok(roles(&options.vips, addresses.into_iter().map(|address| address.address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_end_at_the_host_s_addresses_but_not_at_vips_or_loopback() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let vips = BTreeSet::from([ip("192.0.2.1"), ip("2001:db8::1")]);
        let present = ["127.0.0.1", "::1", "10.0.0.11", "192.0.2.1", "fd00::11"].map(ip);
        let wanted = BTreeMap::from([
            (ip("10.0.0.11"), role::END),
            (ip("fd00::11"), role::END),
            (ip("192.0.2.1"), role::VIP),
            (ip("2001:db8::1"), role::VIP),
        ]);
        assert_eq!(roles(&vips, present), wanted);
    }
}
