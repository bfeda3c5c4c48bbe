//! Chains and packets drawn at random.

use proptest::prelude::*;
use xdpchain_spec::{ChainDefault, Place, SlotSpec, Verdict, VerdictSet};

use crate::{Answer, Behaviour, Globals, Jumps, LEAST};

/// Slots, each with a module of its own.
pub type Drawn = Vec<(SlotSpec, Behaviour)>;

/// Octets of stack, so that a module's frame, the chain's and a subprogram's fit into the kernel's 512 together.
const STACK_WITH_SUBPROGRAM: i16 = 432;
/// The same without subprograms.
const STACK_ALONE: i16 = 480;
/// The same where a module tail calls: the kernel allows that only below 256 octets of other frames.
const STACK_BEFORE_JUMPS: i16 = 184;
/// What is left then to the module that tail calls, with a subprogram.
const STACK_WITH_JUMPS: i16 = 200;
/// Modules that tail call, each twice at most: with a tail call for each slot besides, they stay below the kernel's 33.
const JUMPING: usize = 8;

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let plus = prop_oneof![6 => Just(0), 2 => Just(0x100), 1 => Just(0x1_0000_0000), 1 => Just(0x300)];
    let octet = 0..LEAST as u8;
    let resize =
        prop_oneof![4 => Just((0, 0)), 1 => (0u8..8, Just(0)), 1 => (Just(0), 0u8..8), 1 => (0u8..8, 0u8..8)];
    let first = prop_oneof![1 => Just(0), 2 => any::<u8>()];
    let globals = (first, any::<u8>(), octet.clone()).prop_map(|(first, constant, octet)| Globals {
        first,
        constant,
        octet,
    });
    let returns = prop_oneof![8 => 0u16..5, 1 => Just(0x102), 1 => any::<u16>()];
    let jumps = (octet.clone(), returns).prop_map(|(by, returns)| Jumps { by, returns });
    let answer = prop::sample::select(vec![Answer::Asked, Answer::AskedOtherwise, Answer::Copied]);
    let own = (prop::option::weighted(0.25, globals), prop::option::weighted(0.1, jumps), answer);
    (octet.clone(), plus, (octet, any::<u8>()), 0..=STACK_ALONE / 8, any::<[bool; 5]>(), resize, own)
        .prop_map(
            |(
                returns,
                plus,
                changes,
                words,
                [subprogram, exit_inside, back_edge, loops, halves],
                resize,
                own,
            )| {
                Behaviour {
                    returns,
                    plus,
                    changes,
                    stack: words * 8,
                    halves,
                    subprogram,
                    exit_inside,
                    back_edge,
                    loops,
                    cut_head: resize.0,
                    cut_tail: resize.1,
                    globals: own.0,
                    jumps: own.1,
                    answer: own.2,
                }
            },
        )
}

/// Takes from the modules what the kernel's limits on a whole program do not allow.
fn limit(behaviours: &mut [Behaviour]) {
    for behaviour in behaviours.iter_mut().filter(|behaviour| behaviour.jumps.is_some()).skip(JUMPING) {
        behaviour.jumps = None;
    }
    let subprograms = behaviours.iter().any(|behaviour| behaviour.subprogram);
    let jumps = behaviours.iter().any(|behaviour| behaviour.jumps.is_some());
    for behaviour in behaviours {
        let most = match (behaviour.jumps.is_some(), jumps, subprograms) {
            (true, ..) => STACK_WITH_JUMPS,
            (false, true, _) => STACK_BEFORE_JUMPS,
            (false, false, true) => STACK_WITH_SUBPROGRAM,
            (false, false, false) => STACK_ALONE,
        };
        behaviour.stack = behaviour.stack.min(most);
    }
}

/// The drawn slots without what libxdp cannot say.
pub fn sayable(slots: &mut Drawn) {
    for (slot, behaviour) in slots {
        (slot.observer, slot.at, slot.on_unknown) = (false, Place::Order, Verdict::Aborted);
        behaviour.plus &= !0xffff_ffff;
        behaviour.jumps = None;
    }
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
        let mut behaviours: Vec<_> = drawn.iter().map(|(behaviour, ..)| *behaviour).collect();
        limit(&mut behaviours);
        let named = drawn.into_iter().zip(behaviours).enumerate().map(
            |(i, ((_, proceed_on, on_unknown, (observer, at)), behaviour))| {
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
