//! What came of playing many recordings, as tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Compared, LeftOut, Played, play};
use crate::engine::Engine;
use crate::traces::Recording;

/// How many differences of a recording are told in full.
const TOLD: usize = 12;

/// Plays recordings one after the other and prints a line for each and a table at the end.
///
/// # Panics
/// There are none, or some came out different.
pub fn replay<E: Engine>(recordings: &[Recording], engine: &mut E) {
    assert!(!recordings.is_empty(), "there is nothing to replay");
    let mut all = Vec::new();
    for recording in recordings {
        let played = play(recording, engine);
        print!("{}", lines(&played));
        all.push((recording.group.as_str(), played));
    }
    println!("{}: {} recordings", engine.name(), all.len());
    print!("{}", summary(all.iter().map(|(group, played)| (*group, played))));
    let different: Vec<&str> = all
        .iter()
        .filter(|(_, played)| !played.differences.is_empty())
        .map(|(_, played)| played.label.as_str())
        .collect();
    assert!(different.is_empty(), "recordings with differences: {}", different.join(", "));
}

/// One line a recording, and its differences.
pub fn lines(played: &Played) -> String {
    let Compared { all, equal, .. } = played.decisions;
    let mut text = format!("{}: decisions compared {all} / equal {equal}", played.label);
    for (name, compared) in [
        ("frames", &played.frames),
        ("counts", &played.counts),
        ("connection tables", &played.conns),
        ("commands and lists", &played.commands),
    ] {
        if compared.all != 0 {
            write!(text, ", {name} {} / {}", compared.all, compared.equal).expect("a String takes all");
        }
    }
    let mut left_out = BTreeMap::new();
    for compared in [&played.decisions, &played.frames, &played.counts, &played.conns, &played.commands] {
        for (why, count) in &compared.left_out {
            *left_out.entry(*why).or_insert(0) += count;
        }
    }
    if !left_out.is_empty() {
        write!(text, "; left out: {}", reasons(&left_out)).expect("a String takes all");
    }
    text.push('\n');
    for difference in played.differences.iter().take(TOLD) {
        writeln!(text, "    {difference}").expect("a String takes all");
    }
    if played.differences.len() > TOLD {
        writeln!(text, "    and {} more", played.differences.len() - TOLD).expect("a String takes all");
    }
    text
}

fn reasons(left_out: &BTreeMap<LeftOut, u64>) -> String {
    left_out.iter().map(|(why, count)| format!("{count} {why}")).collect::<Vec<_>>().join(", ")
}

/// A table of the groups.
pub fn summary<'a>(played: impl IntoIterator<Item = (&'a str, &'a Played)>) -> String {
    #[derive(Default)]
    struct Group {
        files: u64,
        of: [Compared; 5],
    }
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for (name, played) in played {
        let group = groups.entry(name).or_default();
        group.files += 1;
        let all = [&played.decisions, &played.frames, &played.counts, &played.conns, &played.commands];
        for (sum, compared) in group.of.iter_mut().zip(all) {
            sum.add(compared);
        }
    }
    let names = ["decisions", "frames", "counts", "connection tables", "commands and lists"];
    let mut text =
        String::from("group  files  what                compared     equal  different  left out\n");
    for (group, Group { files, of }) in &groups {
        for (name, compared) in names.iter().zip(of) {
            let Compared { all, equal, left_out } = compared;
            if *all == 0 {
                continue;
            }
            writeln!(
                text,
                "{group:<5}  {files:>5}  {name:<18}  {all:>8}  {equal:>8}  {:>9}  {}",
                compared.different(),
                reasons(left_out)
            )
            .expect("a String takes all");
        }
    }
    text
}
