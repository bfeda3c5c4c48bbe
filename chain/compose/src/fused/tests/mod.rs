//! Composed programs run by an interpreter, against a model of what a chain means.

mod model;
mod module;
mod vm;

use proptest::prelude::*;
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, Place, SlotSpec, Verdict, VerdictSet};

use super::*;
use crate::chain::{EXIT_MAP, Module, Slot};
use crate::insn::{FP, code};
use crate::object::Object;
use crate::{Insn, ProgramImage};
use model::Behaviour;
use vm::Vm;

/// Octets of a test packet.
const PACKET: usize = 64;

type Drawn = Vec<(SlotSpec, Behaviour)>;

fn spec() -> ModuleSpec {
    ModuleSpec::new(ObjectRef::File("test.o".into()))
}

type Engine = fn(&Chain<'_>) -> Result<Image, ComposeError>;

/// Composes the drawn slots, each a module of its own.
fn make(engine: Engine, slots: &Drawn, default: ChainDefault) -> Result<Image, ComposeError> {
    let objects: Vec<Object> = slots.iter().map(|(_, behaviour)| module::object(behaviour)).collect();
    let spec = spec();
    let modules = slots
        .iter()
        .zip(&objects)
        .map(|((slot, _), object)| Module { name: &slot.module, object, spec: &spec, digest: "0" })
        .collect();
    let slots =
        slots.iter().enumerate().map(|(i, (slot, _))| Slot { spec: slot, row: 63 - i as u32 }).collect();
    engine(&Chain { name: "test", default, modules, slots })
}

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let plus = prop_oneof![6 => Just(0), 2 => Just(0x100), 1 => Just(0x1_0000_0000), 1 => Just(0x300)];
    let packet = 0..PACKET as u8;
    (packet.clone(), plus, (packet, any::<u8>()), 0i16..=60, any::<[bool; 3]>()).prop_map(
        |(returns, plus, changes, words, [subprogram, exit_inside, loops])| Behaviour {
            returns,
            plus,
            changes,
            stack: words * 8,
            subprogram,
            exit_inside,
            loops,
        },
    )
}

fn slots() -> impl Strategy<Value = Drawn> {
    let slot = (
        behaviours(),
        prop::option::weighted(0.7, (0u32..32).prop_map(VerdictSet::from_bits)),
        prop::sample::select(Verdict::ALL.to_vec()),
        prop_oneof![6 => Just((false, Place::Order)), 2 => Just((true, Place::Order)), 2 => Just((true, Place::Exit))],
    );
    prop::collection::vec(slot, 1..=12).prop_map(|drawn| {
        let named =
            drawn.into_iter().enumerate().map(|(i, (behaviour, proceed_on, on_unknown, (observer, at)))| {
                let mut slot = SlotSpec::new(format!("m{i}"));
                (slot.proceed_on, slot.on_unknown, slot.observer, slot.at) =
                    (proceed_on, on_unknown, observer, at);
                (slot, behaviour)
            });
        named.collect()
    })
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    // Mostly verdicts, so that chains get somewhere.
    prop::collection::vec(prop_oneof![8 => 0u8..5, 1 => any::<u8>()], PACKET)
}

fn defaults() -> impl Strategy<Value = ChainDefault> {
    prop::sample::select(vec![ChainDefault::Keep, ChainDefault::Pass, ChainDefault::Drop])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_chain_does_what_the_model_says(slots in slots(), default in defaults(), packet in packets()) {
        prop_assume!(slots.iter().any(|(s, _)| s.at == Place::Order));
        check(compose, &slots, default, &packet)?;
        check(crate::tail::compose, &slots, default, &packet)?;
    }

    #[test]
    fn every_instruction_is_reached_by_jumps_within_its_function(slots in slots(), default in defaults()) {
        prop_assume!(slots.iter().any(|(s, _)| s.at == Place::Order));
        for engine in [compose as Engine, crate::tail::compose] {
            for program in &make(engine, &slots, default).unwrap().programs {
                check_flow(program)?;
            }
        }
    }
}

