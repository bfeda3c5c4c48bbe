//! Chains and packets drawn at random.

use proptest::prelude::*;
use xdpchain_spec::{ChainDefault, Place, SlotSpec, Verdict, VerdictSet};

use crate::{Behaviour, LEAST};

/// Slots, each with a module of its own.
pub type Drawn = Vec<(SlotSpec, Behaviour)>;

/// Octets of stack, so that a module's frame, the chain's and a subprogram's fit into the kernel's 512 together.
const STACK_WITH_SUBPROGRAM: i16 = 432;
/// The same without subprograms.
const STACK_ALONE: i16 = 480;

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let plus = prop_oneof![6 => Just(0), 2 => Just(0x100), 1 => Just(0x1_0000_0000), 1 => Just(0x300)];
    let octet = 0..LEAST as u8;
    let resize =
        prop_oneof![4 => Just((0, 0)), 1 => (0u8..8, Just(0)), 1 => (Just(0), 0u8..8), 1 => (0u8..8, 0u8..8)];
    (octet.clone(), plus, (octet, any::<u8>()), 0..=STACK_ALONE / 8, any::<[bool; 4]>(), resize).prop_map(
        |(returns, plus, changes, words, [subprogram, exit_inside, back_edge, loops], resize)| Behaviour {
            returns,
            plus,
            changes,
            stack: words * 8,
            subprogram,
            exit_inside,
            back_edge,
            loops,
            cut_head: resize.0,
            cut_tail: resize.1,
        },
    )
}

/// 1 to `most` slots, at least one of them in order. Every frame and every subprogram's fit into the kernel's stack.
pub fn slots(most: usize) -> impl Strategy<Value = Drawn> {
    let slot = (
        behaviours(),
        prop::option::weighted(0.7, (0u32..32).prop_map(VerdictSet::from_bits)),
        prop::sample::select(Verdict::ALL.to_vec()),
        prop_oneof![6 => Just((false, Place::Order)), 2 => Just((true, Place::Order)), 2 => Just((true, Place::Exit))],
    );
    let drawn = prop::collection::vec(slot, 1..=most).prop_map(|drawn| {
        let subprograms = drawn.iter().any(|(behaviour, ..)| behaviour.subprogram);
        let named = drawn.into_iter().enumerate().map(
            |(i, (mut behaviour, proceed_on, on_unknown, (observer, at)))| {
                if subprograms {
                    behaviour.stack = behaviour.stack.min(STACK_WITH_SUBPROGRAM);
                }
                let mut slot = SlotSpec::new(format!("m{i}"));
                (slot.proceed_on, slot.on_unknown, slot.observer, slot.at) =
                    (proceed_on, on_unknown, observer, at);
                (slot, behaviour)
            },
        );
        named.collect::<Drawn>()
    });
    drawn.prop_filter("a chain has a slot in order", |slots| slots.iter().any(|(s, _)| s.at == Place::Order))
}

/// Packets of mostly verdicts, so that chains get somewhere, some of them too short for the modules.
pub fn packets() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![8 => 0u8..5, 1 => any::<u8>()];
    prop_oneof![1 => 14..LEAST, 8 => LEAST..LEAST + 32]
        .prop_flat_map(move |len| prop::collection::vec(octet.clone(), len))
}

/// What becomes of a chain in which every slot proceeded.
pub fn defaults() -> impl Strategy<Value = ChainDefault> {
    prop::sample::select(vec![ChainDefault::Keep, ChainDefault::Pass, ChainDefault::Drop])
}
