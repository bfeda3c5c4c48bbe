//! Words of the stack that a main body writes in parts, written whole instead.
//!
//! To the verifier a word of the stack that is written in parts still has what it had before (see `forget.rs`), so the chain would
//! have to zero it in front of the body. Compilers keep 32-bit numbers that way, two to a word. Where nothing but the body's own
//! loads and stores by r10 can reach a word, each part becomes a word of its own and its stores write all of that: what is loaded is
//! the same, and nothing has to be zeroed.
//!
//! Who else could reach a word is told by `stack.rs`: addresses of the stack are handed out from there up. Where a body does with
//! such an address what is not understood, nothing is widened.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::flow::firsts;
use super::stack::{frame_from, lowest_taken};
use crate::Insn;
use crate::insn::{FP, MODE, MODE_MEM, SIZE, SIZE_DW, class};
use crate::object::Function;

/// A main body as it is inlined.
#[derive(Clone)]
pub(crate) struct Body<'a> {
    pub(crate) function: Cow<'a, Function>,
    /// Loads that are to be followed by one of their lower four octets alone.
    pub(crate) narrowed: BTreeSet<usize>,
}

impl<'a> Body<'a> {
    /// A body as it is.
    pub(crate) fn of(function: &'a Function) -> Self {
        Self { function: Cow::Borrowed(function), narrowed: BTreeSet::new() }
    }

    /// Widens words as far as that can be, in a frame of at most `room` octets.
    pub(crate) fn widen(&mut self, room: i32) {
        let Some(taken) = lowest_taken(&self.function) else { return };
        let cells = Cells::of(&self.function.insns, taken);
        let moved = cells.moved((frame_from(&self.function, taken) + 7) & !7, room);
        if moved.is_empty() {
            return;
        }
        // Second halves of 64-bit loads are no accesses.
        for (at, insn) in self.function.to_mut().insns.iter_mut().enumerate() {
            let Some(to) = by_fp(*insn).and_then(|off| moved.get(&off)) else { continue };
            // The start of a word the verifier knows again as it was stored, but kernels before 6.9 only when all that was stored is
            // loaded.
            if insn.class() != class::LDX {
                insn.code = insn.code & !SIZE | SIZE_DW;
            } else if insn.off & 7 == 0 {
                insn.code = insn.code & !SIZE | SIZE_DW;
                self.narrowed.insert(at);
            }
            insn.off = *to;
        }
    }
}

/// The offset from the frame pointer at which `insn` loads or stores by that.
fn by_fp(insn: Insn) -> Option<i16> {
    let by_fp = match insn.class() {
        class::LDX => insn.src() == FP,
        class::ST => insn.dst() == FP,
        // The address of a load with an order is its source.
        class::STX => insn.dst() == FP || insn.code & MODE != MODE_MEM && insn.src() == FP,
        _ => false,
    };
    by_fp.then_some(insn.off)
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
            let Some(off) = by_fp(insn).filter(|off| *off < 0) else { continue };
            let (word, octets) = (off & !7, insn.octets());
            let end = off.saturating_add(octets);
            // Of fewer than four octets at a word's start the verifier knows what was stored, and would not behind a load of all eight.
            let few = off == word && octets < 4;
            if insn.code & MODE != MODE_MEM || few || end > word + 8 {
                mixed.extend([word, word.saturating_add(8)]);
                continue;
            }
            let cells = words.entry(word).or_default();
            let alike = *cells.entry(off).or_insert(octets) == octets;
            let apart = cells.iter().all(|(at, len)| *at == off || at + len <= off || end <= *at);
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
            if more > 0 && frame + more > room {
                continue;
            }
            let places = (1..).map(|n| (-frame - 8 * n) as i16);
            moved.extend(cells.iter().copied().zip([*word].into_iter().chain(places)));
            frame += more;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::super::stack::LOAD_ACQUIRE;
    use super::*;
    use crate::insn::{call, code, helper};

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
        let function = Function { insns, ..Function::default() };
        let mut body = Body::of(&function);
        body.widen(room);
        let loads = body.function.insns.iter().enumerate().filter(|(_, insn)| insn.code == code::LDX_DW);
        let changed = loads.map(|(at, _)| at).filter(|at| function.insns[*at].code != code::LDX_DW);
        assert_eq!(body.narrowed, changed.collect());
        let mut insns = body.function.into_owned().insns;
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
        let all = Insn { code: code::LDX_DW, ..load(-8) };
        assert_eq!(insns, [wide(-8), wide(-16), all, load(-16)]);
    }

    #[test]
    fn a_part_alone_becomes_its_word() {
        let insns = within(488, [Insn::new(code::ST_B, FP, 0, -3, -1), load(-16)]);
        assert_eq!(insns[0], Insn::new(code::ST_DW, FP, 0, -8, -1));
        unchanged([Insn::new(code::ST_B, FP, 0, -8, -1)]);
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
        unchanged([store(-4), Insn::new(0xc3, 3, FP, -4, LOAD_ACQUIRE)]);
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
        // In parts, by which it could be put together again.
        unchanged([store(-64), pointer, Insn::new(code::STX_W, 6, 2, 0, 0)]);
    }

    #[test]
    fn atomic_operations_leave_what_they_do_not_write() {
        let pointer = |to| Insn::new(code::MOV64_REG, to, FP, 0, 0);
        let through = |by| Insn::new(code::ST_B, by, 0, -60, 1);
        let halves = [store(-64), store(-60)];
        // An addition writes no register; an exchange does one, and a load that of its destination.
        unchanged(halves.into_iter().chain([pointer(0), Insn::new(0xdb, 6, 1, 0, 0), through(0)]));
        unchanged(halves.into_iter().chain([pointer(2), Insn::new(0xdb, 6, 1, 0, 0xf1), through(2)]));
        unchanged(halves.into_iter().chain([pointer(2), Insn::new(0xc3, 3, 2, -60, LOAD_ACQUIRE)]));
        unchanged(halves.into_iter().chain([Insn::new(0xdb, 6, 1, 0, 0x7f)]));
        let done =
            within(488, halves.into_iter().chain([pointer(0), Insn::new(0xdb, 6, 1, 0, 0xf1), through(0)]));
        assert_eq!(done[0].code, code::STX_DW);
    }
}
