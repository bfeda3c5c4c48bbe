//! Which part of the stack a function hands out addresses of.

use std::cell::Cell;

use super::flow::follow;
use crate::Insn;
use crate::insn::{FP, MODE, MODE_MEM, call, class, code};
use crate::object::{Function, Object, Referent};

/// Octets of stack that a program has, with all functions that it has called.
pub(crate) const MAX_STACK: i32 = 512;

/// What of an opcode says which arithmetic it is, and that its second operand is a register.
const OPERATION: u8 = 0xf0;
const SUB: u8 = 0x10;
const NEG: u8 = 0x80;
const END: u8 = 0xd0;
const BY_REGISTER: u8 = 0x08;
/// Immediates of atomic operations: a load and a store with an order, an exchange when r0 is there, and whether one fetches.
pub(crate) const LOAD_ACQUIRE: i32 = 0x100;
const STORE_RELEASE: i32 = 0x110;
const CMPXCHG: i32 = 0xf1;
const FETCH: i32 = 0x01;
const OPERATIONS: [i32; 9] = [0x00, 0x01, 0x40, 0x41, 0x50, 0x51, 0xa0, 0xa1, 0xe1];

/// Octets of stack that a function's frame has, as far as its instructions show.
pub(crate) fn frame_len(function: &Function) -> i32 {
    let taken = lowest_taken(function).unwrap_or_else(|| {
        let sums = function.insns.iter().filter(|insn| insn.code == code::ADD64_IMM);
        sums.map(|insn| insn.imm.max(-MAX_STACK)).min().unwrap_or(0)
    });
    frame_from(function, taken)
}

/// As [`frame_len`], with the lowest offset at which an address is taken.
pub(crate) fn frame_from(function: &Function, taken: i32) -> i32 {
    let direct = function.insns.iter().map(|insn| match insn.class() {
        class::LDX if insn.src() == FP => i32::from(insn.off),
        class::ST | class::STX if insn.dst() == FP => i32::from(insn.off),
        _ => 0,
    });
    -direct.min().unwrap_or(0).min(taken).min(0)
}

/// Octets that the kernel counts stack in.
pub(crate) const UNIT: i32 = 32;

/// Octets that the kernel counts for a function's frame, also for one without any.
pub(crate) fn counted_frame(function: &Function) -> i32 {
    (frame_len(function).max(1) + UNIT - 1) / UNIT * UNIT
}

/// Octets of the frames of all functions that are active at once below `entry`, at most; each as it is [counted](counted_frame).
pub(crate) fn deepest_call(object: &Object, entry: usize) -> i32 {
    /// Functions that the kernel lets be active at once.
    const MAX_CALLS: usize = 8;
    /// `Some(None)` is known of what is being asked about: a callback may refer to itself, and is not called by itself.
    fn below(object: &Object, at: usize, calls: usize, known: &mut [Option<Option<i32>>]) -> i32 {
        if calls == MAX_CALLS {
            return 0;
        }
        known[at] = Some(None);
        let mut deepest = 0;
        for reference in &object.functions[at].references {
            let (Referent::Call(to) | Referent::Address(to)) = reference.to else { continue };
            let further = match known[to] {
                Some(None) => continue,
                Some(Some(octets)) => octets,
                None => below(object, to, calls + 1, known),
            };
            deepest = deepest.max(counted_frame(&object.functions[to]) + further);
        }
        known[at] = Some(Some(deepest));
        deepest
    }
    below(object, entry, 1, &mut vec![None; object.functions.len()])
}

/// What a register has to do with the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// Nothing.
    Other,
    /// An address this far from the frame pointer.
    At(i32),
    /// One of several addresses, or one of those further up.
    Above,
}

/// What is known at one place.
#[derive(Clone, PartialEq, Eq)]
struct State {
    registers: [Value; 11],
    /// Whether an address was stored, so that what is loaded may be one.
    stored: bool,
}

/// The lowest offset from the frame pointer at which an address is used for something else than the loads and stores of this
/// function by r10; 0 where there is none. `None` when that cannot be told.
pub(crate) fn lowest_taken(function: &Function) -> Option<i32> {
    // A function that is called back gets addresses, and may do with them what is not seen here; and a type's number stands for an
    // immediate that is not known yet.
    let unseen = |to| matches!(to, Referent::Address(_) | Referent::Type(_));
    if function.references.iter().any(|reference| unseen(reference.to)) {
        return None;
    }
    let taken = Taken(Cell::new(0));
    let meet = |a: &State, b: &State| a.meet(b, &taken);
    follow(&function.insns, State::start(), meet, |state, _, insn| state.run(insn, &taken))?;
    Some(taken.0.get())
}

