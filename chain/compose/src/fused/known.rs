//! Look-ups of a map's first entry that a body makes, where its address is known already.
//!
//! - The packet context is one entry of a per-CPU array, and modules ask for it wherever they want to know something of it, most of
//!   them in their first instructions: on kernels that do not inline that, each time by a call. The chain asks once and keeps the
//!   address on its stack.
//! - The address of the only entry of an array that CPUs share, as configurations are, an instruction may have in itself, as for
//!   global variables.
//!
//! What is told here is where a body may take them instead of asking: where the verifier would find the very same arguments, the
//! map and the key 0, on every way to the call.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::{firsts, targets};
use super::stack::LOAD_ACQUIRE;
use crate::Insn;
use crate::insn::{FP, MODE, MODE_MEM, call, class, code, helper};
use crate::object::{Function, Reference, Referent};

/// Look-ups whose answer is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The calls, with the map that each asks, by its index in the object.
    pub(crate) calls: BTreeMap<usize, usize>,
    /// Instructions that are left out, as those that did nothing but make the calls' arguments.
    pub(crate) spared: BTreeSet<usize>,
    /// Branches on whether an answer is null, which none is, and whether they are taken.
    pub(crate) checks: BTreeMap<usize, bool>,
    /// Registers that have the answers of calls in place of r0.
    pub(crate) places: BTreeMap<usize, u8>,
}

/// What a register is known to have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Unknown,
    Zero,
    /// The address of a map whose first entry is known.
    Map(usize),
    /// An address this far from the frame pointer.
    Frame(i32),
    /// The answer of a known look-up.
    Answer,
}

/// What is known at one place. Forgotten wherever another way may come in.
struct State {
    registers: [Value; 11],
    /// Words of four octets on the stack that are zero, by offset from the frame pointer.
    zero: BTreeSet<i32>,
}

/// Registers with arguments, which a call leaves unreadable.
pub(crate) const ARGUMENTS: std::ops::RangeInclusive<u8> = 1..=5;

impl Known {
    /// Those of `function` in maps with these indices in its object.
    pub(crate) fn of(function: &Function, maps: &BTreeSet<usize>) -> Self {
        let insns = &function.insns;
        let load = |reference: &Reference| match reference.to {
            Referent::Map(map) => maps.contains(&map).then_some((reference.insn, map)),
            _ => None,
        };
        let loads: BTreeMap<usize, usize> = function.references.iter().filter_map(load).collect();
        let mut known = Self::default();
        // What a jump by a register leads to, and what a type's number will be, is not known here.
        let unseen = insns.iter().any(|insn| insn.code == code::JA_REG)
            || function.references.iter().any(|reference| matches!(reference.to, Referent::Type(_)));
        if loads.is_empty() || unseen {
            return known;
        }
        let targets = targets(insns);
        let mut state = State::new();
        let mut start = 0;
        let firsts: Vec<_> = firsts(insns).collect();
        for (n, &(at, insn)) in firsts.iter().enumerate() {
            if targets.contains(&at) {
                state = State::new();
                start = n;
            }
            if let Some(is_taken) = state.checks(insn) {
                known.checks.insert(at, is_taken);
            }
            let looked_up = state.looks_up(insn);
            state.run(insn, loads.get(&at).copied());
            if let Some(map) = looked_up {
                known.calls.insert(at, map);
                known.spare(&firsts[start..n]);
                state.set(0, Value::Answer);
            }
        }
        known
    }

    /// Finds what made the arguments of a call and nothing else in what is in front of it.
    fn spare(&mut self, made: &[(usize, Insn)]) {
        for argument in [1, 2] {
            for &(i, insn) in made.iter().rev() {
                let makes = match insn.code {
                    code::LD_IMM64 => argument == 1,
                    code::MOV64_REG => argument == 2 && insn.src() == FP,
                    code::ADD64_IMM => argument == 2,
                    _ => false,
                };
                if makes && insn.dst() == argument {
                    self.spared.insert(i);
                    if insn.code != code::ADD64_IMM {
                        break;
                    }
                } else if uses(insn, argument) {
                    break;
                }
            }
        }
    }
}

/// Whether an instruction has to do with a register at all.
fn uses(insn: Insn, register: u8) -> bool {
    match insn.class() {
        _ if insn.is_wide() => insn.dst() == register,
        // What a call takes is not told; and where a branch leads, more may be read.
        class::JMP | class::JMP32 => true,
        _ => insn.dst() == register || insn.src() == register,
    }
}

impl State {
    fn new() -> Self {
        let mut registers = [Value::Unknown; 11];
        registers[FP as usize] = Value::Frame(0);
        Self { registers, zero: BTreeSet::new() }
    }

