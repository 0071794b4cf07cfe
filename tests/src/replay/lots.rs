//! Decisions by lot: twos draws, so not one choice is compared but how often each server was chosen.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// How often each server was chosen, in the recording and here.
#[derive(Clone, Debug, Default)]
pub(super) struct Lots {
    chosen: BTreeMap<IpAddr, [u64; 2]>,
}

impl Lots {
    /// A choice of the recording and the one here.
    pub(super) fn count(&mut self, wanted: IpAddr, got: IpAddr) {
        self.chosen.entry(wanted).or_default()[0] += 1;
        self.chosen.entry(got).or_default()[1] += 1;
    }

    /// Whether both may be draws from one distribution: the chi-squared statistic of two samples, which is their
    /// degrees of freedom on average and that far above hardly ever.
    pub(super) fn compare(&self) -> Result<(), String> {
        let statistic: f64 = self
            .chosen
            .values()
            .map(|&[wanted, got]| {
                let apart = wanted as f64 - got as f64;
                apart * apart / (wanted + got) as f64
            })
            .sum();
        let freedom = self.chosen.len().saturating_sub(1) as f64;
        if statistic <= freedom + 5.0 * (2.0 * freedom).sqrt() {
            return Ok(());
        }
        Err(format!(
            "servers chosen in the recording and here: {:?}, chi-squared {statistic:.1}",
            self.chosen
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lots(counts: &[[u64; 2]]) -> Lots {
        let server = |at: usize| IpAddr::from([10, 0, 1, at as u8]);
        Lots { chosen: counts.iter().enumerate().map(|(at, counts)| (server(at), *counts)).collect() }
    }

    #[test]
    fn shares_that_chance_explains_are_equal_and_others_are_not() {
        for (counts, equal) in [
            (&[][..], true),
            (&[[200, 200]], true),
            (&[[100, 90], [200, 210]], true),
            (&[[100, 101], [200, 190], [300, 309]], true),
            (&[[100, 200], [200, 100]], false),
            (&[[100, 0], [200, 300]], false),
            (&[[100, 200], [200, 200], [300, 200]], false),
        ] {
            assert_eq!(lots(counts).compare().is_ok(), equal, "{counts:?}");
        }
    }
}
