//! What a body does at once with the answers of known look-ups: it asks whether they are null, and copies them to where it wants them.
//!
//! - The verifier finds out itself that such an answer is not null, but leaves the branch where something else leads to the same place.
//!   A branch that is the only way down to something stays, for it refuses what nothing leads to, and removes those itself.
//! - An answer that is copied, and not read any more from r0, is put where the copy would be.

use std::collections::BTreeSet;

use super::flow::{firsts, target, targets};
use super::known::Known;
use super::unread::{reads, sets};
use crate::Insn;
use crate::insn::{class, code};
use crate::object::Function;

impl Known {
    /// Without the checks of `function` that have to stay, and with the places of answers that are copied.
    pub(crate) fn answered(mut self, function: &Function) -> Self {
        self.keep_ways(&function.insns);
        self.find_places(&function.insns);
        self
    }

    fn keep_ways(&mut self, insns: &[Insn]) {
        let mut ways = ways_down(insns);
        self.checks.retain(|&at, &mut is_taken| {
            let left_out = if is_taken { Some(at + 1) } else { target(at, insns[at]) };
            let Some(left_out) = left_out.filter(|to| *to < insns.len()) else { return false };
            let is_counted = u32::from(left_out > at && ways[at] != 0);
            let others = ways[left_out].saturating_sub(is_counted);
            if others != 0 {
                ways[left_out] = others;
            }
            others != 0
        });
    }

    fn find_places(&mut self, insns: &[Insn]) {
        let targets = targets(insns);
        for &call in self.calls.keys() {
            let copies = |insn: &Insn| insn.code == code::MOV64_REG && insn.src() == 0 && insn.off == 0;
            let copy = call + 1;
            if !insns.get(copy).is_some_and(copies) || targets.contains(&copy) {
                continue;
            }
            if self.is_read_no_more(insns, copy, &targets) {
                self.places.insert(call, insns[copy].dst());
                self.spared.insert(copy);
            }
        }
    }

    /// Whether what r0 has behind `at` is read by nothing, as far as the code in order tells.
    fn is_read_no_more(&self, insns: &[Insn], at: usize, targets: &BTreeSet<usize>) -> bool {
        for (i, insn) in firsts(&insns[at + 1..]).map(|(i, insn)| (at + 1 + i, insn)) {
            if targets.contains(&i) {
                return false;
            }
            match insn.class() {
                class::JMP | class::JMP32 if self.checks.get(&i) == Some(&false) => {}
                class::JMP | class::JMP32 => return insn.code == code::CALL,
                _ if reads(insn, 0) => return false,
                _ if sets(insn) && insn.dst() == 0 => return true,
                _ => {}
            }
        }
        false
    }
}

