//! Programs for libxdp's dispatcher, called as it calls them, against the model.

use proptest::prelude::*;
use xdpchain_compose::{ComposeError, MapOwner, libxdp};
use xdpchain_model::{Behaviour, Drawn, defaults, packets, run, sayable, slots};
use xdpchain_spec::{ChainDefault, Place, SlotSpec, Verdict, VerdictSet};

use crate::make;
use crate::vm::Vm;

/// Bit of a return value after which the dispatcher always goes on.
const GO_ON: u32 = 1 << 31;

/// What the dispatcher makes of an image's programs.
fn dispatch(vm: &mut Vm, image: &xdpchain_compose::Image) -> u32 {
    for (program, calls) in image.chain_calls.iter().enumerate() {
        let verdict = vm.run_program(image, program);
        // The only program takes the dispatcher's place.
        if image.chain_calls.len() == 1 || 1u32.wrapping_shl(verdict) & (calls.bits() | GO_ON) == 0 {
            return verdict;
        }
    }
    Verdict::Pass as u32
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_dispatcher_does_what_the_model_says(
        mut slots in slots(10),
        default in defaults(),
        packet in packets(),
    ) {
        sayable(&mut slots);
        let image = match make(libxdp::compose, &slots, default) {
            Err(ComposeError::Dispatcher { .. })
                if default == ChainDefault::Drop || (default == ChainDefault::Pass && slots.len() == 1) =>
            {
                return Ok(());
            }
            other => other.unwrap(),
        };
        let expected = run(&slots, default, &packet, &mut vec![0; slots.len()]);
        // The dispatcher looks at five bits of what is no verdict.
        prop_assume!(!expected.unknown.contains(&true));
        let mut vm = Vm::new(&image, &packet);
        prop_assert_eq!(dispatch(&mut vm, &image), expected.verdict);
        prop_assert_eq!(&vm.packet, &expected.packet);
        prop_assert!(image.maps.iter().all(|m| m.owner != MapOwner::Chain), "no map of the chain's own");
    }
}

fn module() -> Behaviour {
    Behaviour::PLAIN
}

fn refusal(slots: &Drawn, default: ChainDefault) -> String {
    let error = make(libxdp::compose, slots, default).expect_err("libxdp cannot say this");
    assert!(matches!(error, ComposeError::Dispatcher { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("cannot be run by libxdp's dispatcher: ") && text.contains("\nhelp: "), "{text}");
    text
}

#[test]
fn what_libxdp_cannot_say_is_refused_with_a_reason() {
    let with = |change: fn(&mut SlotSpec)| {
        let mut slot = SlotSpec::new("m1");
        change(&mut slot);
        refusal(&vec![(SlotSpec::new("m0"), module()), (slot, module())], ChainDefault::Keep)
    };
    assert!(with(|slot| slot.observer = true).contains("slot `m1`"));
    assert!(with(|slot| slot.observer = true).contains("observers"));
    assert!(with(|slot| (slot.observer, slot.at) = (true, Place::Exit)).contains("`at: exit`"));
    assert!(with(|slot| slot.on_unknown = Verdict::Drop).contains("`on_unknown`"));

    let long: Drawn = (0..11).map(|i| (SlotSpec::new(format!("m{i}")), module())).collect();
    assert!(refusal(&long, ChainDefault::Keep).contains("a chain of 11 slots"));
    assert!(make(libxdp::compose, &long[..10].to_vec(), ChainDefault::Keep).is_ok());

    let one = vec![(SlotSpec::new("m0"), module())];
    assert!(refusal(&one, ChainDefault::Drop).contains("`default: drop`"));
    assert!(make(libxdp::compose, &one, ChainDefault::Pass).is_ok());
    let more = SlotSpec { proceed_on: Some(VerdictSet::from_bits(0b110)), ..SlotSpec::new("m0") };
    assert!(refusal(&vec![(more, module())], ChainDefault::Pass).contains("its verdict stands"));
}

/// `default: keep` and the dispatcher's own PASS are told apart by the last slot's chain call actions.
#[test]
fn the_last_slot_says_what_becomes_of_its_verdict() {
    let calls = |proceed_on: &[Verdict], default| {
        let slot = SlotSpec { proceed_on: Some(proceed_on.iter().copied().collect()), ..SlotSpec::new("m1") };
        let slots = vec![
            (SlotSpec { proceed_on: slot.proceed_on, ..SlotSpec::new("m0") }, module()),
            (slot, module()),
        ];
        let image = make(libxdp::compose, &slots, default).expect("libxdp can say this");
        assert_eq!(image.chain_calls[0], proceed_on.iter().copied().collect());
        image.chain_calls[1]
    };
    let set = |verdicts: &[Verdict]| verdicts.iter().copied().collect::<VerdictSet>();
    use Verdict::{Drop, Pass, Tx};
    assert_eq!(calls(&[Pass, Tx], ChainDefault::Keep), set(&[Pass]));
    assert_eq!(calls(&[Tx], ChainDefault::Keep), set(&[]));
    assert_eq!(calls(&[Pass, Tx], ChainDefault::Pass), set(&[Pass, Tx]));
    assert_eq!(calls(&[Drop], ChainDefault::Drop), set(&[]));
}

#[test]
fn programs_have_the_type_of_what_they_replace() {
    use xdpchain_compose::btf::{Linkage, Type};
    let slots = vec![(SlotSpec::new("m0"), Behaviour { subprogram: true, ..module() })];
    let image = make(libxdp::compose, &slots, ChainDefault::Keep).expect("libxdp can say this");
    let (start, main) = image.programs[0].functions[0];
    assert_eq!(start, 0);
    let Some(Type::Func { linkage: Linkage::Global, proto, .. }) = image.btf.get(main) else {
        panic!("{:?}", image.btf.get(main))
    };
    let Some(Type::FuncProto { ret, params }) = image.btf.get(*proto) else { panic!("no prototype") };
    assert!(matches!(image.btf.resolved(*ret), Some(Type::Int { size: 4, .. })));
    assert_eq!(params.len(), 1);
}
