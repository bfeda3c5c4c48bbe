//! Programs that change their packet, measured one after the other and in turn.
//!
//! A test run resets neither the packet's length nor its octets between runs, so a program would soon see its own output.
//! `harness.c` makes each run the first one and tail calls the program, which stays as it is; the same harness in front of
//! a program that only returns is what is subtracted. A round counts only when the last verdict is the expected one and,
//! where the program counts its packets, each run was counted with it.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use xdpchain_compose::{EXIT_COLUMNS, EXIT_MAP, Image, MapOwner, fused};
use xdpchain_host::load::{Loaded, load};
use xdpchain_host::sys::{self, TestRun};
use xdpchain_host::{Entries, Map};

use crate::chains::{bare, named};
use crate::frames::Frame;
use crate::programs::compile;
use crate::report::Row;

/// Octets of headers that the harness puts back; as in harness.c.
const HEADERS: usize = 96;
/// Verdicts, `enum xdp_action`.
const VERDICTS: usize = 5;
/// `XDP_DROP`.
pub const DROP: u32 = 1;
/// `XDP_PASS`.
pub const PASS: u32 = 2;
/// `XDP_TX`.
pub const TX: u32 = 3;
/// `XDP_REDIRECT`.
pub const REDIRECT: u32 = 4;
/// What is counted by verdict in C programs, in the shape of the chain's exit counters.
const COUNTS: &str = "exits";

/// A loaded program that is measured, with its maps.
pub struct Subject {
    image: Image,
    loaded: Loaded,
    /// The map that counts packets by verdict.
    counts: &'static str,
}

impl Subject {
    /// The chain of these modules; `alter` may change the maps before they are made.
    ///
    /// # Errors
    /// When they cannot be composed or loaded.
    pub fn chain(modules: &[(&str, &[u8])], alter: impl FnOnce(&mut Image)) -> anyhow::Result<Self> {
        let mut image = named(modules, fused::compose)?;
        alter(&mut image);
        let loaded = load(&image, &mut |_| Ok(None))?;
        Ok(Self { image, loaded, counts: EXIT_MAP })
    }

    /// A program of `benches/bpf`.
    ///
    /// # Errors
    /// When it cannot be compiled or loaded.
    pub fn c(source: &str, macros: &[(&str, usize)]) -> anyhow::Result<Self> {
        let image = bare(&compile(source, macros)?)?;
        let loaded = load(&image, &mut |_| Ok(None))?;
        Ok(Self { image, loaded, counts: COUNTS })
    }

    /// A map of a module's, or of the chain's own.
    ///
    /// # Errors
    /// When there is none.
    pub fn map(&self, module: Option<&str>, name: &str) -> anyhow::Result<Map> {
        let owner = module.map_or(MapOwner::Chain, |module| MapOwner::Module(module.to_owned()));
        let at = self.image.maps.iter().position(|map| map.owner == owner && map.def.name == name);
        let at = at.with_context(|| format!("{owner:?} has no map {name}"))?;
        Ok(Map::from_fd(self.loaded.maps[at].fd.try_clone()?, name)?)
    }

    /// The program.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.loaded.program.as_fd()
    }

    /// A map of a C program's.
    ///
    /// # Errors
    /// When there is none.
    pub fn own_map(&self, name: &str) -> anyhow::Result<Map> {
        self.map(Some("bare"), name)
    }

    /// Fills a map of a module that the chain has; nothing is done for one that it has not.
    ///
    /// # Errors
    /// When entries are refused.
    pub fn fill(&self, module: &str, name: &str, entries: &Entries) -> anyhow::Result<()> {
        match self.map(Some(module), name) {
            Ok(map) => Ok(map.update_all(entries)?),
            Err(_) => Ok(()),
        }
    }

    /// Packets by verdict, of all slots together; none when the program does not count.
    fn counts(&self) -> anyhow::Result<Option<[u64; VERDICTS]>> {
        let found = self.image.maps.iter().position(|map| map.def.name == self.counts);
        let Some(at) = found else { return Ok(None) };
        let map = Map::from_fd(self.loaded.maps[at].fd.try_clone()?, EXIT_MAP)?;
        let mut counts = [0; VERDICTS];
        let mut index = 0;
        for batch in map.entries() {
            let batch = batch?;
            for value in batch.values.chunks_exact(map.value_len()) {
                let packets: u64 = value.as_chunks::<16>().0.iter().map(|cpu| word(&cpu[..8])).sum();
                let column = index % EXIT_COLUMNS as usize;
                index += 1;
                match counts.get_mut(column) {
                    Some(count) => *count += packets,
                    None => ensure!(packets == 0, "some packets had an unknown verdict"),
                }
            }
        }
        Ok(Some(counts))
    }
}

fn word(octets: &[u8]) -> u64 {
    octets.try_into().map_or(0, u64::from_ne_bytes)
}

/// A harness with the program behind it.
struct Harness {
    harness: Subject,
    subject: Rc<Subject>,
}

impl Harness {
    fn new(frame: &Frame, sessions: u32, subject: Rc<Subject>) -> anyhow::Result<Self> {
        ensure!(frame.octets.len() >= HEADERS, "a frame of {} octets is too short", frame.octets.len());
        let macros = [
            ("FRAME", frame.octets.len()),
            ("SESSIONS", sessions as usize),
            ("TEID_AT", frame.teid_at),
            ("ADDRESS_AT", frame.address_at),
        ];
        let harness = Subject::c("harness", &macros)?;
        let zero = 0u32.to_ne_bytes();
        harness.own_map("headers")?.update(&zero, &frame.octets[..HEADERS])?;
        let program = subject.loaded.program.as_raw_fd().to_ne_bytes();
        harness.own_map("target")?.update(&zero, &program).context("making the program the harness's")?;
        Ok(Self { harness, subject })
    }

