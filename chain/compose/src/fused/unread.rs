//! Stores of four octets to the stack that nothing reads, as the keys are of look-ups that are answered otherwise.
//!
//! A store is left out where, on every way from it, what it wrote is written over or the body ends before anything may read it: a load
//! by r10, or a call that is given an address of the stack. That is understood only where each such address is made for the very
//! next call and goes nowhere else, as compilers do it; of a body that does something else with one, every store stays.

use std::collections::BTreeSet;

use super::flow::{firsts, target, targets};
use super::known::{ARGUMENTS, Known};
use crate::Insn;
use crate::insn::{FP, MODE, MODE_MEM, call, class, code};
use crate::object::Function;

/// How often a body with loops is followed anew, at most.
const ROUNDS: usize = 16;
/// What of an opcode says that it computes with a register, and not with a number.
const BY_REGISTER: u8 = 0x08;
/// Octets below the frame pointer.
const STACK: i16 = 512;

/// Words of four octets of the stack, the uppermost first.
type Words = u128;

impl Known {
    /// With stores of `function` spared that nothing reads, which keys of known look-ups are, and what made the numbers in them.
    pub(crate) fn without_keys(mut self, function: &Function) -> Self {
        let insns = &function.insns;
        if !self.calls.is_empty()
            && let Some(unread) = unread(insns, &self)
        {
            let makes = |store: usize| makes_zero(insns, store, &self);
            let zeros: Vec<usize> = unread.iter().filter_map(|store| makes(*store)).collect();
            self.spared.extend(unread.into_iter().chain(zeros));
        }
        self
    }
}

/// Stores of four octets whose value nothing reads. `None` when that is not understood.
fn unread(insns: &[Insn], known: &Known) -> Option<BTreeSet<usize>> {
    let given = calls_with_addresses(insns, known)?;
    let firsts: Vec<_> = firsts(insns).collect();
    // What may be read from each instruction on.
    let mut read: Vec<Words> = vec![0; insns.len() + 1];
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (n, &(at, insn)) in firsts.iter().enumerate().rev() {
            let next = firsts.get(n + 1).map_or(0, |(next, _)| read[*next]);
            let behind = match insn.code {
                code::EXIT => 0,
                code::JA | code::JA32 => *read.get(target(at, insn)?)?,
                _ if insn.is_branch() => next | read.get(target(at, insn)?)?,
                _ => next,
            };
            let now = if given.contains(&at) { Words::MAX } else { before(insn, behind)? };
            changed |= now != read[at];
            read[at] = now;
        }
        if !changed {
            let is_unread = |n: usize, insn: Insn| {
                let next = firsts.get(n + 1).map_or(0, |(next, _)| read[*next]);
                writes(insn) && insn.octets() == 4 && words(insn) & next == 0
            };
            let unread = firsts.iter().enumerate().filter(|(n, (_, insn))| is_unread(*n, *insn));
            return Some(unread.map(|(_, (at, _))| *at).collect());
        }
    }
    None
}

/// Calls that are given an address of the stack. `None` when one may have gone anywhere else.
fn calls_with_addresses(insns: &[Insn], known: &Known) -> Option<BTreeSet<usize>> {
    let targets = targets(insns);
    let mut given = BTreeSet::new();
    // Registers with such an address.
    let mut held = BTreeSet::new();
    for (at, insn) in firsts(insns) {
        let (dst, src) = (insn.dst(), insn.src());
        if targets.contains(&at) && !held.is_empty() || insn.code == code::JA_REG {
            return None;
        }
        if known.spared.contains(&at) {
            continue;
        }
        match insn.class() {
            class::JMP | class::JMP32 if insn.code == code::CALL => {
                if !held.is_empty() && !known.calls.contains_key(&at) {
                    // Functions of the kernel may return what they were given, as `bpf_dynptr_slice` does.
                    if src == call::KFUNC {
                        return None;
                    }
                    given.insert(at);
                }
                held.clear();
            }
            class::JMP | class::JMP32 => {
                if !held.is_empty() {
                    return None;
                }
            }
            class::ALU64 if insn.code == code::MOV64_REG && src == FP => {
                if !ARGUMENTS.contains(&dst) || insn.off != 0 {
                    return None;
                }
                held.insert(dst);
            }
            // An address within the stack all the same.
            class::ALU64 if insn.code == code::ADD64_IMM => {}
            class::ALU | class::ALU64 if insn.code & BY_REGISTER != 0 && src == FP => return None,
            class::STX if src == FP => return None,
            _ => {
                if held.iter().any(|register| reads(insn, *register)) {
                    return None;
                }
                if sets(insn) {
                    held.remove(&dst);
                }
            }
        }
    }
    Some(given)
}

