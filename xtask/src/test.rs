//! The tests, counted over every test program that runs, here and on other kernels.

mod programs;
mod tally;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum as _};

use crate::run::{cargo, command, output, show, target_dir, workspace};
use crate::vm::Kernel;
use crate::{ci, vm};

pub(crate) use programs::{Program, programs};
pub(crate) use tally::{Lines, PROGRAM, SKIPPED, Tally};

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
    /// Only those of this test program, a file of tests/tests; may be given more than once
    #[arg(long, value_name = "NAME", conflicts_with = "unit")]
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

/// Runs the tests, shows their output and counts them. A failing test fails the tally, not this function.
pub(crate) fn run(which: &Which, tally: &mut Tally) -> anyhow::Result<()> {
    let only: Vec<_> = which.program.iter().map(String::as_str).collect();
    let filter = which.filter.as_deref();
    if let Some(kernels) = &which.vm {
        ci::build()?;
        for kernel in kernels.iter() {
            run_in(*kernel, &only, filter, tally)?;
        }
        return Ok(());
    }
    let release = output(&mut command("uname", &["-r"])).context("asking for the kernel's release")?;
    if !which.netns && only.is_empty() {
        let mut lines = Lines::new(tally, release.trim());
        lines.start("unit");
        here(cargo(&["test", "--no-fail-fast"]).args(filter.iter().flat_map(|f| ["--", f])), lines)?;
    }
    if !which.unit {
        ci::build()?;
        if only.is_empty() {
            let mut lines = Lines::new(tally, release.trim());
            lines.start("tests' own");
            let mut command = cargo(&["test", "--no-fail-fast", "-p", "xdpchain-tests", "--lib", "--bins"]);
            here(command.args(filter.iter().flat_map(|f| ["--", f])), lines)?;
        }
        for program in programs(&only)? {
            let mut lines = Lines::new(tally, release.trim());
            lines.start(&program.name);
            let mut command = Command::new(&program.executable);
            here(command.current_dir(workspace().join("tests")).args(filter), lines)?;
        }
    }
    Ok(())
}

/// Programs that may fail in a virtual machine and run once more.
const UNLUCKY: usize = 3;

/// Runs the root tests in `kernel`, all of them or those of the programs `only`; everything else is built. Emulation is slow
/// and its clock jumps, so a program that fails there gets a second try in a guest of its own, which the record tells; likewise
/// what a guest did not come to before it ended.
pub(crate) fn run_in(
    kernel: Kernel,
    only: &[&str],
    filter: Option<&str>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let all = programs(only)?;
    let first = tally.len();
    vm::test(kernel, &all, filter, tally)?;
    if tally.failures(first) > UNLUCKY {
        return Ok(());
    }
    let names = tally.once_more(first);
    if names.is_empty() {
        return Ok(());
    }
    eprintln!("\nin kernel {} once more: {}", kernel.version(), names.join(", "));
    // A guest that failed before its first program has run none of them.
    let known = |program: &&Program| names.contains(&program.name) || names.contains(&tally::NONE.to_owned());
    vm::test(kernel, &all.iter().filter(known).cloned().collect::<Vec<_>>(), filter, tally)
}

/// Where it is written down what ran.
pub(crate) fn record() -> std::path::PathBuf {
    target_dir().join("tests.txt")
}

/// Runs one command of tests on this machine.
fn here(command: &mut Command, mut lines: Lines<'_>) -> anyhow::Result<()> {
    // The root tests run the binary that users get, not one built for debugging.
    command.env("XDPCHAIN_BIN", target_dir().join("release/xdpchain"));
    command.env("XDPCHAIN_EBPF_DIR", ci::objects());
    let skipped = target_dir().join(format!("skipped-{}", std::process::id()));
    command.env("XDPCHAIN_SKIPPED", &skipped);
    let shown = show(command);
    eprintln!("$ {shown}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let mut stdout = child.stdout.take().expect("the output is piped");
    io::copy(&mut stdout, &mut lines).context("reading what the tests print")?;
    let status = child.wait().with_context(|| format!("waiting for `{shown}`"))?;
    count_skipped(&skipped, &mut lines)?;
    lines.end(status.success());
    Ok(())
}

/// Counts the skipped tests that test programs wrote down in a file, and removes it.
fn count_skipped(file: &Path, lines: &mut Lines<'_>) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(file) else { return Ok(()) };
    for line in text.lines() {
        writeln!(lines, "{SKIPPED}{line}").context("counting skipped tests")?;
    }
    fs::remove_file(file).context("removing the list of skipped tests")
}
