//! A module's functions as part of a fused program.
//!
//! The main body is inlined: its frame lies below the chain's own, so every offset from the frame pointer
//! moves by the size of that, and every `exit` becomes a jump. Subprograms have frames of their own and are
//! copied as they are.

use std::collections::BTreeSet;

use super::asm::{Assembler, Label};
use super::flow::firsts;
use super::forget::Forgotten;
use super::known::Known;
use super::stack::LOAD_ACQUIRE;
use crate::btf::{LineInfo, Name};
use crate::insn::{FP, MODE, MODE_MEM, call, class, code, helper};
use crate::object::{Function, Referent};
use crate::{ComposeError, Insn, Target};

const KEEP_FP_PLAIN: &str = "compile the module with clang or bpf-linker at -O2; hand-written code must only load, store and copy by r10";

const NO_RECURSION: &str =
    "the kernel takes no function that calls itself, directly or by way of others; use a loop";

/// How a function's references are to be filled in.
pub(crate) struct Links<'a> {
    /// The module's name, for errors and source lines.
    pub(crate) module: &'a str,
    /// For each map of the object, its index in the image.
    pub(crate) maps: &'a [usize],
    /// For each function of the object, its label, when it is part of the image.
    pub(crate) functions: &'a [Option<Label>],
    /// What is added to a type id of the object to get the image's.
    pub(crate) type_shift: u32,
}

/// How a main body is inlined.
pub(crate) struct Inlined<'a> {
    /// Octets by which its frame is lower.
    pub(crate) frame: i16,
    /// Where its exits go.
    pub(crate) exit: Label,
    /// What of its stack is zeroed within it.
    pub(crate) forgotten: &'a Forgotten,
    /// Loads of which the lower four octets are meant.
    pub(crate) narrowed: &'a BTreeSet<usize>,
    /// Its look-ups whose answer is known.
    pub(crate) known: &'a Known,
    /// Where the first entry is of the map with this index in the object, for all of these.
    pub(crate) first_entry: &'a dyn Fn(usize) -> Option<FirstEntry>,
}

/// Where a map's first entry is known to be.
pub(crate) enum FirstEntry {
    /// Its address is on the stack, at this offset from the frame pointer.
    OnStack(i16),
    /// It is the only one of this map of the image, an array.
    OfMap(usize),
}

/// Emits `function` as a part of a program.
pub(crate) fn main(
    asm: &mut Assembler,
    function: &Function,
    links: &Links<'_>,
    inlined: Inlined<'_>,
) -> Result<(), ComposeError> {
    copy(asm, function, links, Some(inlined))
}

/// Zeroes words of the stack of a main body, whose frame is `frame` octets lower.
pub(crate) fn zero(asm: &mut Assembler, words: &BTreeSet<i16>, frame: i16) {
    for at in words.iter().filter_map(|at| at.checked_sub(frame)) {
        asm.mem(code::ST_DW, FP, 0, at, 0);
    }
}

/// Emits `function` as a subprogram.
pub(crate) fn subprogram(
    asm: &mut Assembler,
    function: &Function,
    links: &Links<'_>,
) -> Result<(), ComposeError> {
    copy(asm, function, links, None)
}

