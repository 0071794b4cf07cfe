//! Finds recordings: pairs of `NAME.scenario.json` and `NAME.trace.jsonl` in folders, plain, compressed
//! (`.gz`, `.zst`, `.xz`) or in tar archives of them (`.tar`, `.tar.gz`, `.tgz`, `.tar.zst`, `.tar.xz`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::scenario::Scenario;
use super::trace::{Trace, TraceError};

/// Environment variable with the folders to take recordings from, separated by colons.
pub const FOLDERS_VARIABLE: &str = "LB_TRACES";

/// A scenario and what IPVS did with it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The folder it is in, below the one searched: `A`. An archive counts as the folder it is in.
    pub group: String,
    /// The files' name before `.scenario.json`.
    pub name: String,
    pub scenario: Scenario,
    pub trace: Trace,
}

impl Recording {
    /// Group and name: `A/rr-eq5`.
    pub fn label(&self) -> String {
        if self.group.is_empty() { self.name.clone() } else { format!("{}/{}", self.group, self.name) }
    }
}

/// Why recordings could not be read. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("reading {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("no recording in {folder}: no NAME.scenario.json there, nor an archive with one")]
    Empty { folder: PathBuf },
    #[error("{scenario} has no trace beside it")]
    NoTrace { scenario: String },
    #[error("{trace} has no scenario beside it")]
    NoScenario { trace: String },
    #[error("{first} and {second} are the same recording")]
    Twice { first: String, second: String },
    #[error("{path}: {source}")]
    Scenario { path: String, source: serde_json::Error },
    #[error("{path}: {source}")]
    Trace { path: String, source: TraceError },
    #[error("{path} is the trace of {traced:?}, its scenario is called {called:?}")]
    OtherScenario { path: String, traced: String, called: String },
    #[error("{path}: the scenario has {scenario} events, the trace {trace}")]
    Length { path: String, scenario: usize, trace: usize },
    #[error("{path}: event {i} is {scenario:?} in the scenario, {trace:?} in the trace")]
    OtherEvent { path: String, i: usize, scenario: String, trace: String },
}

/// All recordings of the folders `LB_TRACES` names, or of the repository's own.
pub fn recordings() -> Result<Vec<Recording>, StoreError> {
    load(&folders())
}

/// The recordings of some groups, a group being called by its innermost folder. If `LB_TRACES_ONLY` is set, only those
/// with this text in their label.
///
/// # Panics
/// They cannot be read.
pub fn chosen(is_wanted: impl Fn(&str) -> bool) -> Vec<Recording> {
    let only = std::env::var("LB_TRACES_ONLY").unwrap_or_default();
    let mut all = recordings().unwrap_or_else(|error| panic!("{error}"));
    all.retain(|recording| {
        let group = recording.group.rsplit('/').next().unwrap_or_default();
        is_wanted(group) && recording.label().contains(&only)
    });
    all
}

/// The folders recordings are taken from: `LB_TRACES`, or `tests/traces`.
pub fn folders() -> Vec<PathBuf> {
    match std::env::var_os(FOLDERS_VARIABLE).filter(|value| !value.is_empty()) {
        Some(value) => std::env::split_paths(&value).collect(),
        None => vec![own_folder()],
    }
}

/// The repository's recordings: `tests/traces`.
pub fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces")
}

/// All recordings below these folders, by group and name. A folder without any is an error.
pub fn load(folders: &[PathBuf]) -> Result<Vec<Recording>, StoreError> {
    let mut all = Vec::new();
    for folder in folders {
        let mut found = Found::default();
        found.search(folder, "")?;
        if found.scenarios.is_empty() && found.traces.is_empty() {
            return Err(StoreError::Empty { folder: folder.clone() });
        }
        all.extend(found.pair()?);
    }
    all.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
    Ok(all)
}

/// A file's text, and where it was found.
struct Source {
    path: String,
    text: String,
}

/// Files by group and name.
type Files = BTreeMap<(String, String), Source>;

#[derive(Default)]
struct Found {
    scenarios: Files,
    traces: Files,
}

