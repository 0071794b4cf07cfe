//! The flow table: a set-associative table in plain memory, one algorithm for kernel and host.
//!
//! A bucket holds [`WAYS`] flows. Its first cache line is eight control words and eight expiry times, so that a
//! miss, a choice of victim and a sweep read one line; the entries follow.
//!
//! ```text
//! word 0..8     control   tag:16 | generation:5 | way:3 | BUSY LIVE CONFIRMED state:4 …
//! word 8..16    expires   jiffies, low 32 bits
//! word 16..     entries   client address, VIP, ports, meta (server:16 | protocol:8 | flags:8), extra
//! ```
//!
//! Everything that must change together is in the control word and changes by compare-and-swap: a way is
//! claimed (BUSY), filled, published (LIVE), moved between states, and released. Whoever wins the swap does the
//! accounting, so active and inactive counts stay exact without a lock.

mod key;
mod layout;
mod load;
#[cfg(not(target_arch = "bpf"))]
mod memory;
mod table;

pub use key::{FlowKey, meta};
pub use layout::{Layout, Templates, V4, V6, WAYS, Words};
pub use load::{
    LOAD_WORDS, Thresholds, bind, bind_template, counts, is_overloaded, load_word, move_state, unbind,
    unbind_template,
};
#[cfg(not(target_arch = "bpf"))]
pub use memory::{AtomicU32, Shared, Slab};
pub use table::{
    Buckets, Entry, Evicted, Home, Lookup, NewFlow, Opened, SCRATCH, SPILL_WORDS, control, home, lookup, open,
};

/// True once `expires` has passed. Both are the low 32 bits of jiffies and compare across the wrap; valid for
/// timeouts below 2^31 jiffies (24 days at HZ 1000).
#[inline(always)]
pub const fn is_past(expires: u32, now: u32) -> bool {
    now.wrapping_sub(expires) as i32 >= 0
}
