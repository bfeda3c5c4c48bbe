//! The benchmarks of `benches/`, each a binary of its own.

use crate::ci;
use crate::run::{cargo, run, target_dir};

/// A benchmark.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Name {
    /// What a slot costs: hand-written, fused, tail called, called
    Compose,
    /// What changes cost: thousands of them under numbered traffic, by the command
    Churn,
}

/// Builds the benchmark and runs it, with `arguments` of its own.
pub(crate) fn run_bench(name: Name, arguments: &[String]) -> anyhow::Result<()> {
    let binary = match name {
        Name::Compose => "compose",
        Name::Churn => {
            ci::build()?;
            "churn"
        }
    };
    let mut command =
        cargo(&["run", "--quiet", "--release", "--package", "xdpchain-benches", "--bin", binary, "--"]);
    command.args(arguments);
    command.env("XDPCHAIN_BIN", target_dir().join("release/xdpchain"));
    command.env("XDPCHAIN_EBPF_DIR", ci::objects());
    run(&mut command)
}
