//! Words of the stack that are made the same on every way into a slot, and where.
//!
//! To the verifier a word that is written in parts still has what it had before, so that it would follow the slot once for each thing
//! that earlier slots may have left: a chain would cost more than its modules do. So such words are zeroed. Most slots have nothing
//! to do with most packets and find that out in their first instructions; words that these do not write are zeroed behind them.

use std::collections::BTreeSet;

use super::flow::{follow, target, targets};
use super::known::Known;
use super::widen::Body;
use crate::Insn;
use crate::insn::{FP, MODE, MODE_MEM, SIZE, SIZE_DW, call, class, code, helper};

/// Words of a main body's stack, by offset from its frame pointer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// Those to be zeroed before the body.
    pub(crate) before: BTreeSet<i16>,
    /// Those to be zeroed within it.
    pub(crate) within: BTreeSet<i16>,
    /// In front of which instruction that is.
    pub(crate) at: usize,
}

/// Instructions that a way out of the body has at most.
const WAY_OUT: usize = 8;

impl Forgotten {
    /// The words of `body`, of which this is `known`.
    pub(crate) fn of(body: &Body<'_>, known: &Known) -> Self {
        let insns = &body.function.insns;
        let words = open(insns, known);
        let mut before = BTreeSet::new();
        let mut at = 0;
        let targets = targets(insns);
        while let Some(insn) = insns.get(at).filter(|_| !targets.contains(&at)) {
            let goes_on = match insn.class() {
                class::JMP | class::JMP32 if insn.code == code::CALL => {
                    // It only reads what its arguments point to.
                    (insn.src(), insn.imm) == (call::HELPER, helper::MAP_LOOKUP_ELEM)
                }
                // A branch that is left out, and not taken.
                class::JMP | class::JMP32 if known.checks.get(&at) == Some(&false) => true,
                class::JMP | class::JMP32 => {
                    let jump = matches!(insn.code, code::EXIT | code::JA | code::JA32);
                    !jump && leaves(insns, target(at, *insn))
                }
                class::ST | class::STX => insn.dst() == FP && insn.code & MODE == MODE_MEM,
                class::LDX if insn.src() == FP => {
                    let word = insn.off & !7;
                    before.contains(&word) || !words.contains(&word)
                }
                _ => true,
            };
            if !goes_on {
                break;
            }
            if matches!(insn.class(), class::ST | class::STX) && !known.spared.contains(&at) {
                before.insert(insn.off & !7);
            }
            at += if insn.is_wide() { 2 } else { 1 };
        }
        let within = words.difference(&before).copied().collect();
        before.retain(|word| words.contains(word));
        Self { before, within, at }
    }
}

/// Words of the stack, by offset from the frame pointer, of which a part is written, or anything read, where the whole may not have
/// been written before. Compilers do read what was not written, where what comes of it does not matter.
fn open(insns: &[Insn], known: &Known) -> BTreeSet<i16> {
    // A bit for each word that has been written as a whole.
    let bit = |off: i16| 1u64.checked_shl((-(i32::from(off) & !7) / 8 - 1) as u32).unwrap_or(0);
    let (mut parts, mut open) = (BTreeSet::new(), BTreeSet::new());
    let step = |whole: &mut u64, at, insn: Insn| {
        let writes = matches!(insn.class(), class::ST | class::STX) && insn.dst() == FP;
        let reads = insn.class() == class::LDX && insn.src() == FP;
        if !(writes || reads) || insn.off >= 0 || known.spared.contains(&at) {
            return Some(());
        }
        let all = insn.code & SIZE == SIZE_DW && insn.off & 7 == 0 && insn.code & MODE == MODE_MEM;
        if writes && all {
            *whole |= bit(insn.off);
            return Some(());
        }
        if writes {
            parts.insert(insn.off & !7);
        }
        if *whole & bit(insn.off) == 0 {
            open.insert(insn.off & !7);
        }
        Some(())
    };
    if follow(insns, 0, |a, b| a & b, step).is_some() { open } else { parts }
}