    /// Mean nanoseconds of `repeat` runs.
    fn run(&self, on: &On, verdict: u32, frame: &[u8], repeat: u32) -> anyhow::Result<f64> {
        let before = self.subject.counts()?;
        let run = TestRun { packet: frame, repeat, ingress_ifindex: on.ifindex, ..TestRun::default() };
        let result = sys::prog_test_run(self.harness.loaded.program.as_fd(), &run)?;
        ensure!(result.verdict == verdict, "the verdict is {} and not {verdict}", result.verdict);
        if let (Some(before), Some(after)) = (before, self.subject.counts()?) {
            let passed: Vec<u64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
            let mut expected = [0; VERDICTS];
            expected[verdict as usize] = u64::from(repeat);
            ensure!(passed == expected, "packets by verdict are {passed:?} and not {expected:?}");
        }
        Ok(f64::from(result.duration_ns))
    }
}

/// The interface that packets pretend to come in on.
#[derive(Clone, Copy, Debug)]
pub struct On {
    /// Its number.
    pub ifindex: u32,
}

/// A program with a kind of packet.
pub struct Case {
    name: String,
    frame: Vec<u8>,
    verdict: u32,
    base: Harness,
    /// In front of each copy of the program.
    targets: Vec<Harness>,
    /// Nanoseconds of each round: the harness alone, and with the program.
    rounds: Vec<(f64, f64)>,
}

impl Case {
    /// A case: `subject` gives `verdict` to `frame`, of one of `sessions` sessions.
    ///
    /// # Errors
    /// When the harness cannot be made.
    pub fn new(
        name: impl Into<String>,
        subject: &Rc<Subject>,
        packet: (&Frame, u32),
        verdict: u32,
    ) -> anyhow::Result<Self> {
        Self::of_copies(name, std::slice::from_ref(subject), packet, verdict)
    }

    /// A case of several copies of one program, each with maps of its own, which are measured by turns. Where in memory a map's
    /// entries happen to be makes one copy slower than another by as much as a module takes.
    ///
    /// # Errors
    /// When the harness cannot be made.
    pub fn of_copies(
        name: impl Into<String>,
        subjects: &[Rc<Subject>],
        (frame, sessions): (&Frame, u32),
        verdict: u32,
    ) -> anyhow::Result<Self> {
        let base = Rc::new(Subject::c("floor", &[("FLOOR", 1), ("SESSIONS", 1)])?);
        Ok(Self {
            name: name.into(),
            frame: frame.octets.clone(),
            verdict,
            base: Harness::new(frame, sessions, base)?,
            targets: subjects
                .iter()
                .map(|subject| Harness::new(frame, sessions, Rc::clone(subject)))
                .collect::<anyhow::Result<_>>()?,
            rounds: Vec::new(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the program takes more than one that only returns.
    pub fn row(&self) -> Row {
        Row::net(&self.name, "ns", &self.rounds)
    }

    /// What the harness takes.
    pub fn harness(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.0).collect()
    }

    /// Packets a second with live frames, which the kernel sends out; `arrived` counts those that come to the other end.
    ///
    /// # Errors
    /// When a run fails, or packets are lost.
    pub fn live(&self, on: On, packets: u32, arrived: &Map) -> anyhow::Result<f64> {
        let count = || -> anyhow::Result<u64> {
            let value = arrived.lookup(&0u32.to_ne_bytes())?.context("an array has its entry 0")?;
            Ok(value.as_chunks::<8>().0.iter().map(|cpu| u64::from_ne_bytes(*cpu)).sum())
        };
        let before = count()?;
        let run = TestRun {
            packet: &self.frame,
            repeat: packets,
            ingress_ifindex: on.ifindex,
            live_frames: true,
            ..TestRun::default()
        };
        let start = Instant::now();
        sys::prog_test_run(self.targets[0].harness.loaded.program.as_fd(), &run)?;
        let (took, came) = (start.elapsed(), count()? - before);
        if came < u64::from(packets) {
            bail!("{}: {came} of {packets} packets arrived", self.name);
        }
        Ok(f64::from(packets) / took.as_secs_f64())
    }
}

/// Measures every case in turn, `rounds` times, each time `repeat` runs.
///
/// # Errors
/// When a run fails or is not what it should be.
pub fn in_turn(cases: &mut [Case], on: On, rounds: usize, repeat: u32) -> anyhow::Result<()> {
    let copies = cases.iter().map(|case| case.targets.len()).max().unwrap_or(1);
    for round in 0..rounds + copies {
        for case in &mut *cases {
            let failed = |of| format!("{}, {of}", case.name);
            let base = case.base.run(&on, TX, &case.frame, repeat).with_context(|| failed("harness"))?;
            let copy = &case.targets[round % case.targets.len()];
            // What other cases have driven out of the caches meanwhile comes back before: fetching it once took as long as a
            // quarter of all runs.
            copy.run(&on, case.verdict, &case.frame, repeat / 5).with_context(|| failed("warming up"))?;
            let target =
                copy.run(&on, case.verdict, &case.frame, repeat).with_context(|| failed("program"))?;
            // The first round of each copy warms caches up.
            if round >= copies {
                case.rounds.push((base, target));
            }
        }
    }
    Ok(())
}
