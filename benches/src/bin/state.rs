//! What it takes to save the entries of a map with a million sessions and to restore them, by the command as an operator
//! runs it, beside bpftool's dump of the same map and one system call for each entry.
//!
//! A run counts only when what was saved is what is there: the comparison by the command is part of every round, and so
//! is the number of entries. What is measured takes turns, so that what disturbs the machine disturbs all alike.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use serde_json::Value;
use xdpchain_benches::programs::compile;
use xdpchain_benches::report::{Report, Row, bar};
use xdpchain_benches::sources::{self, Filled, Kind};
use xdpchain_host::sys::{self, MapFd};
use xdpchain_tests::{Netns, Shell, cli, veth};

const MAP: &str = "sessions/sessions";
/// One entry: 8 octets of key, 48 of value.
const ENTRY: usize = 56;

/// Measures saving and restoring.
#[derive(Parser)]
struct Options {
    /// How many sessions
    #[arg(long, default_value_t = 1_000_000)]
    sessions: u32,
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many changes are committed, at 1,000 a second
    #[arg(long, default_value_t = 10_000)]
    changes: u32,
}

/// Seconds of each round.
#[derive(Default)]
struct Times {
    save: Vec<f64>,
    twice: Vec<f64>,
    bpftool: Vec<f64>,
    single: Vec<f64>,
    restore: Vec<f64>,
    over: Vec<f64>,
    diff: Vec<f64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let (node, far) = (Netns::new("node"), Netns::new("far"));
    veth((&node, "eth1"), (&far, "far1"));
    let chains = "\
version: 1
modules:
  sessions: { object: ./sessions.o }
chains:
  edge: { interfaces: [eth1], slots: [sessions] }
";
    let shell = Shell::new(&node, chains);
    std::fs::write(shell.path().join("sessions.o"), compile("sessions", &[])?)?;
    let bench = Bench { shell: &shell, sessions: options.sessions, peak: Cell::new(0.0) };
    let mut times = Times::default();
    for round in 0..options.rounds {
        bench.round(&mut times)?;
        eprintln!("round {} of {}", round + 1, options.rounds);
    }

    let mut tables = [Vec::new(), Vec::new()];
    for (kind, seconds) in [Kind::Sqlite, Kind::Postgres].into_iter().zip(&mut tables) {
        eprintln!("filling from {kind:?}");
        for Filled { seconds: took, peak } in sources::fill(kind, options.sessions, options.rounds)? {
            seconds.push(took);
            bench.peak.set(bench.peak.get().max(peak));
        }
    }
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds.min(3) {
        let delay = sources::delay(options.changes, 1000)?;
        p50.push(delay.p50);
        p99.push(delay.p99);
    }

