//! The XDP programs: a context in, a frame through a stage of the path, one count, an action out. Nothing is decided
//! here.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
// The only way to compare-and-swap on this target: `core::sync::atomic` has none.
#![cfg_attr(target_arch = "bpf", allow(internal_features))]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    // Cargo builds every binary of a workspace for the host too; this one has its life in the kernel.
    eprintln!("this is the BPF side of lb: build it with `cargo xtask build`");
    std::process::exit(64);
}

#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
mod kernel {
    use crate::maps::{self, KernelMaps};
    use aya_ebpf::{
        EbpfContext,
        bindings::{xdp_action, xdp_md},
        helpers::{
            bpf_jiffies64, bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
            bpf_xdp_load_bytes,
        },
        macros::{map, xdp},
        maps::Array,
        programs::XdpContext,
    };
    use aya_log_ebpf::warn;
    use core::mem::MaybeUninit;
    use lb_common::counters::{Reason, Verdict};
    use lb_ebpf::{
        begin,
        decap::{self, Step},
        frame::{Ends, Frame, Room, Wire},
        stage::{self, Next, Stage},
        verdict::Forwarded,
    };

    /// The director: every packet that comes in by an attached interface.
    #[xdp(frags)]
    // The entry calls it; tail calls are only allowed in the entry itself.
    #[inline(always)]
    pub(crate) fn lb(context: XdpContext) -> u32 {
        let next = begin(&mut frame(&context), &KernelMaps);
        // The one line a packet may log: it comes up only while programs are being replaced wrongly.
        act(&context, next, |context, stage| warn!(context, "program of stage {} is missing", stage as u32))
    }

    macro_rules! stages {
        ($($name:ident = $stage:ident,)*) => {
            $(
                #[xdp(frags)]
                #[inline(always)]
                pub(crate) fn $name(context: XdpContext) -> u32 {
                    let next = stage::run(Stage::$stage, &mut frame(&context), &KernelMaps);
                    act(&context, next, |_, _| {})
                }
            )*
        };
    }

    stages! {
        icmp = Icmp,
        assure = Assure,
        open = Open,
        choose = Choose,
        least = Least,
        twos = Twos,
        locality = Locality,
        pin = Pin,
        remember4 = Remember4,
        remember6 = Remember6,
        forward = Forward,
        sum = Sum,
        tunnel = Tunnel,
        reply = Reply,
    }

    #[inline(always)]
    fn frame(context: &XdpContext) -> Frame<Driver> {
        let ends = Ends { start: context.data() as *mut u8, end: context.data_end() as *mut u8 };
        // SAFETY: the kernel's own bounds of the packet, which is this program's until it returns.
        unsafe { Frame::new(ends, Driver(context.as_ptr().cast())) }
    }

    /// Counts a packet at its end and gives the kernel its verdict; or goes on with the next stage, unless that is
    /// `missing`.
    #[inline(always)]
    fn act(context: &XdpContext, next: Next, missing: impl FnOnce(&XdpContext, Stage)) -> u32 {
        let ingress = context.ingress_ifindex() as u32;
        let (reason, egress) = match next {
            Next::Forwarded(Forwarded { ifindex }) if ifindex == ingress => (Reason::Transmitted, ingress),
            Next::Forwarded(Forwarded { ifindex }) => (Reason::Redirected, ifindex),
            Next::End(reason) => (reason, ingress),
            Next::Stage(stage) => {
                maps::go_on(context, stage);
                missing(context, stage);
                (Reason::DroppedNoStage, ingress)
            }
        };
        maps::count(reason);
        match reason.verdict() {
            Verdict::Transmit | Verdict::Reply => xdp_action::XDP_TX,
            // SAFETY: takes numbers only. An interface that is gone makes the kernel drop the packet.
            Verdict::Redirect => unsafe { bpf_redirect(egress, 0) as u32 },
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Drop => xdp_action::XDP_DROP,
        }
    }

    /// The real server's side of a tunnel: what comes in in a tunnel goes to the stack without.
    #[xdp(frags)]
    pub(crate) fn decap(context: XdpContext) -> u32 {
        let next = decap::begin(&mut frame(&context), &KernelMaps);
        take_out(&context, next)
    }

    #[xdp(frags)]
    pub(crate) fn decap_verify(context: XdpContext) -> u32 {
        let next = decap::run(Step::Verify, &mut frame(&context), &KernelMaps);
        take_out(&context, next)
    }

    #[xdp(frags)]
    pub(crate) fn decap_strip(context: XdpContext) -> u32 {
        let next = decap::run(Step::Strip, &mut frame(&context), &KernelMaps);
        take_out(&context, next)
    }

    /// As [`act`], for the decapsulator.
    #[inline(always)]
    fn take_out(context: &XdpContext, next: decap::Next) -> u32 {
        let reason = match next {
            decap::Next::End(reason) => reason,
            decap::Next::Step(step) => {
                maps::step(context, step);
                lb_common::decap::Reason::DroppedNoStep
            }
        };
        maps::count_decapsulated(reason);
        match reason.verdict() {
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Transmit | Verdict::Reply | Verdict::Redirect | Verdict::Drop => xdp_action::XDP_DROP,
        }
    }

    /// The kernel's clock, for the control plane, which has no other way to read jiffies.
    #[map]
    static CLOCK: Array<u64> = Array::with_max_entries(1, 0);

    /// Writes jiffies to `CLOCK`. Run by `BPF_PROG_TEST_RUN`, never attached.
    #[xdp]
    pub(crate) fn clock(_context: XdpContext) -> u32 {
        if let Some(clock) = CLOCK.get_ptr_mut(0) {
            // SAFETY: no arguments; a live map value of eight bytes.
            unsafe { *clock = bpf_jiffies64() };
        }
        xdp_action::XDP_PASS
    }

    /// The driver's part in moving a packet's ends.
    struct Driver(*mut xdp_md);

    impl Driver {
        #[inline(always)]
        fn ends(&self) -> Ends {
            let context = XdpContext::new(self.0);
            Ends { start: context.data() as *mut u8, end: context.data_end() as *mut u8 }
        }
    }

    impl Room for Driver {
        #[inline(always)]
        fn adjust_head(&mut self, delta: i32) -> Option<Ends> {
            // SAFETY: the context this program was called with.
            if unsafe { bpf_xdp_adjust_head(self.0, delta) } != 0 { None } else { Some(self.ends()) }
        }

        #[inline(always)]
        fn adjust_tail(&mut self, delta: i32) -> Option<Ends> {
            // SAFETY: as for `adjust_head`.
            if unsafe { bpf_xdp_adjust_tail(self.0, delta) } != 0 { None } else { Some(self.ends()) }
        }

        #[inline(always)]
        fn total(&self) -> usize {
            // SAFETY: as for `adjust_head`.
            unsafe { bpf_xdp_get_buff_len(self.0) as usize }
        }

        #[inline(always)]
        fn load<T: Wire>(&self, at: usize) -> Option<T> {
            let mut value = MaybeUninit::<T>::uninit();
            // SAFETY: as for `adjust_head`; `value` has room for as many bytes.
            let result = unsafe {
                bpf_xdp_load_bytes(self.0, at as u32, value.as_mut_ptr().cast(), size_of::<T>() as u32)
            };
            // SAFETY: the kernel has written all of it, and a `Wire` type takes every bit pattern.
            if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
        }
    }

    /// Never reached: the path has no operation that panics, and a program with one would not load.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
