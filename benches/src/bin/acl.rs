//! What the access list costs a packet, by the number of rules: packets drawn at random, so that caches miss.
//!
//! Each case is a chain of two: a module that makes the packet one of many, and `acl`. The same chain with a module in
//! `acl`'s place that passes everything is measured in turn with it, and subtracted. Every rule allows, so
//! that packets cost the same whatever decides. Runs count only when `acl` counted as many hits as it must have had.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use xdpchain_abi::acl_tables::{BLOCK, BLOCKS};
use xdpchain_abi::{AclRule, acl_action};
use xdpchain_acl::sample::{Kind, Numbers, frame, packet_for};
use xdpchain_acl::{Compiled, Packet, decide};
use xdpchain_benches::chains::named;
use xdpchain_benches::measure::{Case, in_turn};
use xdpchain_benches::programs::compile;
use xdpchain_benches::report::{Report, Row, bar};
use xdpchain_compose::{Image, fused};
use xdpchain_host::compiled::shared_array;
use xdpchain_host::load::{Loaded, load};
use xdpchain_host::{Entries, Map};

const ROUNDS: usize = 31;
const REPEAT: u32 = 50_000;
const XDP_PASS: u32 = 2;
/// As in packets.c.
const PACKETS: u32 = 16_384;
/// Octets of a packet's record there.
const RECORD: usize = 72;

/// Which packets are drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// Three of four for a rule at random, the others of nobody.
    Mixed,
    /// Those with the longest ways, of many.
    Worst,
}