/// The lowest offset of what was found so far.
struct Taken(Cell<i32>);

impl Taken {
    /// Notes that the memory at `value`, `off` octets further, may be accessed.
    fn note(&self, value: Value, off: i16) {
        if let Value::At(at) = value {
            self.0.set(self.0.get().min(at.saturating_add(i32::from(off))));
        }
    }

    /// Notes an access to the memory at `value`, `off` octets further. `None` when that may be below what is known.
    fn access(&self, value: Value, off: i16) -> Option<()> {
        self.note(value, off);
        (value != Value::Above || off >= 0).then_some(())
    }
}

impl State {
    fn start() -> Self {
        let mut registers = [Value::Other; 11];
        registers[FP as usize] = Value::At(0);
        Self { registers, stored: false }
    }

    /// What is known where two ways come together.
    fn meet(&self, other: &Self, taken: &Taken) -> Self {
        let mut met = self.clone();
        met.stored |= other.stored;
        for (a, b) in met.registers.iter_mut().zip(other.registers) {
            if *a != b {
                taken.note(*a, 0);
                taken.note(b, 0);
                *a = Value::Above;
            }
        }
        met
    }

    /// What is known after `insn`. `None` when it does what is not understood.
    fn run(&mut self, insn: Insn, taken: &Taken) -> Option<()> {
        let registers = &mut self.registers;
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        let loaded = if self.stored { Value::Above } else { Value::Other };
        if insn.is_wide() {
            *registers.get_mut(dst)? = Value::Other;
            return Some(());
        }
        match insn.class() {
            class::ALU | class::ALU64 => {
                let value = *registers.get(dst)?;
                let operation = insn.code & OPERATION;
                // Of a change of byte order the bit says which one.
                let by_register = insn.code & BY_REGISTER != 0 && !matches!(operation, NEG | END);
                let operand = if by_register { *registers.get(src)? } else { Value::Other };
                registers[dst] = match (insn.code, value, operand) {
                    (code::MOV64_IMM | code::MOV32_IMM, ..) => Value::Other,
                    (code::MOV64_REG, _, operand) if insn.off == 0 || operand == Value::Other => operand,
                    (code::MOV32_REG, _, Value::Other) => Value::Other,
                    (_, Value::Other, Value::Other) => Value::Other,
                    (code::ADD64_IMM, Value::At(at), _) => {
                        let value = Value::At(at.saturating_add(insn.imm));
                        taken.note(value, 0);
                        value
                    }
                    (code::ADD64_IMM, Value::Above, _) if insn.imm >= 0 => Value::Above,
                    // The distance of two addresses.
                    (_, Value::At(_) | Value::Above, Value::At(_) | Value::Above)
                        if insn.class() == class::ALU64 && operation == SUB =>
                    {
                        Value::Other
                    }
                    _ => return None,
                };
            }
            class::LDX => {
                if insn.src() != FP {
                    taken.access(*registers.get(src)?, insn.off)?;
                }
                *registers.get_mut(dst)? = loaded;
            }
            class::STX if insn.code & MODE != MODE_MEM && insn.imm == LOAD_ACQUIRE => {
                if insn.src() != FP {
                    taken.access(*registers.get(src)?, insn.off)?;
                }
                *registers.get_mut(dst)? = loaded;
            }
            class::ST | class::STX => {
                if insn.dst() != FP {
                    taken.access(*registers.get(dst)?, insn.off)?;
                }
                if insn.class() == class::STX {
                    let value = *registers.get(src)?;
                    if value != Value::Other {
                        taken.note(value, 0);
                        self.stored = true;
                        // In parts it could be put together again.
                        if insn.octets() < 8 {
                            return None;
                        }
                    }
                    if insn.code & MODE != MODE_MEM {
                        let loaded = if self.stored { Value::Above } else { Value::Other };
                        match insn.imm {
                            STORE_RELEASE => {}
                            CMPXCHG => registers[0] = loaded,
                            operation if !OPERATIONS.contains(&operation) => return None,
                            operation if operation & FETCH != 0 => registers[src] = loaded,
                            _ => {}
                        }
                    }
                }
            }
            class::JMP | class::JMP32 if insn.code == code::CALL => {
                let mut gives = false;
                for argument in &registers[1..=5] {
                    gives |= *argument != Value::Other;
                    taken.note(*argument, 0);
                }
                if gives && insn.src() == call::SUBPROGRAM {
                    return None;
                }
                registers[..=5].fill(Value::Other);
                // A kernel function may return what it was given, as `bpf_dynptr_slice` does.
                if gives && insn.src() == call::KFUNC || self.stored && insn.src() != call::HELPER {
                    registers[0] = Value::Above;
                }
            }
            _ => {}
        }
        Some(())
    }
}
