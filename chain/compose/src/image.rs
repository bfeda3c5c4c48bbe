//! What composition yields: programs with symbolic map references, the maps they use, and their BTF.

use xdpchain_spec::VerdictSet;

use crate::Insn;
use crate::btf::{Btf, Features, FuncInfo, LineInfo, TypeId};

/// A chain ready to be loaded. Everything but file descriptors is in it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The programs. The fused engine makes one; the first is what the interface runs.
    pub programs: Vec<ProgramImage>,
    /// Every map that a program refers to, once; [`Target`] indexes this list.
    pub maps: Vec<MapUse>,
    /// What the program arrays among the maps hold.
    pub fills: Vec<Fill>,
    /// Types of all modules together.
    pub btf: Btf,
    /// For each program, the verdicts after which libxdp's dispatcher calls the next one; empty for the other engines.
    pub chain_calls: Vec<VerdictSet>,
}

/// A program that a program array of the image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The program array, an index into [`Image::maps`].
    pub map: usize,
    /// The array's entry.
    pub index: u32,
    /// The program, an index into [`Image::programs`].
    pub program: usize,
}

/// One program, as `BPF_PROG_LOAD` takes it but for file descriptors.
#[derive(Clone, Debug)]
pub struct ProgramImage {
    /// Kernel name, at most 15 octets.
    pub name: String,
    /// The main program followed by its subprograms; calls among them are resolved.
    pub insns: Vec<Insn>,
    /// Where map references go into `insns`.
    pub relocations: Vec<Relocation>,
    /// Types of its functions: (index of the first instruction, type id in [`Image::btf`]), ascending.
    pub functions: Vec<(u32, TypeId)>,
    /// Its source lines: (index of the first instruction, source), ascending.
    pub lines: Vec<(u32, LineInfo)>,
    /// Licence string, e.g. `Dual MIT/GPL`.
    pub license: String,
    /// `BPF_F_XDP_HAS_FRAGS`.
    pub frags: bool,
    /// Which module an instruction belongs to: (index of its first instruction, module name), ascending.
    pub origins: Vec<(u32, String)>,
}

/// Types, function types and source lines as system calls take them, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugInfo {
    /// What `BPF_BTF_LOAD` takes.
    pub btf: Vec<u8>,
    /// For each program, its records.
    pub programs: Vec<ProgramDebugInfo>,
}

/// A program's part of [`DebugInfo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramDebugInfo {
    /// `struct bpf_func_info` records of 8 octets.
    pub functions: Vec<u8>,
    /// `struct bpf_line_info` records of 16 octets.
    pub lines: Vec<u8>,
}

impl Image {
    /// Encodes the debug information for a kernel with these features.
    pub fn debug_info(&self, features: Features) -> DebugInfo {
        let mut btf = self.btf.clone();
        btf.lower_for(features);
        let encode = |program: &ProgramImage| ProgramDebugInfo {
            functions: program.functions.iter().flat_map(|&(insn, id)| FuncInfo::record(insn, id)).collect(),
            lines: program.lines.iter().flat_map(|(insn, line)| line.record(*insn, &mut btf)).collect(),
        };
        let programs = self.programs.iter().map(encode).collect();
        DebugInfo { btf: btf.to_bytes(), programs }
    }
}

/// A place in [`ProgramImage::insns`]: the first half of a 64-bit immediate load, or a call of a kernel function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Index of the instruction.
    pub insn: usize,
    /// What goes there.
    pub target: Target,
}

/// What a [`Relocation`] refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The map itself: source register `BPF_PSEUDO_MAP_FD`, immediate the file descriptor.
    Map {
        /// Index into [`Image::maps`].
        map: usize,
    },
    /// An address inside the map's first value: source register `BPF_PSEUDO_MAP_VALUE`, second immediate the offset.
    Value {
        /// Index into [`Image::maps`].
        map: usize,
        /// Octets from the start of the value.
        offset: u32,
    },
    /// A function or variable of a kernel module, whose id is in the instruction. For a call the offset becomes the
    /// index of the BTF's descriptor in the program's `fd_array`, for a load the second immediate the descriptor.
    ModuleBtf {
        /// The kernel's number of the module's BTF.
        id: u32,
    },
}

/// Who a map belongs to, and so where it is pinned and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MapOwner {
    /// The chain on one interface: exit counters, packet context.
    Chain,
    /// A module of chains.yaml, by name; lives as long as some chain of the network namespace uses the module.
    Module(String),
}

/// A map that an image refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// Who owns it.
    pub owner: MapOwner,
    /// Its definition. `owner` and `def.name` together name the map.
    pub def: MapDef,
}

impl MapUse {
    /// Whether each generation of a chain has one of its own: it holds programs of that generation.
    pub fn renewed(&self) -> bool {
        self.owner == MapOwner::Chain && self.def.name == crate::tail::SLOTS_MAP
    }
}

/// The kernel's number of a map type (`enum bpf_map_type`).
pub type MapType = u32;

/// A map as an object defines it, after chains.yaml's overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapDef {
    /// Name as in the object; the kernel is given the first 15 octets.
    pub name: String,
    /// `enum bpf_map_type`.
    pub map_type: MapType,
    /// Octets.
    pub key_size: u32,
    /// Octets; of one CPU's value for per-CPU maps.
    pub value_size: u32,
    /// Entries, or octets for a ring buffer.
    pub max_entries: u32,
    /// `BPF_F_*` creation flags.
    pub flags: u32,
    /// What else the type of map has to be told, e.g. how many hash functions a bloom filter has.
    pub extra: u64,
    /// NUMA node of its memory, when `flags` has `BPF_F_NUMA_NODE`.
    pub numa_node: u32,
    /// Type id of the key in [`Image::btf`], 0 when there is none.
    pub btf_key: u32,
    /// Type id of the value in [`Image::btf`], 0 when there is none.
    pub btf_value: u32,
    /// For maps of maps: the inner map's definition.
    pub inner: Option<Box<MapDef>>,
    /// First value of a global data section.
    pub initial: Option<InitialData>,
    /// What entries of a map of maps or of a program array hold from the start, by index, ascending.
    pub values: Vec<(u32, Initial)>,
}

/// What an entry of a map of maps or of a program array holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initial {
    /// A map, by its index in [`Object::maps`](crate::object::Object::maps), of an image in [`Image::maps`].
    Map(usize),
    /// A program of the object, by name.
    Program(String),
}

/// Contents of `.rodata`, `.data` or `.bss`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialData {
    /// The value of entry 0; what is missing at its end is zeros.
    pub bytes: Vec<u8>,
    /// Freeze the map after it is filled (`.rodata`).
    pub frozen: bool,
}
