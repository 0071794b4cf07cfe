//! Programs for measuring: wrappers that make a packet anew before each run of the program under test, programs that
//! do nothing or nearly so or only wait for memory, and a director as it would be over the kernel's hash maps.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
// The only way to add atomically on this target.
#![cfg_attr(target_arch = "bpf", allow(internal_features))]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is the BPF side of `lb bench`: build it with `cargo xtask build`");
    std::process::exit(64);
}

#[cfg(target_arch = "bpf")]
mod peer;
#[cfg(target_arch = "bpf")]
mod plain;
#[cfg(target_arch = "bpf")]
mod wrapper;

#[cfg(target_arch = "bpf")]
mod object {
    /// Never reached: no operation here panics, and a program with one would not load.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
