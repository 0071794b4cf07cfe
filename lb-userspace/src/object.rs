//! The compiled eBPF programs, inside this executable.

/// As `build.rs` found it; empty if it had not been compiled. Aligned as an ELF reader wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.o"));

/// The programs of [`crate::bench`], likewise.
static BENCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));

/// This executable was built without the eBPF program in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this executable was built without the eBPF program; run `cargo xtask build`")]
pub struct NotBuilt;

/// The ELF object of the eBPF program, to be given to aya's loader.
///
/// # Errors
/// [`NotBuilt`] if this executable was built before `cargo xtask build` compiled the program.
pub fn embedded() -> Result<&'static [u8], NotBuilt> {
    present(OBJECT)
}

/// The ELF object of the programs a benchmark runs around the director's.
///
/// # Errors
/// As for [`embedded`].
pub fn bench() -> Result<&'static [u8], NotBuilt> {
    present(BENCH)
}

fn present(object: &'static [u8]) -> Result<&'static [u8], NotBuilt> {
    if object.is_empty() { Err(NotBuilt) } else { Ok(object) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_is_one_that_was_not_built() {
        assert_eq!(present(b""), Err(NotBuilt));
        assert!(NotBuilt.to_string().contains("cargo xtask build"));
    }

    #[test]
    fn what_was_embedded_is_a_bpf_object_or_nothing() {
        match embedded() {
            Err(NotBuilt) => assert!(OBJECT.is_empty()),
            Ok(object) => {
                assert_eq!(&object[..4], b"\x7fELF");
                // e_machine, little-endian: EM_BPF.
                assert_eq!(&object[18..20], &[247, 0]);
            }
        }
    }
}
