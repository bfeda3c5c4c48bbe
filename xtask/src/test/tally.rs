//! What ran: each test program, on which kernel, with which result.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// What a line about a skipped test begins with.
pub(crate) const SKIPPED: &str = "skipped: ";
/// What a line begins with that names the test program whose output follows.
pub(crate) const PROGRAM: &str = "test program: ";

/// What stands for a program where none ran.
pub(crate) const NONE: &str = "(none)";

/// One test program on one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    kernel: String,
    program: String,
    passed: u64,
    failed: u64,
    /// Tests that the kernel lacks something for, each with what; test programs count them as passed.
    skipped: Vec<String>,
    /// It ended without a result.
    broken: bool,
    /// Where it was to run was at its end before.
    not_begun: bool,
    /// It failed and ran once more; that run counts.
    again: bool,
    took: Duration,
}

impl Ran {
    fn failed(&self) -> bool {
        !self.again && (self.failed > 0 || self.broken)
    }
}

/// Every test program that ran, in order.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ran: Vec<Ran>,
    /// What virtual machines said last that ended before their tests, each with its kernel.
    gone: Vec<String>,
}

impl Tally {
    fn counted(&self) -> impl Iterator<Item = &Ran> {
        self.ran.iter().filter(|ran| !ran.again)
    }

    fn passed(&self) -> u64 {
        self.counted().map(|ran| ran.passed).sum()
    }

    fn failed(&self) -> u64 {
        self.counted().map(|ran| ran.failed).sum()
    }

    /// Adds what another tally counted.
    pub(crate) fn append(&mut self, other: Self) {
        self.ran.extend(other.ran);
        self.gone.extend(other.gone);
    }

    /// Writes down which of `programs` on `kernel` have not even begun, of what is there from number `from` on.
    pub(crate) fn add_missing<'p>(
        &mut self,
        kernel: &str,
        from: usize,
        programs: impl Iterator<Item = &'p str>,
    ) {
        for program in programs {
            if self.ran[from..].iter().all(|ran| ran.program != program) {
                let (kernel, program) = (kernel.to_owned(), program.to_owned());
                self.ran.push(Ran { kernel, program, broken: true, not_begun: true, ..Ran::default() });
            }
        }
    }

    /// How many programs ran.
    pub(crate) fn len(&self) -> usize {
        self.ran.len()
    }

    /// How many programs failed from number `from` on.
    pub(crate) fn failures(&self, from: usize) -> usize {
        self.ran[from..].iter().filter(|ran| ran.failed() && !ran.not_begun).count()
    }

    /// The programs from number `from` on that failed and are to run once more, in place of which that run counts.
    pub(crate) fn once_more(&mut self, from: usize) -> Vec<String> {
        let mut names = Vec::new();
        for ran in self.ran[from..].iter_mut().filter(|ran| ran.failed()) {
            ran.again = true;
            names.push(ran.program.clone());
        }
        names
    }

    /// Writes down what was not run at all.
    pub(crate) fn left_out(&mut self, kernel: &str, why: &str) {
        let skipped = vec![format!("every test: {why}")];
        self.ran.push(Ran {
            kernel: kernel.to_owned(),
            program: NONE.to_owned(),
            passed: 1,
            skipped,
            ..Ran::default()
        });
    }

    /// Fails unless tests ran and all of them passed.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let broken: Vec<_> = self
            .counted()
            .filter(|ran| ran.broken)
            .map(|ran| format!("{} on {}", ran.program, ran.kernel))
            .collect();
        if !broken.is_empty() {
            bail!("{} tests failed, and these did not end well: {}", self.failed(), broken.join(", "));
        }
        if self.failed() > 0 {
            bail!("{} tests failed", self.failed());
        }
        if self.passed() == 0 {
            bail!("no test ran\nhelp: check `--filter`");
        }
        Ok(())
    }

    /// Prints and writes to `path` which programs ran where, for how long, and what was skipped for which reason.
    pub(crate) fn record(&self, path: &Path) -> anyhow::Result<()> {
        let text = self.table();
        print!("\n{text}");
        fs::write(path, format!("{text}{self}\n")).with_context(|| format!("writing `{}`", path.display()))
    }

    fn table(&self) -> String {
        let mut text = format!(
            "{:<22} {:<12} {:>6} {:>6} {:>7} {:>6}\n",
            "KERNEL", "TESTS", "PASSED", "FAILED", "SKIPPED", "TOOK"
        );
        for ran in &self.ran {
            let skipped = ran.skipped.len() as u64;
            text.push_str(&format!(
                "{:<22} {:<12} {:>6} {:>6} {:>7} {:>4} s{}\n",
                ran.kernel,
                ran.program,
                ran.passed.saturating_sub(skipped),
                ran.failed,
                skipped,
                ran.took.as_secs(),
                match ran {
                    Ran { not_begun: true, .. } => "  not begun",
                    Ran { again: true, .. } => "  ran once more",
                    Ran { broken: true, .. } => "  did not end well",
                    _ => "",
                },
            ));
        }
        for ran in &self.ran {
            for skipped in &ran.skipped {
                text.push_str(&format!("skipped on {}: {skipped}\n", ran.kernel));
            }
        }
        for gone in &self.gone {
            text.push_str(&format!("a guest ended early: {gone}\n"));
        }
        text
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped: u64 = self.counted().map(|ran| ran.skipped.len() as u64).sum();
        write!(f, "{} passed, {} failed", self.passed().saturating_sub(skipped), self.failed())?;
        if skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        write!(f, ", in {} s", self.ran.iter().map(|ran| ran.took).sum::<Duration>().as_secs())
    }
}