/// Whether the way from `at` leads out of the body at once, and has nothing to do with the stack.
fn leaves(insns: &[Insn], mut at: Option<usize>) -> bool {
    for _ in 0..WAY_OUT {
        let Some((here, insn)) = at.and_then(|at| Some((at, *insns.get(at)?))) else { return false };
        at = match insn.class() {
            class::ALU | class::ALU64 => Some(here + 1),
            _ if insn.is_wide() => Some(here + 2),
            _ => match insn.code {
                code::EXIT => return true,
                code::JA | code::JA32 => target(here, insn),
                _ => return false,
            },
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Function;

    /// A body that looks something up, leaves when it has nothing to do, and else writes two words in parts.
    fn body() -> Vec<Insn> {
        vec![
            Insn::new(code::ST_W, FP, 0, -4, 0),
            Insn::new(code::MOV64_REG, 2, FP, 0, 0),
            Insn::new(code::ADD64_IMM, 2, 0, 0, -4),
            Insn::new(code::LD_IMM64, 1, 0, 0, 0),
            Insn::new(0, 0, 0, 0, 0),
            Insn::new(code::CALL, 0, call::HELPER, 0, helper::MAP_LOOKUP_ELEM),
            Insn::new(code::JEQ_IMM, 0, 0, 3, 0),
            Insn::new(code::ST_W, FP, 0, -12, 0),
            Insn::new(code::ST_B, 0, 0, 0, 0),
            Insn::new(code::ST_B, FP, 0, -17, 0),
            Insn::new(code::MOV64_IMM, 0, 0, 0, 2),
            Insn::new(code::EXIT, 0, 0, 0, 0),
        ]
    }

    fn of(insns: Vec<Insn>) -> Forgotten {
        knowing(&Known::default(), insns)
    }

    fn knowing(known: &Known, insns: Vec<Insn>) -> Forgotten {
        Forgotten::of(&Body::of(&Function { insns, ..Function::default() }), known)
    }

    fn words<const N: usize>(words: [i16; N]) -> BTreeSet<i16> {
        words.into()
    }

    #[test]
    fn what_a_slot_writes_before_it_knows_whether_it_has_work_is_zeroed_before_it() {
        // Up to the store to what was looked up, which might be the stack.
        let forgotten = of(body());
        assert_eq!((forgotten.before, forgotten.within, forgotten.at), (words([-8, -16]), words([-24]), 8));
    }

    #[test]
    fn what_is_written_whole_first_on_every_way_is_not_zeroed() {
        let whole = Insn::new(code::ST_DW, FP, 0, -24, 0);
        let mut insns = body();
        insns.insert(0, whole);
        let forgotten = of(insns.clone());
        assert_eq!((forgotten.before, forgotten.within), (words([-8, -16]), words([])));
        // Past it leads a way.
        insns.insert(0, Insn::new(code::JNE_IMM, 0, 0, 1, 1));
        let forgotten = of(insns);
        assert!(forgotten.before.union(&forgotten.within).any(|word| *word == -24));
    }

    #[test]
    fn a_branch_that_does_not_leave_at_once_ends_the_beginning() {
        let mut insns = body();
        insns[10] = Insn::new(code::ST_B, FP, 0, -1, 0);
        let forgotten = of(insns);
        assert_eq!((forgotten.before, forgotten.within, forgotten.at), (words([-8]), words([-16, -24]), 6));
    }

    #[test]
    fn what_is_left_out_of_the_body_counts_for_nothing() {
        let mut insns = body();
        insns[10] = Insn::new(code::ST_B, FP, 0, -1, 0);
        let known = Known { checks: [(6, false)].into(), ..Known::default() };
        let forgotten = knowing(&known, insns.clone());
        assert_eq!((forgotten.before, forgotten.within, forgotten.at), (words([-8, -16]), words([-24]), 8));
        // One that is taken leads elsewhere.
        let known = Known { checks: [(6, true)].into(), ..Known::default() };
        assert_eq!(knowing(&known, insns).at, 6);
        let known = Known { spared: [0, 7].into(), ..Known::default() };
        let forgotten = knowing(&known, body());
        assert_eq!((forgotten.before, forgotten.within), (words([]), words([-24])));
    }

    #[test]
    fn other_calls_end_it_as_they_may_write_to_the_stack() {
        let mut insns = body();
        insns[5].imm = 113;
        assert_eq!(of(insns).at, 5);
    }

    #[test]
    fn what_is_jumped_to_is_not_zeroed_again() {
        let mut insns = body();
        insns.insert(10, Insn::new(code::JNE_IMM, 0, 0, -11, 0));
        assert_eq!(of(insns).at, 0);
    }
}