/// What may be read before `insn`, of what may be behind it.
fn before(insn: Insn, behind: Words) -> Option<Words> {
    let base = if insn.class() == class::LDX { insn.src() } else { insn.dst() };
    let accesses = matches!(insn.class(), class::LDX | class::ST | class::STX) && base == FP;
    if !accesses {
        return Some(behind);
    }
    if insn.off >= 0 || insn.off < -STACK || insn.off + insn.octets() > 0 {
        return None;
    }
    if writes(insn) {
        let whole = insn.off & 3 == 0 && insn.octets() >= 4;
        return Some(if whole { behind & !words(insn) } else { behind });
    }
    Some(behind | words(insn))
}

/// Whether `insn` does nothing but write to the stack.
fn writes(insn: Insn) -> bool {
    matches!(insn.class(), class::ST | class::STX) && insn.dst() == FP && insn.code & MODE == MODE_MEM
}

/// Those that an access by r10, within the stack, has to do with.
fn words(insn: Insn) -> Words {
    let (first, end) = (insn.off.div_euclid(4), (insn.off + insn.octets() + 3).div_euclid(4));
    (first..end).fold(0, |words, word| words | 1 << (-word - 1))
}

/// The instruction right before the store at `store`, if all it does is to set the register that is stored, which nothing else reads.
fn makes_zero(insns: &[Insn], store: usize, known: &Known) -> Option<usize> {
    let at = store.checked_sub(1)?;
    let (makes, stores) = (insns[at], insns[store]);
    let makes_it = matches!(makes.code, code::MOV32_IMM | code::MOV64_IMM) && makes.dst() == stores.src();
    if !makes_it || stores.class() != class::STX || at > 0 && insns[at - 1].is_wide() {
        return None;
    }
    let register = makes.dst();
    for (i, insn) in firsts(insns).skip_while(|(i, _)| *i <= store) {
        if known.spared.contains(&i) {
            continue;
        }
        if matches!(insn.class(), class::JMP | class::JMP32) {
            // Whoever is called may take arguments; a look-up that is known does not, and leaves none of these registers.
            let ends = known.calls.contains_key(&i) && ARGUMENTS.contains(&register);
            return ends.then_some(at);
        }
        if reads(insn, register) {
            return None;
        }
        if sets(insn) && insn.dst() == register {
            return Some(at);
        }
    }
    None
}

/// Whether an instruction that is no jump reads `register`.
pub(crate) fn reads(insn: Insn, register: u8) -> bool {
    let by_register = insn.code & BY_REGISTER != 0;
    match insn.class() {
        _ if insn.is_wide() => false,
        class::ALU | class::ALU64 => {
            by_register && insn.src() == register || insn.dst() == register && !sets(insn)
        }
        class::LDX => insn.src() == register,
        // What it is compared with, of an exchange that compares.
        class::STX if insn.code & MODE != MODE_MEM && register == 0 => true,
        _ => insn.src() == register || insn.dst() == register,
    }
}

