//! What a session costs, by how many there are: an uplink and a downlink packet of one drawn at random, so that caches
//! miss, with the map of sessions as different types, beside the least that has one look-up in as many.

use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Context as _;
use clap::Parser;
use xdpchain_benches::datapath::{self, Objects};
use xdpchain_benches::frames::{self, Gtp};
use xdpchain_benches::report::{Report, Row, bar};
use xdpchain_benches::rig::{Case, On, REDIRECT, Subject, TX, in_turn};
use xdpchain_compose::{Image, MapOwner};
use xdpchain_host::Entries;
use xdpchain_tests::Links;

const ROUNDS: usize = 15;
const REPEAT: u32 = 200_000;
/// Sessions that there are bars for.
const BARRED: u32 = 1_000_000;
/// Sessions that are put into a map at a time.
const STEP: u32 = 100_000;
/// `BPF_MAP_TYPE_HASH` and `BPF_MAP_TYPE_LRU_HASH`.
const HASH: u32 = 1;
const LRU_HASH: u32 = 9;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

/// Measures packets of many sessions.
#[derive(Parser)]
struct Options {
    /// Numbers of sessions
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000, 10_000_000])]
    sessions: Vec<u32>,
}

/// How the maps of sessions are made.
struct Kind {
    name: &'static str,
    map_type: u32,
    flags: u32,
    /// Whether those of the uplink are in the array by TEID instead.
    dense: bool,
}

const KINDS: [Kind; 4] = [
    Kind { name: "dense", map_type: HASH, flags: 0, dense: true },
    Kind { name: "hash", map_type: HASH, flags: 0, dense: false },
    Kind { name: "noprealloc", map_type: HASH, flags: NO_PREALLOC, dense: false },
    Kind { name: "lru", map_type: LRU_HASH, flags: 0, dense: false },
];

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let links = Links::new();
    let report = links.node.run(|| measure(&links, &options.sessions))?;
    report.finish()?;
    Ok(if judge(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(links: &Links, counts: &[u32]) -> anyhow::Result<Report> {
    let objects = Objects::read()?;
    let (radio, cloud) = (links.node.ifindex("n3"), links.node.ifindex("n6"));
    let (up, down) = (frames::uplink(Gtp::Plain, 64), frames::downlink(64));
    let mut report = Report::new("sessions");
    for count in counts {
        // One after the other: ten million sessions in every kind of map do not fit into the memory at once.
        for (name, what) in [("floor-hash", 5), ("floor-array", 6), ("floor-array-apart", 7)] {
            let floor = Rc::new(datapath::looked_up(what, *count)?);
            let cases = vec![Case::new(format!("{name}/{count}"), &floor, (&up, *count), TX)?];
            measured(&mut report, cases, radio)?;
        }
        for kind in &KINDS {
            let name = kind.name;
            if *count == BARRED && matches!(name, "dense" | "hash") {
                let chain = Rc::new(chain(&objects, kind, *count, false)?);
                let name = format!("{name}-at-once/{count}");
                let cases = vec![Case::new(name, &chain, (&up, *count), REDIRECT)?];
                measured(&mut report, cases, radio)?;
            }
            let chain = Rc::new(chain(&objects, kind, *count, true)?);
            let cases = vec![Case::new(format!("{name}/{count}"), &chain, (&up, *count), REDIRECT)?];
            measured(&mut report, cases, radio)?;
            let cases =
                vec![Case::new(format!("{name}-downlink/{count}"), &chain, (&down, *count), REDIRECT)?];
            measured(&mut report, cases, cloud)?;
            let octets = memory(&chain)? / f64::from(*count);
            report.rows.push(Row::of(format!("bytes-per-session/{name}/{count}"), "octets", &[octets]));
            if name == "dense" && Some(count) == counts.last() {
                report.rows.push(Row::of("bytes-per-session", "octets", &[octets]));
            }
        }
    }
    Ok(report)
}

fn measured(report: &mut Report, mut cases: Vec<Case>, ifindex: u32) -> anyhow::Result<()> {
    in_turn(&mut cases, On { ifindex }, ROUNDS, REPEAT)?;
    report.rows.extend(cases.iter().map(Case::row));
    eprintln!("{}", cases[0].name());
    Ok(())
}

/// The chain of six with maps of sessions of this kind, for `count` sessions both ways, whose counts are held back when they are to be
/// `held`.
fn chain(objects: &Objects, kind: &Kind, count: u32, held: bool) -> anyhow::Result<Subject> {
    let alter = |image: &mut Image| {
        for map in &mut image.maps {
            let MapOwner::Module(module) = &map.owner else { continue };
            match (module.as_str(), map.def.name.as_str()) {
                ("stats", "sessions") => map.def.max_entries = count,
                ("gtp-decap", "sessions") if kind.dense => map.def.max_entries = 1,
                ("gtp-decap", "sessions_dense") if kind.dense => map.def.max_entries = count,
                (_, "sessions") => {
                    // The least recently used go before a map of that kind is full.
                    map.def.max_entries = if kind.map_type == LRU_HASH { count * 2 } else { count };
                    (map.def.map_type, map.def.flags) = (kind.map_type, kind.flags);
                }
                _ => {}
            }
        }
    };
    let chain = datapath::chain(objects, objects.len(), alter)?;
    let config = Entries { keys: vec![0; 4], values: [&[u8::from(held)][..], &[0; 7]].concat() };
    chain.map(Some("stats"), "config")?.update_all(&config)?;
    for first in (0..count).step_by(STEP as usize) {
        let numbers = first..count.min(first + STEP);
        datapath::add_sessions(&chain, numbers, false)
            .with_context(|| format!("sessions from {first} on of {count}, {}", kind.name))?;
    }
    Ok(chain)
}

/// Octets of kernel memory of what there is for each session, both ways, its counters too.
fn memory(chain: &Subject) -> anyhow::Result<f64> {
    let mut octets = 0;
    let maps = [
        ("gtp-decap", "sessions"),
        ("gtp-decap", "sessions_dense"),
        ("gtp-encap", "sessions"),
        ("stats", "sessions"),
        ("stats", "sessions_percpu"),
        ("stats", "sessions_pending"),
    ];
    for (module, map) in maps {
        octets += chain.map(Some(module), map)?.memory()?;
    }
    Ok(octets as f64)
}

/// The bars that sessions have to keep, where their number was measured.
fn judge(report: &Report) -> bool {
    println!();
    let ratio = |case: &str, floor: &str| Some(report.value(case)? / report.value(floor)?);
    let mut kept = true;
    if let Some(ratio) = ratio("dense/1000000", "floor-array/1000000") {
        kept &= bar("dense/1000000 to floor-array/1000000", ratio, 1.6);
    }
    if let Some(ratio) = ratio("hash/1000000", "floor-hash/1000000") {
        kept &= bar("hash/1000000 to floor-hash/1000000", ratio, 1.3);
    }
    if let Some(octets) = report.value("bytes-per-session") {
        kept &= bar("octets a session, both directions, uplink by index", octets, 200.0);
    }
    kept
}
