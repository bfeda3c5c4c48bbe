//! The benchmarks of `benches/`, each a binary of its own.

use crate::run::{cargo, run};

/// A benchmark.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Name {
    /// What a slot costs: hand-written, fused, tail called, called
    Compose,
}

/// Builds the benchmark and runs it.
pub(crate) fn run_bench(name: Name) -> anyhow::Result<()> {
    let binary = match name {
        Name::Compose => "compose",
    };
    run(&mut cargo(&["run", "--quiet", "--release", "--package", "xdpchain-benches", "--bin", binary]))
}