    let mut report = Report::new("state");
    report.rows = vec![
        Row::of("save/xdpchain", "s", &times.save),
        Row::of("save/xdpchain-twice", "s", &times.twice),
        Row::of("save/bpftool", "s", &times.bpftool),
        Row::of("save/syscall-per-entry", "s", &times.single),
        Row::of("restore", "s", &times.restore),
        Row::of("restore/over-others", "s", &times.over),
        Row::of("diff", "s", &times.diff),
        Row::of("sqlite/fill", "s", &tables[0]),
        Row::of("postgres/fill", "s", &tables[1]),
        Row::of("commit-to-map/p50", "ms", &p50),
        Row::of("commit-to-map/p99", "ms", &p99),
        // The largest of all, and not the median: the bar is for every one of them.
        Row::of("peak-memory", "MiB", &[bench.peak.get()]),
    ];
    report.finish()?;
    let value = |case: &str| report.value(case).unwrap_or(f64::INFINITY);
    println!();
    let kept = [
        bar("save, of bpftool's dump", value("save/xdpchain") / value("save/bpftool"), 0.1),
        bar("restore, s", value("restore"), 1.5),
        bar("a million rows from PostgreSQL, s", value("postgres/fill"), 10.0),
        bar("from COMMIT to the map, p99, ms", value("commit-to-map/p99"), 100.0),
        // 300 MB.
        bar("memory of the process, MiB", value("peak-memory"), 286.1),
    ];
    Ok(if kept.iter().all(|kept| *kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Bench<'a> {
    shell: &'a Shell<'a>,
    sessions: u32,
    /// MiB that a process of ours had at most.
    peak: Cell<f64>,
}

impl Bench<'_> {
    fn round(&self, times: &mut Times) -> anyhow::Result<()> {
        self.attach(true)?;
        let id = self.id()?;
        times.save.push(self.timed(&["state", "save", "all.state"], 0)?);
        times.twice.push(self.timed(&["state", "save", "twice.state", "--twice"], 0)?);
        times.bpftool.push(self.bpftool(id)?);
        times.single.push(self.single(id)?);
        times.diff.push(self.timed(&["state", "diff", "all.state"], 0)?);
        // On top of as many entries with other values.
        self.import(1)?;
        self.timed(&["state", "diff", "all.state"], 1)?;
        times.over.push(self.timed(&["state", "restore", "all.state"], 0)?);
        self.timed(&["state", "diff", "all.state"], 0)?;
        self.detach()?;
        // As another host has it: the chain, and nothing in its maps.
        self.attach(false)?;
        times.restore.push(self.timed(&["state", "restore", "all.state"], 0)?);
        self.timed(&["state", "diff", "all.state"], 0)?;
        self.detach()
    }

    fn attach(&self, fill: bool) -> anyhow::Result<()> {
        self.run(&["attach", "eth1"])?;
        if fill { self.import(0) } else { Ok(()) }
    }

    fn detach(&self) -> anyhow::Result<()> {
        self.run(&["detach", "eth1"])
    }

    /// Fills the map; `flags` makes values that differ.
    fn import(&self, flags: u8) -> anyhow::Result<()> {
        let file = self.shell.path().join("sessions.csv");
        let mut table = BufWriter::with_capacity(1 << 20, File::create(&file)?);
        writeln!(table, "local,teid,customer,session,peer,inner4,inner6,packets,flags,vlan,inner6_len,tags")?;
        for number in 0..self.sessions {
            // As peers give them out: by no order that a table would know.
            let teid = number.wrapping_mul(0x9e37_79b1);
            let (customer, peer, inner) = (number % 1000, 0xc633_6400 + number % 250, 0x0a00_0000 + number);
            let octets = u128::from(inner) << 64 | 0x2001_0db8 << 96;
            let packets = u64::from(number) * 17;
            writeln!(
                table,
                "192.0.2.1,{teid},{customer},{number},{peer},{inner},0x{octets:032x},{packets},{flags},0,64,0"
            )?;
        }
        table.flush()?;
        self.run(&["map", "import", MAP, "sessions.csv"])
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let run = self.shell.xdpchain(arguments);
        ensure!(run.status == 0, "`xdpchain {}`: {}", arguments.join(" "), run.stderr);
        Ok(())
    }

    /// Seconds of a command of ours that has to end with `status`; its memory is noted.
    fn timed(&self, arguments: &[&str], status: i32) -> anyhow::Result<f64> {
        let mut command = Command::new(cli::binary());
        command.args(arguments).current_dir(self.shell.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let child = self.shell.netns().run(|| command.spawn())?;
        let ended = sys::wait(child.id())?;
        let took = start.elapsed().as_secs_f64();
        ensure!(ended.status == Some(status), "`xdpchain {}`: {:?}", arguments.join(" "), ended.status);
        self.peak.set(self.peak.get().max(ended.peak_memory as f64 / f64::from(1 << 20)));
        Ok(took)
    }

    /// The kernel's number of the map.
    fn id(&self) -> anyhow::Result<u32> {
        let maps = self.shell.json(&["map", "list"])["maps"].take();
        let map = maps.as_array().context("a list")?.iter().find(|map| map["map"] == MAP);
        let map: &Value = map.context("the chain has the map")?;
        ensure!(map["keySize"].as_u64().zip(map["valueSize"].as_u64()) == Some((8, ENTRY as u64 - 8)));
        Ok(u32::try_from(map["id"].as_u64().context("it has a number")?)?)
    }

    fn bpftool(&self, id: u32) -> anyhow::Result<f64> {
        let out = File::create(self.shell.path().join("bpftool.json"))?;
        let start = Instant::now();
        let status = Command::new("bpftool")
            .args(["map", "dump", "-j", "id", &id.to_string()])
            .stdout(out)
            .status()?;
        let took = start.elapsed().as_secs_f64();
        ensure!(status.success(), "bpftool failed");
        Ok(took)
    }

    /// Walks the map as tools do that know no batches: the next key, and its value.
    fn single(&self, id: u32) -> anyhow::Result<f64> {
        let map = MapFd::new(sys::map_by_id(id)?)?;
        let mut out = BufWriter::with_capacity(1 << 20, File::create(self.shell.path().join("single.raw"))?);
        let start = Instant::now();
        let (mut key, mut count) = (None, 0);
        while let Some(next) = sys::map_next_key(&map, key.as_deref())? {
            let Some(value) = sys::map_lookup(&map, &next)? else { bail!("nobody removes entries") };
            out.write_all(&next)?;
            out.write_all(&value)?;
            count += 1;
            key = Some(next);
        }
        out.flush()?;
        let took = start.elapsed().as_secs_f64();
        ensure!(count == self.sessions, "{count} entries were found");
        Ok(took)
    }
}
