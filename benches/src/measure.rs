//! Runs of programs in turn, so that what disturbs the machine disturbs them alike.

use std::os::fd::AsFd;

use anyhow::ensure;
use xdpchain_host::load::Loaded;
use xdpchain_host::sys::{self, TestRun};

/// A program that is measured.
pub struct Case {
    /// Its name in the report.
    pub name: String,
    /// The program.
    pub loaded: Loaded,
    /// The verdict that it must give.
    pub verdict: u32,
    /// Mean nanoseconds of each round.
    pub rounds: Vec<f64>,
}

/// Runs every case in turn, `rounds` times, each time `repeat` runs on the same packet.
///
/// # Errors
/// When a run fails or a verdict is not the expected one.
pub fn in_turn(cases: &mut [Case], packet: &[u8], rounds: usize, repeat: u32) -> anyhow::Result<()> {
    for round in 0..=rounds {
        for case in &mut *cases {
            let run = TestRun { packet, repeat, ..TestRun::default() };
            let result = sys::prog_test_run(case.loaded.program.as_fd(), &run)?;
            ensure!(result.verdict == case.verdict, "{}: verdict {}", case.name, result.verdict);
            // The first round warms caches up.
            if round > 0 {
                case.rounds.push(f64::from(result.duration_ns));
            }
        }
    }
    Ok(())
}