/// For each instruction how many others lead to it that are before it and that such ways lead to themselves. While one is left, so is
/// every way to it and from it.
fn ways_down(insns: &[Insn]) -> Vec<u32> {
    let mut ways = vec![0; insns.len()];
    if let Some(first) = ways.first_mut() {
        *first = 1;
    }
    for (at, insn) in firsts(insns) {
        if ways[at] == 0 {
            continue;
        }
        let on = at + 1 + usize::from(insn.is_wide());
        let on = (!matches!(insn.code, code::EXIT | code::JA | code::JA32)).then_some(on);
        let branch = target(at, insn).filter(|_| insn.is_branch());
        for to in [on, branch].into_iter().flatten().filter(|to| *to > at) {
            if let Some(ways) = ways.get_mut(to) {
                *ways += 1;
            }
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::insn::{FP, call, helper};
    use crate::object::{Reference, Referent};

    const EXIT: Insn = Insn::new(code::EXIT, 0, 0, 0, 0);
    const PASS: Insn = Insn::new(code::MOV32_IMM, 0, 0, 0, 2);
    /// Where what follows the look-up begins.
    const THEN: usize = 6;

    /// What is known of a look-up in map 3, whose first entry is known, followed by `then`.
    fn known(then: &[Insn]) -> Known {
        let look_up = [
            Insn::new(code::ST_W, FP, 0, -4, 0),
            Insn::new(code::MOV64_REG, 2, FP, 0, 0),
            Insn::new(code::ADD64_IMM, 2, 0, 0, -4),
            Insn::new(code::LD_IMM64, 1, 0, 0, 0),
            Insn::new(0, 0, 0, 0, 0),
            Insn::new(code::CALL, 0, call::HELPER, 0, helper::MAP_LOOKUP_ELEM),
        ];
        let insns: Vec<_> = look_up.into_iter().chain(then.iter().copied()).collect();
        let references = vec![Reference { insn: 3, to: Referent::Map(3) }];
        let function = Function { insns, references, ..Function::default() };
        let known = Known::of(&function, &[3].into()).answered(&function);
        assert_eq!(known.calls, [(5, 3)].into());
        known
    }

    fn copy(to: u8) -> Insn {
        Insn::new(code::MOV64_REG, to, 0, 0, 0)
    }

    fn check(code: u8, register: u8, off: i16) -> Insn {
        Insn::new(code, register, 0, off, 0)
    }

    #[test]
    fn a_check_is_left_out_where_something_else_leads_to_the_same_place() {
        // To the last two, which the load runs into.
        let load = Insn::new(code::LDX_W, 1, 0, 0, 0);
        assert_eq!(known(&[check(code::JEQ_IMM, 0, 1), load, PASS, EXIT]).checks, [(THEN, false)].into());
        assert_eq!(known(&[check(code::JNE_IMM, 0, 0), load, PASS, EXIT]).checks, [(THEN, true)].into());
        // Of a copy.
        let known = known(&[copy(6), PASS, check(code::JEQ_IMM, 6, 1), load, EXIT]);
        assert_eq!(known.checks, [(THEN + 2, false)].into());
    }

    #[test]
    fn a_check_that_is_the_only_way_stays() {
        let alone = [check(code::JEQ_IMM, 0, 2), PASS, EXIT, Insn::new(code::MOV32_IMM, 0, 0, 0, 1), EXIT];
        assert_eq!(known(&alone).checks, [].into());
        // The last of several.
        let twice = [check(code::JEQ_IMM, 0, 3), check(code::JEQ_IMM, 0, 2), PASS, EXIT, PASS, EXIT];
        assert_eq!(known(&twice).checks, [(THEN, false)].into());
        // Nor does one count that only what it leads to leads to.
        let round = [check(code::JEQ_IMM, 0, 2), PASS, EXIT, PASS, check(code::JEQ_IMM, 7, -2), EXIT];
        assert_eq!(known(&round).checks, [].into());
        // What follows one that is taken.
        assert_eq!(known(&[check(code::JNE_IMM, 0, 1), PASS, PASS, EXIT]).checks, [].into());
    }

    /// Instructions that some way leads to, if these branches are taken or not.
    fn reached(insns: &[Insn], decided: &BTreeMap<usize, bool>) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut ways = vec![0];
        while let Some(at) = ways.pop() {
            let Some(insn) = insns.get(at).filter(|_| reached.insert(at)) else { continue };
            let is_taken = decided.get(&at).copied();
            if insn.is_branch() && is_taken != Some(false) {
                ways.extend(target(at, *insn));
            }
            if !matches!(insn.code, code::EXIT | code::JA) && is_taken != Some(true) {
                ways.push(at + 1 + usize::from(insn.is_wide()));
            }
        }
        reached
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn whatever_is_left_out_every_way_leads_where_one_led(
            drawn in prop::collection::vec((0..6, any::<prop::sample::Index>(), any::<bool>()), 2..24),
        ) {
            let (mut insns, mut checks) = (Vec::new(), BTreeMap::new());
            for (at, (kind, to, is_taken)) in drawn.iter().enumerate() {
                let off = to.index(drawn.len()) as i16 - at as i16 - 1;
                insns.push(match kind {
                    0 => EXIT,
                    1 => Insn::new(code::JA, 0, 0, off, 0),
                    2 => Insn::new(code::JEQ_IMM, 7, 0, off, 0),
                    3 => PASS,
                    _ => {
                        checks.insert(at, *is_taken);
                        check(if *is_taken { code::JNE_IMM } else { code::JEQ_IMM }, 0, off)
                    }
                });
            }
            let mut known = Known { checks, ..Known::default() };
            known.keep_ways(&insns);
            prop_assert_eq!(reached(&insns, &known.checks), reached(&insns, &BTreeMap::new()), "{:?}", known);
        }
    }

    #[test]
    fn other_branches_stay() {
        let load = Insn::new(code::LDX_W, 0, 0, 0, 0);
        // Of what the answer points to, of another register, with another number, and where another way comes in.
        for then in [
            vec![load, check(code::JEQ_IMM, 0, 0), EXIT],
            vec![check(code::JEQ_IMM, 6, 0), EXIT],
            vec![Insn::new(code::JEQ_IMM, 0, 0, 0, 1), EXIT],
            vec![Insn::new(code::ADD64_IMM, 0, 0, 0, 8), check(code::JEQ_IMM, 0, 0), EXIT],
            vec![check(code::JEQ_IMM, 7, 0), check(code::JEQ_IMM, 0, 0), EXIT],
        ] {
            assert_eq!(known(&then).checks, [].into(), "{then:?}");
        }
    }

    #[test]
    fn an_answer_is_put_where_it_is_copied_to() {
        let placed = known(&[copy(6), PASS, EXIT]);
        assert_eq!((placed.places, placed.spared), ([(5, 6)].into(), [1, 2, 3, THEN].into()));
        // A check that is left out does not read it.
        let checked = known(&[copy(6), check(code::JEQ_IMM, 0, 1), PASS, EXIT]);
        assert_eq!(checked.places, [(5, 6)].into());
        // What is called leaves something else there.
        let called = known(&[copy(6), Insn::new(code::CALL, 0, call::HELPER, 0, 5), EXIT]);
        assert_eq!(called.places, [(5, 6)].into());
    }

    #[test]
    fn an_answer_that_may_be_read_from_r0_stays_there() {
        let load = Insn::new(code::LDX_W, 1, 0, 0, 0);
        let stored = Insn::new(code::STX_DW, FP, 0, -16, 0);
        let compared = Insn::new(0xdb, 7, 1, 0, 0xf1);
        let other = Insn::new(code::JEQ_IMM, 7, 0, 1, 0);
        let added = Insn::new(code::ADD64_IMM, 0, 0, 0, 8);
        for then in [
            vec![copy(6), EXIT],
            vec![copy(6), load, PASS, EXIT],
            vec![copy(6), stored, PASS, EXIT],
            vec![copy(6), compared, PASS, EXIT],
            vec![copy(6), added, PASS, EXIT],
            vec![copy(6), copy(7), PASS, EXIT],
            // On one of two ways.
            vec![copy(6), other, PASS, EXIT],
            // Not at once.
            vec![Insn::new(code::MOV32_IMM, 7, 0, 0, 0), copy(6), PASS, EXIT],
            // Another way comes in at the copy.
            vec![copy(6), PASS, Insn::new(code::JEQ_IMM, 7, 0, -3, 0), EXIT],
        ] {
            assert_eq!(known(&then).places, [].into(), "{then:?}");
        }
    }
}
