//! The live part of the benchmark: a veth pair a case between two network namespaces, a generator and a counter at one
//! end, the program under test at the other.

use lb_userspace::bench::{BenchError, Station, live_cases};
use serde::Serialize;

use crate::lab::LabError;
use crate::lab::link::{self, ETHERNET_MTU, End};
use crate::netns::{Namespace, NetnsError, unique_prefix};

/// How much to send.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub rounds: u16,
    /// Packets of one round of one case.
    pub packets: u32,
    pub cpu: usize,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: &'static str,
    /// Million packets a second that came back.
    pub mpps_median: f64,
    pub mpps_best: f64,
    /// From one packet to the next, nanoseconds: sending, both ways over the link, the program, counting.
    pub ns_median: f64,
    pub sent: u64,
    pub lost: u64,
    pub rounds: u16,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Bench(#[from] BenchError),
}

/// Measures every live case, in turns.
///
/// # Errors
/// Namespaces, links or programs cannot be had.
pub fn run(options: &Options) -> Result<Vec<Figure>, LiveError> {
    let prefix = unique_prefix();
    let generator = Namespace::create(&format!("{prefix}-generator"))?;
    let director = Namespace::create(&format!("{prefix}-director"))?;
    for namespace in [&generator, &director] {
        // Nothing but the packets sent here is on the links then: nobody solicits routers.
        namespace.sysctl(&[
            ("net.ipv6.conf.all.disable_ipv6", "1"),
            ("net.ipv6.conf.default.disable_ipv6", "1"),
        ])?;
    }
    let mut stations = Vec::new();
    for (at, name) in live_cases().enumerate() {
        let (here, there) = (format!("gen{at}"), format!("dir{at}"));
        let ends = [(&generator, here.as_str()), (&director, there.as_str())];
        let [a, b] = ends.map(|(namespace, interface)| End { namespace, interface, mac: None });
        link::connect(&a, &b, ETHERNET_MTU)?;
        let ends = [link::index(&generator, &here)?, link::index(&director, &there)?];
        let mut station = Station::set_up(name, ends, options.cpu)?;
        generator.run(|| station.attach_sink())??;
        director.run(|| station.attach_director())??;
        stations.push((name, station, Vec::new()));
    }
    let total = stations.len();
    for round in 0..usize::from(options.rounds) {
        for turn in 0..total {
            let (_, station, rounds) = &mut stations[(turn + round) % total];
            rounds.push(generator.run(|| station.round(options.packets, options.cpu))??);
        }
    }
    let figure = |(name, _, rounds): (&'static str, Station, Vec<lb_userspace::bench::LiveRound>)| {
        let mut rates: Vec<f64> =
            rounds.iter().map(|round| round.arrived as f64 / round.took.as_secs_f64() / 1e6).collect();
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        let sent: u64 = rounds.iter().map(|round| round.sent).sum();
        let arrived: u64 = rounds.iter().map(|round| round.arrived).sum();
        Figure {
            name,
            mpps_median: median,
            mpps_best: rates[rates.len() - 1],
            ns_median: 1e3 / median,
            sent,
            lost: sent.saturating_sub(arrived),
            rounds: options.rounds,
        }
    };
    Ok(stations.into_iter().map(figure).collect())
}
