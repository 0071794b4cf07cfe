//! Steps run one after the other, all of them even if one fails, and what became of each at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

#[derive(Default)]
pub(crate) struct Summary {
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    took: Duration,
    failed: Option<String>,
}

impl Summary {
    /// Runs a step and remembers how it went; returns whether it went well.
    pub(crate) fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> bool {
        println!("== {name}");
        let start = Instant::now();
        let failed = step().err().map(|error| format!("{error:#}"));
        if let Some(failed) = &failed {
            println!("{name}: {failed}");
        }
        let went_well = failed.is_none();
        self.steps.push(Step { name, took: start.elapsed(), failed });
        went_well
    }

    /// Prints every step; an error if any failed.
    pub(crate) fn close(self) -> Result<()> {
        println!("== summary");
        for Step { name, took, failed } in &self.steps {
            let outcome = if failed.is_none() { "ok" } else { "FAILED" };
            println!("{outcome:6} {name} ({:.1} s)", took.as_secs_f32());
            if let Some(failed) = failed {
                println!("       {failed}");
            }
        }
        let failed = self.steps.iter().filter(|step| step.failed.is_some()).count();
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.steps.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn one_failed_step_fails_the_whole_and_later_steps_still_run() {
        let mut summary = Summary::default();
        let mut ran = false;
        assert!(!summary.step("first", || Err(anyhow!("broken"))));
        assert!(summary.step("second", || {
            ran = true;
            Ok(())
        }));
        assert!(ran);
        assert_eq!(summary.close().unwrap_err().to_string(), "1 of 2 steps failed");
    }

    #[test]
    fn all_well_is_well() {
        let mut summary = Summary::default();
        assert!(summary.step("only", || Ok(())));
        summary.close().unwrap();
    }
}