    fn register(&self, number: u8) -> Value {
        self.registers.get(number as usize).copied().unwrap_or(Value::Unknown)
    }

    fn set(&mut self, number: u8, value: Value) {
        if let Some(register) = self.registers.get_mut(number as usize) {
            *register = value;
        }
    }

    /// Whether `insn` is taken, if it is a branch on whether an answer is null.
    fn checks(&self, insn: Insn) -> Option<bool> {
        let is_taken = match insn.code {
            code::JEQ_IMM => false,
            code::JNE_IMM => true,
            _ => return None,
        };
        (insn.imm == 0 && self.register(insn.dst()) == Value::Answer).then_some(is_taken)
    }

    /// The map that `insn` looks into by the key 0, if it does.
    fn looks_up(&self, insn: Insn) -> Option<usize> {
        if (insn.code, insn.src(), insn.imm) != (code::CALL, call::HELPER, helper::MAP_LOOKUP_ELEM) {
            return None;
        }
        match (self.register(1), self.register(2)) {
            (Value::Map(map), Value::Frame(at)) => self.zero.contains(&at).then_some(map),
            _ => None,
        }
    }

    /// What is known after `insn`, which refers to `map` if that is one.
    fn run(&mut self, insn: Insn, map: Option<usize>) {
        let (dst, src) = (insn.dst(), insn.src());
        match insn.class() {
            _ if insn.is_wide() => self.set(dst, map.map_or(Value::Unknown, Value::Map)),
            class::ALU | class::ALU64 => {
                let value = match insn.code {
                    code::MOV64_IMM | code::MOV32_IMM if insn.imm == 0 => Value::Zero,
                    code::MOV64_REG if insn.off == 0 => self.register(src),
                    // With an offset it extends the sign of fewer bits, which 0 has none of.
                    code::MOV32_REG if self.register(src) == Value::Zero => Value::Zero,
                    code::ADD64_IMM => match self.register(dst) {
                        Value::Frame(at) => Value::Frame(at.wrapping_add(insn.imm)),
                        _ => Value::Unknown,
                    },
                    _ => Value::Unknown,
                };
                self.set(dst, value);
            }
            class::ST | class::STX => {
                let zero =
                    if insn.class() == class::ST { insn.imm == 0 } else { self.register(src) == Value::Zero };
                self.store(insn, zero);
            }
            class::JMP | class::JMP32 if insn.code == code::CALL => {
                // It may write to what its arguments point to; a look-up only reads.
                if (src, insn.imm) != (call::HELPER, helper::MAP_LOOKUP_ELEM) {
                    self.zero.clear();
                }
                self.set(0, Value::Unknown);
                ARGUMENTS.for_each(|argument| self.set(argument, Value::Unknown));
            }
            class::JMP | class::JMP32 => {}
            // A load.
            _ => self.set(dst, Value::Unknown),
        }
    }

