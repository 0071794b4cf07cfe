//! Reading the configuration file: the only I/O there is in validation.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::report::{Problem, Report, Severity};
use super::{Valid, parse};

/// Largest file that is read; a hundred thousand servers with every key take about half of it.
const MAX_BYTES: u64 = 64 << 20;

/// Reads and validates the configuration file at `path`.
///
/// # Errors
/// The report with every error found; a file that cannot be read is a report of one error.
pub fn load(path: &Path) -> Result<Valid, Report> {
    let name = path.display().to_string();
    match text(path) {
        Ok(text) => parse(&name, &text),
        Err(error) => {
            let what = format!("cannot read the configuration: {error}");
            let (severity, path) = (Severity::Error, String::new());
            Err(Report::new(
                &name,
                vec![Problem { severity, at: None, path, what, accepted: None, other: None }],
            ))
        }
    }
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}
