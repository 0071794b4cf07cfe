//! Answers as text: aligned tables for people, JSON for programs.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde::Serialize;

use crate::api::types::Failure;

use super::Answer;

pub(super) const PLAIN: Style = Style::new();
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const BAD: Style = AnsiColor::Red.on_default();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Format {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Format {
    /// Tells of a refusal: as JSON where the answer would have been, as text to those who complain.
    pub(super) fn refuse(
        self,
        failure: &Failure,
        out: &mut dyn Write,
        complaints: &mut dyn Write,
    ) -> anyhow::Result<Answer> {
        if self.json {
            json(out, failure)?;
        } else {
            writeln!(complaints, "lb: {failure}")?;
        }
        Ok(Answer::No)
    }
}

/// Prints one value.
pub(super) fn json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Side of the column a cell is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A piece of text in one style.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::styled(value.to_string(), PLAIN)
    }
}

enum Line {
    Cells(Vec<Cell>),
    /// Runs over the columns.
    Wide(Vec<Cell>),
}

/// Columns as wide as their widest cell, two blanks apart. Styles are always written; whoever prints to what is no
/// terminal strips them.
pub(super) struct Table {
    columns: Vec<Align>,
    lines: Vec<Line>,
}

impl Table {
    /// With a line of heads.
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        let aligns: Vec<_> = columns.iter().map(|(_, align)| *align).collect();
        let mut table = Self::headless(&aligns);
        table.row(columns.iter().map(|(head, _)| Cell::styled(*head, BOLD)));
        table
    }

    pub(super) fn headless(columns: &[Align]) -> Self {
        Self { columns: columns.to_vec(), lines: Vec::new() }
    }

    /// Adds a line, a cell for each column; missing ones at the end are blank.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.lines.push(Line::Cells(cells.into_iter().collect()));
    }

    /// Adds a line that heeds no column, its pieces one blank apart.
    pub(super) fn wide(&mut self, pieces: impl IntoIterator<Item = Cell>) {
        self.lines.push(Line::Wide(pieces.into_iter().collect()));
    }

    /// Lines, with the heads.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let widths = self.widths();
        for line in &self.lines {
            match line {
                Line::Wide(pieces) => {
                    for (i, piece) in pieces.iter().enumerate() {
                        if i > 0 {
                            out.write_all(b" ")?;
                        }
                        write!(out, "{0}{1}{0:#}", piece.style, piece.text)?;
                    }
                }
                Line::Cells(cells) => self.print_cells(cells, &widths, out)?,
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn print_cells(&self, cells: &[Cell], widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
        // No blanks at the end of the line.
        let used = cells.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
        let last = used.saturating_sub(1);
        for (i, ((cell, align), width)) in cells.iter().zip(&self.columns).zip(widths).take(used).enumerate()
        {
            let blank = width - cell.text.chars().count();
            let (before, after) = match align {
                Align::Right => (blank, 0),
                Align::Left => (0, blank),
            };
            let after = if i == last { 0 } else { after + 2 };
            let Cell { text, style } = cell;
            write!(out, "{:before$}{style}{text}{style:#}{:after$}", "", "")?;
        }
        Ok(())
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.columns.len()];
        for line in &self.lines {
            if let Line::Cells(cells) = line {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(cell.text.chars().count());
                }
            }
        }
        widths
    }
}

/// A count in four characters or so: `9999`, `12.3k`, `4.56G`.
pub(super) fn human(count: u64) -> String {
    if count < 10_000 {
        return count.to_string();
    }
    let mut value = count as f64;
    for unit in ["k", "M", "G", "T", "P", "E"] {
        value /= 1000.0;
        // What would round to four digits belongs to the next unit.
        if value < 999.5 || unit == "E" {
            let digits = if value < 9.995 {
                2
            } else if value < 99.95 {
                1
            } else {
                0
            };
            return format!("{value:.digits$}{unit}");
        }
    }
    count.to_string()
}

/// Bytes in powers of 1000: `9999 B`, `1.23 MB`.
pub(super) fn human_bytes(bytes: u64) -> String {
    let text = human(bytes);
    match text.strip_suffix(|unit: char| unit.is_ascii_alphabetic()) {
        Some(number) => format!("{number} {}B", &text[number.len()..]),
        None => format!("{text} B"),
    }
}

/// Seconds as `3days 4h 5m`.
pub(super) fn human_seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// A number and what it counts: `1 server`, `2 servers`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short_and_never_round_up_to_four_digits() {
        for (count, text, bytes) in [
            (0, "0", "0 B"),
            (9_999, "9999", "9999 B"),
            (10_000, "10.0k", "10.0 kB"),
            (99_949, "99.9k", "99.9 kB"),
            (99_950, "100k", "100 kB"),
            (999_499, "999k", "999 kB"),
            (999_500, "1.00M", "1.00 MB"),
            (9_994_000, "9.99M", "9.99 MB"),
            (9_996_000, "10.0M", "10.0 MB"),
            (1_234_567_890_123, "1.23T", "1.23 TB"),
            (u64::MAX, "18.4E", "18.4 EB"),
        ] {
            assert_eq!(human(count), text);
            assert_eq!(human_bytes(count), bytes);
        }
    }

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut table = Table::new(&[("Name", Align::Left), ("Count", Align::Right), ("", Align::Left)]);
        table.row(["a".into(), 1.into(), "x".into()]);
        table.wide(["this line heeds".into(), Cell::styled("no column", BAD)]);
        table.row([Cell::styled("longer", BAD), 123_456.into()]);
        let mut out = anstream::StripStream::new(Vec::new());
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out.into_inner()).unwrap();
        assert_eq!(
            text,
            "Name     Count\n\
             a            1  x\n\
             this line heeds no column\n\
             longer  123456\n"
        );
    }

    #[test]
    fn styles_take_no_room() {
        let mut table = Table::new(&[("A", Align::Right)]);
        table.row([Cell::styled("b", BAD)]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\x1b[1mA\x1b[0m\n\x1b[31mb\x1b[0m\n");
    }
}
