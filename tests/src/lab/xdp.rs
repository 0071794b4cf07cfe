//! XDP programs of one constant verdict: what a cable's other end needs, and the least a cable can be tried with.

use std::io::{self, Write as _};
use std::process::Command;

use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use super::LabError;
use crate::netns::Namespace;

/// The name that says what program this is: an XDP program that takes frames of several buffers.
const SECTION: &str = "xdp.frags";

/// What becomes of every frame; numbered as `enum xdp_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass = 2,
    /// Back out of the interface it came in by, unchanged.
    Tx = 3,
}

/// Attaches such a program in native mode, by netlink: it stays as long as the interface.
pub fn attach(namespace: &Namespace, interface: &str, verdict: Verdict) -> Result<(), LabError> {
    let file =
        object_file(verdict).map_err(|source| LabError::Xdp { interface: interface.to_owned(), source })?;
    namespace.output(
        Command::new("ip")
            .args(["link", "set", "dev", interface, "xdpdrv", "object"])
            .arg(file.path())
            .args(["section", SECTION]),
    )?;
    Ok(())
}

/// The program as `ip` wants it: an ELF object. Made here rather than compiled, so that a lab needs no BPF toolchain.
fn object_file(verdict: Verdict) -> io::Result<tempfile::NamedTempFile> {
    // `r0 = verdict; exit`: instructions of 8 bytes (RFC 9669).
    let code = [0xb7, 0, 0, 0, verdict as u8, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let program = object.add_section(Vec::new(), SECTION.as_bytes().to_vec(), SectionKind::Text);
    object.append_section_data(program, &code, 8);
    object.add_symbol(Symbol {
        name: b"verdict".to_vec(),
        value: 0,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(program),
        flags: SymbolFlags::None,
    });
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"Dual MIT/GPL\0", 1);
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&object.write().map_err(io::Error::other)?)?;
    Ok(file)
}
