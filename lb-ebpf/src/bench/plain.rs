//! Programs that do nothing, or the least a director must.

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    helpers::bpf_xdp_adjust_head,
    macros::{map, xdp},
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xadd};
use lb_common::{
    bench::{Witnessed, number},
    net::Mac,
};

/// As much memory as a flow table has, in the same kind of map, by cache lines.
#[map]
static MEMORY: Array<[u64; 8]> = Array::with_max_entries(1, 0);
/// Entries of `MEMORY`, set before loading.
#[unsafe(no_mangle)]
static LINES: u32 = 1;
/// Sum of what was read there.
#[map]
static READ: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Packets that arrived at the end of a live run.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What came of each flow that is watched, by its number; as many as are.
#[map]
static WITNESSED: PerCpuArray<Witnessed> = PerCpuArray::with_max_entries(1, 0);

/// Sends the packet back as it is.
#[xdp(frags)]
pub(crate) fn empty(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// An outer IPv4 header's worth of room and nothing in it. Every second of these costs the wrapper as much again.
#[xdp(frags)]
pub(crate) fn grow(context: XdpContext) -> u32 {
    // SAFETY: the context this program was called with.
    if unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), -20) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    xdp_action::XDP_TX
}

/// Parses Ethernet, IPv4 and TCP, exchanges the MAC addresses, sends the packet back.
#[xdp(frags)]
pub(crate) fn floor(context: XdpContext) -> u32 {
    match super::peer::headers(&context) {
        Some(headers) => {
            let from = headers.smac();
            headers.set_macs(&from, &headers.dmac());
            xdp_action::XDP_TX
        }
        None => xdp_action::XDP_ABORTED,
    }
}

/// Reads one word of `MEMORY`, in a line that the packet's flow names, and sends the packet back when it is there: what
/// memory alone costs a director that looks a flow up.
#[xdp(frags)]
pub(crate) fn read(context: XdpContext) -> u32 {
    let Some(headers) = super::peer::headers(&context) else { return xdp_action::XDP_ABORTED };
    // SAFETY: a static of this program. Volatile, because its value is set after compilation.
    let lines = unsafe { core::ptr::read_volatile(&LINES) };
    let hash = headers.flow().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let index = (hash * lines as u64) >> 32;
    let (Some(line), Some(read)) = (MEMORY.get_ptr(index as u32), READ.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: live map values. An atomic addition is done before any later read is begun: the next packet's does not
    // overlap with this one's.
    unsafe {
        let word = line.cast::<u64>().read_volatile();
        atomic_xadd::<u64, u64, { SeqCst }>(read, word + 1);
    }
    xdp_action::XDP_TX
}

/// Counts the packet and drops it.
#[xdp(frags)]
pub(crate) fn sink(_context: XdpContext) -> u32 {
    arrived();
    xdp_action::XDP_DROP
}

#[inline(always)]
fn arrived() {
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: a live value of this CPU's own.
        unsafe { *arrived += 1 };
    }
}

/// As `sink`, and writes down where packets of watched flows were sent.
#[xdp(frags)]
pub(crate) fn witness(context: XdpContext) -> u32 {
    if let Some(headers) = super::peer::headers(&context) {
        let (address, port) = headers.client();
        if let Some(seen) = WITNESSED.get_ptr_mut(number(address, port)) {
            let Mac([_, _, server @ ..]) = headers.dmac();
            let server = u32::from_be_bytes(server);
            // SAFETY: a live value of this CPU's own.
            let seen = unsafe { &mut *seen };
            if seen.arrived == 0 {
                seen.server = server;
            } else if seen.server != server {
                seen.elsewhere += 1;
            }
            seen.arrived += 1;
        }
    }
    arrived();
    xdp_action::XDP_DROP
}
