//! What is composed: modules, and slots in which they stand.

use xdpchain_spec::{ChainDefault, ModuleSpec, SlotSpec, VerdictSet};

use crate::object::{Object, Program};

/// A chain to be composed.
#[derive(Debug)]
pub struct Chain<'a> {
    /// Its name; becomes part of the program's.
    pub name: &'a str,
    /// The verdict when every slot proceeded.
    pub default: ChainDefault,
    /// The modules that the slots name, and those that their imports lead to.
    pub modules: Vec<Module<'a>>,
    /// The slots.
    pub slots: Vec<Slot<'a>>,
}

/// A module: its name, its object, and what chains.yaml says of it.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Name in chains.yaml.
    pub name: &'a str,
    /// Its object.
    pub object: &'a Object,
    /// Program, map sizes, imports.
    pub spec: &'a ModuleSpec,
    /// What tells this object from other builds of the module: the first hexadecimal digits of its SHA-256.
    pub digest: &'a str,
}

/// A slot, with the row of exit counters that is its own.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// What chains.yaml says of it.
    pub spec: &'a SlotSpec,
    /// Row of the exit counters, below [`EXIT_ROWS`].
    pub row: u32,
}

/// Name of the chain's exit counters: a per-CPU array of [`EXIT_ROWS`] rows of [`EXIT_COLUMNS`] entries, each
/// of two `u64`: packets and octets.
///
/// Columns 0 to 4 are the verdict with which the chain ended in the row's slot; octets are the frame's length
/// then. [`EXIT_UNKNOWN`] counts return values that were no verdict, whatever became of the packet.
pub const EXIT_MAP: &str = "xdpchain_exits";
/// Rows of the exit counters: twice as many as the slots of a chain, for that before a change and that after it.
pub const EXIT_ROWS: u32 = 128;
/// Slots that a chain can have.
pub const MAX_SLOTS: u32 = EXIT_ROWS / 2;
/// Entries of a row.
pub const EXIT_COLUMNS: u32 = 8;
/// Column that counts return values that were no verdict.
pub const EXIT_UNKNOWN: u32 = 5;
/// Octets of an entry.
pub const EXIT_VALUE: u32 = 16;

/// Name of the program array of one entry that holds a program that somebody else attached before the chain came. It is
/// the chain's, whichever module refers to it.
pub const ADOPTED_MAP: &str = "xdpchain_adopted";

/// The verdicts after which `slot` is followed by the next one: what chains.yaml says, else what the object says,
/// else PASS.
pub fn proceed_on(slot: &SlotSpec, program: &Program) -> VerdictSet {
    slot.proceed_on.unwrap_or_else(|| match program.run_config {
        Some(config) => VerdictSet::from_bits(config.chain_call_actions),
        None => VerdictSet::only(xdpchain_spec::Verdict::Pass),
    })
}