fn copy(
    asm: &mut Assembler,
    function: &Function,
    links: &Links<'_>,
    inlined: Option<Inlined<'_>>,
) -> Result<(), ComposeError> {
    let error = |insn: usize, what: String, help: &'static str| ComposeError::Code {
        module: links.module.to_owned(),
        function: function.name.clone(),
        insn,
        what,
        help,
    };
    let damaged = |insn, what: &str| error(insn, what.to_owned(), "build the object again");

    if let Some(problem) = &function.problem {
        return Err(ComposeError::Object { module: links.module.to_owned(), error: problem.clone() });
    }
    // A label for each instruction that a branch leads to.
    let mut targets: Vec<Option<Label>> = vec![None; function.insns.len()];
    for (i, insn) in firsts(&function.insns) {
        if insn.is_branch() {
            let to = i as i64 + 1 + insn.distance();
            let target = usize::try_from(to)
                .ok()
                .and_then(|to| targets.get_mut(to))
                .ok_or_else(|| damaged(i, "a jump out of the function"))?;
            target.get_or_insert_with(|| asm.label());
        }
    }

    let mut files = FileNames::new(links.module);
    let mut lines = function.lines.iter().peekable();
    let mut references = function.references.iter().peekable();
    let last = function.insns.len().saturating_sub(1);
    if let Some(insn) = function.insns.last()
        && (!matches!(insn.code, code::EXIT | code::JA | code::JA32) || second_half(&function.insns, last))
    {
        return Err(damaged(last, "runs on past its end"));
    }
    let mut wide = false;
    let mut folded = None;
    for (i, &insn) in function.insns.iter().enumerate() {
        if let Some(Inlined { frame, forgotten, .. }) = inlined.as_ref().filter(|to| to.forgotten.at == i) {
            zero(asm, &forgotten.within, *frame);
        }
        if let Some(label) = targets[i] {
            if wide {
                return Err(damaged(i, "a jump into the middle of a 64-bit load"));
            }
            asm.place(label);
        }
        if std::mem::take(&mut wide) {
            if !is_spared(inlined.as_ref(), i - 1) {
                asm.emit(insn);
            }
            continue;
        }
        while let Some(line) = lines.next_if(|l| l.insn <= i) {
            if line.insn == i {
                asm.line(LineInfo { file: files.of(&line.source.file), ..line.source.clone() });
            }
        }
        wide = insn.is_wide();
        let reference = references.next_if(|r| r.insn == i);
        if is_spared(inlined.as_ref(), i) {
            continue;
        }
        if let Some(Inlined { known, first_entry, .. }) = &inlined {
            if let Some(entry) = known.calls.get(&i).and_then(|map| first_entry(*map)) {
                let place = known.places.get(&i).copied().unwrap_or(0);
                match entry {
                    FirstEntry::OnStack(at) => asm.mem(code::LDX_DW, place, FP, at, 0),
                    FirstEntry::OfMap(map) => asm.load_value(place, map),
                }
                continue;
            }
            if let Some(is_taken) = known.checks.get(&i) {
                if *is_taken {
                    let to = (i as i64 + 1 + insn.distance()) as usize;
                    asm.jump(targets[to].expect("the first pass made a label for it"));
                }
                continue;
            }
        }
        if folded == Some(i) {
            continue;
        }
        if let Some(reference) = reference {
            // Every function that is reached has a label, but for a main body that is inlined.
            let function_label = |to: usize| {
                let recursion = || error(i, "calls the program that it is part of".into(), NO_RECURSION);
                links.functions[to].ok_or_else(recursion)
            };
            match reference.to {
                Referent::Map(map) => asm.relocated(insn, Target::Map { map: links.maps[map] }),
                Referent::Value { map, offset } => {
                    asm.relocated(insn, Target::Value { map: links.maps[map], offset });
                }
                Referent::Call(to) => {
                    let insn = Insn::new(code::CALL, 0, call::SUBPROGRAM, 0, 0);
                    asm.function(insn, function_label(to)?);
                }
                Referent::Address(to) => asm.function(insn, function_label(to)?),
                Referent::ModuleBtf(id) => asm.relocated(insn, Target::ModuleBtf { id }),
                Referent::Type(id) => {
                    asm.emit(Insn { imm: id.wrapping_add(links.type_shift) as i32, ..insn });
                }
                Referent::Extern(_) => {
                    return Err(damaged(i, "a kernel function or variable without a name"));
                }
            }
            continue;
        }
        let tail_call = (insn.code, insn.src(), insn.imm) == (code::CALL, call::HELPER, helper::TAIL_CALL);
        if tail_call && inlined.is_some() {
            return Err(error(
                i,
                "calls `bpf_tail_call` where the chain would not come back".into(),
                "this is a defect of xdpchain: a module with tail calls is to be called, not inlined",
            ));
        }
        match &inlined {
            Some(Inlined { exit, .. }) if insn.code == code::EXIT => {
                // What follows the last instruction is where the exit leads.
                if i != last || targets[i].is_some() {
                    asm.jump(*exit);
                }
            }
            _ if insn.is_branch() => {
                let to = (i as i64 + 1 + insn.distance()) as usize;
                let label = targets[to].expect("the first pass made a label for it");
                let compares_fp = insn.dst() == FP || insn.code & 0x08 != 0 && insn.src() == FP;
                if inlined.is_some() && insn.code != code::JA && compares_fp {
                    return Err(error(i, "compares the frame pointer".into(), KEEP_FP_PLAIN));
                }
                asm.branch(insn, label);
            }
            Some(Inlined { frame, narrowed, .. }) => {
                let added = added_at_once(function, i).filter(|_| targets[i + 1].is_none());
                folded = added.map(|_| i + 1);
                lower_frame(asm, insn, *frame, added.unwrap_or(0))
                    .map_err(|what| error(i, what.into(), KEEP_FP_PLAIN))?;
                if narrowed.contains(&i) {
                    asm.op(code::MOV32_REG, insn.dst(), insn.dst(), 0);
                }
            }
            None => asm.emit(insn),
        }
    }
    Ok(())
}

