//! The tests, counted over every test program that cargo runs.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum as _};

use crate::run::{cargo, show, target_dir};
use crate::vm::Kernel;
use crate::{ci, vm};

/// Which tests to run; all without any option.
#[derive(Args, Clone, Default)]
pub(crate) struct Which {
    /// Only those that need no root
    #[arg(long, conflicts_with = "netns")]
    unit: bool,
    /// Only those that need root: network namespaces and the kernel
    #[arg(long)]
    netns: bool,
    /// Those that need root, in other kernels: 5.10, 6.1, 6.12 or all
    #[arg(long, value_name = "KERNEL", value_parser = kernels, conflicts_with_all = ["unit", "netns"])]
    pub(crate) vm: Option<Kernels>,
    /// With `--vm`: only those of this test program, a file of tests/tests; may be given more than once
    #[arg(long, value_name = "NAME", requires = "vm")]
    program: Vec<String>,
    /// Only those whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Kernels of virtual machines.
pub(crate) type Kernels = Arc<[Kernel]>;

pub(crate) fn kernels(text: &str) -> Result<Kernels, String> {
    match text {
        "all" => Ok(Kernel::ALL.into()),
        one => Kernel::from_str(one, false).map(|kernel| [kernel].into()),
    }
    .map_err(|_| "there are 5.10, 6.1, 6.12 and all".to_owned())
}

/// How many tests ran.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    /// Test programs that did not end in a result, and builds that failed.
    broken: u64,
    /// Tests that the kernel lacks something for, each with what; test programs count them as passed.
    skipped: Vec<String>,
    seconds: u64,
}

/// What a line about a skipped test begins with.
pub(crate) const SKIPPED: &str = "skipped: ";

impl Tally {
    /// Adds one line of a test program's output, when it is one with a result.
    fn add(&mut self, line: &str) {
        if let Some(what) = line.strip_prefix(SKIPPED) {
            self.skipped.push(what.to_owned());
        }
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let count = words.next().and_then(|n| n.parse::<u64>().ok());
            match (count, words.next()) {
                (Some(n), Some("passed")) => self.passed += n,
                (Some(n), Some("failed")) => self.failed += n,
                _ => {}
            }
        }
    }

    /// Fails unless tests ran and all of them passed.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.failed + self.broken > 0 {
            bail!("{} tests failed, {} test runs did not end well", self.failed, self.broken);
        }
        if self.passed == 0 {
            bail!("no test ran\nhelp: check `--filter`");
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = self.skipped.len() as u64;
        write!(f, "{} passed, {} failed", self.passed.saturating_sub(skipped), self.failed)?;
        if skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        write!(f, ", in {} s", self.seconds)
    }
}

/// Runs the tests, shows their output and counts them. A failing test fails the tally, not this function.
pub(crate) fn run(which: &Which) -> anyhow::Result<Tally> {
    let start = Instant::now();
    let mut tally = Tally::default();
    if let Some(kernels) = &which.vm {
        ci::build()?;
        for kernel in kernels.iter() {
            let only: Vec<_> = which.program.iter().map(String::as_str).collect();
            run_in(*kernel, &only, which.filter.as_deref(), &mut tally)?;
        }
        tally.seconds = start.elapsed().as_secs();
        return Ok(tally);
    }
    if !which.netns {
        cargo_test(&[], which, &mut tally)?;
    }
    if !which.unit {
        ci::build()?;
        cargo_test(&["-p", "xdpchain-tests"], which, &mut tally)?;
    }
    tally.seconds = start.elapsed().as_secs();
    Ok(tally)
}

/// Runs the root tests in `kernel`, all of them or those of the programs `only`; everything else is built.
pub(crate) fn run_in(
    kernel: Kernel,
    only: &[&str],
    filter: Option<&str>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let programs = vm::programs(only)?;
    vm::test(kernel, &programs, filter, tally)?;
    tally.seconds += start.elapsed().as_secs();
    Ok(())
}

fn cargo_test(packages: &[&str], which: &Which, tally: &mut Tally) -> anyhow::Result<()> {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    command.args(packages);
    if let Some(filter) = &which.filter {
        command.args(["--", filter]);
    }
    // The root tests run the binary that users get, not one built for debugging.
    command.env("XDPCHAIN_BIN", target_dir().join("release/xdpchain"));
    command.env("XDPCHAIN_EBPF_DIR", ci::objects());
    let skipped = target_dir().join(format!("skipped-{}", std::process::id()));
    command.env("XDPCHAIN_SKIPPED", &skipped);
    let shown = show(&command);
    eprintln!("$ {shown}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let mut stdout = child.stdout.take().expect("the output is piped");
    let mut lines = Lines::new(tally);
    std::io::copy(&mut stdout, &mut lines).context("reading what the tests print")?;
    let status = child.wait().with_context(|| format!("waiting for `{shown}`"))?;
    if let Ok(text) = fs::read_to_string(&skipped) {
        let lines = &mut lines;
        text.lines()
            .try_for_each(|line| writeln!(lines, "{SKIPPED}{line}"))
            .context("counting skipped tests")?;
        fs::remove_file(&skipped).context("removing the list of skipped tests")?;
    }
    lines.end(status.success());
    Ok(())
}

/// What test programs print: shown, and counted line by line.
pub(crate) struct Lines<'a> {
    tally: &'a mut Tally,
    out: Box<dyn Write>,
    partial: Vec<u8>,
    failed_before: u64,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(tally: &'a mut Tally) -> Self {
        Self::shown(tally, Box::new(io::stdout()))
    }

    fn shown(tally: &'a mut Tally, out: Box<dyn Write>) -> Self {
        Self { failed_before: tally.failed, tally, out, partial: Vec::new() }
    }

    /// Says whether the programs ended well, which a failed test explains when they did not.
    pub(crate) fn end(self, well: bool) {
        if !well && self.tally.failed == self.failed_before {
            self.tally.broken += 1;
        }
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.out.write_all(octets)?;
        self.partial.extend_from_slice(octets);
        while let Some(end) = self.partial.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.tally.add(String::from_utf8_lossy(&line).trim_end());
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_however_they_arrive() {
        let mut tally = Tally::default();
        let mut lines = Lines::shown(&mut tally, Box::new(io::sink()));
        for part in ["test result: ok. 2 pas", "sed; 0 failed; 0 ignored", "\nand more", "\n"] {
            lines.write_all(part.as_bytes()).expect("a sink takes everything");
        }
        lines.end(true);
        assert_eq!((tally.passed, tally.broken), (2, 0));
        Lines::shown(&mut tally, Box::new(io::sink())).end(false);
        assert_eq!(tally.broken, 1);
    }

    #[test]
    fn results_are_summed_and_other_lines_ignored() {
        let mut tally = Tally::default();
        tally.add("running 3 tests");
        tally.add(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.10s",
        );
        tally.add("test a ... test result: ok. 9 passed");
        assert!(tally.check().is_ok());
        tally.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        assert_eq!((tally.passed, tally.failed), (15, 2));
        assert!(tally.check().is_err());
    }

    #[test]
    fn skipped_tests_are_not_passed_ones() {
        let mut tally = Tally::default();
        tally.add(
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        );
        tally.add("skipped: b08: this kernel has no context for test runs");
        assert_eq!(tally.to_string(), "2 passed, 0 failed, 1 skipped, in 0 s");
    }

    #[test]
    fn a_run_without_any_test_is_no_success() {
        assert!(Tally::default().check().is_err());
    }
}
