//! What came out.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// Smallest and middle of a case's rounds, in nanoseconds a packet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub min: f64,
    pub median: f64,
}

impl Sample {
    /// `rounds` is not empty.
    pub(super) fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Self { min: sorted[0], median }
    }
}

/// One case. Nanoseconds a packet; `net`: without the wrapper and an empty program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    /// Flows that packets are of; 0: of a new one each, or of none.
    pub flows: u32,
    pub raw_ns_min: f64,
    pub raw_ns_median: f64,
    pub net_ns_min: f64,
    pub net_ns_median: f64,
    pub rounds: usize,
}

impl Figure {
    pub(super) fn new(name: &str, flows: u32, raw: Sample, around: Sample, rounds: usize) -> Self {
        Self {
            name: name.to_owned(),
            flows,
            raw_ns_min: round(raw.min),
            raw_ns_median: round(raw.median),
            net_ns_min: round(raw.min - around.min),
            net_ns_median: round(raw.median - around.median),
            rounds,
        }
    }
}

/// To hundredths: what is behind them is noise.
fn round(ns: f64) -> f64 {
    (ns * 100.0).round() / 100.0
}

/// The machine that was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub kernel: String,
    pub processor: String,
}

impl Host {
    pub(super) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.unwrap_or("").trim_start_matches([' ', '\t', ':']);
        Self { kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(), processor: model.to_owned() }
    }
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub host: Host,
    /// The CPU that was measured on.
    pub cpu: usize,
    pub cases: Vec<Figure>,
    /// Empty programs behind the wrappers: what is subtracted.
    pub baselines: BTreeMap<String, Sample>,
}

impl Report {
    /// Net cost of each case over that in an earlier report, as minimum and median; cases that both have. A cost that is
    /// not above zero has no ratio.
    pub fn against<'a>(
        &'a self,
        earlier: &'a Report,
    ) -> impl Iterator<Item = (&'a Figure, [Option<f64>; 2])> {
        self.cases.iter().filter_map(|now| {
            let then = earlier.cases.iter().find(|then| then.name == now.name)?;
            let ratio = |now: f64, then: f64| (now > 0.0 && then > 0.0).then(|| now / then);
            let ratios =
                [ratio(now.net_ns_min, then.net_ns_min), ratio(now.net_ns_median, then.net_ns_median)];
            Some((now, ratios))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_two() {
        for (rounds, min, median) in
            [(&[3.0, 1.0, 2.0][..], 1.0, 2.0), (&[4.0, 1.0, 3.0, 2.0], 1.0, 2.5), (&[7.0], 7.0, 7.0)]
        {
            assert_eq!(Sample::of(rounds), Sample { min, median });
        }
    }

    fn report(cases: &[(&str, f64)]) -> Report {
        let figure = |(name, net): &(&str, f64)| {
            let raw = Sample { min: net + 30.0, median: net + 31.0 };
            Figure::new(name, 1, raw, Sample { min: 30.0, median: 30.0 }, 16)
        };
        Report {
            host: Host { kernel: "6.18".into(), processor: "a".into() },
            cpu: 1,
            cases: cases.iter().map(figure).collect(),
            baselines: BTreeMap::new(),
        }
    }

    #[test]
    fn ratios_are_of_cases_both_reports_have() {
        let (then, now) = (report(&[("a", 10.0), ("b", 5.0)]), report(&[("c", 1.0), ("a", 20.0)]));
        let ratios: Vec<_> =
            now.against(&then).map(|(figure, ratios)| (figure.name.as_str(), ratios)).collect();
        assert_eq!(ratios, [("a", [Some(2.0), Some(21.0 / 11.0)])]);
        assert_eq!(report(&[("e", 0.0)]).against(&report(&[("e", 0.0)])).next().unwrap().1[0], None);
    }

    #[test]
    fn a_report_survives_the_way_through_json() {
        let report = report(&[("a", 10.0)]);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
