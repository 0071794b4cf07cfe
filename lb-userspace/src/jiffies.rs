//! The datapath's clock. Jiffies are the only clock that costs a packet nothing; how long one is (the kernel's HZ) and
//! how many have passed only a program in the kernel can tell.

use aya::maps::{Array, MapData, MapError};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use std::time::{Duration, Instant};

/// Values HZ can be built with (`kernel/Kconfig.hz`).
const KNOWN: [u32; 4] = [100, 250, 300, 1000];

/// How far a measurement may be off, in percent.
const TOLERANCE: f64 = 5.0;

/// Time to measure over, at least.
const SPAN: Duration = Duration::from_millis(50);

/// The clock cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    #[error("running the program `clock`")]
    Run(#[source] Box<ProgramError>),
    #[error("reading the map CLOCK")]
    Read(#[source] Box<MapError>),
    #[error("the kernel's clock stood still for {0:?}")]
    Still(Duration),
    #[error(
        "the kernel's clock ticks {measured:.1} times a second, which is none of the rates a kernel is built with \
         (100, 250, 300, 1000)"
    )]
    Unknown { measured: f64 },
}

/// The program `clock` and the map it writes to.
pub struct Clock {
    program: Xdp,
    map: Array<MapData, u64>,
}

/// The least the kernel takes for a packet: an Ethernet header.
const PACKET: [u8; 14] = [0; 14];

impl Clock {
    pub fn new(program: Xdp, map: Array<MapData, u64>) -> Self {
        Self { program, map }
    }

    /// Jiffies, all 64 bits.
    ///
    /// # Errors
    /// The program could not be run.
    pub fn now(&self) -> Result<u64, ClockError> {
        let options = TestRunOptions { data_in: Some(&PACKET), ..TestRunOptions::new() };
        self.program.test_run(options).map_err(|source| ClockError::Run(Box::new(source)))?;
        self.map.get(&0, 0).map_err(|source| ClockError::Read(Box::new(source)))
    }

    /// Learns HZ, by the time between two ticks that are some 50 ms apart. Blocks for as long.
    ///
    /// # Errors
    /// The clock cannot be read, or ticks at a rate no kernel is built with.
    pub fn learn_hz(&self) -> Result<u32, ClockError> {
        let mut span = SPAN;
        loop {
            let (ticks, elapsed) = self.measure(span)?;
            match nearest(ticks, elapsed) {
                Some(hz) => return Ok(hz),
                // A machine that was suspended or starved during the measurement gets another.
                None if span < 8 * SPAN => span *= 2,
                None => return Err(ClockError::Unknown { measured: ticks as f64 / elapsed.as_secs_f64() }),
            }
        }
    }

    fn measure(&self, span: Duration) -> Result<(u64, Duration), ClockError> {
        let (first, began) = self.next_tick()?;
        std::thread::sleep(span);
        let (last, ended) = self.next_tick()?;
        Ok((last.wrapping_sub(first), ended - began))
    }

    /// Waits for the tick to come.
    fn next_tick(&self) -> Result<(u64, Instant), ClockError> {
        let began = Instant::now();
        let first = self.now()?;
        loop {
            let now = self.now()?;
            if now != first {
                return Ok((now, Instant::now()));
            }
            if began.elapsed() > Duration::from_secs(1) {
                return Err(ClockError::Still(began.elapsed()));
            }
        }
    }
}

/// The rate nearest to `ticks` in `elapsed`, if it is near enough.
fn nearest(ticks: u64, elapsed: Duration) -> Option<u32> {
    let measured = ticks as f64 / elapsed.as_secs_f64();
    let off = |hz: u32| (measured / f64::from(hz) - 1.0).abs() * 100.0;
    KNOWN.into_iter().min_by(|a, b| off(*a).total_cmp(&off(*b))).filter(|hz| off(*hz) <= TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_nearest_a_kernel_is_built_with() {
        for (ticks, millis, hz) in [
            (5, 50, Some(100)),
            (13, 52, Some(250)),
            (15, 50, Some(300)),
            (50, 50, Some(1000)),
            (52, 50, Some(1000)),
            (55, 50, None),
            (10, 50, None),
            (0, 50, None),
            (275, 1000, None),
        ] {
            assert_eq!(nearest(ticks, Duration::from_millis(millis)), hz, "{ticks} ticks in {millis} ms");
        }
    }
}
