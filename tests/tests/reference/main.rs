//! The packet programs against the reference: packets that are drawn, through the chain of all six modules in the kernel and
//! through the reference, which have to agree on verdict, octets, reason and slot.
//!
//! Every fixture of `tests/fixtures` is a beginning: its maps are put beside those of a small world, its packet is wrapped as
//! it would have come to its module, and mutants of it are drawn. `XDPCHAIN_REFERENCE_PACKETS` says how many packets there are
//! in all (300,000 unless told), `XDPCHAIN_REFERENCE_SEED` which.
#![forbid(unsafe_code)]

mod rig;
mod world;

use std::collections::BTreeMap;
use std::io::Write as _;

use rig::{Counted, Engine, Rig};
use world::{Case, cases};
use xdpchain_abi::{Fate, Reason};
use xdpchain_golden::difference;
use xdpchain_reference::mutate::{Mutant, Numbers};
use xdpchain_reference::{Arrival, Chain, Outcome, Tables, TestNetwork, Verdict, run};
use xdpchain_tests::{kernel, router};

/// Packets between two looks at the counters.
const BLOCK: usize = 256;
/// Changes of one packet at most.
const CHANGES: usize = 4;
/// Failures that are told at most.
const TOLD: usize = 12;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// A case, ready to be run.
struct Stage<'a> {
    rig: &'a Rig,
    case: &'a Case,
    tables: Tables,
    chain: Chain,
    ifindex: u32,
}

impl Stage<'_> {
    /// What the reference says.
    fn expected(&self, packet: &[u8], told: bool) -> Outcome {
        let network = TestNetwork { ingress: self.case.ingress.clone() };
        run(&self.chain, &self.tables, &network, &Arrival { told, ..Arrival::new(packet) })
    }

    /// What the reference says, and what of the program is not so, but for what it counts.
    fn judge(&self, packet: &[u8]) -> (Outcome, Option<String>) {
        let (verdict, octets) = match self.rig.run(packet, self.ifindex) {
            Ok(ran) => ran,
            Err(error) => {
                return (self.expected(packet, false), Some(format!("the kernel cannot run it: {error}")));
            }
        };
        let first = self.expected(packet, false);
        let differs = self.differs(packet, &first, verdict, &octets);
        // Whether the sender was told just before is a matter of time.
        if differs.is_some() && first.reasons.iter().any(|(_, reason)| *reason == Reason::TooBig) {
            let other = self.expected(packet, true);
            if self.differs(packet, &other, verdict, &octets).is_none() {
                return (other, None);
            }
        }
        (first, differs)
    }

    fn differs(&self, packet: &[u8], expected: &Outcome, verdict: u32, octets: &[u8]) -> Option<String> {
        if verdict != expected.verdict.number() {
            return Some(format!("verdict: {} expected, {verdict} found", expected.verdict.name()));
        }
        if let Some(difference) = difference(&expected.packet, octets) {
            return Some(format!("packet: {difference}"));
        }
        // Not by the reference's word alone: what the kernel is to judge comes to it as it came.
        let finished = [Reason::NoNeighbour, Reason::NeedsFragmentation];
        let punted =
            expected.reason().filter(|reason| reason.fate() == Fate::Punt && !finished.contains(reason));
        if punted.is_some() && (verdict != Verdict::Pass.number() || octets != packet) {
            return Some(format!("{punted:?}: the kernel does not get the packet as it came"));
        }
        None
    }

    /// The same, with what is counted for this packet alone.
    fn differs_counted(&self, packet: &[u8]) -> Option<String> {
        let before = self.rig.counted();
        let (expected, differs) = self.judge(packet);
        let found = self.rig.counted().since(&before);
        let mut counted = Counted::default();
        counted.add(&self.chain, &expected);
        let counts = (found != counted).then(|| format!("counted: {counted} expected, {found} found"));
        match (differs, counts) {
            (None, None) => None,
            (differs, counts) => Some([differs, counts].into_iter().flatten().collect::<Vec<_>>().join("\n")),
        }
    }

    /// What is told about a mutant on which the two differ: the smallest such packet, as a fixture.
    fn report(&self, mutant: Mutant) -> String {
        let least = mutant.shrunk(|packet| self.differs_counted(packet).is_some());
        let packet = least.packet();
        let (expected, _) = self.judge(&packet);
        let why: Vec<String> =
            expected.steps.iter().map(|step| format!("{}: {}", step.row.id(), step.why)).collect();
        let differs = self.differs_counted(&packet).unwrap_or_else(|| "not a second time".to_owned());
        format!(
            "{} ({} changes of {})\n{}\n{differs}\n",
            why.join("; "),
            least.len(),
            self.case.name,
            self.case.fixture(&packet, &expected)
        )
    }
}

