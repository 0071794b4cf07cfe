//! What a director costs that keeps services in a kernel hash map and flows in a kernel LRU hash map, as others do:
//! IPv4 and TCP only, direct routing only.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::bpf_jiffies64,
    macros::{map, xdp},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
    programs::XdpContext,
};
use lb_common::{
    bench::{PEER_FLOWS, PEER_SERVERS, PeerFlow, PeerKey, PeerServer, PeerService},
    counters::Counters,
    net::{Be16, Mac, proto},
};
use lb_ebpf::{
    checksum,
    wire::{eth, ipv4},
};

#[map]
static PEER_VIPS: HashMap<PeerService, u32> = HashMap::with_max_entries(512, 0);
#[map]
static PEER_TABLE: LruHashMap<PeerKey, PeerFlow> = LruHashMap::with_max_entries(PEER_FLOWS, 0);
#[map]
static PEER_REALS: Array<PeerServer> = Array::with_max_entries(PEER_SERVERS, 0);
#[map]
static PEER_COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(PEER_SERVERS, 0);
/// Packets that found no flow and opened one.
#[map]
static PEER_OPENED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A frame that holds Ethernet, IPv4 without options and the ports behind it.
#[derive(Clone, Copy)]
pub(crate) struct Headers(*mut u8);

const L3: usize = eth::HEADER;
const L4: usize = L3 + ipv4::HEADER;
const TCP_HEADER: usize = 20;

/// Nothing if the packet is anything else than TCP over IPv4.
#[inline(always)]
pub(crate) fn headers(context: &XdpContext) -> Option<Headers> {
    let start = context.data() as *mut u8;
    if start.wrapping_add(L4 + TCP_HEADER) > context.data_end() as *mut u8 {
        return None;
    }
    let headers = Headers(start);
    let is_tcp = headers.get::<u16>(eth::TYPE) == eth::IPV4
        && headers.get::<u8>(L3) == 0x45
        && headers.get::<u8>(L3 + ipv4::PROTOCOL) == proto::TCP;
    if is_tcp { Some(headers) } else { None }
}

impl Headers {
    #[inline(always)]
    fn get<T: Copy>(self, at: usize) -> T {
        // SAFETY: `headers` checked the length; every `at` here is a constant within it, which the verifier proves again.
        unsafe { self.0.add(at).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn set<T: Copy>(self, at: usize, value: T) {
        // SAFETY: as for `get`.
        unsafe { self.0.add(at).cast::<T>().write_volatile(value) }
    }

    /// Client address and ports, as one number.
    #[inline(always)]
    pub(crate) fn flow(self) -> u64 {
        self.get::<u32>(L3 + ipv4::SOURCE) as u64 | (self.get::<u32>(L4) as u64) << 32
    }

    #[inline(always)]
    pub(crate) fn dmac(self) -> Mac {
        self.get(eth::DESTINATION)
    }

    #[inline(always)]
    pub(crate) fn smac(self) -> Mac {
        self.get(eth::SOURCE)
    }

    /// Source address and port, as on the wire.
    #[inline(always)]
    pub(crate) fn client(self) -> (u32, Be16) {
        (self.get(L3 + ipv4::SOURCE), Be16::from_wire(self.get(L4)))
    }

    #[inline(always)]
    pub(crate) fn set_macs(self, dmac: &Mac, smac: &Mac) {
        self.set(eth::DESTINATION, *dmac);
        self.set(eth::SOURCE, *smac);
    }
}

#[xdp(frags)]
pub(crate) fn hash_lru(context: XdpContext) -> u32 {
    let length = (context.data_end() - context.data()) as u64;
    let Some(headers) = headers(&context) else { return xdp_action::XDP_PASS };
    match forward(headers, length) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn forward(headers: Headers, length: u64) -> Option<()> {
    let vip: u32 = headers.get(L3 + ipv4::DESTINATION);
    let ports: u32 = headers.get(L4);
    let port = Be16::from_wire((ports >> 16) as u16);
    let service = PeerService { vip, port, protocol: proto::TCP, pad: 0 };
    // SAFETY: entries are written before the program runs.
    unsafe { PEER_VIPS.get(&service) }?;
    let key = PeerKey { client: headers.get(L3 + ipv4::SOURCE), vip, ports, protocol: proto::TCP as u32 };
    let server = server(&key)?;
    let real = PEER_REALS.get(server)?;
    headers.set_macs(&real.dmac, &real.smac);
    let life: u16 = headers.get(L3 + ipv4::TTL);
    let sum: u16 = headers.get(L3 + ipv4::CHECKSUM);
    let less = life.wrapping_sub(1);
    headers.set(L3 + ipv4::TTL, less);
    headers.set(L3 + ipv4::CHECKSUM, checksum::replace(sum, life, less));
    let counters = PEER_COUNTERS.get_ptr_mut(server)?;
    // SAFETY: a live value of this CPU's own.
    unsafe {
        (*counters).packets += 1;
        (*counters).bytes += length - L3 as u64;
    }
    Some(())
}

/// The flow's server; a new flow's is the next one.
#[inline(always)]
fn server(key: &PeerKey) -> Option<u32> {
    // SAFETY: no arguments.
    let now = unsafe { bpf_jiffies64() };
    if let Some(flow) = PEER_TABLE.get_ptr_mut(key) {
        // SAFETY: a live map value; racing writers write the same.
        unsafe {
            if (*flow).seen != now {
                (*flow).seen = now;
            }
            return Some((*flow).server);
        }
    }
    let opened = PEER_OPENED.get_ptr_mut(0)?;
    // SAFETY: a live value of this CPU's own.
    let server = unsafe {
        *opened += 1;
        *opened as u32 & (PEER_SERVERS - 1)
    };
    PEER_TABLE.insert(key, &PeerFlow { server, pad: 0, seen: now }, 0).ok()?;
    Some(server)
}
