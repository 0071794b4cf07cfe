//! The wrappers: a packet as new, then the program under test.

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    helpers::bpf_xdp_adjust_head,
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};
use lb_common::{
    bench::{HEADERS_V4, HEADERS_V6, Reset, client, random},
    flow::FlowKey,
    tcp,
};
use lb_ebpf::wire::eth;

#[map]
static RESET: Array<Reset> = Array::with_max_entries(1, 0);
/// The program under test.
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Place of the source address and of the ports in a frame of TCP over IPv4 without options.
const CLIENT: usize = 26;
const PORTS: usize = 34;
/// Of TCP.
const FLAGS: usize = 47;

/// Whose packet it is.
enum Whose {
    /// As the header says.
    Same,
    /// Of one of [`Reset::flows`] flows.
    Random,
    /// Of a flow that none was of before.
    Next,
    /// One of so many is as `Random`, with ACK set alone; the others are as `Next`.
    Mixed,
}

#[xdp(frags)]
pub(crate) fn same(context: XdpContext) -> u32 {
    run(&context, false, Whose::Same)
}

#[xdp(frags)]
pub(crate) fn same6(context: XdpContext) -> u32 {
    run(&context, true, Whose::Same)
}

#[xdp(frags)]
pub(crate) fn random_flow(context: XdpContext) -> u32 {
    run(&context, false, Whose::Random)
}

#[xdp(frags)]
pub(crate) fn next_flow(context: XdpContext) -> u32 {
    run(&context, false, Whose::Next)
}

#[xdp(frags)]
pub(crate) fn mixed(context: XdpContext) -> u32 {
    run(&context, false, Whose::Mixed)
}

#[inline(always)]
fn run(context: &XdpContext, is_v6: bool, whose: Whose) -> u32 {
    if make(context, is_v6, whose).is_some() {
        // SAFETY: the context this program was called with. Constant index: the JIT makes it a jump.
        unsafe { TARGET.tail_call(context, 0) };
    }
    // What the runner takes for a failure.
    xdp_action::XDP_ABORTED
}

/// Writes the packet.
#[inline(always)]
fn make(context: &XdpContext, is_v6: bool, whose: Whose) -> Option<()> {
    let reset = RESET.get_ptr_mut(0)?;
    // SAFETY: a live map value that no other CPU's program writes.
    let reset = unsafe { &mut *reset };
    let length = context.data_end() - context.data();
    if length != reset.length as usize {
        let grown = length as i32 - reset.length as i32;
        // SAFETY: the context this program was called with.
        if unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), grown) } != 0 {
            return None;
        }
    }
    let start = context.data() as *mut u8;
    let size = if is_v6 { HEADERS_V6 } else { HEADERS_V4 };
    if start.wrapping_add(size) > context.data_end() as *mut u8 {
        return None;
    }
    let from = reset.header.as_ptr();
    // Each field by one store of its own size: a processor that has to put together what is read from several stores
    // stalls, which a packet written by a network card never makes it do.
    // SAFETY: the packet was checked to hold the headers.
    unsafe {
        copy::<u64>(start, from, 0);
        copy::<u32>(start, from, 8);
        copy::<u16>(start, from, 12);
        let mut at = eth::HEADER;
        if is_v6 {
            copy::<u32>(start, from, 14);
            copy::<u16>(start, from, 18);
            copy::<u16>(start, from, 20);
            at = 22;
            while at < HEADERS_V6 {
                copy::<u32>(start, from, at);
                at += 4;
            }
        } else {
            while at < CLIENT {
                copy::<u16>(start, from, at);
                at += 2;
            }
            if !matches!(whose, Whose::Random | Whose::Next | Whose::Mixed) {
                copy::<u32>(start, from, CLIENT);
                copy::<u32>(start, from, PORTS);
            }
            copy::<u32>(start, from, CLIENT + 4);
            at = PORTS + 4;
            while at < HEADERS_V4 {
                copy::<u32>(start, from, at);
                at += 4;
            }
        }
    }
    let number = match whose {
        Whose::Same => return Some(()),
        Whose::Random => {
            let (state, number) = random(reset.next, reset.flows);
            reset.next = state;
            number
        }
        Whose::Next => {
            let number = reset.next as u32;
            reset.next += 1;
            number
        }
        Whose::Mixed => mixed_number(reset, start),
    };
    let (address, port) = client(number);
    // SAFETY: both lie within the headers checked above.
    unsafe {
        start.add(CLIENT).cast::<u32>().write_volatile(address);
        let vip_port = from.add(PORTS + 2).cast::<u16>().read_volatile();
        let ports = FlowKey::ports(port.to_wire(), vip_port);
        start.add(PORTS).cast::<u32>().write_volatile(ports);
    }
    Some(())
}

/// The next packet's flow where they are mixed.
#[inline(always)]
fn mixed_number(reset: &mut Reset, start: *mut u8) -> u32 {
    reset.turn += 1;
    if reset.turn < reset.every {
        reset.next += 1;
        return (reset.next - 1) as u32;
    }
    reset.turn = 0;
    reset.picked += 1;
    let (state, number) = random(reset.random, reset.flows);
    reset.random = state;
    // SAFETY: within the headers that the caller checked.
    unsafe { start.add(FLAGS).write_volatile(tcp::flag::ACK) };
    number
}

/// # Safety
/// Both pointers must be good for `at` and the size of a `T` beyond.
#[inline(always)]
unsafe fn copy<T: Copy>(to: *mut u8, from: *const u8, at: usize) {
    // SAFETY: the caller's. Volatile as in `lb_ebpf::frame`.
    unsafe { to.add(at).cast::<T>().write_volatile(from.add(at).cast::<T>().read_volatile()) }
}