/// What test programs print: shown, and counted line by line.
pub(crate) struct Lines<'a> {
    tally: &'a mut Tally,
    kernel: String,
    out: Box<dyn Write + Send>,
    /// Lines are shown whole, each behind the name of the kernel.
    named: bool,
    partial: Vec<u8>,
    /// The program whose output this is, and since when.
    current: Option<(Ran, Instant)>,
    /// How many programs ran before these.
    before: usize,
}

impl<'a> Lines<'a> {
    /// The output of test programs on `kernel`.
    pub(crate) fn new(tally: &'a mut Tally, kernel: &str) -> Self {
        Self::shown(tally, kernel, Box::new(io::stdout()))
    }

    /// The same, told apart from that of other kernels at the same time.
    pub(crate) fn named(tally: &'a mut Tally, kernel: &str) -> Self {
        Self { named: true, ..Self::new(tally, kernel) }
    }

    fn shown(tally: &'a mut Tally, kernel: &str, out: Box<dyn Write + Send>) -> Self {
        let before = tally.ran.len();
        let (kernel, partial) = (kernel.to_owned(), Vec::new());
        Self { tally, kernel, out, named: false, partial, current: None, before }
    }

    /// What follows is the output of `program`.
    pub(crate) fn start(&mut self, program: &str) {
        self.close();
        let ran =
            Ran { kernel: self.kernel.clone(), program: program.to_owned(), broken: true, ..Ran::default() };
        self.current = Some((ran, Instant::now()));
    }

    fn close(&mut self) {
        if let Some((mut ran, since)) = self.current.take() {
            ran.took = since.elapsed();
            self.tally.ran.push(ran);
        }
    }

    /// Ends the last program. A program that failed, or did not end well, has to be there unless `well`.
    pub(crate) fn end(mut self, well: bool) {
        if self.current.is_none() && self.tally.ran.len() == self.before {
            self.start(NONE);
        }
        self.close();
        let ran = &mut self.tally.ran[self.before..];
        if !well && !ran.iter().any(|ran| ran.failed > 0 || ran.broken) {
            ran.iter_mut().for_each(|ran| ran.broken = true);
        }
    }

    /// Ends where the guest did, for the reason `why`.
    pub(crate) fn cut(mut self, why: &str) {
        self.close();
        self.tally.gone.push(format!("{}: {why}", self.kernel));
    }

    fn add(&mut self, line: &str) {
        if let Some(program) = line.strip_prefix(PROGRAM) {
            return self.start(program);
        }
        let Some((ran, _)) = &mut self.current else { return };
        if let Some(what) = line.strip_prefix(SKIPPED) {
            ran.skipped.push(what.to_owned());
        }
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        ran.broken = false;
        for part in rest.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let count = words.next().and_then(|n| n.parse::<u64>().ok());
            match (count, words.next()) {
                (Some(n), Some("passed")) => ran.passed += n,
                (Some(n), Some("failed")) => ran.failed += n,
                _ => {}
            }
        }
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if !self.named {
            self.out.write_all(octets)?;
        }
        self.partial.extend_from_slice(octets);
        while let Some(end) = self.partial.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            if self.named {
                self.out.write_all(&[self.kernel.as_bytes(), b": ", &line].concat())?;
            }
            self.add(String::from_utf8_lossy(&line).trim_end());
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

    fn ended(tally: &mut Tally, output: &[&str], well: bool) {
        let mut lines = Lines::shown(tally, "6.1", Box::new(io::sink()));
        for part in output {
            lines.write_all(part.as_bytes()).expect("a sink takes everything");
        }
        lines.end(well);
    }

    const GOOD: &str =
        "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
    const BAD: &str =
        "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";

    #[test]
    fn lines_are_counted_however_they_arrive() {
        let mut tally = Tally::default();
        let (first, rest) = GOOD.split_at(20);
        ended(&mut tally, &["\ntest program: a\nrunning 3 tests\n", first, rest, "and more", "\n"], true);
        assert_eq!((tally.passed(), tally.failed()), (2, 0));
        assert!(tally.check().is_ok());
    }

