//! What changes cost: thousands of swaps of a chain that forwards numbered packets both ways, each by the command as an
//! operator runs it. No packet may be lost, and nothing may be left.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use serde_json::Value;
use xdpchain_benches::report::{Report, Row, bar};
use xdpchain_tests::{Netns, Shell, World, cli, plan, rows};

const SESSIONS: u32 = 300;
/// Interfaces with a chain, in turn.
const INTERFACES: [&str; 2] = ["n3", "n6"];
/// The six modules of the data path, each of which is replaced in turn.
const MODULES: [&str; 6] = ["gtp-decap", "gre-decap", "acl", "gre-steer", "gtp-encap", "stats"];
/// Numbers for packets; more than there will be sent.
const NUMBERS: u32 = 1 << 24;
/// Packets that are sent at once.
const BURST: u32 = 24;
/// Least pause between two bursts.
const PACE: Duration = Duration::from_micros(1500);

/// Measures changes of a chain under traffic.
#[derive(Parser)]
struct Options {
    /// How many changes
    #[arg(long, default_value_t = 10_000)]
    swaps: usize,
}

/// What one kind of change took.
#[derive(Default)]
struct Times {
    replace: Vec<f64>,
    add: Vec<f64>,
    remove: Vec<f64>,
    reorder: Vec<f64>,
    swap: Vec<f64>,
}

/// What the kernel and the file system hold for chains.
struct Held {
    memory: f64,
    pins: f64,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let world = World::new(NUMBERS);
    let shell = Shell::new(&world.links.node, &plan::chains_yaml(SESSIONS));
    for interface in INTERFACES {
        run(&shell, &["attach", interface])?;
    }
    for (map, table) in rows::data_path(SESSIONS) {
        shell.write("rows.csv", &table.csv());
        run(&shell, &["map", "import", map, "rows.csv"])?;
    }
    let builds = builds(shell.path())?;
    // Each kind of change once before counting, so that the maps of a module's second build are no leak.
    let mut times = Times::default();
    round(&shell, &builds, 0, &mut times)?;
    round(&shell, &builds, 1, &mut times)?;
    let mut sender = world.sender(SESSIONS);
    sender.send(&world, SESSIONS);
    sender.settle(&world);
    ensure!(world.ran_end.right() == u64::from(SESSIONS), "the way is not there both ways");

