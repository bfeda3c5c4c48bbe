//! Instructions that a packet costs: fused and libxdp's dispatcher, on a processor whose clock counts instructions.
//!
//! `instructions compile FOLDER` compiles the programs. `instructions measure FOLDER` runs them, in a virtual machine of QEMU with
//! `-icount shift=0`: there a nanosecond is one instruction that the emulated processor has carried out, of whatever
//! kind. It prints the rows as JSON. `instructions put FILE` prints such rows as a table, and adds them to
//! target/bench/compose.json.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use xdpchain_benches::chains::{Engine, bare, composed};
use xdpchain_benches::programs::compile;
use xdpchain_benches::report::{Report, Row};
use xdpchain_compose::{fused, libxdp, tail};
use xdpchain_host::load::load;
use xdpchain_host::sys::{self, TestRun};

/// A dispatcher of libxdp's has ten places.
const COUNTS: [usize; 4] = [1, 2, 5, 10];
const ROUNDS: usize = 15;
/// Runs of a program between two looks at the clock. Few, so that most rounds meet no timer interrupt.
const REPEAT: u32 = 2_000;
const XDP_PASS: u32 = 2;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["compile", folder] => compile_all(Path::new(folder)),
        ["measure", folder] => measure(Path::new(folder)),
        ["put", file] => put(Path::new(file)),
        _ => bail!("instructions compile FOLDER | measure FOLDER | put FILE"),
    }
}

fn compile_all(folder: &Path) -> anyhow::Result<()> {
    let write = |name: String, object| fs::write(folder.join(name), object).context("writing an object");
    write("pass.o".into(), compile("pass", &[])?)?;
    for slots in COUNTS {
        for source in ["monolith", "calls"] {
            write(format!("{source}-{slots}.o"), compile(source, &[("SLOTS", slots)])?)?;
        }
    }
    let most = COUNTS[COUNTS.len() - 1];
    (0..most).try_for_each(|slot| write(format!("module-{slot}.o"), compile("module", &[("SLOT", slot)])?))
}

fn measure(folder: &Path) -> anyhow::Result<()> {
    let read = |name: String| fs::read(folder.join(&name)).with_context(|| format!("reading `{name}`"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    let mut rows = Vec::new();
    let mut add = |case: String, rounds: Vec<f64>| {
        let mut row = Row::of(format!("instructions/{case}"), "instructions", &rounds);
        row.kernel = Some(kernel.trim().to_owned());
        rows.push(row);
    };
    let alone = |name: String| -> anyhow::Result<Vec<f64>> {
        let loaded = load(&bare(&read(name)?)?, &mut |_| Ok(None))?;
        count(loaded.program.as_fd())
    };
    add("pass".into(), alone("pass.o".into())?);
    for slots in COUNTS {
        let modules: Vec<_> =
            (0..slots).map(|slot| read(format!("module-{slot}.o"))).collect::<anyhow::Result<_>>()?;
        for source in ["monolith", "calls"] {
            add(format!("{source}/{slots}"), alone(format!("{source}-{slots}.o"))?);
        }
        for (name, engine) in [
            ("fused", fused::compose as Engine),
            ("uncounted", fused::compose_uncounted),
            ("tail", tail::compose),
        ] {
            let loaded = load(&composed(&modules, engine)?, &mut |_| Ok(None))?;
            add(format!("{name}/{slots}"), count(loaded.program.as_fd())?);
        }
        let trial = xdpchain_host::libxdp::try_out(&composed(&modules, libxdp::compose)?)?;
        add(format!("libxdp/{slots}"), count(trial.program())?);
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

/// Instructions of one run, whole ones, by the kernel's own mean over [`REPEAT`] of them.
fn count(program: BorrowedFd<'_>) -> anyhow::Result<Vec<f64>> {
    let round = |_| {
        let run = TestRun { packet: &[0; 64], repeat: REPEAT, ..TestRun::default() };
        let result = sys::prog_test_run(program, &run)?;
        ensure!(result.verdict == XDP_PASS, "verdict {}", result.verdict);
        Ok(f64::from(result.duration_ns))
    };
    // The first round makes the kernel allocate what later ones find.
    (0..=ROUNDS).map(round).skip(1).collect()
}

fn put(file: &Path) -> anyhow::Result<()> {
    let rows: Vec<Row> = serde_json::from_slice(&fs::read(file)?).context("the guest printed no rows")?;
    let mut report = Report::new("compose");
    report.rows = rows;
    let least = |case: &str| {
        let row = report.rows.iter().find(|row| row.case == format!("instructions/{case}"));
        row.map(|row| row.min).with_context(|| format!("the guest printed no row `{case}`"))
    };
    let floor = least("pass")?;
    let kernel = report.rows.first().and_then(|row| row.kernel.clone()).unwrap_or_default();
    println!(
        "instructions that a packet takes on {kernel}, without the {floor:.1} of a program that only passes\n"
    );
    println!(
        "{:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "slots", "monolith", "fused", "uncounted", "tail", "calls", "libxdp"
    );
    for slots in COUNTS {
        let net = |name: &str| Ok::<_, anyhow::Error>(least(&format!("{name}/{slots}"))? - floor);
        println!(
            "{slots:>5} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
            net("monolith")?,
            net("fused")?,
            net("uncounted")?,
            net("tail")?,
            net("calls")?,
            net("libxdp")?,
        );
    }
    report.put()
}
