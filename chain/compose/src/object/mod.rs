//! A module's ELF object, read once into functions, maps, programs and BTF.
//!
//! Nothing outside this folder knows ELF. References between functions, and from functions to
//! maps, are indices here; addresses and section numbers do not leave.
//!
//! Reading is pure. What depends on the kernel (CO-RE, `.kconfig`, `.ksyms`) waits in the object until
//! [`Object::link`]; functions that do not depend on it are ready at once.

mod core;
mod elf;
mod error;
mod externs;
mod kernel;
mod linking;
mod maps;
mod program;
#[cfg(test)]
mod tests;

use crate::btf::{Btf, CoreRelo, LineInfo, TypeId};
use crate::{Insn, MapDef};

pub use error::ObjectError;
pub use externs::{ConfigOption, Externs, KernelSymbol, KernelSymbolKind, OptionKind};
pub use kernel::{Kernel, ModuleBtf};
pub use program::{Program, ProgramKind, RunConfig};

/// An ELF object.
#[derive(Debug)]
pub struct Object {
    /// Every function, entry points and subprograms alike.
    pub functions: Vec<Function>,
    /// Entry points, in the order of the object.
    pub programs: Vec<Program>,
    /// Maps, global data sections included; type ids refer to `btf`.
    pub maps: Vec<MapDef>,
    /// Licence string; empty when the object has none.
    pub license: String,
    /// Types, when the object has any.
    pub btf: Option<Btf>,
    /// What it leaves to the kernel.
    pub externs: Externs,
    /// Whether its programs heed octets that were [skipped](xdpchain_abi::PacketContext::skipped).
    pub heeds_skipped: bool,
}

/// A function of an object.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Symbol name.
    pub name: String,
    /// Its instructions; what `references` names is not resolved in them.
    pub insns: Vec<Insn>,
    /// What the instructions refer to outside the function, ascending by instruction.
    pub references: Vec<Reference>,
    /// Its `FUNC` in the object's BTF.
    pub btf_type: Option<u32>,
    /// Source lines, ascending by instruction.
    pub lines: Vec<Line>,
    /// Operands that depend on the kernel's types, until the object is linked.
    pub core: Vec<CoreRelocation>,
    /// Why a program cannot have this function, or not yet.
    pub problem: Option<ObjectError>,
    /// What its author may not expect of it, in words.
    pub remark: Option<String>,
}

/// An instruction whose operand depends on the kernel's types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreRelocation {
    /// Index of the instruction.
    pub insn: usize,
    /// What the operand is to be.
    pub record: CoreRelo,
}

/// What an instruction refers to outside its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Index of the instruction, the first half for a 64-bit load.
    pub insn: usize,
    /// What it refers to.
    pub to: Referent,
}

/// The target of a [`Reference`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referent {
    /// A map, by its index in [`Object::maps`].
    Map(usize),
    /// An address within a map's first value.
    Value {
        /// Index in [`Object::maps`].
        map: usize,
        /// Octets from the start of the value.
        offset: u32,
    },
    /// A function that is called, by its index in [`Object::functions`].
    Call(usize),
    /// A function whose address is taken, for a callback.
    Address(usize),
    /// A function or variable of the kernel, by its index in [`Externs::symbols`], until the object is linked.
    Extern(usize),
    /// A function or variable of a kernel module, the number of whose BTF this is. Its id is in the instruction, and
    /// the descriptor of the BTF is to come.
    ModuleBtf(u32),
    /// A type of the object, whose id stands in the immediate.
    Type(TypeId),
}

/// The source of the instructions from `insn` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Index of the first instruction.
    pub insn: usize,
    /// File, text, line and column.
    pub source: LineInfo,
}

impl Object {
    /// Reads an ELF object. What a single function cannot have is its [`Function::problem`].
    ///
    /// # Errors
    /// [`ObjectError`] when `bytes` is not a little-endian BPF object, or is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, ObjectError> {
        elf::read(bytes)
    }

    /// The XDP program to run: the one called `name`, or the only one.
    ///
    /// # Errors
    /// [`ObjectError`] when there is none, there are several and none is named, or the named one cannot be in a chain.
    pub fn xdp_program(&self, name: Option<&str>) -> Result<&Program, ObjectError> {
        program::select(&self.programs, name)
    }

    /// Indices of the functions that `entry` reaches, `entry` first, each once.
    pub fn reachable(&self, entry: usize) -> Vec<usize> {
        let mut order = vec![entry];
        let mut next = 0;
        while let Some(&at) = order.get(next) {
            next += 1;
            for reference in &self.functions[at].references {
                if let Referent::Call(to) | Referent::Address(to) = reference.to
                    && !order.contains(&to)
                {
                    order.push(to);
                }
            }
        }
        order
    }
}
