//! What processes and kernel threads take of a CPU, by the scheduler's account, and where they run.

use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// The CPU that what is measured has for itself: the last one.
///
/// # Errors
/// On a machine with a single CPU, where what sends and counts packets would be measured, too.
pub fn measured() -> anyhow::Result<usize> {
    // Once: those that this process may use are fewer after it was pinned.
    static CPUS: OnceLock<usize> = OnceLock::new();
    let cpus = *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    ensure!(cpus > 1, "there is one CPU\nhelp: run this on two at least, one of them for what is measured");
    Ok(cpus - 1)
}

/// Keeps a process with all its threads, and what it starts from now on, to the CPUs of `list`.
///
/// # Errors
/// When the kernel refuses.
pub fn pin(pid: u32, list: &str) -> anyhow::Result<()> {
    let output = Command::new("taskset").args(["-apc", list, &pid.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`taskset -apc {list} {pid}` failed: {}", said.trim());
    Ok(())
}

/// The CPUs that [`measured`] leaves to others, as [`pin`] takes them.
///
/// # Errors
/// As [`measured`].
pub fn others() -> anyhow::Result<String> {
    Ok(match measured()? {
        1 => "0".to_owned(),
        last => format!("0-{}", last - 1),
    })
}

/// Nanoseconds that the threads of a process, or a kernel thread, have run.
///
/// # Errors
/// When there is no such process.
pub fn ran(pid: u32) -> anyhow::Result<u64> {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let threads = fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))?;
    let mut sum = 0;
    for thread in threads {
        let account = fs::read_to_string(thread?.path().join("schedstat"))?;
        let ran = account.split_whitespace().next().and_then(|ran| ran.parse::<u64>().ok());
        sum += ran.context("the scheduler accounts for nanoseconds")?;
    }
    Ok(sum)
}

/// Percent of one CPU that `pids` take together during `time`.
///
/// # Errors
/// When one of them is gone.
pub fn share(pids: &[u32], time: Duration) -> anyhow::Result<f64> {
    let ran = || pids.iter().map(|pid| ran(*pid)).sum::<anyhow::Result<u64>>();
    let (before, start) = (ran()?, Instant::now());
    std::thread::sleep(time);
    let (after, took) = (ran()?, start.elapsed());
    Ok((after - before) as f64 / took.as_nanos() as f64 * 100.0)
}

/// Kernel threads whose names begin with `prefix`.
pub fn kernel_threads(prefix: &str) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let named = |process: fs::DirEntry| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        fs::read_to_string(process.path().join("comm")).ok()?.starts_with(prefix).then_some(pid)
    };
    processes.flatten().filter_map(named).collect()
}

/// A larger share of the machine for the session of this process, as long as this lives: the scheduler shares CPUs between
/// sessions first, and then within one. What is measured and what sends are in the same session, so they gain alike.
#[derive(Debug)]
pub struct Preferred(());

/// Where a session's share is.
const AUTOGROUP: &str = "/proc/self/autogroup";
/// How much larger the share is, as `nice` has it.
const NICE: &str = "-15";

/// The same share for a kernel thread, which is of no session.
///
/// # Errors
/// When the kernel refuses.
pub fn prefer(thread: u32) -> anyhow::Result<()> {
    let output = Command::new("renice").args(["-n", NICE, "-p", &thread.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`renice` failed: {}", said.trim());
    Ok(())
}

impl Preferred {
    /// Asks for it; without the kernel's session groups there is nothing to ask for.
    pub fn new() -> Self {
        let _ = fs::write(AUTOGROUP, NICE);
        Self(())
    }
}

impl Default for Preferred {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        let _ = fs::write(AUTOGROUP, "0");
    }
}
