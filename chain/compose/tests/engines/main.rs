//! Composed programs run by an interpreter, against a model of what a chain means.

mod dispatcher;
mod vm;

use proptest::prelude::*;
use xdpchain_compose::insn::{FP, call, code, helper};
use xdpchain_compose::object::{Object, Reference, Referent};
use xdpchain_compose::{
    Chain, ComposeError, EXIT_MAP, Image, Insn, MapOwner, Module, ProgramImage, Slot, fused, tail,
};
use xdpchain_model::{Behaviour, Drawn, defaults, object, packets, run, slots};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, SlotSpec};

use vm::Vm;

fn spec() -> ModuleSpec {
    let mut spec = ModuleSpec::new(ObjectRef::File("test.o".into()));
    spec.program = Some("main".into());
    spec
}

type Engine = fn(&Chain<'_>) -> Result<Image, ComposeError>;

/// Composes the drawn slots, each a module of its own.
fn make(engine: Engine, slots: &Drawn, default: ChainDefault) -> Result<Image, ComposeError> {
    let objects: Vec<Object> = slots.iter().map(|(_, behaviour)| object(behaviour)).collect();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_chain_does_what_the_model_says(slots in slots(12), default in defaults(), packet in packets()) {
        check(fused::compose, &slots, default, &packet)?;
        check(tail::compose, &slots, default, &packet)?;
    }

    #[test]
    fn every_instruction_is_reached_by_jumps_within_its_function(slots in slots(12), default in defaults()) {
        for engine in [fused::compose as Engine, tail::compose] {
            for program in &make(engine, &slots, default).unwrap().programs {
                check_flow(program)?;
            }
        }
    }
}

fn check(engine: Engine, slots: &Drawn, default: ChainDefault, packet: &[u8]) -> Result<(), TestCaseError> {
    let image = make(engine, slots, default).unwrap();
    let expected = run(slots, default, packet, &mut vec![0; slots.len()]);
    let mut vm = Vm::new(&image, packet);
    prop_assert_eq!(vm.run(&image), expected.verdict);
    prop_assert_eq!(&vm.packet, &expected.packet);
    let exits = vm.words(&image, EXIT_MAP);
    let mut counted = 0;
    for i in 0..slots.len() {
        let owner = MapOwner::Module(format!("m{i}"));
        let map = image.maps.iter().position(|m| m.owner == owner && m.def.name == "runs");
        let runs = vm.maps[map.unwrap()][0];
        prop_assert_eq!(runs, u8::from(expected.ran[i]), "slot {}", i);
        let row = (63 - i) * 8 * 2;
        for column in 0..5 {
            let here = i == expected.ended && column == expected.verdict as usize;
            let wanted = if here { [1, expected.counted as u64] } else { [0, 0] };
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
    let mut reached = vec![false; program.insns.len()];
    let mut ways = starts.clone();
    while let Some(at) = ways.pop() {
        prop_assert!(at < reached.len(), "the last instruction runs on past the end");
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        let insn = program.insns[at];
        if insn.is_branch() {
            let to = (at as i64 + 1 + insn.distance()) as usize;
            prop_assert_eq!(function(at), function(to));
            ways.push(to);
        }
        if insn.is_wide() {
            reached[at + 1] = true;
            ways.push(at + 2);
        } else if !matches!(insn.code, code::JA | code::JA32 | code::EXIT) {
            ways.push(at + 1);
        }
    }
    prop_assert_eq!(reached.iter().position(|r| !r), None);
    Ok(())
}

const PLAIN: Behaviour = Behaviour::PLAIN;

#[test]
fn code_that_cannot_be_inlined_is_named() {
    let refusals: [(Insn, &str); 4] = [
        (Insn::new(code::STX_DW, 1, FP, 0, 0), "stores the frame pointer itself"),
        (Insn::new(code::ADD64_REG, 1, FP, 0, 0), "computes with the frame pointer itself"),
        (Insn::new(0x1d, 1, FP, 0, 0), "compares the frame pointer"),
        (Insn::new(code::JA, 0, 0, 1000, 0), "a jump out of the function"),
    ];
    for (insn, what) in refusals {
        let mut object = object(&PLAIN);
        object.functions[0].insns.insert(0, insn);
        for reference in &mut object.functions[0].references {
            reference.insn += 1;
        }
        let (spec, slot) = (spec(), SlotSpec::new("odd"));
        let modules = vec![Module { name: "odd", object: &object, spec: &spec, digest: "0" }];
        let slots = vec![Slot { spec: &slot, row: 0 }];
        let error =
            fused::compose(&Chain { name: "test", default: ChainDefault::Keep, modules, slots }).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("module `odd`, function `main`, instruction 0") && text.contains(what),
            "{text}"
        );
    }
}

/// Composes a module alone in a chain, once in every way.
fn refusals(object: &Object) -> Vec<String> {
    let (spec, slot) = (spec(), SlotSpec::new("odd"));
    let module = Module { name: "odd", object, spec: &spec, digest: "0" };
    let chain = || Chain {
        name: "test",
        default: ChainDefault::Keep,
        modules: vec![module],
        slots: vec![Slot { spec: &slot, row: 0 }],
    };
    let results = [fused::compose(&chain()), tail::compose(&chain()), fused::compose_bare(&module)];
    results.into_iter().filter_map(|result| Some(result.err()?.to_string())).collect()
}

#[test]
fn a_program_that_runs_on_past_its_end_is_refused() {
    for end in [Insn::new(code::MOV64_IMM, 0, 0, 0, 2), Insn::new(code::JNE_IMM, 0, 0, -2, 1)] {
        let mut object = object(&PLAIN);
        object.functions[0].insns.push(end);
        let refusals = refusals(&object);
        assert!(
            refusals.len() == 3 && refusals.iter().all(|r| r.contains("runs on past its end")),
            "{refusals:?}"
        );
    }
    // In a look-up whose answer is known.
    let mut look_up = object(&PLAIN);
    let main = &mut look_up.functions[0];
    let call = main.insns.iter().position(|insn| insn.imm == helper::MAP_LOOKUP_ELEM).unwrap();
    assert_eq!(main.insns[call].code, code::CALL);
    main.insns.truncate(call + 1);
    main.references.retain(|reference| reference.insn < call);
    let refused = refusals(&look_up);
    assert!(refused.len() == 3 && refused.iter().all(|r| r.contains("runs on past its end")), "{refused:?}");
    let mut object = object(&PLAIN);
    // What looks like an exit is half a number.
    object.functions[0].insns.push(Insn::new(code::LD_IMM64, 1, 0, 0, 0));
    object.functions[0].insns.push(Insn::new(code::EXIT, 0, 0, 0, 0));
    assert_eq!(refusals(&object).len(), 3);
}

#[test]
fn what_a_module_with_tail_calls_returns_is_nothing_that_a_verifier_could_know() {
    let mut tailing = object(&PLAIN);
    // Where its tail call fails, it always returns the same.
    tailing.functions[0].insns = vec![
        Insn::new(code::MOV64_IMM, 2, 0, 0, 0),
        Insn::new(code::MOV64_IMM, 3, 0, 0, 0),
        Insn::new(code::CALL, 0, call::HELPER, 0, helper::TAIL_CALL),
        Insn::new(code::MOV64_IMM, 0, 0, 0, 2),
        Insn::new(code::EXIT, 0, 0, 0, 0),
    ];
    tailing.functions[0].references.clear();
    let (spec, slot) = (spec(), SlotSpec::new("odd"));
    for engine in [fused::compose as Engine, tail::compose] {
        let modules = vec![Module { name: "odd", object: &tailing, spec: &spec, digest: "0" }];
        let slots = vec![Slot { spec: &slot, row: 0 }];
        let chain = Chain { name: "test", default: ChainDefault::Keep, modules, slots };
        let insns = engine(&chain).unwrap().programs.remove(0).insns;
        let call = insns.iter().position(|i| i.code == code::CALL && i.src() == call::SUBPROGRAM).unwrap();
        let xors: Vec<_> = insns[call + 1..].iter().take(4).map(|i| (i.code, i.dst(), i.src())).collect();
        let xor = (code::XOR64_REG, 0, 1);
        assert_eq!(xors, [(code::LDX_DW, 1, FP), (code::LDX_W, 1, 1), xor, xor]);
    }
}

#[test]
fn a_function_that_calls_its_program_is_refused() {
    let mut object = object(&Behaviour { subprogram: true, ..PLAIN });
    let (main, function) = (object.programs[0].function, 1);
    assert_ne!(main, function);
    let call = Insn::new(code::CALL, 0, call::SUBPROGRAM, 0, 0);
    object.functions[function].insns.insert(0, call);
    object.functions[function].references.insert(0, Reference { insn: 0, to: Referent::Call(main) });
    let refusals = refusals(&object);
    // Without a chain the program is a function, and the kernel refuses recursion itself.
    assert!(refusals.len() == 2 && refusals.iter().all(|r| r.contains("calls the program")), "{refusals:?}");
}

#[test]
fn a_chain_longer_than_a_jump_reaches_still_ends() {
    let mut objects = Vec::new();
    for _ in 0..30 {
        let mut object = object(&PLAIN);
        // Code that does nothing, so that thirty modules are several times as long as a jump can be.
        let padding = std::iter::repeat_n(Insn::new(code::MOV64_IMM, 0, 0, 0, 0), 5_000);
        object.functions[0].insns.splice(0..0, padding);
        for reference in &mut object.functions[0].references {
            reference.insn += 5_000;
        }
        objects.push(object);
    }
    let (spec, names) = (spec(), (0..30).map(|i| format!("m{i}")).collect::<Vec<_>>());
    let specs: Vec<SlotSpec> = names.iter().map(|n| SlotSpec::new(n.clone())).collect();
    let module = |i: usize| Module { name: &names[i], object: &objects[i], spec: &spec, digest: "0" };
    let modules = (0..30).map(module).collect();
    let slots = specs.iter().zip(0..).map(|(spec, row)| Slot { spec, row }).collect();
    let image = fused::compose(&Chain { name: "test", default: ChainDefault::Keep, modules, slots }).unwrap();
    for (first, verdict) in [(1, 1), (2, 2)] {
        let mut packet = vec![2; 64];
        packet[0] = first;
        assert_eq!(Vm::new(&image, &packet).run(&image), verdict);
    }
}