    #[test]
    fn lines_of_several_kernels_are_shown_whole_and_named() {
        #[derive(Clone, Default)]
        struct Shown(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Shown {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("nobody panics with it").write(octets)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut tally, shown) = (Tally::default(), Shown::default());
        let mut lines = Lines { named: true, ..Lines::shown(&mut tally, "6.1", Box::new(shown.clone())) };
        for part in ["test program: a\ntest x ... ", "ok\n", GOOD] {
            lines.write_all(part.as_bytes()).expect("memory takes everything");
        }
        lines.end(true);
        let shown = String::from_utf8(shown.0.lock().expect("nobody panics with it").clone()).expect("text");
        assert_eq!(shown, format!("6.1: test program: a\n6.1: test x ... ok\n6.1: {GOOD}"));
        assert_eq!(tally.passed(), 2);
    }

    #[test]
    fn of_a_program_that_ran_once_more_the_second_run_counts() {
        let mut tally = Tally::default();
        ended(&mut tally, &["test program: a\n", GOOD, "test program: b\n", BAD], false);
        assert_eq!(tally.once_more(0), ["b"]);
        ended(&mut tally, &["test program: b\n", GOOD], true);
        assert_eq!((tally.passed(), tally.failed()), (4, 0));
        assert!(tally.check().is_ok());
        assert!(tally.table().contains("ran once more"));
        ended(&mut tally, &["test program: c\n", BAD], false);
        assert_eq!(tally.once_more(3), ["c"]);
        ended(&mut tally, &["test program: c\n", BAD], false);
        assert!(tally.check().is_err());
    }

    #[test]
    fn what_a_guest_did_not_come_to_runs_later() {
        let mut tally = Tally::default();
        let mut lines = Lines::shown(&mut tally, "6.1", Box::new(io::sink()));
        let output = ["test program: a\n", GOOD, "test program: b\ntest x ... "].concat();
        lines.write_all(output.as_bytes()).expect("a sink takes everything");
        lines.cut("Kernel panic");
        let all = ["a", "b", "c", "d", "e", "f"];
        tally.add_missing("6.1", 0, all.into_iter());
        assert!(tally.table().contains("a guest ended early: 6.1: Kernel panic"));
        assert_eq!(tally.failures(0), 1);
        assert_eq!(tally.once_more(0), ["b", "c", "d", "e", "f"]);
        // Whatever the run says of itself.
        let from = tally.len();
        ended(&mut tally, &["test program: b\n", GOOD, "test program: c\n", GOOD], true);
        tally.add_missing("6.1", from, all.into_iter().skip(1));
        let error = tally.check().expect_err("three are missing").to_string();
        assert_eq!(error, "0 tests failed, and these did not end well: d on 6.1, e on 6.1, f on 6.1");
    }

    #[test]
    fn what_was_left_out_is_skipped_and_not_passed() {
        let mut tally = Tally::default();
        ended(&mut tally, &["test program: a\n", GOOD], true);
        tally.left_out("6.1", "no mirror");
        assert!(tally.check().is_ok());
        assert!(tally.to_string().starts_with("2 passed, 0 failed, 1 skipped"), "{tally}");
        assert!(tally.table().contains("skipped on 6.1: every test: no mirror"));
    }

    #[test]
    fn results_are_summed_and_other_lines_ignored() {
        let mut tally = Tally::default();
        let other = "test a ... test result: ok. 9 passed\n";
        ended(&mut tally, &["test program: a\n", GOOD, other, "test program: b\n", BAD], false);
        assert_eq!((tally.passed(), tally.failed()), (5, 2));
        assert_eq!(tally.check().expect_err("two tests failed").to_string(), "2 tests failed");
    }

    #[test]
    fn a_program_without_a_result_is_named() {
        let mut tally = Tally::default();
        ended(
            &mut tally,
            &["test program: a\n", GOOD, "test program: b\ntest x ... ", "\ntest program: c\n", GOOD],
            false,
        );
        let error = tally.check().expect_err("b has no result").to_string();
        assert_eq!(error, "0 tests failed, and these did not end well: b on 6.1");
    }

    #[test]
    fn a_run_that_fails_without_a_failed_test_is_no_success() {
        for output in [&["test program: a\n", GOOD][..], &[]] {
            let mut tally = Tally::default();
            ended(&mut tally, output, false);
            assert!(tally.check().expect_err("it failed").to_string().contains("did not end well"));
        }
    }

    #[test]
    fn skipped_tests_are_not_passed_ones_and_their_reasons_are_told() {
        let mut tally = Tally::default();
        let skipped = "skipped: b08: this kernel has no context for test runs\n";
        ended(&mut tally, &["test program: vectors\n", GOOD, skipped], true);
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped, in 0 s");
        assert!(tally.table().contains("skipped on 6.1: b08: this kernel has no context for test runs\n"));
    }

    #[test]
    fn a_run_without_any_test_is_no_success() {
        assert!(Tally::default().check().is_err());
    }
}