    let before = held(&world.links.node)?;
    times = Times::default();
    let rounds = options.swaps.div_ceil(ROUND);
    let start = Instant::now();
    let finished = AtomicUsize::new(0);
    let changed = std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for number in 0..rounds {
                round(&shell, &builds, number, &mut times)?;
                finished.store(number + 1, Ordering::Relaxed);
                if number % 100 == 99 {
                    let (done, all) = ((number + 1) * ROUND, rounds * ROUND);
                    eprintln!("{done} of {all} changes, {:.0} s", start.elapsed().as_secs_f64());
                }
            }
            anyhow::Ok(())
        });
        while !changes.is_finished() && sender.sent() + SESSIONS < NUMBERS {
            sender.send(&world, BURST);
            // No faster than the numbers last, so that no change goes without traffic.
            let done = finished.load(Ordering::Relaxed);
            let left = start.elapsed().as_secs_f64() / done.max(1) as f64 * (rounds - done) as f64;
            let bursts = f64::from((NUMBERS - sender.sent()) / (BURST + 1));
            std::thread::sleep(PACE.max(Duration::from_secs_f64(left / bursts)));
        }
        ensure!(changes.is_finished(), "packets ran out before the changes did");
        sender.settle(&world);
        changes.join().expect("changing the chain does not panic").map(|()| sender.sent())
    });
    let sent = changed?;
    let after = held(&world.links.node)?;
    let (up, down) = (world.cloud_end.account(sent), world.ran_end.account(sent));
    let wrong = [world.cloud_end.wrong(), world.ran_end.wrong()].concat();
    ensure!(wrong.is_empty(), "packets arrived that are not as they should be: {wrong:?}");

    let mut report = Report::new("churn");
    let one = |case: &str, unit, value: f64| Row::of(case, unit, &[value]);
    let (lost, duplicated) = (up.lost + down.lost, up.duplicated + down.duplicated);
    report.rows = vec![
        one("swaps", "changes", (rounds * ROUND) as f64),
        one("packets", "packets", f64::from(sent)),
        one("lost", "packets", f64::from(lost)),
        one("duplicated", "packets", f64::from(duplicated)),
        at("replace/p50", &times.replace, 0.5),
        at("replace/p99", &times.replace, 0.99),
        at("add/p50", &times.add, 0.5),
        at("add/p99", &times.add, 0.99),
        at("remove/p50", &times.remove, 0.5),
        at("remove/p99", &times.remove, 0.99),
        at("reorder/p50", &times.reorder, 0.5),
        at("reorder/p99", &times.reorder, 0.99),
        at("swap/p50", &times.swap, 0.5),
        at("swap/p99", &times.swap, 0.99),
        one("kernel-memory/before", "bytes", before.memory),
        one("kernel-memory/after", "bytes", after.memory),
        one("pins/before", "pins", before.pins),
        one("pins/after", "pins", after.pins),
    ];
    report.finish()?;
    let replace = report.value("replace/p50").unwrap_or(f64::INFINITY);
    let kept = [
        bar("packets lost", f64::from(lost), 0.0),
        bar("packets duplicated", f64::from(duplicated), 0.0),
        bar("replace with six slots, p50, ms", replace, 60.0),
        bar("kernel memory after, of before", after.memory / before.memory, 1.01),
        bar("pins after, of before", after.pins / before.pins, 1.0),
    ];
    Ok(if kept.iter().all(|kept| *kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Changes in a round.
const ROUND: usize = 4;

/// A replacement with six slots, then a third-party module that comes, changes its place, and goes. What stays after a
/// round and the next is as it was before them.
fn round(shell: &Shell<'_>, builds: &[[PathBuf; 2]], number: usize, times: &mut Times) -> anyhow::Result<()> {
    let interface = INTERFACES[number / 2 % 2];
    let module = number / 4 % MODULES.len();
    let build = builds[module][number % 2].to_str().context("a path is UTF-8")?;
    let third = cli::objects().join("pktcount.o");
    let third = third.to_str().context("a path is UTF-8")?;
    let mut change = |arguments: &[&str]| {
        let start = Instant::now();
        let done = run(shell, &[arguments, &["-o", "json"]].concat())?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        let swap = done["swapMicroseconds"].as_f64().context("a change tells how long its swap took")?;
        times.swap.push(swap / 1e3);
        anyhow::Ok(took)
    };
    let replace = change(&["replace", interface, MODULES[module], build])?;
    let add = change(&["add", interface, third, "--before", "acl"])?;
    let reorder = change(&["move", interface, "pktcount", "--after", "acl"])?;
    let remove = change(&["remove", interface, "pktcount"])?;
    times.replace.push(replace);
    times.add.push(add);
    times.reorder.push(reorder);
    times.remove.push(remove);
    Ok(())
}

fn run(shell: &Shell<'_>, arguments: &[&str]) -> anyhow::Result<Value> {
    let run = shell.xdpchain(arguments);
    if run.status != 0 {
        bail!("`xdpchain {}` ended with {}: {}", arguments.join(" "), run.status, run.stderr);
    }
    if run.stdout.starts_with('{') { Ok(serde_json::from_str(&run.stdout)?) } else { Ok(Value::Null) }
}

/// Two builds of each module, of which the second is another one by an octet behind its end.
fn builds(folder: &Path) -> anyhow::Result<Vec<[PathBuf; 2]>> {
    let build = |module: &&str| {
        let mut object = std::fs::read(cli::objects().join(module).with_extension("o"))?;
        let paths = ["a", "b"].map(|which| folder.join(format!("{module}-{which}.o")));
        std::fs::write(&paths[0], &object)?;
        object.push(0);
        std::fs::write(&paths[1], &object)?;
        Ok(paths)
    };
    MODULES.iter().map(build).collect()
}

/// What the kernel holds of programs and maps by bpftool's account, and the pins of the namespace.
fn held(node: &Netns) -> anyhow::Result<Held> {
    // The kernel gives programs up a little after their last reference is gone.
    std::thread::sleep(Duration::from_millis(500));
    let mut memory = 0.0;
    for kind in ["prog", "map"] {
        let output = Command::new("bpftool").args(["-j", kind, "show"]).output().context("bpftool runs")?;
        let objects: Vec<Value> = serde_json::from_slice(&output.stdout).context("bpftool prints JSON")?;
        memory += objects.iter().filter_map(|object| object["bytes_memlock"].as_f64()).sum::<f64>();
    }
    Ok(Held { memory, pins: cli::files_below(&node.pins()).len() as f64 })
}

/// A quantile.
fn at(case: &str, runs: &[f64], quantile: f64) -> Row {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * quantile) as usize).min(sorted.len().saturating_sub(1));
    let value = sorted.get(index).copied().unwrap_or(f64::NAN);
    let min = sorted.first().copied().unwrap_or(f64::NAN);
    Row { case: case.to_owned(), value, unit: "ms".into(), min, runs: sorted.len(), kernel: None }
}
