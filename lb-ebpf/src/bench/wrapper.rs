//! The wrappers: a packet as new, then the program under test.

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    helpers::bpf_xdp_adjust_head,
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};
use lb_common::bench::{Reset, WORDS_V4, WORDS_V6, client, random};

#[map]
static RESET: Array<Reset> = Array::with_max_entries(1, 0);
/// The program under test.
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Place of the source address and the source port in a frame of TCP over IPv4 without options.
const CLIENT: usize = 26;
const PORT: usize = 34;

/// Whose packet it is.
enum Whose {
    /// As the header says.
    Same,
    /// Of one of [`Reset::flows`] flows.
    Random,
    /// Of a flow that none was of before.
    Next,
}

#[xdp]
pub(crate) fn same(context: XdpContext) -> u32 {
    run::<WORDS_V4>(&context, Whose::Same)
}

#[xdp]
pub(crate) fn same6(context: XdpContext) -> u32 {
    run::<WORDS_V6>(&context, Whose::Same)
}

#[xdp]
pub(crate) fn random_flow(context: XdpContext) -> u32 {
    run::<WORDS_V4>(&context, Whose::Random)
}

#[xdp]
pub(crate) fn next_flow(context: XdpContext) -> u32 {
    run::<WORDS_V4>(&context, Whose::Next)
}

#[inline(always)]
fn run<const WORDS: usize>(context: &XdpContext, whose: Whose) -> u32 {
    if make::<WORDS>(context, whose).is_some() {
        // SAFETY: the context this program was called with. Constant index: the JIT makes it a jump.
        unsafe { TARGET.tail_call(context, 0) };
    }
    // What the runner takes for a failure.
    xdp_action::XDP_ABORTED
}

/// Writes the packet.
#[inline(always)]
fn make<const WORDS: usize>(context: &XdpContext, whose: Whose) -> Option<()> {
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
    if start.wrapping_add(WORDS * 8) > context.data_end() as *mut u8 {
        return None;
    }
    let mut i = 0;
    while i < WORDS {
        // SAFETY: the packet was checked to hold the words. Volatile as in `lb_ebpf::frame`.
        unsafe { start.add(i * 8).cast::<u64>().write_volatile(reset.header[i]) };
        i += 1;
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
    };
    let (address, port) = client(number);
    // SAFETY: both lie within the words written above.
    unsafe {
        start.add(CLIENT).cast::<u32>().write_volatile(address);
        start.add(PORT).cast::<u16>().write_volatile(port.to_wire());
    }
    Some(())
}
