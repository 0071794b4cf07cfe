//! Which Rust can compile for BPF. The target ships without a compiled `core`, so the compiler must come with
//! the library's source and accept `-Z build-std`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command::{capture, find};
use crate::linker;
use crate::version::{Rustc, Version};

/// The nightly that setup installs when none is usable. Dated, because a later one may have a newer LLVM than
/// bpf-linker; and by its date it stands beside the developer's own nightly, which is never touched.
pub(crate) const DATED_NIGHTLY: &str = "nightly-2026-05-20";

/// Where a compiler came from, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A rustup toolchain of this name.
    Rustup(&'static str),
    /// Debian's rustc-web, cargo-web and rust-web-src.
    Debian,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup(name) => write!(f, "rustup's {name}"),
            Self::Debian => f.write_str("Debian's /usr/bin/rustc"),
        }
    }
}

/// A compiler that exists, and what was found out about it.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    pub(crate) origin: Origin,
    pub(crate) rustc: PathBuf,
    pub(crate) cargo: PathBuf,
    pub(crate) version: Rustc,
    /// Folder holding the compiler's `lib`.
    pub(crate) sysroot: PathBuf,
    has_library_source: bool,
}

/// Why a compiler that exists cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    NoLibrarySource,
    TooOld { oldest: Version },
    LlvmTooNew { newest: u32 },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLibrarySource => f.write_str("has no library source (rust-src)"),
            Self::TooOld { oldest } => write!(f, "is older than {oldest}"),
            Self::LlvmTooNew { newest } => write!(f, "has an LLVM newer than {newest}, bpf-linker's"),
        }
    }
}

impl Compiler {
    pub(crate) fn usable(&self) -> Result<(), Unusable> {
        let oldest = oldest();
        if self.version.release < oldest {
            Err(Unusable::TooOld { oldest })
        } else if self.version.llvm.major > linker::LLVM_MAJOR {
            Err(Unusable::LlvmTooNew { newest: linker::LLVM_MAJOR })
        } else if !self.has_library_source {
            Err(Unusable::NoLibrarySource)
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Rust {} with LLVM {}", self.origin, self.version.release, self.version.llvm)
    }
}

/// The oldest release that compiles this workspace.
fn oldest() -> Version {
    Version::parse(env!("CARGO_PKG_RUST_VERSION")).expect("rust-version in Cargo.toml is major.minor")
}

/// Every compiler present that might do, in order of preference.
pub(crate) fn present() -> Vec<Compiler> {
    let mut compilers = Vec::new();
    if find("rustup").is_some() {
        for name in ["nightly", DATED_NIGHTLY] {
            // Absent toolchains make rustup fail; it must not install them just because they were asked for.
            let mut which = Command::new("rustup");
            which.args(["which", "rustc", "--toolchain", name]).env("RUSTUP_AUTO_INSTALL", "0");
            let rustc = capture(&mut which).ok();
            compilers.extend(rustc.and_then(|rustc| probe(Origin::Rustup(name), Path::new(&rustc))));
        }
    }
    compilers.extend(probe(Origin::Debian, Path::new("/usr/bin/rustc")));
    compilers
}

/// The first usable one.
pub(crate) fn choose(compilers: Vec<Compiler>) -> Option<Compiler> {
    compilers.into_iter().find(|compiler| compiler.usable().is_ok())
}

/// Looks at one compiler; nothing if it, or its cargo, is not there or does not run.
fn probe(origin: Origin, rustc: &Path) -> Option<Compiler> {
    let cargo = rustc.with_file_name("cargo");
    if !rustc.is_file() || !cargo.is_file() {
        return None;
    }
    let version = Rustc::parse(&capture(Command::new(rustc).arg("-vV")).ok()?).ok()?;
    let sysroot = PathBuf::from(capture(Command::new(rustc).args(["--print", "sysroot"])).ok()?);
    // rustup may list rust-src as installed while the files are gone, so look at the file cargo will want.
    let has_library_source = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
        && sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file();
    Some(Compiler { origin, rustc: rustc.to_owned(), cargo, version, sysroot, has_library_source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: Origin = Origin::Rustup("nightly");
    const DATED: Origin = Origin::Rustup(DATED_NIGHTLY);

    fn compiler(origin: Origin, release: (u32, u32), llvm: (u32, u32), has_library_source: bool) -> Compiler {
        Compiler {
            origin,
            rustc: "/r/bin/rustc".into(),
            cargo: "/r/bin/cargo".into(),
            version: Rustc {
                release: Version::new(release.0, release.1),
                llvm: Version::new(llvm.0, llvm.1),
            },
            sysroot: "/r".into(),
            has_library_source,
        }
    }

    #[test]
    fn the_first_usable_compiler_is_chosen() {
        let debian = || compiler(Origin::Debian, (1, 96), (22, 1), true);
        for (situation, compilers, expected) in [
            ("nothing is present", vec![], None),
            (
                "nightly with source wins over Debian",
                vec![compiler(NIGHTLY, (1, 97), (22, 1), true), debian()],
                Some(NIGHTLY),
            ),
            (
                "nightly without source gives way to Debian",
                vec![compiler(NIGHTLY, (1, 97), (22, 1), false), debian()],
                Some(Origin::Debian),
            ),
            (
                "nightly whose LLVM bpf-linker cannot read gives way to the dated one",
                vec![compiler(NIGHTLY, (1, 101), (23, 1), true), compiler(DATED, (1, 97), (22, 1), true)],
                Some(DATED),
            ),
            (
                "Debian's own old rustc is not taken for rustc-web",
                vec![compiler(Origin::Debian, (1, 63), (14, 0), true)],
                None,
            ),
            ("no source anywhere", vec![compiler(NIGHTLY, (1, 97), (22, 1), false)], None),
        ] {
            assert_eq!(choose(compilers).map(|compiler| compiler.origin), expected, "{situation}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_compiler_is_said() {
        for (release, llvm, source, expected) in [
            ((1, 94), (21, 1), true, Err(Unusable::TooOld { oldest: Version::new(1, 95) })),
            ((1, 101), (23, 1), true, Err(Unusable::LlvmTooNew { newest: 22 })),
            ((1, 97), (22, 1), false, Err(Unusable::NoLibrarySource)),
            ((1, 97), (22, 1), true, Ok(())),
        ] {
            assert_eq!(compiler(NIGHTLY, release, llvm, source).usable(), expected);
        }
    }
}
