//! The steps that CI is made of.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::Context as _;

use crate::run::{cargo, output, run, target_dir};
use crate::test::{self, Tally};
use crate::vm::Kernel;
use crate::{compat, conformance, ebpf, fuzz, setup};

/// Packets of the demo in CI: enough for every swap to happen under traffic.
const DEMO_PACKETS: &str = "60000";

/// Test programs that are about what a kernel takes and makes of it, for each of them.
const LOADING: [&str; 5] = ["compat", "compose", "examples", "model", "objects"];

/// What kernel 6.1 has besides: what kernels that CI runs on may refuse altogether, and what leans on a kernel most. All others
/// take too long where processors are emulated; `cargo xtask test --vm all` runs every program on every kernel.
const BESIDES: [&str; 5] = ["contracts", "libxdp", "next_hop", "reference", "targets"];

/// Where the packet programs and the third-party examples are put as objects.
pub(crate) fn objects() -> PathBuf {
    target_dir().join("ebpf")
}

/// Builds the objects and the binary.
pub(crate) fn build() -> anyhow::Result<()> {
    let out = objects();
    eprintln!("build: packet programs and examples, into {}", out.display());
    ebpf::build(&xdpchain_ebpf_build::PROGRAMS, &out)?;
    ebpf::build_again("gtp-decap", &out.join("next"))?;
    ebpf::build_examples(&out)?;
    run(&mut cargo(&["build", "--release", "-p", "xdpchain"]))
}

/// Runs the demo with `arguments`.
pub(crate) fn demo(arguments: &[String]) -> anyhow::Result<()> {
    let mut command = cargo(&["run", "--quiet", "--release", "-p", "xdpchain-tests", "--bin", "demo", "--"]);
    command.args(arguments);
    command.env("XDPCHAIN_BIN", target_dir().join("release/xdpchain"));
    command.env("XDPCHAIN_EBPF_DIR", objects());
    run(&mut command)
}

/// Formats, or checks the format of, every crate.
pub(crate) fn fmt(check: bool) -> anyhow::Result<()> {
    let mut command = cargo(&["fmt", "--all"]);
    if check {
        command.arg("--check");
    }
    run(&mut command)
}

/// Clippy over everything that runs in user space, the fuzz targets compiled, and cargo-deny when it is there.
pub(crate) fn lint() -> anyhow::Result<()> {
    // The packet programs are compiled for another target, with warnings shown, by `build`.
    for packages in [&[][..], &["-p", "xdpchain-tests", "-p", "xdpchain-model", "-p", "xdpchain-benches"]] {
        let mut command = cargo(&["clippy", "--all-targets"]);
        run(command.args(packages).args(["--", "-D", "warnings"]))?;
    }
    fuzz::check()?;
    if output(&mut cargo(&["deny", "--version"])).is_some() {
        run(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))
    } else {
        eprintln!("lint: cargo-deny is not installed, deny.toml was not checked (cargo install cargo-deny)");
        Ok(())
    }
}

/// The documentation, whose broken links are errors.
pub(crate) fn doc() -> anyhow::Result<()> {
    run(cargo(&["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Everything, in the order in which it fails soonest; with what ran and for how long at the end, also of a failure.
pub(crate) fn everything(no_install: bool, vm: bool) -> anyhow::Result<()> {
    let (mut times, mut tally) = (Vec::new(), Tally::default());
    let outcome = steps(no_install, vm, &mut times, &mut tally);
    tally.record(&test::record())?;
    println!();
    for (name, seconds) in times {
        println!("{name:>13} {seconds:>5} s");
    }
    println!("{tally}");
    outcome
}

/// The root tests in virtual machines, two at a time, as each keeps about one processor busy.
fn in_kernels(kernels: &[Kernel], tally: &mut Tally) -> anyhow::Result<()> {
    // The slowest first, so that both end at about the same time.
    let loading = kernels.iter().rev().map(|kernel| (*kernel, &LOADING[..]));
    let besides = kernels.contains(&Kernel::V6_1).then_some((Kernel::V6_1, &BESIDES[..]));
    let guests = loading.chain(besides);
    let guests = Mutex::new(guests.collect::<VecDeque<_>>());
    let run = || {
        let mut tally = Tally::default();
        let next = || guests.lock().expect("nobody panics with it").pop_front();
        let outcome = std::iter::from_fn(next)
            .try_for_each(|(kernel, only)| test::run_in(kernel, only, None, &mut tally));
        (tally, outcome)
    };
    let lanes = thread::scope(|scope| {
        let other = scope.spawn(run);
        [run(), other.join().expect("running tests does not panic")]
    });
    let mut first = Ok(());
    for (ran, outcome) in lanes {
        tally.append(ran);
        first = first.and(outcome);
    }
    first
}

fn steps(
    no_install: bool,
    vm: bool,
    times: &mut Vec<(String, u64)>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut step = |name: &str, action: &mut dyn FnMut() -> anyhow::Result<()>| {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = action();
        times.push((name.to_owned(), start.elapsed().as_secs()));
        outcome.with_context(|| name.to_owned())
    };
    step("fmt", &mut || fmt(true))?;
    step("conformance", &mut conformance::check)?;
    step("setup", &mut || setup::ensure(no_install, vm && no_install))?;
    let mut kernels = Vec::new();
    if vm {
        // A mirror that does not answer is no fault of what is tested; the record says what was left out.
        step("kernels", &mut || {
            let had =
                |kernel: Kernel| setup::ensure(no_install, true).and_then(|()| kernel.ensure().map(drop));
            kernels = Kernel::ALL.into_iter().map(|kernel| (kernel, had(kernel).err())).collect();
            Ok(())
        })?;
    }
    step("build", &mut build)?;
    step("lint", &mut lint)?;
    step("doc", &mut doc)?;
    step("test", &mut || {
        test::run(&test::Which::default(), tally)?;
        tally.check()
    })?;
    step("compat", &mut compat::check)?;
    let mut there = Vec::new();
    for (kernel, missing) in kernels {
        match missing {
            None => there.push(kernel),
            Some(error) => {
                eprintln!("warning: kernel {} is left out: {error:#}", kernel.version());
                tally.left_out(kernel.version(), &error.to_string());
            }
        }
    }
    if !there.is_empty() {
        step("other kernels", &mut || {
            in_kernels(&there, tally)?;
            tally.check()
        })?;
    }
    step("demo", &mut || demo(&["--packets".to_owned(), DEMO_PACKETS.to_owned()]))
}
