//! Chains drawn at random, in the kernel, against the model of what a chain means.
//!
//! `XDPCHAIN_MODEL_CASES` says how many (2,000 unless told), `XDPCHAIN_MODEL_SEED` which. Where libxdp's dispatcher runs, half
//! as many chains are drawn of those that it can run.

use std::cell::Cell;
use std::io::Write as _;
use std::os::fd::AsFd;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xdpchain_compose::object::Object;
use xdpchain_compose::{
    Chain, ComposeError, EXIT_COLUMNS, EXIT_MAP, EXIT_UNKNOWN, Image, MapOwner, Module, Slot, fused, libxdp,
    tail,
};
use xdpchain_host::Error;
use xdpchain_host::load::{Loaded, load};
use xdpchain_host::sys::{self, MapFd, TestRun};
use xdpchain_model::{Behaviour, Drawn, defaults, object, packets, run, sayable, slots};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, SlotSpec};
use xdpchain_tests::kernel::lacks;

type Engine = fn(&Chain<'_>) -> Result<Image, ComposeError>;

const ENGINES: [(&str, Engine); 2] = [("fused", fused::compose), ("tail", tail::compose)];
/// Packets that each chain judges.
const PACKETS: usize = 8;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Draws chains of up to `most` slots, and packets for each, and has `check` look at them.
fn draw(
    what: &str,
    cases: u64,
    most: usize,
    check: impl Fn(Drawn, ChainDefault, &[Vec<u8>]) -> Result<(), TestCaseError>,
) {
    let seed = number("XDPCHAIN_MODEL_SEED", std::process::id().into());
    // Past what captures the output of tests: how many there were is part of the result.
    let _ = writeln!(std::io::stderr(), "{what}: {cases} chains, XDPCHAIN_MODEL_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases: cases as u32, failure_persistence: None, ..Config::default() };
    let ran = Cell::new(0u64);
    let drawn = (slots(most), defaults(), prop::collection::vec(packets(), PACKETS));
    let outcome = TestRunner::new_with_rng(config, rng).run(&drawn, |(slots, default, packets)| {
        check(slots, default, &packets)?;
        ran.set(ran.get() + 1);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    assert!(ran.get() >= cases);
}

fn cases() -> u64 {
    number("XDPCHAIN_MODEL_CASES", 2_000)
}

#[test]
fn composed_chains_do_in_the_kernel_what_the_model_says() {
    draw("fused and tail", cases(), 12, |slots, default, packets| {
        ENGINES.iter().try_for_each(|(name, engine)| check(name, *engine, &slots, default, packets))
    });
}

#[test]
fn chains_in_libxdps_dispatcher_do_what_the_model_says() {
    let probe = vec![(SlotSpec::new("m0"), Behaviour::PLAIN)];
    let image = composed(libxdp::compose, &probe, ChainDefault::Keep).expect("it composes");
    if let Err(Error::NoExtensions { .. }) = xdpchain_host::libxdp::try_out(&image) {
        return lacks("model", "extension programs, which libxdp's dispatcher is made of");
    }
    // On newer kernels a program that changes the length of packets cannot replace a function of the dispatcher's.
    let cutting = Behaviour { cut_head: 1, ..Behaviour::PLAIN };
    let image = composed(libxdp::compose, &vec![(SlotSpec::new("m0"), cutting)], ChainDefault::Keep)
        .expect("it composes");
    let may_cut = xdpchain_host::libxdp::try_out(&image).is_ok();
    let (ran, refused) = (Cell::new(0), Cell::new(0));
    draw("libxdp", cases() / 2, libxdp::SLOTS, |mut slots, default, packets| {
        sayable(&mut slots);
        for (_, behaviour) in slots.iter_mut().filter(|_| !may_cut) {
            (behaviour.cut_head, behaviour.cut_tail) = (0, 0);
        }
        let known = dispatched(&slots, default, packets)?;
        if known {
            ran.set(ran.get() + 1)
        } else {
            refused.set(refused.get() + 1)
        }
        Ok(())
    });
    let _ = writeln!(std::io::stderr(), "libxdp: {} chains ran, it cannot say {}", ran.get(), refused.get());
    assert!(ran.get() > refused.get());
}

fn composed(engine: Engine, slots: &Drawn, default: ChainDefault) -> Result<Image, ComposeError> {
    let mut spec = ModuleSpec::new(ObjectRef::File("drawn.o".into()));
    spec.program = Some("main".into());
    let objects: Vec<Object> = slots.iter().map(|(_, behaviour)| object(behaviour)).collect();
    let modules = slots
        .iter()
        .zip(&objects)
        .map(|((slot, _), object)| Module { name: &slot.module, object, spec: &spec, digest: "0" })
        .collect();
    let placed = slots.iter().zip(0..).map(|((slot, _), row)| Slot { spec: slot, row }).collect();
    engine(&Chain { name: "drawn", default, modules, slots: placed })
}

fn check(
    name: &str,
    engine: Engine,
    slots: &Drawn,
    default: ChainDefault,
    packets: &[Vec<u8>],
) -> Result<(), TestCaseError> {
    let image = composed(engine, slots, default).expect("it composes");
    let loaded = load(&image, &mut |_| Ok(None)).unwrap_or_else(|error| panic!("{name}: {error}"));

    let exits = index(&image, |m| m.def.name == EXIT_MAP);
    let mut wanted = vec![[0u64; 2]; image.maps[exits].def.max_entries as usize];
    let (mut runs, mut counts) = (vec![0u64; slots.len()], vec![0; slots.len()]);
    for packet in packets {
        let expected = run(slots, default, packet, &mut counts);
        let got =
            sys::prog_test_run(loaded.program.as_fd(), &TestRun { packet, ..TestRun::default() }).unwrap();
        prop_assert_eq!(got.verdict, expected.verdict, "{}", name);
        prop_assert_eq!(&got.packet, &expected.packet, "{}", name);
        let row = expected.ended * EXIT_COLUMNS as usize;
        wanted[row + expected.verdict as usize][0] += 1;
        wanted[row + expected.verdict as usize][1] += expected.counted as u64;
        for (i, unknown) in expected.unknown.iter().enumerate() {
            wanted[i * EXIT_COLUMNS as usize + EXIT_UNKNOWN as usize][0] += u64::from(*unknown);
            runs[i] += u64::from(expected.ran[i]);
        }
    }
    let counted: Vec<[u64; 2]> = values(&loaded, exits).iter().map(|v| [v[0], v[1]]).collect();
    for (at, (counted, wanted)) in counted.iter().zip(&wanted).enumerate() {
        let unknown = at as u32 % EXIT_COLUMNS == EXIT_UNKNOWN;
        prop_assert_eq!(counted[0], wanted[0], "{}: exit counter {}", name, at);
        prop_assert!(unknown || counted[1] == wanted[1], "{}: octets of exit counter {}", name, at);
    }
    compare_runs(name, &image, &loaded, &runs)
}

/// Runs a chain in libxdp's dispatcher; false where that cannot run it.
fn dispatched(slots: &Drawn, default: ChainDefault, packets: &[Vec<u8>]) -> Result<bool, TestCaseError> {
    let image = match composed(libxdp::compose, slots, default) {
        Err(ComposeError::Dispatcher { .. }) => return Ok(false),
        other => other.expect("it composes"),
    };
    let trial = match xdpchain_host::libxdp::try_out(&image) {
        Ok(trial) => trial,
        // A program that changes packets cannot take the place of a function that does not, on newer kernels.
        Err(Error::Verifier(_)) if slots.iter().any(|(_, b)| b.cut_head > 0 || b.cut_tail > 0) => {
            return Ok(false);
        }
        Err(error) => panic!("libxdp: {error}"),
    };
    let (mut runs, mut counts) = (vec![0u64; slots.len()], vec![0; slots.len()]);
    for packet in packets {
        let mut after = counts.clone();
        let expected = run(slots, default, packet, &mut after);
        // The dispatcher looks at five bits of what is no verdict.
        if expected.unknown.contains(&true) {
            continue;
        }
        counts = after;
        let got = sys::prog_test_run(trial.program(), &TestRun { packet, ..TestRun::default() }).unwrap();
        prop_assert_eq!(got.verdict, expected.verdict, "libxdp");
        prop_assert_eq!(&got.packet, &expected.packet, "libxdp");
        runs.iter_mut().zip(&expected.ran).for_each(|(runs, ran)| *runs += u64::from(*ran));
    }
    compare_runs("libxdp", &image, &trial.loaded, &runs)?;
    Ok(true)
}

fn compare_runs(name: &str, image: &Image, loaded: &Loaded, runs: &[u64]) -> Result<(), TestCaseError> {
    for (i, runs) in runs.iter().enumerate() {
        let map = index(image, |m| m.owner == MapOwner::Module(format!("m{i}")) && m.def.name == "runs");
        prop_assert_eq!(values(loaded, map)[0][0], *runs, "{}: runs of slot {}", name, i);
    }
    Ok(())
}

fn index(image: &Image, wanted: impl Fn(&xdpchain_compose::MapUse) -> bool) -> usize {
    image.maps.iter().position(wanted).expect("the image has the map")
}

/// Every value of an array as numbers of 8 octets, summed over the CPUs.
fn values(loaded: &Loaded, map: usize) -> Vec<Vec<u64>> {
    let map = MapFd::new(loaded.maps[map].fd.try_clone().unwrap()).unwrap();
    let words = map.info().value_size as usize / 8;
    let sum = |value: &[u8]| {
        let mut sums = vec![0u64; words];
        for (i, word) in value.chunks_exact(8).enumerate() {
            sums[i % words] += u64::from_ne_bytes(word.try_into().unwrap());
        }
        sums
    };
    (0..map.info().max_entries)
        .map(|key| sum(&sys::map_lookup(&map, &key.to_ne_bytes()).unwrap().unwrap()))
        .collect()
}
