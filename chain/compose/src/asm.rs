//! Program text under construction: instructions, labels, references and source lines.
//!
//! Every jump and call is written against a [`Label`] and gets its distance in [`Assembler::finish`], so no
//! code here counts instructions.

use crate::btf::LineInfo;
use crate::insn::{code, pseudo};
use crate::{ComposeError, Insn, Relocation, Target};

/// A place in the text, perhaps not reached yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// What of an instruction a label fills in.
#[derive(Debug)]
enum Fixup {
    /// The 16-bit offset of a jump.
    Jump,
    /// The immediate of a call or of a function's address.
    Immediate,
}

/// The source of the instructions from `insn` on.
#[derive(Debug)]
pub struct SourceLine {
    /// Index of the first instruction.
    pub insn: usize,
    /// Its source.
    pub source: LineInfo,
}

/// Text that is being written, from the first instruction on.
#[derive(Debug, Default)]
pub struct Assembler {
    insns: Vec<Insn>,
    relocations: Vec<Relocation>,
    lines: Vec<SourceLine>,
    origins: Vec<(u32, String)>,
    labels: Vec<Option<usize>>,
    fixups: Vec<(usize, Label, Fixup)>,
}

/// Finished text.
#[derive(Debug)]
pub struct Text {
    /// Every instruction, all distances filled in.
    pub insns: Vec<Insn>,
    /// Where map references go.
    pub relocations: Vec<Relocation>,
    /// Source lines, ascending.
    pub lines: Vec<SourceLine>,
    /// (first instruction, module), ascending.
    pub origins: Vec<(u32, String)>,
    labels: Vec<Option<usize>>,
}

impl Text {
    /// Index of the instruction that the label stands at.
    pub fn place(&self, label: Label) -> usize {
        self.labels[label.0].expect("finish has checked that every label is placed")
    }
}

impl Assembler {
    /// Index of the next instruction.
    pub fn here(&self) -> usize {
        self.insns.len()
    }

    /// Whether there are only stores so far, so that every register is as it was at the start.
    pub fn only_stores(&self) -> bool {
        self.insns.iter().all(|insn| matches!(insn.code, code::ST_DW | code::STX_DW))
    }

    /// A label for a place to be given later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts the label at the next instruction.
    pub fn place(&mut self, label: Label) {
        debug_assert!(self.labels[label.0].is_none(), "a label has one place");
        self.labels[label.0] = Some(self.here());
    }

    /// An instruction as it is.
    pub fn emit(&mut self, insn: Insn) {
        self.insns.push(insn);
    }

    /// An instruction without offset.
    pub fn op(&mut self, code: u8, dst: u8, src: u8, imm: i32) {
        self.emit(Insn::new(code, dst, src, 0, imm));
    }

    /// A load or store at `off`.
    pub fn mem(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) {
        self.emit(Insn::new(code, dst, src, off, imm));
    }

    /// A jump whatever the registers hold.
    pub fn jump(&mut self, to: Label) {
        self.branch(Insn::new(code::JA, 0, 0, 0, 0), to);
    }

    /// A conditional jump that compares `dst` with `imm`.
    pub fn jump_if(&mut self, code: u8, dst: u8, imm: i32, to: Label) {
        self.branch(Insn::new(code, dst, 0, 0, imm), to);
    }

    /// Any jump with a 16-bit offset, which becomes the distance to `to`.
    pub fn branch(&mut self, insn: Insn, to: Label) {
        self.fixups.push((self.here(), to, Fixup::Jump));
        self.emit(insn);
    }

    /// A call of, or the first half of a load of the address of, the function at `to`.
    pub fn function(&mut self, insn: Insn, to: Label) {
        self.fixups.push((self.here(), to, Fixup::Immediate));
        self.emit(insn);
    }

    /// An instruction whose immediate the loader fills in.
    pub fn relocated(&mut self, insn: Insn, target: Target) {
        self.relocations.push(Relocation { insn: self.here(), target });
        self.emit(insn);
    }

    /// Both halves of a load of a map's address.
    pub fn load_map(&mut self, dst: u8, map: usize) {
        self.relocated(Insn::new(code::LD_IMM64, dst, 0, 0, 0), Target::Map { map });
        self.emit(Insn::default());
    }

    /// Both halves of a load of the address of a map's first value.
    pub fn load_value(&mut self, dst: u8, map: usize) {
        self.relocated(Insn::new(code::LD_IMM64, dst, 0, 0, 0), Target::Value { map, offset: 0 });
        self.emit(Insn::default());
    }

    /// Names the source of what follows; replaces a name that covers no instruction.
    pub fn line(&mut self, source: LineInfo) {
        let line = SourceLine { insn: self.here(), source };
        match self.lines.last_mut() {
            Some(last) if last.insn == line.insn => *last = line,
            _ => self.lines.push(line),
        }
    }

    /// What follows belongs to this module, or to nobody's when empty.
    pub fn origin(&mut self, module: &str) {
        self.origins.push((self.here() as u32, module.to_owned()));
    }

    /// Fills in every distance.
    ///
    /// # Errors
    /// [`ComposeError::JumpTooFar`] when a distance does not fit its instruction.
    ///
    /// # Panics
    /// When a label is used that has no place.
    pub fn finish(mut self) -> Result<Text, ComposeError> {
        for (at, label, fixup) in &self.fixups {
            let to = self.labels[label.0].expect("every label that is used is placed");
            let distance = to as i64 - *at as i64 - 1;
            let insn = &mut self.insns[*at];
            match fixup {
                Fixup::Jump if insn.code == code::JA32 => insn.imm = distance as i32,
                Fixup::Jump => {
                    insn.off = i16::try_from(distance).map_err(|_| ComposeError::JumpTooFar {
                        place: origin_of(&self.origins, *at),
                        distance,
                    })?;
                }
                Fixup::Immediate => {
                    if insn.is_wide() {
                        insn.regs = insn.dst() | pseudo::FUNC << 4;
                    }
                    insn.imm = distance as i32;
                }
            }
        }
        Ok(Text {
            insns: self.insns,
            relocations: self.relocations,
            lines: self.lines,
            origins: self.origins,
            labels: self.labels,
        })
    }
}

fn origin_of(origins: &[(u32, String)], insn: usize) -> String {
    match origins.iter().rev().find(|(first, _)| *first as usize <= insn) {
        Some((_, module)) if !module.is_empty() => format!("module `{module}`"),
        _ => "the chain's own code".to_owned(),
    }
}
