//! Developer commands: `cargo xtask COMMAND`.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod compat;
mod conformance;
mod ebpf;
mod fuzz;
mod performance;
mod plot;
mod report;
mod run;
mod setup;
mod side_by_side;
mod test;
mod vm;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::setup::Missing;

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "Developer commands of xdpchain")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing needs
    Setup {
        #[command(flatten)]
        install: Install,
        /// Also what virtual machines need
        #[arg(long)]
        vm: bool,
    },
    /// Build the packet programs (target/ebpf) and the binary (target/release/xdpchain)
    Build,
    /// Show the whole idea on real packets: three namespaces, GTP-U in, GRE out, a chain that changes meanwhile
    Demo {
        #[command(flatten)]
        install: Install,
        /// What the demo itself takes, after `--`: see `cargo xtask demo -- --help`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run the tests
    Test {
        #[command(flatten)]
        install: Install,
        #[command(flatten)]
        which: test::Which,
    },
    /// Run a command in another kernel: a virtual machine that sees this machine's files and changes none
    Vm {
        #[command(flatten)]
        install: Install,
        /// The kernel
        kernel: vm::Kernel,
        /// Seconds that the command may take
        #[arg(long, default_value_t = 600)]
        limit: u64,
        /// Show what the kernel prints while it boots
        #[arg(long)]
        verbose: bool,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Try every object alone and in chains of every engine, and write docs/compatibility.md
    Compat {
        #[command(flatten)]
        install: Install,
        /// On another kernel, in a virtual machine: 5.10, 6.1, 6.12, or all of them
        #[arg(long, value_name = "KERNEL", value_parser = test::kernels)]
        vm: Option<test::Kernels>,
        /// Write nothing, fail when the document is out of date about this kernel
        #[arg(long, conflicts_with = "vm")]
        check: bool,
    },
    /// Run the packets of tests/fixtures, and write docs/conformance.md: row by row what is promised, and where it was kept
    Conformance {
        #[command(flatten)]
        install: Install,
        /// On another kernel, in a virtual machine: 5.10, 6.1, 6.12, or all of them
        #[arg(long, value_name = "KERNEL", value_parser = test::kernels)]
        vm: Option<test::Kernels>,
        /// Run and write nothing, fail when the document is out of date or a row has no packet
        #[arg(long, conflicts_with = "vm")]
        check: bool,
        /// Run nothing; write the document anew with what was written down when packets ran before
        #[arg(long, conflicts_with_all = ["vm", "check"])]
        no_run: bool,
        /// Run no packets, only the tests in which peers on the wire judge
        #[arg(long, conflicts_with_all = ["check", "no_run"])]
        peers: bool,
    },
    /// Measure, beside what the result is compared with; target/bench/NAME.json has the numbers
    Bench {
        #[command(flatten)]
        install: Install,
        /// Which one
        name: bench::Name,
        /// Instead, count instructions on this kernel, in a virtual machine; libxdp's dispatcher takes part
        #[arg(long, value_name = "KERNEL", conflicts_with = "arguments")]
        vm: Option<vm::Kernel>,
        /// What the benchmark itself takes, after `--`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Write docs/performance.md and docs/side-by-side.md with what the benchmarks measured last
    Performance,
    /// Feed the fuzz targets; what is found, and what got somewhere new, stays in target/fuzz
    Fuzz {
        #[command(flatten)]
        install: Install,
        /// Only this one, a file of fuzz/fuzz_targets
        target: Option<String>,
        /// Seconds for each
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Run clippy with warnings as errors, compile the fuzz targets, and run cargo-deny where it is installed
    Lint,
    /// Format every crate
    Fmt {
        /// Change nothing, fail when something would change
        #[arg(long)]
        check: bool,
    },
    /// Build the documentation with warnings as errors
    Doc,
    /// Run everything that has to pass before a change lands
    Ci {
        #[command(flatten)]
        install: Install,
        /// Leave out the other kernels, which take half of the time
        #[arg(long)]
        no_vm: bool,
    },
}

#[derive(Args, Clone, Copy)]
struct Install {
    /// Install nothing; list what is missing and stop
    #[arg(long)]
    no_install: bool,
}

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Missing>() { 2 } else { 1 })
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Setup { install, vm } => setup::ensure(install.no_install, vm),
        Command::Build => ci::build(),
        Command::Vm { install, kernel, limit, verbose, command } => {
            setup::ensure(install.no_install, true)?;
            let limit = Duration::from_secs(limit);
            return vm::execute(kernel, &command, limit, verbose).map(ExitCode::from);
        }
        Command::Demo { install, arguments } => {
            setup::ensure(install.no_install, false)?;
            ci::build()?;
            ci::demo(&arguments)
        }
        Command::Test { install, which } => {
            setup::ensure(install.no_install, which.vm.is_some())?;
            let mut tally = test::Tally::default();
            test::run(&which, &mut tally)?;
            tally.record(&test::record())?;
            println!("{tally}");
            tally.check()
        }
        Command::Compat { install, vm, check } => {
            setup::ensure(install.no_install, vm.is_some())?;
            if check { compat::check() } else { compat::write(vm.as_ref()) }
        }
        Command::Conformance { check: true, .. } => conformance::check(),
        Command::Conformance { no_run: true, .. } => conformance::rewrite(),
        Command::Conformance { install, vm, peers, .. } => {
            setup::ensure(install.no_install, vm.is_some())?;
            conformance::write(vm.as_ref(), peers)
        }
        Command::Bench { install, name, vm, arguments } => {
            setup::ensure(install.no_install, vm.is_some())?;
            if matches!(name, bench::Name::SideBySide) {
                setup::ensure_compared(install.no_install)?;
            }
            match vm {
                Some(kernel) => bench::count_instructions(name, kernel),
                None => bench::run_bench(name, &arguments),
            }
        }
        Command::Fuzz { install, target, seconds } => {
            setup::ensure(install.no_install, false)?;
            fuzz::fuzz(target.as_deref(), seconds)
        }
        Command::Lint => ci::lint(),
        Command::Fmt { check } => ci::fmt(check),
        Command::Doc => ci::doc(),
        Command::Performance => performance::write().and_then(|()| side_by_side::rewrite()),
        Command::Ci { install, no_vm } => ci::everything(install.no_install, !no_vm),
    }
    .map(|()| ExitCode::SUCCESS)
}
