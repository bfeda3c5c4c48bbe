//! Words of the stack that a main body writes in parts, written whole instead.
//!
//! To the verifier a word of the stack that is written in parts still has what it had before (see `forget.rs`), so the chain would
//! have to zero it in front of the body. Compilers keep 32-bit numbers that way, two to a word. Where nothing but the body's own
//! loads and stores by r10 can reach a word, each part becomes a word of its own and its stores write all of that: what is loaded is
//! the same, and nothing has to be zeroed.
//!
//! Who else could reach a word is told by `lowest_taken`: addresses of the stack are handed out from there up. Where a body does with
//! such an address what is not understood, nothing is widened.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::flow::{firsts, follow};
use super::inline::frame_len;
use crate::Insn;
use crate::insn::{FP, MODE, MODE_MEM, MODE_MEMSX, SIZE, SIZE_DW, call, class, code};
use crate::object::{Function, Referent};

/// What of an opcode says which arithmetic it is, and that its second operand is a register.
const OPERATION: u8 = 0xf0;
const SUB: u8 = 0x10;
const NEG: u8 = 0x80;
const END: u8 = 0xd0;
const BY_REGISTER: u8 = 0x08;
/// A body with its words widened as far as that can be, in a frame of at most `room` octets.
pub(crate) fn widened(function: &Function, room: i32) -> Cow<'_, Function> {
    let Some(taken) = lowest_taken(function) else { return Cow::Borrowed(function) };
    let cells = Cells::of(&function.insns, taken);
    let moved = cells.moved((frame_len(function) + 7) & !7, room);
    if moved.is_empty() {
        return Cow::Borrowed(function);
    }
    let mut function = function.clone();
    for (_, insn) in firsts_mut(&mut function.insns) {
        let by_fp = match insn.class() {
            class::LDX => insn.src() == FP,
            class::ST | class::STX => insn.dst() == FP,
            _ => false,
        };
        if let Some(to) = moved.get(&insn.off).filter(|_| by_fp) {
            insn.off = *to;
            if insn.class() != class::LDX {
                insn.code = insn.code & !SIZE | SIZE_DW;
            }
        }
    }
    Cow::Owned(function)
}

/// Parts of words that are accessed, by offset from the frame pointer.
struct Cells {
    /// For each word of which parts are accessed, each of them in one way only, those parts.
    words: BTreeMap<i16, BTreeSet<i16>>,
}

impl Cells {
    /// The parts of words below `taken`.
    fn of(insns: &[Insn], taken: i32) -> Self {
        let mut words: BTreeMap<i16, BTreeMap<i16, i16>> = BTreeMap::new();
        let mut mixed = BTreeSet::new();
        for (_, insn) in firsts(insns) {
            let by_fp = match insn.class() {
                class::LDX => insn.src() == FP,
                class::ST | class::STX => insn.dst() == FP,
                _ => false,
            };
            if !by_fp || insn.off >= 0 {
                continue;
            }
            let (word, octets) = (insn.off & !7, insn.octets());
            let end = insn.off.saturating_add(octets);
            let plain = match insn.class() {
                class::LDX => matches!(insn.code & MODE, MODE_MEM | MODE_MEMSX),
                _ => insn.code & MODE == MODE_MEM,
            };
            if !plain || end > word + 8 {
                mixed.extend([word, word.saturating_add(8)]);
                continue;
            }
            let cells = words.entry(word).or_default();
            let alike = *cells.entry(insn.off).or_insert(octets) == octets;
            let apart = cells.iter().all(|(at, len)| *at == insn.off || at + len <= insn.off || end <= *at);
            if !alike || !apart {
                mixed.insert(word);
            }
        }
        let private = |word: i16| i32::from(word) + 8 <= taken && !mixed.contains(&word);
        let in_parts = |cells: &BTreeMap<i16, i16>| cells.values().all(|octets| *octets < 8);
        let words = words
            .into_iter()
            .filter(|(word, cells)| private(*word) && in_parts(cells))
            .map(|(word, cells)| (word, cells.into_keys().collect()))
            .collect();
        Self { words }
    }

