//! The benchmarks of `benches/`, each a binary of its own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::run::{cargo, command, run, target_dir};
use crate::vm::{self, Kernel, Task};
use crate::{ci, report, side_by_side};

/// A benchmark.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Name {
    /// What a slot costs: hand-written, fused, tail called, called
    Compose,
    /// What the data path costs a packet, beside the same work written by hand
    Datapath,
    /// What a session costs, from a thousand to ten million of them
    Sessions,
    /// What the access list costs a packet, from 10 to 50,000 rules
    Acl,
    /// What changes cost: thousands of them under numbered traffic, by the command
    Churn,
    /// What it takes to save a million entries and to restore them, beside bpftool and single system calls
    State,
    /// Applications of several authors on one interface: a chain, and processes of DPDK; writes docs/side-by-side.md
    SideBySide,
}

/// How long a guest may take to count.
const LIMIT: Duration = Duration::from_secs(900);

/// Builds the benchmark and runs it, with `arguments` of its own.
pub(crate) fn run_bench(name: Name, arguments: &[String]) -> anyhow::Result<()> {
    let binary = match name {
        Name::Compose => "compose",
        Name::Datapath => {
            ci::build()?;
            "datapath"
        }
        Name::Sessions => {
            ci::build()?;
            "sessions"
        }
        Name::Acl => {
            ci::build()?;
            "acl"
        }
        Name::Churn => {
            ci::build()?;
            "churn"
        }
        Name::State => {
            ci::build()?;
            "state"
        }
        Name::SideBySide => {
            ci::build()?;
            "side-by-side"
        }
    };
    let mut command =
        cargo(&["run", "--quiet", "--release", "--package", "xdpchain-benches", "--bin", binary, "--"]);
    command.args(arguments);
    command.env("XDPCHAIN_BIN", target_dir().join("release/xdpchain"));
    command.env("XDPCHAIN_EBPF_DIR", ci::objects());
    if !matches!(name, Name::SideBySide) {
        return run(&mut command);
    }
    let _ = fs::remove_file(report::path(side_by_side::BENCH));
    let outcome = run(&mut command);
    // Also of a run that missed a bar, which the document tells as it does all else.
    side_by_side::rewrite()?;
    outcome
}

/// Counts the instructions that a packet takes by each engine in `kernel`, where libxdp's dispatcher runs.
pub(crate) fn count_instructions(name: Name, kernel: Kernel) -> anyhow::Result<()> {
    if !matches!(name, Name::Compose) {
        bail!("only `compose` counts instructions on other kernels");
    }
    let build = ["build", "--quiet", "--release", "--package", "xdpchain-benches", "--bin", "instructions"];
    run(&mut cargo(&build))?;
    let text = |path: PathBuf| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    let binary = text(target_dir().join("release/instructions"))?;
    let folder = target_dir().join("bench/objects");
    fs::create_dir_all(&folder).with_context(|| format!("making `{}`", folder.display()))?;
    let objects = text(folder)?;
    run(&mut command(&binary, &["compile", &objects]))?;
    let script = format!("exec {} measure {}", vm::quoted([&*binary]), vm::quoted([&*objects]));
    let mut rows = Vec::new();
    let task = Task { counting: true, ..Task::new(kernel, &script, LIMIT) };
    let status = vm::run(&task, &mut rows)?;
    if status != 0 {
        bail!("counting instructions failed on {} (exit status {status})", kernel.version());
    }
    let file = target_dir().join("bench/instructions.json");
    fs::write(&file, rows).with_context(|| format!("writing `{}`", file.display()))?;
    run(&mut command(&binary, &["put", &text(file)?]))
}
