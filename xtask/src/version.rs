//! Versions as compilers and libraries print them.

use std::fmt;

use anyhow::{Context, Result};

/// `major.minor`, of a Rust release or of LLVM. Patch releases are left out on purpose: LLVM keeps its
/// bitcode and its C interface within a minor version, and so does Rust what we ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads the leading `major.minor` and ignores what follows: `1.97.0-nightly`, `22.1.8`,
    /// `22.1-rust-1.95.0-stable`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self::new(major.parse().ok()?, rest[..digits].parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What `rustc -vV` says of a compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    pub(crate) release: Version,
    pub(crate) llvm: Version,
}

impl Rustc {
    pub(crate) fn parse(verbose: &str) -> Result<Self> {
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .and_then(Version::parse)
                .with_context(|| format!("no usable `{name}:` line in the output of `rustc -vV`"))
        };
        Ok(Self { release: field("release")?, llvm: field("LLVM version")? })
    }
}

/// The LLVM version in a shared library's file name, `libLLVM.so.22.1` and
/// `libLLVM.so.22.1-rust-1.95.0-stable`. Other names (`libLLVM-22.so`) are links or linker scripts to these.
pub(crate) fn of_llvm_library(file_name: &str) -> Option<Version> {
    Version::parse(file_name.strip_prefix("libLLVM.so.")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_up_to_the_minor() {
        for (text, expected) in [
            ("1.97.0-nightly", Some(Version::new(1, 97))),
            ("22.1.8", Some(Version::new(22, 1))),
            ("22.1-rust-1.95.0-stable", Some(Version::new(22, 1))),
            ("1.95", Some(Version::new(1, 95))),
            ("22", None),
            ("22.x", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn minor_versions_compare_as_numbers() {
        assert!(Version::new(1, 100) > Version::new(1, 97));
        assert!(Version::new(22, 0) > Version::new(21, 8));
    }

    #[test]
    fn rustc_verbose_output_gives_release_and_llvm() {
        let debian = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                      host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let expected = Rustc { release: Version::new(1, 96), llvm: Version::new(22, 1) };
        assert_eq!(Rustc::parse(debian).unwrap(), expected);
    }

    #[test]
    fn a_compiler_without_llvm_is_refused_by_name_of_the_line() {
        let error = Rustc::parse("release: 1.96.0\n").unwrap_err();
        assert!(error.to_string().contains("LLVM version"), "{error}");
    }

    #[test]
    fn only_real_llvm_libraries_are_recognised() {
        for (name, expected) in [
            ("libLLVM.so.22.1", Some(Version::new(22, 1))),
            ("libLLVM.so.22.1-rust-1.97.0-nightly", Some(Version::new(22, 1))),
            ("libLLVM-22-rust-1.97.0-nightly.so", None),
            ("libLLVM-14.so.1", None),
            ("librustc_driver-6108105cd7e839cf.so", None),
        ] {
            assert_eq!(of_llvm_library(name), expected, "{name}");
        }
    }
}