    /// Where each part goes: one of them to the start of its word, others to words of their own below the frame, as far as there
    /// is room for all of a word's.
    fn moved(&self, frame: i32, room: i32) -> BTreeMap<i16, i16> {
        let mut moved = BTreeMap::new();
        let mut frame = frame;
        for (word, cells) in &self.words {
            let more = 8 * (cells.len() as i32 - 1);
            if frame + more > room {
                continue;
            }
            let places = (1..).map(|n| (-frame - 8 * n) as i16);
            moved.extend(cells.iter().copied().zip([*word].into_iter().chain(places)));
            frame += more;
        }
        moved
    }
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
fn lowest_taken(function: &Function) -> Option<i32> {
    // A function that is called back gets addresses, and may do with them what is not seen here.
    if function.references.iter().any(|reference| matches!(reference.to, Referent::Address(_))) {
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
                let may_be = self.stored && insn.code & SIZE == SIZE_DW;
                *registers.get_mut(dst)? = if may_be { Value::Above } else { Value::Other };
            }
            class::ST | class::STX => {
                if insn.dst() != FP {
                    taken.access(*registers.get(dst)?, insn.off)?;
                }
                if insn.class() == class::STX {
                    if *registers.get(src)? != Value::Other {
                        taken.note(registers[src], 0);
                        self.stored = true;
                    }
                    if insn.code & MODE != MODE_MEM {
                        // An atomic operation may put what was there into its register, or into r0.
                        registers[src] = if self.stored { Value::Above } else { Value::Other };
                        registers[0] = registers[src];
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

/// As [`super::flow::firsts`], to be changed.
fn firsts_mut(insns: &mut [Insn]) -> impl Iterator<Item = (usize, &mut Insn)> {
    let mut wide = false;
    insns.iter_mut().enumerate().filter(move |(_, insn)| {
        let second = std::mem::take(&mut wide);
        wide = !second && insn.is_wide();
        !second
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::helper;

    const EXIT: Insn = Insn::new(code::EXIT, 0, 0, 0, 0);

    const fn store(off: i16) -> Insn {
        Insn::new(code::STX_W, FP, 1, off, 0)
    }

    const fn load(off: i16) -> Insn {
        Insn::new(code::LDX_W, 0, FP, off, 0)
    }

    /// A way to hand the address at `off` to a helper.
    fn taken(off: i32) -> [Insn; 3] {
        [
            Insn::new(code::MOV64_REG, 2, FP, 0, 0),
            Insn::new(code::ADD64_IMM, 2, 0, 0, off),
            Insn::new(code::CALL, 0, call::HELPER, 0, helper::MAP_LOOKUP_ELEM),
        ]
    }

    /// What becomes of the instructions in front of the exit, in a frame of at most `room` octets.
    fn within(room: i32, insns: impl IntoIterator<Item = Insn>) -> Vec<Insn> {
        let insns: Vec<_> = insns.into_iter().chain([EXIT]).collect();
        let mut insns = widened(&Function { insns, ..Function::default() }, room).into_owned().insns;
        insns.pop();
        insns
    }

    fn unchanged(insns: impl IntoIterator<Item = Insn>) {
        let insns: Vec<_> = insns.into_iter().collect();
        assert_eq!(within(488, insns.clone()), insns);
    }

    #[test]
    fn each_half_of_a_word_becomes_a_word() {
        let insns = within(488, [store(-8), store(-4), load(-8), load(-4)]);
        let wide = |off| Insn { code: code::STX_DW, ..store(off) };
        assert_eq!(insns, [wide(-8), wide(-16), load(-8), load(-16)]);
    }

    #[test]
    fn a_part_alone_becomes_its_word() {
        let insns = within(488, [Insn::new(code::ST_B, FP, 0, -3, -1), load(-16)]);
        assert_eq!(insns[0], Insn::new(code::ST_DW, FP, 0, -8, -1));
    }

    #[test]
    fn where_there_is_no_room_both_halves_stay() {
        let halves = [store(-8), store(-4), store(-16)];
        let insns = within(16, halves);
        assert_eq!(insns[..2], halves[..2]);
        assert_eq!(insns[2].code, code::STX_DW);
    }

    #[test]
    fn what_is_accessed_in_two_ways_stays() {
        unchanged([store(-8), Insn::new(0x71, 0, FP, -8, 0)]);
        unchanged([store(-8), store(-4), Insn::new(code::LDX_DW, 0, FP, -8, 0)]);
        // An atomic operation.
        unchanged([store(-8), Insn::new(0xc3, FP, 1, -8, 0)]);
    }

    #[test]
    fn what_an_address_leads_to_stays() {
        let insns = within(488, [store(-12), store(-24)].into_iter().chain(taken(-16)));
        assert_eq!(insns[0], store(-12));
        assert_eq!(insns[1].code, code::STX_DW);
        // Also by an offset from it, and whatever way it took.
        let by_offset = [Insn::new(code::MOV64_REG, 3, FP, 0, 0), Insn::new(code::ST_B, 3, 0, -24, 0)];
        unchanged([store(-24)].into_iter().chain(by_offset));
        let on_one_way = [Insn::new(code::JEQ_IMM, 1, 0, 2, 0)].into_iter().chain(taken(-32));
        unchanged([store(-24)].into_iter().chain(on_one_way));
    }

    #[test]
    fn an_address_that_wanders_leaves_all_as_it_is() {
        let pointer = Insn::new(code::MOV64_REG, 2, FP, 0, 0);
        let down = Insn::new(code::ADD64_IMM, 2, 0, 0, -8);
        // Down in a loop; by what is not known; out of memory again, and then down.
        unchanged([store(-64), pointer, down, Insn::new(code::JNE_IMM, 1, 0, -2, 0)]);
        unchanged([store(-64), pointer, Insn::new(code::ADD64_REG, 2, 1, 0, 0)]);
        let spilled = [Insn::new(code::STX_DW, FP, 2, -32, 0), Insn::new(code::LDX_DW, 2, FP, -32, 0)];
        unchanged([store(-64), pointer].into_iter().chain(spilled).chain([down]));
        let called = Insn::new(code::CALL, 0, call::SUBPROGRAM, 0, 0);
        unchanged([store(-64), pointer, called]);
    }
}
