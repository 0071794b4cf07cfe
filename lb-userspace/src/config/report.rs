//! Everything that is wrong with a configuration file, told at once.

use std::fmt;

/// A place in the file; line and column count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used, but probably does not do what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// Where; `None` if the file as a whole is meant (it cannot be read, say).
    pub at: Option<Position>,
    /// The key, like `services[0].servers[2].weight`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What would be accepted instead, if that is not said by `what`.
    pub accepted: Option<String>,
    /// The other place, when two contradict each other.
    pub other: Option<Position>,
}

/// The problems found in one file, in the order of the file.
///
/// Prints one line a problem, `file:line:column: key.path: what is wrong; what would be accepted`, and a last line
/// with the counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    file: String,
    problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at);
        Self { file: file.to_owned(), problems }
    }

    /// The name of the file, as it was given to [`super::load`] or [`super::parse`].
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All problems, sorted by position.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many of them are errors.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many of them are warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// One line for each problem, as printed.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| self.line(problem))
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }

    fn line(&self, problem: &Problem) -> String {
        let mut line = self.file.clone();
        if let Some(at) = problem.at {
            line += &format!(":{at}");
        }
        if problem.severity == Severity::Warning {
            line += ": warning";
        }
        if !problem.path.is_empty() {
            line += &format!(": {}", problem.path);
        }
        line += &format!(": {}", problem.what);
        if let Some(accepted) = &problem.accepted {
            line += &format!("; {accepted}");
        }
        if let Some(other) = problem.other {
            line += &format!(" (the other is at {}:{other})", self.file);
        }
        line
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines() {
            writeln!(f, "{line}")?;
        }
        let plural =
            |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        write!(f, "{}: {}, {}", self.file, plural(self.errors(), "error"), plural(self.warnings(), "warning"))
    }
}

impl std::error::Error for Report {}
