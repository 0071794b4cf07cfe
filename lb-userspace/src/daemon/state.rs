//! What has to outlive the daemon and is in no map: the numbers and their order, in a file beside the API's socket.

use crate::reconcile::Ids;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::warn;

/// The file, and what was last written to it.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    written: Option<Ids>,
}

impl StateFile {
    pub(super) fn beside(socket: &Path) -> Self {
        Self { path: socket.with_extension("ids.json"), written: None }
    }

    /// What an earlier daemon left; `None` if it left nothing that can be read. The maps tell most of it as well.
    pub(super) fn read(&self) -> Option<Ids> {
        let path = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(%path, %error, "the order of servers is taken from the configuration: no saved state");
                return None;
            }
        };
        serde_json::from_slice(&text)
            .inspect_err(|error| warn!(%path, %error, "the saved state makes no sense and is not used"))
            .ok()
    }

    /// Writes it, whole or not at all. A failure is logged: only a restart would miss the file.
    pub(super) fn write(&mut self, ids: &Ids) {
        if self.written.as_ref() == Some(ids) {
            return;
        }
        match self.replace(ids) {
            Ok(()) => self.written = Some(ids.clone()),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the state for the next start is not saved")
            }
        }
    }

    fn replace(&self, ids: &Ids) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let aside = self.path.with_extension("json.new");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&serde_json::to_vec_pretty(ids)?)?;
        fs::rename(&aside, &self.path)
    }

    /// Once the maps are gone it would only mislead.
    pub(super) fn remove(&self) {
        // Not there is as good.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nonsense_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/lb.sock");
        let mut file = StateFile::beside(&socket);
        assert_eq!(file.read(), None);
        file.write(&Ids::default());
        assert_eq!(StateFile::beside(&socket).read(), Some(Ids::default()));
        fs::write(folder.path().join("run/lb.ids.json"), "{").unwrap();
        assert_eq!(StateFile::beside(&socket).read(), None);
    }
}
