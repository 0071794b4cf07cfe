//! The inputs that are kept: an archive for each target, `tests/fuzz/TARGET.tar.xz`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lzma_rust2::{XzOptions, XzReader, XzWriter};

use super::Target;

/// Inputs by name.
type Inputs = BTreeMap<String, Vec<u8>>;

impl Target {
    fn archive(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/{}.tar.xz", self.name()))
    }

    /// The kept inputs.
    ///
    /// # Errors
    /// The archive cannot be read.
    pub fn kept(self) -> Result<Inputs> {
        let path = self.archive();
        unpacked(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Puts the kept inputs, and those made from the cases, in a folder, a file each, beside what is there.
    ///
    /// # Errors
    /// The archive cannot be read, or the folder not be written.
    pub fn unpack(self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let seeds = (0..).zip(self.seeds()).map(|(number, seed): (u32, _)| (format!("case-{number}"), seed));
        for (name, input) in self.kept()?.into_iter().chain(seeds) {
            let file = folder.join(name);
            fs::write(&file, input).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }

    /// Keeps the inputs in a folder, and no others.
    ///
    /// # Errors
    /// The folder cannot be read, or the archive not be written.
    pub fn pack(self, folder: &Path) -> Result<()> {
        let inputs = files(folder).with_context(|| format!("reading {}", folder.display()))?;
        let path = self.archive();
        packed(&inputs, &path).with_context(|| format!("writing {}", path.display()))
    }
}

fn files(folder: &Path) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let input = fs::read(entry.path())?;
        inputs.insert(entry.file_name().to_string_lossy().into_owned(), input);
    }
    Ok(inputs)
}

fn unpacked(archive: &Path) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    let mut archive = tar::Archive::new(XzReader::new(File::open(archive)?, true));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut input = Vec::new();
        entry.read_to_end(&mut input)?;
        inputs.insert(name, input);
    }
    Ok(inputs)
}

/// The same inputs make the same archive.
fn packed(inputs: &Inputs, archive: &Path) -> Result<()> {
    let xz = XzWriter::new(File::create(archive)?, XzOptions::with_preset(9))?;
    let mut builder = tar::Builder::new(xz);
    for (name, input) in inputs {
        let mut header = tar::Header::new_ustar();
        header.set_size(input.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, input.as_slice())?;
    }
    builder.into_inner()?.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let inputs =
            Inputs::from([("a".into(), vec![1, 2, 3]), ("b".into(), vec![]), ("c".into(), vec![7; 5000])]);
        let archive = folder.path().join("kept.tar.xz");
        packed(&inputs, &archive).unwrap();
        assert_eq!(unpacked(&archive).unwrap(), inputs);
    }
}