    fn store(&mut self, insn: Insn, zero: bool) {
        if insn.code & MODE != MODE_MEM && insn.imm == LOAD_ACQUIRE {
            self.set(insn.dst(), Value::Unknown);
            return;
        }
        if insn.code & MODE != MODE_MEM {
            // An atomic operation may also put what was there into a register, wherever that is.
            self.set(insn.src(), Value::Unknown);
            self.set(0, Value::Unknown);
        }
        let Value::Frame(base) = self.register(insn.dst()) else {
            // Perhaps to the stack, by an address that was computed.
            self.zero.clear();
            return;
        };
        let at = base.wrapping_add(i32::from(insn.off));
        let octets = i32::from(insn.octets());
        self.zero.retain(|word| word + 4 <= at || at + octets <= *word);
        if insn.code & MODE == MODE_MEM && zero && octets >= 4 {
            self.zero.extend((0..octets / 4).map(|word| at + 4 * word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compilers make of a look-up of a map's first entry.
    const LOOK_UP: [Insn; 7] = [
        Insn::new(code::MOV32_IMM, 1, 0, 0, 0),
        Insn::new(code::STX_W, FP, 1, -12, 0),
        Insn::new(code::MOV64_REG, 2, FP, 0, 0),
        Insn::new(code::ADD64_IMM, 2, 0, 0, -12),
        Insn::new(code::LD_IMM64, 1, 0, 0, 0),
        Insn::new(0, 0, 0, 0, 0),
        Insn::new(code::CALL, 0, call::HELPER, 0, helper::MAP_LOOKUP_ELEM),
    ];
    const EXIT: Insn = Insn::new(code::EXIT, 0, 0, 0, 0);

    /// What is known of map 3, the only one of which anything is, in a body, each of whose 64-bit loads refers to a map, to `maps` in order.
    fn known(insns: impl IntoIterator<Item = Insn>, maps: &[usize]) -> Known {
        let insns: Vec<_> = insns.into_iter().collect();
        let wide = insns.iter().enumerate().filter(|(_, insn)| insn.is_wide());
        let references =
            wide.zip(maps).map(|((insn, _), map)| Reference { insn, to: Referent::Map(*map) }).collect();
        Known::of(&Function { insns, references, ..Function::default() }, &[3].into())
    }

    fn with(at: usize, insn: Insn) -> impl Iterator<Item = Insn> {
        let (before, after) = LOOK_UP.split_at(at);
        before.iter().copied().chain([insn]).chain(after.iter().copied()).chain([EXIT])
    }

    #[test]
    fn a_look_up_of_the_first_entry_is_known_and_its_arguments_are_spared() {
        let known = known(LOOK_UP.into_iter().chain([EXIT]), &[3]);
        assert_eq!(known, Known { calls: [(6, 3)].into(), spared: [2, 3, 4].into(), ..Known::default() });
    }

    #[test]
    fn another_map_is_not() {
        assert_eq!(known(LOOK_UP.into_iter().chain([EXIT]), &[2]), Known::default());
    }

    #[test]
    fn another_key_is_not() {
        let mut insns = LOOK_UP;
        insns[0].imm = 1;
        assert_eq!(known(insns.into_iter().chain([EXIT]), &[3]), Known::default());
    }

    #[test]
    fn a_key_that_something_may_have_written_over_is_not() {
        let by_address = Insn::new(code::ST_B, 7, 0, 0, 1);
        let in_part = Insn::new(code::ST_B, FP, 0, -9, 1);
        let by_a_call = Insn::new(code::CALL, 0, call::HELPER, 0, 69);
        let at_once = Insn::new(0xc3, FP, 7, -12, 0);
        for insn in [by_address, in_part, by_a_call, at_once] {
            assert_eq!(known(with(2, insn), &[3]).calls, BTreeMap::new(), "{insn:?}");
        }
        let beside = Insn::new(code::ST_B, FP, 0, -8, 1);
        assert_eq!(known(with(2, beside), &[3]).calls, [(7, 3)].into());
    }

    #[test]
    fn a_key_of_what_an_atomic_operation_found_is_not() {
        // Exchange, addition with what was there, comparison with r0 and exchange; anywhere in memory.
        for (imm, register) in [(0xe1, 1), (0x01, 1), (0xf1, 0)] {
            let mut insns = LOOK_UP;
            insns[0] = Insn::new(code::MOV32_IMM, register, 0, 0, 0);
            insns[1] = Insn::new(code::STX_W, FP, register, -12, 0);
            let at_once = Insn::new(0xdb, 7, 1, 0, imm);
            let (zero, rest) = insns.split_at(1);
            let insns = zero.iter().copied().chain([at_once]).chain(rest.iter().copied()).chain([EXIT]);
            assert_eq!(known(insns, &[3]).calls, BTreeMap::new(), "{imm:#x}");
        }
    }

    #[test]
    fn a_key_whose_address_was_loaded_over_is_not() {
        let loaded = Insn::new(0xdb, 2, 8, -32, LOAD_ACQUIRE);
        assert_eq!(known(with(4, loaded), &[3]).calls, BTreeMap::new());
    }

    #[test]
    fn what_another_way_leads_into_is_not() {
        let back = |to: i16| Insn::new(code::JNE_IMM, 0, 0, to, 0);
        let with_a_way_to = |at: i16| LOOK_UP.into_iter().chain([back(at - LOOK_UP.len() as i16 - 1), EXIT]);
        assert_eq!(known(with_a_way_to(0), &[3]).calls, [(6, 3)].into());
        for at in [1, 2, 3, 4, 6] {
            assert_eq!(known(with_a_way_to(at), &[3]).calls, BTreeMap::new(), "a way to {at}");
        }
    }

    #[test]
    fn an_argument_that_is_read_before_the_call_is_kept() {
        let copied = Insn::new(code::MOV64_REG, 6, 1, 0, 0);
        assert_eq!(known(with(6, copied), &[3]).spared, [2, 3].into());
        let stored = Insn::new(code::STX_DW, 6, 2, 0, 0);
        let known = known(with(4, stored), &[3]);
        // The store may be to the stack, for all that is known.
        assert_eq!(known, Known::default());
        let branch = Insn::new(code::JEQ_IMM, 0, 0, 2, 0);
        assert_eq!(self::known(with(4, branch), &[3]).calls, BTreeMap::new());
    }
}
