//! Programs that do nothing, or the least a director must.

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    helpers::bpf_xdp_adjust_head,
    macros::{map, xdp},
    maps::PerCpuArray,
    programs::XdpContext,
};

/// Packets that arrived at the end of a live run.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Sends the packet back as it is.
#[xdp]
pub(crate) fn empty(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// An outer IPv4 header's worth of room and nothing in it. Every second of these costs the wrapper as much again.
#[xdp]
pub(crate) fn grow(context: XdpContext) -> u32 {
    // SAFETY: the context this program was called with.
    if unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), -20) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    xdp_action::XDP_TX
}

/// Parses Ethernet, IPv4 and TCP, exchanges the MAC addresses, sends the packet back.
#[xdp]
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

/// Counts the packet and drops it.
#[xdp]
pub(crate) fn sink(_context: XdpContext) -> u32 {
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: a live value of this CPU's own.
        unsafe { *arrived += 1 };
    }
    xdp_action::XDP_DROP
}