impl Found {
    fn search(&mut self, folder: &Path, group: &str) -> Result<(), StoreError> {
        let failed = |source| StoreError::Read { path: folder.display().to_string(), source };
        let mut entries =
            fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                self.search(&path, &join(group, &name))?;
            } else if is_archive(&name) {
                self.unpack(&path, group)?;
            } else if recording_name(&name).is_some() {
                let failed = |source| StoreError::Read { path: path.display().to_string(), source };
                let file = BufReader::new(File::open(&path).map_err(failed)?);
                self.take(group, &name, &path.display().to_string(), file)?;
            }
        }
        Ok(())
    }

    fn unpack(&mut self, path: &Path, group: &str) -> Result<(), StoreError> {
        let failed = |source| StoreError::Read { path: path.display().to_string(), source };
        let file = BufReader::new(File::open(path).map_err(failed)?);
        let mut archive = tar::Archive::new(decompressed(&path.to_string_lossy(), file).map_err(failed)?);
        for entry in archive.entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let inside = entry.path().map_err(failed)?.into_owned();
            let name = inside.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !entry.header().entry_type().is_file() || recording_name(&name).is_none() {
                continue;
            }
            let below = inside.parent().unwrap_or(Path::new(""));
            let below: Vec<_> =
                below.iter().filter(|&part| part != ".").map(OsStr::to_string_lossy).collect();
            let shown = format!("{}:{}", path.display(), inside.display());
            self.take(&join(group, &below.join("/")), &name, &shown, entry)?;
        }
        Ok(())
    }

    fn take(&mut self, group: &str, file: &str, path: &str, input: impl Read) -> Result<(), StoreError> {
        let (name, kind) = recording_name(file).expect("only recordings are taken");
        let mut text = String::new();
        decompressed(file, input)
            .and_then(|mut input| input.read_to_string(&mut text))
            .map_err(|source| StoreError::Read { path: path.to_owned(), source })?;
        let files = match kind {
            Kind::Scenario => &mut self.scenarios,
            Kind::Trace => &mut self.traces,
        };
        let source = Source { path: path.to_owned(), text };
        match files.insert((group.to_owned(), name.to_owned()), source) {
            None => Ok(()),
            Some(first) => Err(StoreError::Twice { first: first.path, second: path.to_owned() }),
        }
    }

    fn pair(mut self) -> Result<Vec<Recording>, StoreError> {
        let mut recordings = Vec::new();
        for (key, scenario) in self.scenarios {
            match self.traces.remove(&key) {
                None => return Err(StoreError::NoTrace { scenario: scenario.path }),
                Some(trace) => recordings.push(recording(key, &scenario, &trace)?),
            }
        }
        match self.traces.pop_first() {
            None => Ok(recordings),
            Some((_, trace)) => Err(StoreError::NoScenario { trace: trace.path }),
        }
    }
}

fn recording(
    (group, name): (String, String),
    scenario: &Source,
    trace: &Source,
) -> Result<Recording, StoreError> {
    let path = || trace.path.clone();
    let scenario: Scenario = serde_json::from_str(&scenario.text)
        .map_err(|source| StoreError::Scenario { path: scenario.path.clone(), source })?;
    let trace = Trace::parse(&trace.text).map_err(|source| StoreError::Trace { path: path(), source })?;
    for traced in [&trace.begin.begin, &trace.end.end] {
        if *traced != scenario.name {
            let (traced, called) = (traced.clone(), scenario.name.clone());
            return Err(StoreError::OtherScenario { path: path(), traced, called });
        }
    }
    if scenario.events.len() != trace.events.len() {
        let (scenario, trace) = (scenario.events.len(), trace.events.len());
        return Err(StoreError::Length { path: path(), scenario, trace });
    }
    for (asked, done) in scenario.events.iter().zip(&trace.events) {
        if asked.op != done.op {
            let (scenario, trace) = (asked.op.clone(), done.op.clone());
            return Err(StoreError::OtherEvent { path: path(), i: done.i, scenario, trace });
        }
    }
    Ok(Recording { group, name, scenario, trace })
}

#[derive(Clone, Copy)]
enum Kind {
    Scenario,
    Trace,
}

const COMPRESSED: [&str; 3] = [".gz", ".zst", ".xz"];

/// The recording a file belongs to, if it belongs to one.
fn recording_name(file: &str) -> Option<(&str, Kind)> {
    let plain = COMPRESSED.iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file);
    let scenario = plain.strip_suffix(".scenario.json").map(|name| (name, Kind::Scenario));
    scenario.or_else(|| plain.strip_suffix(".trace.jsonl").map(|name| (name, Kind::Trace)))
}

fn is_archive(file: &str) -> bool {
    let plain = COMPRESSED.iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file);
    plain.ends_with(".tar") || file.ends_with(".tgz")
}

/// What a file holds once unpacked, by its name's ending.
fn decompressed<'a>(name: &str, input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let ending = Path::new(name).extension().and_then(OsStr::to_str);
    Ok(match ending {
        Some("gz" | "tgz") => Box::new(flate2::read::MultiGzDecoder::new(input)),
        Some("xz") => Box::new(lzma_rust2::XzReader::new(input, true)),
        Some("zst") => Box::new(ruzstd::decoding::StreamingDecoder::new(input).map_err(io::Error::other)?),
        _ => Box::new(input),
    })
}

fn join(group: &str, below: &str) -> String {
    [group, below].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
