//! Objects of every kind, alone and in chains of every engine: what runs alone runs in a chain, and means the same there.

use std::os::fd::AsFd;

use xdpchain_compose::object::Object;
use xdpchain_compose::{Chain, ComposeError, Image, Module, Slot, fused, tail};
use xdpchain_host::RunningKernel;
use xdpchain_host::load::load;
use xdpchain_host::sys::{self, TestRun};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, SlotSpec};
use xdpchain_tests::cli::workspace;
use xdpchain_tests::compat::{judge, packets, subjects};
use xdpchain_tests::kernel::lacks;

#[test]
fn what_runs_alone_runs_in_a_chain_and_means_the_same() {
    let running = RunningKernel::new();
    let (mut problems, mut tried, mut absent) = (Vec::new(), 0, Vec::new());
    for subject in subjects() {
        let entries = judge(&subject, &running).unwrap_or_else(|why| panic!("{}: {why}", subject.name));
        for entry in entries {
            let problem = entry.problems();
            tried += usize::from(entry.fused.works() || entry.tail.works());
            if !entry.foreign && !entry.libbpf.works() && !entry.alone.works() {
                absent.push(format!("{} of {}", entry.program, entry.object));
            }
            problems.extend(problem.iter().map(|p| format!("{}, {}: {p}", entry.object, entry.program)));
        }
    }
    assert_eq!(problems, Vec::<String>::new());
    assert!(tried >= 30, "{tried}");
    if !absent.is_empty() {
        lacks("compat", &format!("way to run {} programs even alone: {}", absent.len(), absent.join(", ")));
    }
}

/// A chain of programs of fixtures, each `object:program`, by an engine.
fn chain(engine: fn(&Chain<'_>) -> Result<Image, ComposeError>, slots: &[&str]) -> Image {
    let folder = workspace().join("chain/compose/tests/fixtures/objects");
    let parsed: Vec<(Object, ModuleSpec)> = slots
        .iter()
        .map(|slot| {
            let (file, program) = slot.split_once(':').expect("an object and a program");
            let bytes = std::fs::read(folder.join(file)).expect("a fixture");
            let mut spec = ModuleSpec::new(ObjectRef::File(file.into()));
            spec.program = Some(program.to_owned());
            (Object::parse(&bytes).expect("an object"), spec)
        })
        .collect();
    let names: Vec<SlotSpec> = (0..slots.len()).map(|i| SlotSpec::new(format!("s{i}"))).collect();
    let modules = names.iter().zip(&parsed).map(|(name, (object, spec))| Module {
        name: &name.module,
        object,
        spec,
        digest: "0",
    });
    let modules = modules.collect();
    let slots = names.iter().zip(0..).map(|(spec, row)| Slot { spec, row }).collect();
    engine(&Chain { name: "compat", default: ChainDefault::Keep, modules, slots }).expect("it composes")
}

fn verdicts(image: &Image) -> Result<Vec<u32>, String> {
    let loaded = load(image, &mut |_| Ok(None)).map_err(|error| error.to_string())?;
    let run = |(_, packet): &(&str, Vec<u8>)| {
        let run = TestRun { packet, ..TestRun::default() };
        sys::prog_test_run(loaded.program.as_fd(), &run).map_or(u32::MAX, |run| run.verdict)
    };
    Ok(packets().iter().map(run).collect())
}

#[test]
fn stacks_that_do_not_fit_together_run_by_tail_calls() {
    let slots = ["frame480.o:frame480", "deep.o:deep"];
    let refused = verdicts(&chain(fused::compose, &slots)).expect_err("480 and some 370 octets of stack");
    assert!(refused.contains("the stack is limited to 512 octets"), "{refused}");
    let [first, second] =
        slots.map(|slot| verdicts(&chain(fused::compose, &[slot])).expect("alone it loads"));
    let expected: Vec<u32> =
        first.iter().zip(&second).map(|(first, second)| if *first == 2 { *second } else { *first }).collect();
    assert_eq!(verdicts(&chain(tail::compose, &slots)), Ok(expected));
}

#[test]
fn chains_longer_than_a_jump_can_reach_run() {
    let slots = ["long.o:longer"; 20];
    let image = chain(fused::compose, &slots);
    assert!(image.programs[0].insns.len() > 50_000);
    let alone = verdicts(&chain(fused::compose, &slots[..1]));
    assert!(alone.as_ref().is_ok_and(|verdicts| verdicts.contains(&1) && verdicts.contains(&2)));
    assert_eq!(verdicts(&image), alone);
}