fn check(engine: Engine, slots: &Drawn, default: ChainDefault, packet: &[u8]) -> Result<(), TestCaseError> {
    let image = make(engine, slots, default).unwrap();
    let expected = model::run(slots, default, packet);
    let mut vm = Vm::new(&image, packet);
    prop_assert_eq!(vm.run(&image), expected.verdict);
    prop_assert_eq!(&vm.packet, &expected.packet);
    let exits = vm.words(&image, EXIT_MAP);
    let mut counted = 0;
    for i in 0..slots.len() {
        let owner = crate::MapOwner::Module(format!("m{i}"));
        let runs = vm.maps[image.maps.iter().position(|m| m.owner == owner).unwrap()][0];
        prop_assert_eq!(runs, u8::from(expected.ran[i]), "slot {}", i);
        let row = (63 - i) * 8 * 2;
        for column in 0..5 {
            let here = i == expected.ended && column == expected.verdict as usize;
            let wanted = if here { [1, PACKET as u64] } else { [0, 0] };
            prop_assert_eq!(&exits[row + column * 2..][..2], &wanted, "row of slot {}, column {}", i, column);
            counted += exits[row + column * 2];
        }
        prop_assert_eq!(exits[row + 10], u64::from(expected.unknown[i]));
    }
    prop_assert_eq!(counted, 1);
    Ok(())
}

/// The verifier refuses instructions that nothing leads to, and jumps between functions.
fn check_flow(program: &ProgramImage) -> Result<(), TestCaseError> {
    let starts: Vec<usize> = program.functions.iter().map(|(insn, _)| *insn as usize).collect();
    let function = |insn: usize| starts.iter().filter(|s| **s <= insn).count();
    // One more than there are, for what would run on past the end.
    let mut reached = vec![false; program.insns.len() + 1];
    for start in &starts {
        reached[*start] = true;
    }
    let mut wide = false;
    for (i, insn) in program.insns.iter().enumerate() {
        if std::mem::take(&mut wide) {
            reached[i] = true;
            reached[i + 1] = true;
            continue;
        }
        wide = insn.is_wide();
        if insn.is_branch() {
            let to = (i as i64 + 1 + insn.distance()) as usize;
            prop_assert_eq!(function(i), function(to));
            reached[to] = true;
        }
        if !matches!(insn.code, code::JA | code::EXIT) {
            reached[i + 1] = true;
        }
    }
    prop_assert!(!reached.pop().unwrap(), "the last instruction runs on past the end");
    prop_assert_eq!(reached.iter().position(|r| !r), None);
    Ok(())
}

#[test]
fn code_that_cannot_be_inlined_is_named() {
    let behaviour = Behaviour {
        returns: 0,
        plus: 0,
        changes: (0, 0),
        stack: 0,
        subprogram: false,
        exit_inside: false,
        loops: false,
    };
    let refusals: [(Insn, &str); 4] = [
        (Insn::new(code::STX_DW, 1, FP, 0, 0), "stores the frame pointer itself"),
        (Insn::new(code::ADD64_REG, 1, FP, 0, 0), "computes with the frame pointer itself"),
        (Insn::new(0x1d, 1, FP, 0, 0), "compares the frame pointer"),
        (Insn::new(code::JA, 0, 0, 1000, 0), "a jump out of the function"),
    ];
    for (insn, what) in refusals {
        let mut object = module::object(&behaviour);
        object.functions[0].insns.insert(0, insn);
        for reference in &mut object.functions[0].references {
            reference.insn += 1;
        }
        let (spec, slot) = (spec(), SlotSpec::new("odd"));
        let modules = vec![Module { name: "odd", object: &object, spec: &spec, digest: "0" }];
        let slots = vec![Slot { spec: &slot, row: 0 }];
        let error =
            compose(&Chain { name: "test", default: ChainDefault::Keep, modules, slots }).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("module `odd`, function `main`, instruction 0") && text.contains(what),
            "{text}"
        );
    }
}