/// What the instruction behind `at`, which copies the frame pointer, adds to the copy.
fn added_at_once(function: &Function, at: usize) -> Option<i32> {
    let (copies, adds) = (function.insns[at], *function.insns.get(at + 1)?);
    let is_copy = copies.code == code::MOV64_REG && copies.src() == FP;
    let refers = function.references.iter().any(|reference| reference.insn == at + 1);
    (is_copy && adds.code == code::ADD64_IMM && adds.dst() == copies.dst() && !refers).then_some(adds.imm)
}

/// Whether instruction `at` is left out.
fn is_spared(inlined: Option<&Inlined<'_>>, at: usize) -> bool {
    inlined.is_some_and(|to| to.known.spared.contains(&at))
}

/// Whether instruction `at` is the second half of a 64-bit load.
fn second_half(insns: &[Insn], at: usize) -> bool {
    firsts(insns).all(|(first, _)| first != at)
}

/// Offset from the frame pointer of the deepest load from the stack.
pub(crate) fn deepest_load(function: &Function) -> Option<i16> {
    let loads = function.insns.iter().filter(|insn| insn.class() == class::LDX && insn.src() == FP);
    loads.map(|insn| insn.off).filter(|off| *off < 0).min()
}

/// Emits `insn` with the frame pointer meaning an address `frame` octets lower; with `added` to a copy of it.
fn lower_frame(asm: &mut Assembler, mut insn: Insn, frame: i16, added: i32) -> Result<(), &'static str> {
    let reads_fp = insn.src() == FP;
    let moved = |off: i16| off.checked_sub(frame).ok_or("reaches too far below the frame pointer");
    match insn.class() {
        class::LDX if reads_fp => {
            insn.off = moved(insn.off)?;
            asm.emit(insn);
        }
        class::ST if insn.dst() == FP => {
            insn.off = moved(insn.off)?;
            asm.emit(insn);
        }
        // The address of a load with an order is its source.
        class::STX if reads_fp && insn.code & MODE != MODE_MEM && insn.imm == LOAD_ACQUIRE => {
            insn.off = moved(insn.off)?;
            asm.emit(insn);
        }
        class::STX => {
            if reads_fp {
                return Err("stores the frame pointer itself");
            }
            if insn.dst() == FP {
                insn.off = moved(insn.off)?;
            }
            asm.emit(insn);
        }
        class::ALU | class::ALU64 if reads_fp && insn.code & 0x08 != 0 => {
            if insn.code != code::MOV64_REG || insn.off != 0 {
                return Err("computes with the frame pointer itself");
            }
            asm.emit(insn);
            asm.op(code::ADD64_IMM, insn.dst(), 0, added.wrapping_sub(i32::from(frame)));
        }
        _ => asm.emit(insn),
    }
    Ok(())
}

/// File names with the module in front, made once each, so that a verifier log or a dump says whose line it is.
struct FileNames<'a> {
    module: &'a str,
    last: Option<(Name, Name)>,
}

impl<'a> FileNames<'a> {
    fn new(module: &'a str) -> Self {
        Self { module, last: None }
    }

    fn of(&mut self, file: &Name) -> Name {
        match &self.last {
            Some((name, named)) if name == file => named.clone(),
            _ => {
                let named = Name::from(format!("{}/{file}", self.module));
                self.last = Some((file.clone(), named.clone()));
                named
            }
        }
    }
}