/// Whether all that an instruction does is to give its destination register a value that does not depend on what that had.
pub(crate) fn sets(insn: Insn) -> bool {
    let moves = [code::MOV64_IMM, code::MOV32_IMM, code::MOV64_REG, code::MOV32_REG];
    insn.is_wide() || insn.class() == class::LDX || moves.contains(&insn.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::helper;
    use crate::object::{Reference, Referent};

    const ZERO: Insn = Insn::new(code::MOV32_IMM, 1, 0, 0, 0);
    const KEY: Insn = Insn::new(code::STX_W, FP, 1, -12, 0);
    const ADDRESS: Insn = Insn::new(code::MOV64_REG, 2, FP, 0, 0);
    const OF_KEY: Insn = Insn::new(code::ADD64_IMM, 2, 0, 0, -12);
    const MAP: Insn = Insn::new(code::LD_IMM64, 1, 0, 0, 0);
    const SECOND: Insn = Insn::new(0, 0, 0, 0, 0);
    const LOOK_UP: Insn = Insn::new(code::CALL, 0, call::HELPER, 0, helper::MAP_LOOKUP_ELEM);
    const EXIT: Insn = Insn::new(code::EXIT, 0, 0, 0, 0);

    /// What is left out of a look-up in map 3, whose first entry is known, and of what follows it.
    fn spared(then: &[Insn]) -> Vec<usize> {
        let look_up = [ZERO, KEY, ADDRESS, OF_KEY, MAP, SECOND, LOOK_UP];
        let insns: Vec<_> = look_up.into_iter().chain(then.iter().copied()).collect();
        let references = vec![Reference { insn: 4, to: Referent::Map(3) }];
        let function = Function { insns, references, ..Function::default() };
        let known = Known::of(&function, &[3].into());
        assert!(known.spared.is_superset(&[2, 3, 4].into()), "{known:?}");
        let mut spared = known.without_keys(&function).spared;
        spared.retain(|at| !(2..=4).contains(at));
        spared.into_iter().collect()
    }

    #[test]
    fn a_key_that_only_known_look_ups_read_is_left_out_with_its_zero() {
        assert_eq!(spared(&[EXIT]), [0, 1]);
        // Written over before another call reads it.
        let other = Insn::new(code::CALL, 0, call::HELPER, 0, 69);
        assert_eq!(spared(&[Insn::new(code::ST_W, FP, 0, -12, 7), ADDRESS, OF_KEY, other, EXIT]), [0, 1]);
        // A call without an address of the stack does not read it.
        assert_eq!(spared(&[other, EXIT]), [0, 1]);
    }

    #[test]
    fn a_key_that_is_read_on_some_way_stays() {
        let other = Insn::new(code::CALL, 0, call::HELPER, 0, 69);
        assert_eq!(spared(&[ADDRESS, OF_KEY, other, EXIT]), [] as [usize; 0]);
        let load = |off| Insn::new(code::LDX_W, 3, FP, off, 0);
        assert_eq!(spared(&[load(-12), EXIT]), [] as [usize; 0]);
        assert_eq!(spared(&[load(-16), EXIT]), [0, 1]);
        // Only one way writes over it.
        let branch = Insn::new(code::JEQ_IMM, 0, 0, 1, 0);
        let over = Insn::new(code::ST_W, FP, 0, -12, 7);
        assert_eq!(spared(&[branch, over, load(-12), EXIT]), [] as [usize; 0]);
        // One octet of it is written over.
        assert_eq!(spared(&[Insn::new(code::ST_B, FP, 0, -12, 7), load(-12), EXIT]), [] as [usize; 0]);
        // A way back.
        let back = Insn::new(code::JEQ_IMM, 0, 0, -2, 0);
        assert_eq!(spared(&[load(-12), back, EXIT]), [] as [usize; 0]);
    }

    #[test]
    fn where_an_address_of_the_stack_goes_elsewhere_every_key_stays() {
        let none = [] as [usize; 0];
        assert_eq!(spared(&[Insn::new(code::MOV64_REG, 6, FP, 0, 0), EXIT]), none);
        assert_eq!(spared(&[ADDRESS, Insn::new(code::MOV64_REG, 6, 2, 0, 0), EXIT]), none);
        assert_eq!(spared(&[ADDRESS, Insn::new(code::STX_DW, 7, 2, 0, 0), EXIT]), none);
        assert_eq!(spared(&[ADDRESS, Insn::new(code::ST_B, 2, 0, 0, 1), EXIT]), none);
        assert_eq!(spared(&[ADDRESS, Insn::new(code::LDX_W, 3, 2, 0, 0), EXIT]), none);
        assert_eq!(spared(&[ADDRESS, Insn::new(code::ADD64_REG, 2, 3, 0, 0), EXIT]), none);
        assert_eq!(spared(&[ADDRESS, Insn::new(code::JEQ_IMM, 0, 0, 0, 0), EXIT]), none);
    }

    #[test]
    fn what_a_function_of_the_kernel_was_given_may_be_read_by_what_it_returns() {
        let slice = Insn::new(code::CALL, 0, call::KFUNC, 0, 7);
        let over = Insn::new(code::ST_W, FP, 0, -12, 7);
        assert_eq!(spared(&[ADDRESS, OF_KEY, slice, over, EXIT]), [] as [usize; 0]);
    }

    #[test]
    fn a_zero_that_something_else_reads_stays() {
        assert_eq!(spared(&[EXIT]), [0, 1]);
        let insns = [ZERO, KEY, Insn::new(code::MOV64_REG, 6, 1, 0, 0), EXIT];
        assert_eq!(makes_zero(&insns, 1, &Known::default()), None);
        let insns = [ZERO, KEY, Insn::new(code::JEQ_IMM, 1, 0, 0, 0), EXIT];
        assert_eq!(makes_zero(&insns, 1, &Known::default()), None);
        let insns = [ZERO, KEY, Insn::new(code::LDX_W, 1, 6, 0, 0), EXIT];
        assert_eq!(makes_zero(&insns, 1, &Known::default()), Some(0));
        let compared = Insn::new(0xdb, 7, 1, 0, 0xf1);
        let zero = Insn::new(code::MOV64_IMM, 0, 0, 0, 0);
        let insns = [zero, Insn::new(code::STX_W, FP, 0, -12, 0), compared, zero, EXIT];
        assert_eq!(makes_zero(&insns, 1, &Known::default()), None);
    }
}
