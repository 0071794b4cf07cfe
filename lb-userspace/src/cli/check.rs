//! `lb check`: is a configuration valid, and what is wrong with it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::api::describe;
use crate::api::types::{Finding, Severity};
use crate::config;

use super::Answer;
use super::output::{BAD, Format, WARN, json};

#[derive(Debug, Args)]
pub struct Check {
    /// Configuration files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    valid: bool,
    findings: Vec<Finding>,
}

impl Check {
    pub(super) fn execute(self, out: &mut dyn Write) -> anyhow::Result<Answer> {
        let mut all = Vec::new();
        for path in self.files {
            let (valid, report) = match config::load(&path) {
                Ok(valid) => (true, valid.warnings),
                Err(report) => (false, report),
            };
            all.push(Checked {
                file: report.file().to_owned(),
                valid,
                findings: describe::findings(&report),
            });
        }
        if self.format.json {
            json(out, &all)?;
        } else {
            all.iter().try_for_each(|checked| checked.print(out))?;
        }
        Ok(if all.iter().all(|checked| checked.valid) { Answer::Yes } else { Answer::No })
    }
}

impl Checked {
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        print_findings(&self.findings, out)?;
        let verdict = if self.valid { "valid" } else { "not valid" };
        writeln!(out, "{}: {verdict}{}", self.file, summary(&self.findings))
    }
}

/// One line a finding.
pub(super) fn print_findings(findings: &[Finding], out: &mut dyn Write) -> std::io::Result<()> {
    for finding in findings {
        let style = match finding.severity {
            Severity::Error => BAD,
            Severity::Warning => WARN,
        };
        writeln!(out, "{style}{finding}{style:#}")?;
    }
    Ok(())
}

/// `, 2 errors, 1 warning`; empty if there is neither.
pub(super) fn summary(findings: &[Finding]) -> String {
    let count = |severity, noun| {
        let count = findings.iter().filter(|finding| finding.severity == severity).count();
        if count == 0 { String::new() } else { format!(", {}", super::output::counted(count, noun)) }
    };
    count(Severity::Error, "error") + &count(Severity::Warning, "warning")
}