fn main() -> anyhow::Result<ExitCode> {
    let mut report = Report::new("acl");
    let objects = std::env::var_os("XDPCHAIN_EBPF_DIR").context("run it by `cargo xtask bench acl`")?;
    let acl = std::fs::read(std::path::Path::new(&objects).join("acl.o")).context("acl.o is not built")?;
    let (packets, pass) = (compile("packets", &[])?, compile("pass", &[])?);
    let with = |second: &[u8]| -> anyhow::Result<Chained> {
        let image = named(&[("packets", &packets), ("second", second)], fused::compose)?;
        let loaded = load(&image, &mut |_| Ok(None))?;
        Ok(Chained { image, loaded })
    };
    let sets = [(Kind::Customers, 50_000), (Kind::Firewall, 10_000), (Kind::Addresses, 50_000)];
    for (kind, most) in sets {
        let counts: Vec<u32> = [10, 100, 1000, 10_000, 50_000].into_iter().filter(|n| *n <= most).collect();
        for traffic in [Traffic::Mixed, Traffic::Worst] {
            let mut cases = Vec::new();
            for count in &counts {
                let mut rules = kind.rules(*count);
                rules.iter_mut().for_each(|(_, rule)| rule.action = acl_action::ALLOW);
                let tables = Compiled::new(&rules)?;
                let name = name(kind, traffic, *count);
                if traffic == Traffic::Mixed {
                    let row = |what: &str, value, unit| Row::of(format!("{name}/{what}"), unit, &[value]);
                    report.rows.push(row("tables", tables.octets() as f64 / 1024.0, "KiB"));
                    report.rows.push(row("visits", tables.visits() as f64, "visits"));
                }
                let drawn = drawn(&rules, &tables, traffic);
                for (chained, of_acl) in [(with(&acl)?, true), (with(&pass)?, false)] {
                    chained.fill(&rules, &drawn)?;
                    if of_acl {
                        chained.map("rules_compiled")?.replace_inner(
                            0,
                            &shared_array(BLOCK as u32, BLOCKS as u32),
                            |octets| tables.write(octets),
                        )?;
                    }
                    let name = if of_acl { name.clone() } else { format!("{name}/harness") };
                    let maps = chained.kept()?;
                    let Chained { loaded, .. } = chained;
                    cases.push((Case { name, loaded, verdict: XDP_PASS, rounds: Vec::new() }, maps));
                }
            }
            let (mut measured, maps): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
            in_turn(&mut measured, &[0; 64], ROUNDS, REPEAT)?;
            for (pair, maps) in measured.chunks(2).zip(maps.chunks(2)) {
                maps[0].check()?;
                let (rules, harness) = (&pair[0], &pair[1]);
                let rounds: Vec<_> =
                    harness.rounds.iter().copied().zip(rules.rounds.iter().copied()).collect();
                report.rows.push(Row::net(&rules.name, "ns", &rounds));
                report.rows.push(Row::of(&harness.name, "ns", &harness.rounds));
            }
        }
    }
    report.finish()?;
    Ok(if judge(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `rules/N` for the first kind, as it is the one that has bars.
fn name(kind: Kind, traffic: Traffic, count: u32) -> String {
    match (kind, traffic) {
        (Kind::Customers, Traffic::Mixed) => format!("rules/{count}"),
        (Kind::Customers, Traffic::Worst) => format!("worst/{count}"),
        (kind, Traffic::Mixed) => format!("{}/{count}", kind.name()),
        (kind, Traffic::Worst) => format!("{}-worst/{count}", kind.name()),
    }
}

/// A loaded chain.
struct Chained {
    image: Image,
    loaded: Loaded,
}

/// The maps that tell whether all runs were real ones.
struct Kept {
    state: Map,
    hits: Option<Map>,
}

impl Chained {
    fn map(&self, name: &str) -> anyhow::Result<Map> {
        let at = self.image.maps.iter().position(|map| map.def.name == name);
        let at = at.with_context(|| format!("the chain has no map {name}"))?;
        Ok(Map::from_fd(self.loaded.maps[at].fd.try_clone()?, name)?)
    }

    fn kept(&self) -> anyhow::Result<Kept> {
        Ok(Kept { state: self.map("state")?, hits: self.map("hits").ok() })
    }

    /// Fills in the packets to draw from.
    fn fill(&self, rules: &[(u32, AclRule)], packets: &[Packet]) -> anyhow::Result<()> {
        let mut entries = Entries::default();
        for (at, packet) in packets.iter().enumerate() {
            let mut record = frame(packet);
            record.resize(64, 0);
            record.extend(packet.customer.to_ne_bytes());
            record.extend([packet.direction, u8::from(decide(rules, packet).is_some()), 0, 0]);
            ensure!(record.len() == RECORD, "a record of {} octets", record.len());
            entries.keys.extend((at as u32).to_ne_bytes());
            entries.values.extend(record);
        }
        Ok(self.map("packets")?.update_all(&entries)?)
    }
}

impl Kept {
    /// Whether as many packets met a rule as must have.
    fn check(&self) -> anyhow::Result<()> {
        let state = self.state.lookup(&0u32.to_ne_bytes())?.context("an array has its entry 0")?;
        let expected = u64::from_ne_bytes(state[8..16].try_into()?);
        let hits = self.hits.as_ref().context("acl counts hits")?;
        let mut counted = 0;
        for batch in hits.entries() {
            let sum = |value: &[u8; 8]| u64::from_ne_bytes(*value);
            counted += batch?.values.as_chunks::<8>().0.iter().map(sum).sum::<u64>();
        }
        ensure!(counted == expected, "{counted} packets were decided on by a rule, and not {expected}");
        Ok(())
    }
}

/// The packets to draw from.
fn drawn(rules: &[(u32, AclRule)], tables: &Compiled, traffic: Traffic) -> Vec<Packet> {
    let mut numbers = Numbers(11);
    let mut some = |count: u32| -> Vec<Packet> {
        (0..count)
            .map(|at| {
                let rule = &rules[numbers.below(rules.len() as u64) as usize].1;
                let mut packet = packet_for(&mut numbers, rule);
                if at % 4 == 3 {
                    packet.customer = u32::MAX;
                    packet.destination.octets[12..].copy_from_slice(&(numbers.next() as u32).to_be_bytes());
                }
                packet
            })
            .collect()
    };
    match traffic {
        Traffic::Mixed => some(PACKETS),
        Traffic::Worst => {
            let mut all = some(PACKETS * 4);
            all.sort_by_key(|packet| {
                let walk = tables.walk(&packet.key());
                std::cmp::Reverse(walk.cost())
            });
            // The longest hundredth, over and over.
            let longest = (PACKETS / 25) as usize;
            (0..PACKETS as usize).map(|at| all[at % longest]).collect()
        }
    }
}

/// The bars that the access list has to keep.
fn judge(report: &Report) -> bool {
    let ns = |case: &str| report.value(case).expect("every case has run");
    println!();
    let kept = [
        bar("rules/10000 to rules/10", ns("rules/10000") / ns("rules/10"), 1.5),
        bar("rules/50000 to rules/10", ns("rules/50000") / ns("rules/10"), 2.0),
        bar("worst/10000 to worst/10", ns("worst/10000") / ns("worst/10"), 1.5),
        bar("worst/50000 to worst/10", ns("worst/50000") / ns("worst/10"), 2.0),
    ];
    kept.iter().all(|k| *k)
}
