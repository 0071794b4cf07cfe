//! Folders made for one case each.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const SCENARIO: &str = r#"{"name": "x", "services": [], "events": [{"op": "sleep", "ms": 5}]}"#;
const TRACE: &str = r#"{"begin":"x","order":[]}
{"i":0,"op":"sleep","t":0.0,"ms":5}
{"end":"x","t":5.0}
"#;

/// A folder of this test's own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lb-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn labels(&self) -> Result<Vec<String>, StoreError> {
        Ok(load(std::slice::from_ref(&self.0))?.iter().map(Recording::label).collect())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn gz(text: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(text).unwrap();
    writer.finish().unwrap()
}

fn xz(text: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(text).unwrap();
    writer.finish().unwrap()
}

fn zst(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn recordings_are_found_plain_and_compressed_in_folders_and_archives() {
    let folder = Folder::new();
    folder.put("plain.scenario.json", SCENARIO);
    folder.put("plain.trace.jsonl", TRACE);
    folder.put("A/gz.scenario.json.gz", gz(SCENARIO.as_bytes()));
    folder.put("A/gz.trace.jsonl", TRACE);
    folder.put("A/deep/zst.scenario.json.zst", zst(SCENARIO.as_bytes()));
    folder.put("A/deep/zst.trace.jsonl.xz", xz(TRACE.as_bytes()));
    let both = |name: &str| {
        let (scenario, trace) = (format!("{name}.scenario.json"), format!("{name}.trace.jsonl"));
        archive(&[(&scenario, SCENARIO.as_bytes()), (&trace, TRACE.as_bytes())])
    };
    folder.put("B.tar", both("./B/tar"));
    folder.put("B.tgz", gz(&both("B/tgz")));
    folder.put("B.tar.xz", xz(&both("B/tar-xz")));
    folder.put("C/c.tar.zst", zst(&both("tar-zst")));
    // An archive may lack what a folder has.
    folder.put("D.tar.gz", gz(&archive(&[("D/split.trace.jsonl.gz", &gz(TRACE.as_bytes()))])));
    folder.put("D/split.scenario.json", SCENARIO);
    folder.put("README.md", "not a recording");
    let wanted = ["plain", "A/gz", "A/deep/zst", "B/tar", "B/tar-xz", "B/tgz", "C/tar-zst", "D/split"];
    assert_eq!(folder.labels().unwrap(), wanted);
}

#[test]
fn whatever_is_wrong_with_recordings_is_an_error_that_names_the_file() {
    let other_name = TRACE.replace("\"x\"", "\"y\"");
    let other_event = TRACE.replace("sleep", "until").replace(",\"ms\":5", "");
    let shorter = TRACE.lines().filter(|line| !line.contains("sleep")).collect::<Vec<_>>().join("\n");
    let cut = TRACE.lines().take(2).collect::<Vec<_>>().join("\n");
    for (files, wanted) in [
        (vec![("README.md", "")], "no recording in"),
        (vec![("a.scenario.json", SCENARIO)], "a.scenario.json has no trace"),
        (vec![("a.trace.jsonl", TRACE)], "a.trace.jsonl has no scenario"),
        (vec![("A/a.scenario.json", SCENARIO), ("B/a.trace.jsonl", TRACE)], "has no trace"),
        (vec![("a.scenario.json", "{}"), ("a.trace.jsonl", TRACE)], "a.scenario.json: missing field `name`"),
        (vec![("a.scenario.json", SCENARIO), ("a.trace.jsonl", "")], "a.trace.jsonl: line 1"),
        (vec![("a.scenario.json", SCENARIO), ("a.trace.jsonl", &cut)], "a.trace.jsonl: line 2: "),
        (vec![("a.scenario.json", SCENARIO), ("a.trace.jsonl", &other_name)], "is the trace of \"y\""),
        (vec![("a.scenario.json", SCENARIO), ("a.trace.jsonl", &other_event)], "event 0 is \"sleep\""),
        (vec![("a.scenario.json", SCENARIO), ("a.trace.jsonl", &shorter)], "1 events, the trace 0"),
        (vec![("a.scenario.json.gz", SCENARIO), ("a.trace.jsonl", TRACE)], "a.scenario.json.gz: "),
        (vec![("a.tar.xz", "no archive")], "a.tar.xz: "),
    ] {
        let folder = Folder::new();
        files.iter().for_each(|(name, text)| folder.put(name, text));
        let error = folder.labels().expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    let folder = Folder::new();
    folder.put("a.scenario.json", SCENARIO);
    folder.put("a.scenario.json.gz", gz(SCENARIO.as_bytes()));
    assert!(folder.labels().expect_err("two").to_string().contains("are the same recording"));
    assert!(load(&[folder.0.join("nowhere")]).expect_err("nowhere").to_string().contains("nowhere"));
}
