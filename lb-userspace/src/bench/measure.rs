//! The rounds.

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;

use super::BenchError;
use super::case::{Baseline, CASES, Case};
use super::report::{Figure, Host, Report, Sample};
use super::running::{Empty, Running};
use super::wrapped::Whose;
use crate::object;

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Times each case takes its turn.
    pub rounds: usize,
    /// Divides the packets of a turn.
    pub quick: bool,
    /// Parts of names; empty: every case.
    pub filter: Vec<String>,
    /// CPU to run on; the last one allowed unless told.
    pub cpu: Option<usize>,
}

/// Divisor of a turn's packets where time matters more than noise.
const QUICK: u32 = 5;

/// Measures. `progress` is told what is being done.
///
/// # Errors
/// The programs cannot be loaded, or a case did not do what it is to measure.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Report, BenchError> {
    let (lb, bench) = (object::embedded()?, object::bench()?);
    let cpus = cpus(options.cpu)?;
    let mut cases = chosen(&options.filter)?;
    if cases.iter().any(|case| case.cpus > cpus.len()) {
        progress("only one CPU: cases with two are left out");
        cases.retain(|case| case.cpus <= cpus.len());
    }
    let mut baselines = Vec::new();
    for case in &cases {
        if !baselines.contains(&case.baseline()) {
            baselines.push(case.baseline());
        }
    }
    let same = Baseline { whose: Whose::Same, cpus: 1 };
    let has_tunnel = cases.iter().any(|case| case.grows > 0);
    if has_tunnel && !baselines.contains(&same) {
        baselines.push(same);
    }
    let mut empties = Vec::new();
    for baseline in &baselines {
        empties.push((baseline.name(), Empty::load(bench, *baseline, "empty")?));
    }
    if has_tunnel {
        empties.push((GROW.to_owned(), Empty::load(bench, same, "grow")?));
    }
    let mut running = Vec::new();
    for case in &cases {
        progress(&format!("setting up {}", case.name));
        running.push(Running::set_up(lb, bench, *case, &cpus)?);
    }
    let quick = if options.quick { QUICK } else { 1 };
    let total = empties.len() + running.len();
    let mut samples = vec![Vec::with_capacity(options.rounds); total];
    for round in 0..options.rounds {
        progress(&format!("round {} of {}", round + 1, options.rounds));
        for turn in 0..total {
            let at = (turn + round) % total;
            let each = match at.checked_sub(empties.len()) {
                None => empties[at].1.round(&cpus, quick)?,
                Some(at) => running[at].round(&cpus, quick)?,
            };
            samples[at].push(each);
        }
    }
    running.iter().try_for_each(Running::finish)?;
    let baselines: Vec<_> = empties
        .iter()
        .zip(&samples)
        .map(|((name, _), samples)| (name.clone(), Sample::of(samples)))
        .collect();
    let figures = running
        .iter()
        .zip(&cases)
        .zip(&samples[empties.len()..])
        .map(|((running, case), samples)| {
            let raw = Sample::of(samples);
            let around = around(case, &baselines);
            Figure::new(running.name(), case.flows(), raw, around, options.rounds)
        })
        .collect();
    Ok(Report {
        host: Host::this(),
        cpu: cpus[0],
        cases: figures,
        baselines: baselines.into_iter().collect(),
    })
}

/// Name of the baseline that makes room in front of the packet.
const GROW: &str = "grow_same";

/// What of a case's figure is not the program's own: the wrapper, and where the packet has grown, the wrapper's taking
/// that away, which costs what growing costs.
fn around(case: &Case, baselines: &[(String, Sample)]) -> Sample {
    let find = |wanted: &str| {
        let found = baselines.iter().find(|(name, _)| name == wanted);
        found.expect("every case's baseline is measured").1
    };
    let empty = find(&case.baseline().name());
    if case.grows == 0 {
        return empty;
    }
    let (grow, same) = (find(GROW), find(&Baseline { whose: Whose::Same, cpus: 1 }.name()));
    Sample {
        min: empty.min + (grow.min - same.min) / 2.0,
        median: empty.median + (grow.median - same.median) / 2.0,
    }
}

fn chosen(filter: &[String]) -> Result<Vec<Case>, BenchError> {
    for part in filter {
        if !CASES.iter().any(|case| case.name.contains(part.as_str())) {
            return Err(BenchError::NoCase(part.clone()));
        }
    }
    let wanted =
        |case: &Case| filter.is_empty() || filter.iter().any(|part| case.name.contains(part.as_str()));
    Ok(CASES.into_iter().filter(wanted).collect())
}

/// CPUs this process may use, the one to measure on first.
fn cpus(wanted: Option<usize>) -> Result<Vec<usize>, BenchError> {
    let failed = |source| BenchError::Cpu { cpu: wanted.unwrap_or(0), source };
    let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(failed)?;
    let mut cpus: Vec<usize> =
        (0..nix::sched::CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    // The first CPU of a machine has most of its interrupts.
    cpus.reverse();
    if let Some(wanted) = wanted {
        let Some(at) = cpus.iter().position(|&cpu| cpu == wanted) else {
            cpus.reverse();
            return Err(BenchError::NoCpu { cpu: wanted, allowed: cpus });
        };
        cpus.swap(0, at);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_parts_of_their_names() {
        let names = |filter: &[&str]| {
            let filter: Vec<String> = filter.iter().map(|part| (*part).to_owned()).collect();
            chosen(&filter).map(|cases| cases.iter().map(|case| case.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), CASES.len());
        assert_eq!(names(&["dr_1m", "gre_h"]).unwrap(), ["dr_1m", "gre_hot", "dr_1m_2cpu"]);
        assert!(matches!(names(&["dr", "sctp"]), Err(BenchError::NoCase(part)) if part == "sctp"));
    }

    #[test]
    fn what_does_not_exist_is_answered_with_what_does() {
        let error = chosen(&["sctp".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("no case has \"sctp\" in its name; there are empty, floor, "), "{error}");
        let error = cpus(Some(99_999)).unwrap_err().to_string();
        assert!(error.starts_with("this process may not use CPU 99999; it may use ["), "{error}");
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        for (at, case) in CASES.iter().enumerate() {
            assert!(CASES[..at].iter().all(|other| other.name != case.name), "{}", case.name);
        }
    }
}
