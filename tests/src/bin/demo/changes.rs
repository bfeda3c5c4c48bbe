//! The changes that the chain goes through while packets flow.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::stage::{INTERFACES, Stage};

/// Changes made so far, for the progress bar.
pub(crate) static DONE: AtomicU32 = AtomicU32::new(0);

/// One change: the arguments of one `xdpchain` command.
#[derive(Debug)]
pub(crate) struct Step {
    arguments: Vec<String>,
}

/// The changes: `rounds` times a third-party module in and out, on each interface in turn, in each place of the chain in
/// turn; in the middle of it, a new build of one of our modules on both interfaces.
pub(crate) fn steps(rounds: u32, stage: &Stage<'_>) -> Vec<Step> {
    let third_party = stage.third_party().to_string_lossy().into_owned();
    let new_build = stage.new_build().to_string_lossy().into_owned();
    let step = |words: &[&str]| Step { arguments: words.iter().map(|&w| w.to_owned()).collect() };
    let places: [&[&str]; 4] =
        [&["--first"], &["--after", "gre-decap"], &["--before", "gre-steer"], &["--last"]];
    let mut steps = Vec::new();
    for round in 0..rounds as usize {
        let interface = INTERFACES[round % INTERFACES.len()];
        let place = places[(round / INTERFACES.len()) % places.len()];
        steps.push(step(&[&["add", interface, &third_party, "--name", "visitor"], place].concat()));
        steps.push(step(&["remove", interface, "visitor"]));
        if round == rounds as usize / 2 {
            for interface in INTERFACES {
                steps.push(step(&["replace", interface, Stage::REPLACED, &new_build]));
            }
        }
    }
    steps
}

/// What the changes came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Changes made, each one a swap of the interface's program.
    pub(crate) swaps: u32,
    /// The fewest packets that were sent while a command ran.
    least: u32,
    /// The longest that a command took.
    longest: Duration,
    /// What `status` showed of an interface while the visitor was in its chain for the last time.
    pub(crate) visited: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { swaps, least, longest, .. } = self;
        write!(
            f,
            "{swaps} changes, each by one command of its own, the longest {} ms; at least {least} packets were sent \
             during each",
            longest.as_millis()
        )
    }
}

/// Makes the changes, spread over the numbers of `packets` as `sent` counts them, until one fails or the
/// packets ran `dry`.
pub(crate) fn make(
    steps: &[Step],
    stage: &Stage<'_>,
    sent: &AtomicU32,
    packets: Range<u32>,
    dry: &AtomicBool,
) -> Result<Outcome, String> {
    let mut outcome = Outcome { swaps: 0, least: u32::MAX, longest: Duration::ZERO, visited: String::new() };
    let spacing = (packets.end - packets.start) / (steps.len() as u32 + 1);
    for (i, step) in steps.iter().enumerate() {
        let from = packets.start + spacing * (i as u32 + 1);
        while sent.load(Ordering::Relaxed) < from {
            if dry.load(Ordering::Relaxed) {
                return Err(format!(
                    "only {} of {} changes were made before the packets ran out",
                    i,
                    steps.len()
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let (before, start) = (sent.load(Ordering::Relaxed), Instant::now());
        let arguments: Vec<_> = step.arguments.iter().map(String::as_str).collect();
        stage.run(&arguments)?;
        let during = sent.load(Ordering::Relaxed) - before;
        if during == 0 {
            return Err(format!("no packet was sent while `xdpchain {}` ran", arguments.join(" ")));
        }
        outcome.swaps += 1;
        outcome.least = outcome.least.min(during);
        outcome.longest = outcome.longest.max(start.elapsed());
        DONE.store(outcome.swaps, Ordering::Relaxed);
        if i + 2 == steps.len() {
            // Some packets have to come for there to be something to see.
            std::thread::sleep(Duration::from_millis(20));
            outcome.visited = stage.status(arguments[1])?;
        }
    }
    Ok(outcome)
}