/// What two failures have in common.
fn kind(report: &str) -> String {
    let line =
        |begin: &str| report.lines().find(|line| line.starts_with(begin)).unwrap_or_default().to_owned();
    let row = report.rsplit_once("; ").map_or(report, |(_, last)| last);
    let (verdict, counted) = (line("verdict"), line("counted"));
    format!("{} {verdict} {counted}", row.get(..3).unwrap_or_default())
}

fn compare(engine: Engine, packets: u64, seed: u64) {
    let ns = router("reference");
    let (rig, cases) = (Rig::new(engine), cases());
    let interfaces = ["lo", "access0", "cloud0"].map(|name| (name, ns.ifindex(name)));
    let rest = packets as usize / cases.len() + 1;
    let mut numbers = Numbers::new(seed);
    let (mut ran, mut ends) = (0u64, BTreeMap::<String, u64>::new());
    let mut failures = BTreeMap::<String, String>::new();
    for case in &cases {
        let tables = case.tables();
        rig.fill(case);
        let (_, ifindex) =
            *interfaces.iter().find(|(name, _)| *name == case.ingress).expect("an interface of the network");
        let stage = Stage { rig: &rig, case, tables, chain: Chain::data_path(), ifindex };
        ns.run(|| {
            // The packet as it is comes first.
            if let Some(differs) = stage.differs_counted(&case.packet) {
                failures.entry(format!("{} as it is", case.name)).or_insert(differs);
            }
            let mut left = rest;
            while left > 0 && failures.len() < TOLD {
                let count = left.min(BLOCK);
                left -= count;
                let mutants: Vec<Mutant> = (0..count)
                    .map(|_| Mutant::draw(&case.packet, CHANGES, &case.hosts, &mut numbers))
                    .collect();
                let before = rig.counted();
                let mut counted = Counted::default();
                let mut whole = true;
                for mutant in &mutants {
                    let packet = mutant.packet();
                    let (expected, differs) = stage.judge(&packet);
                    counted.add(&stage.chain, &expected);
                    let reason = expected.reason().map_or("none", Reason::name);
                    *ends.entry(format!("{} {reason}", expected.verdict.name())).or_default() += 1;
                    ran += 1;
                    if differs.is_some() {
                        whole = false;
                        let report = stage.report(mutant.clone());
                        failures.entry(kind(&report)).or_insert(report);
                    }
                }
                if whole && rig.counted().since(&before) != counted {
                    let wrong: Vec<&Mutant> = mutants
                        .iter()
                        .filter(|mutant| stage.differs_counted(&mutant.packet()).is_some())
                        .collect();
                    let report = match wrong.first() {
                        Some(mutant) => stage.report((*mutant).clone()),
                        None => format!("{}: counts differ of {count} packets together", case.name),
                    };
                    failures.entry(kind(&report)).or_insert(report);
                }
            }
        });
        rig.empty(case);
        if failures.len() >= TOLD {
            break;
        }
    }
    // Past what captures the output of tests: how many there were is part of the result.
    let _ = writeln!(std::io::stderr(), "{engine:?}: {ran} packets of {} cases", cases.len());
    for (end, count) in &ends {
        let _ = writeln!(std::io::stderr(), "{count:>9} {end}");
    }
    let told: Vec<String> = failures.iter().map(|(kind, report)| format!("== {kind}\n{report}")).collect();
    assert!(told.is_empty(), "XDPCHAIN_REFERENCE_SEED={seed}\n{}", told.join("\n"));
    assert!(ran >= packets);
}

fn knobs() -> (u64, u64) {
    let seed = number("XDPCHAIN_REFERENCE_SEED", std::process::id().into());
    let packets = number("XDPCHAIN_REFERENCE_PACKETS", 300_000);
    let _ = writeln!(std::io::stderr(), "{packets} packets, XDPCHAIN_REFERENCE_SEED={seed}");
    (packets, seed)
}

#[test]
fn one_program_of_all_modules_does_what_the_reference_says() {
    if !kernel::test_run_has_context() {
        return kernel::lacks("reference", "context for test runs of XDP programs");
    }
    let (packets, seed) = knobs();
    compare(Engine::Fused, packets, seed);
}

#[test]
fn a_program_for_each_module_does_what_the_reference_says() {
    if !kernel::test_run_has_context() {
        return kernel::lacks("reference", "context for test runs of XDP programs");
    }
    let (packets, seed) = knobs();
    compare(Engine::Tail, packets / 10, seed);
}

#[test]
fn the_data_path_looks_its_context_up_once() {
    if !kernel::test_run_has_context() {
        return kernel::lacks("reference", "context for test runs of XDP programs");
    }
    // Slots share the address where their frames, and those of the deepest call, leave room for it.
    assert_eq!(Rig::new(Engine::Fused).context_look_ups(), 1);
}
