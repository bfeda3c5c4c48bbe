//! Maps of an object: BTF-defined, of the old `maps` section, and the global data sections.

use std::collections::{BTreeMap, HashMap};

use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionFlags, SectionIndex,
    SymbolKind,
};

use super::elf::{Elf, ElfSection};
use super::program::Context;
use super::{ObjectError, RunConfig};
use crate::btf::{Btf, BtfMapDef, Kind, Type, TypeId};
use crate::{Initial, InitialData, MapDef};

/// Section of map definitions in BTF.
const MAPS: &str = ".maps";
/// Section of `struct bpf_map_def`s, which carry no types; some loaders want one for each map, with its name behind.
const LEGACY_MAPS: &str = "maps";
/// Section of libxdp's run configurations.
const RUN_CONFIG: &str = ".xdp_run_config";

/// `enum bpf_map_type`.
const ARRAY: u32 = 2;
const PROG_ARRAY: u32 = 3;
const ARRAY_OF_MAPS: u32 = 12;
const HASH_OF_MAPS: u32 = 13;
/// Map creation flag: programs cannot write (Linux 5.2).
const BPF_F_RDONLY_PROG: u32 = 1 << 7;

/// The maps, and where in the file instructions find them.
#[derive(Default)]
pub(super) struct MapTable {
    pub(super) maps: Vec<MapDef>,
    definitions: HashMap<(SectionIndex, u64), usize>,
    /// By address in `.maps` of a definition with `values`: the map, and how far behind they begin.
    values: BTreeMap<u64, (usize, u64)>,
    data: HashMap<SectionIndex, usize>,
    /// For data sections that have any: where addresses are to be put in, ascending.
    addresses: HashMap<SectionIndex, Vec<u64>>,
}

impl MapTable {
    pub(super) fn read(elf: &Elf<'_>, btf: Option<&Btf>) -> Result<Self, ObjectError> {
        let mut table = Self::default();
        table.read_btf_maps(elf, btf)?;
        table.read_legacy_maps(elf)?;
        table.read_data_sections(elf, btf)?;
        Ok(table)
    }

    /// The map whose definition stands at this address.
    pub(super) fn definition_at(&self, section: SectionIndex, address: u64) -> Option<usize> {
        self.definitions.get(&(section, address)).copied()
    }

    /// The map that holds a global data section.
    pub(super) fn data_section(&self, section: SectionIndex) -> Option<usize> {
        self.data.get(&section).copied()
    }

    /// Where in a data section addresses are to be put in, ascending.
    pub(super) fn addresses_in(&self, section: SectionIndex) -> &[u64] {
        self.addresses.get(&section).map_or(&[], Vec::as_slice)
    }

    fn read_btf_maps(&mut self, elf: &Elf<'_>, btf: Option<&Btf>) -> Result<(), ObjectError> {
        let Some(section) = elf.section_by_name(MAPS) else { return Ok(()) };
        let Some(btf) = btf else {
            return Err(ObjectError::damaged(
                "section `.maps` without BTF that says what is in it: it was built without `-g`, or stripped",
            ));
        };
        let symbols: HashMap<&str, u64> = elf
            .symbols()
            .filter(|s| s.section_index() == Some(section.index()) && s.kind() != SymbolKind::Section)
            .map(|s| (s.name().unwrap_or_default(), s.address()))
            .collect();
        for def in btf.map_defs()? {
            let Some(&address) = symbols.get(&*def.name) else {
                return Err(ObjectError::damaged(format!("map `{}` has no symbol", def.name)));
            };
            self.definitions.insert((section.index(), address), self.maps.len());
            if let Some(offset) = def.values_offset {
                self.values.insert(address, (self.maps.len(), u64::from(offset)));
            }
            self.maps.push(map_def(&def));
        }
        Ok(())
    }

    /// Reads what entries of maps of maps and of program arrays are to hold from the start. `entry` is the name of
    /// the function that starts at an address.
    pub(super) fn read_values(
        &mut self,
        elf: &Elf<'_>,
        entry: impl Fn(SectionIndex, u64) -> Option<String>,
    ) -> Result<(), ObjectError> {
        let Some(section) = elf.section_by_name(MAPS) else { return Ok(()) };
        let data = section.data().map_err(ObjectError::damaged)?;
        for (at, relocation) in section.relocations() {
            let damaged = |what: &str| Err(ObjectError::damaged(format!("octet {at} of `{MAPS}` {what}")));
            let slot = self.values.range(..=at).next_back().and_then(|(address, &(map, offset))| {
                let octets = at.checked_sub(address + offset)?;
                (octets % 8 == 0).then_some((map, u32::try_from(octets / 8).ok()?))
            });
            let Some((map, index)) = slot else { return damaged("is no entry of a map") };
            let RelocationTarget::Symbol(symbol) = relocation.target() else {
                return damaged("refers to no symbol");
            };
            let symbol = elf.symbol_by_index(symbol).map_err(ObjectError::damaged)?;
            // What is added to the symbol's address stands in the entry.
            let added = data
                .get(at as usize..at as usize + 8)
                .map_or(0, |octets| u64::from_le_bytes(octets.try_into().expect("eight octets")));
            let Some(to) = symbol.section_index() else { return damaged("refers to what is not defined") };
            let address = symbol.address().wrapping_add(added);
            let value = match (self.maps[map].map_type, self.definition_at(to, address), entry(to, address)) {
                (ARRAY_OF_MAPS | HASH_OF_MAPS, Some(map), _) => Initial::Map(map),
                (PROG_ARRAY, _, Some(program)) => Initial::Program(program),
                _ => return damaged("refers to what the map cannot hold"),
            };
            self.maps[map].values.push((index, value));
        }
        for map in &mut self.maps {
            map.values.sort_by_key(|(index, _)| *index);
        }
        Ok(())
    }

    fn read_legacy_maps(&mut self, elf: &Elf<'_>) -> Result<(), ObjectError> {
        for section in elf.sections() {
            let name = section.name().map_err(ObjectError::damaged)?;
            if name == LEGACY_MAPS || name.strip_prefix(LEGACY_MAPS).is_some_and(|rest| rest.starts_with('/'))
            {
                self.read_legacy_section(elf, &section)?;
            }
        }
        Ok(())
    }

    fn read_legacy_section(&mut self, elf: &Elf<'_>, section: &ElfSection<'_>) -> Result<(), ObjectError> {
        let data = section.data().map_err(ObjectError::damaged)?;
        let symbols = elf
            .symbols()
            .filter(|s| s.section_index() == Some(section.index()) && s.kind() != SymbolKind::Section);
        for symbol in symbols {
            let name = symbol.name().map_err(ObjectError::damaged)?;
            // type, key_size, value_size, max_entries, map_flags; what loaders have added behind differs.
            let start = symbol.address() as usize;
            let Some(bytes) = start.checked_add(20).and_then(|end| data.get(start..end)) else {
                return Err(ObjectError::damaged(format!("map `{name}` runs past the end of its section")));
            };
            let field =
                |i: usize| u32::from_le_bytes(bytes[i * 4..i * 4 + 4].try_into().expect("four octets"));
            self.definitions.insert((section.index(), symbol.address()), self.maps.len());
            self.maps.push(MapDef {
                name: name.to_owned(),
                map_type: field(0),
                key_size: field(1),
                value_size: field(2),
                max_entries: field(3),
                flags: field(4),
                ..MapDef::default()
            });
        }
        Ok(())
    }

    fn read_data_sections(&mut self, elf: &Elf<'_>, btf: Option<&Btf>) -> Result<(), ObjectError> {
        for section in elf.sections() {
            let name = section.name().map_err(ObjectError::damaged)?;
            let Some(kind) = data_kind(name) else { continue };
            if section.size() == 0 {
                continue;
            }
            // A hostile `.bss` may claim any size; no kernel map value is larger than this.
            if section.size() > 1 << 30 {
                return Err(ObjectError::damaged(format!(
                    "section `{name}` claims {} octets",
                    section.size()
                )));
            }
            // None for zeros, which are not in the file, however many they are.
            let bytes = section.data().map_err(ObjectError::damaged)?.to_vec();
            let btf_value = btf.and_then(|btf| btf.by_name(name, Kind::DataSec)).unwrap_or(0);
            self.data.insert(section.index(), self.maps.len());
            let mut addresses: Vec<u64> = section.relocations().map(|(at, _)| at).collect();
            addresses.sort_unstable();
            if !addresses.is_empty() {
                self.addresses.insert(section.index(), addresses);
            }
            let mut map = constants(name, section.size() as u32, bytes, btf_value);
            if kind == DataKind::Variable {
                map.flags = 0;
                map.initial.iter_mut().for_each(|initial| initial.frozen = false);
            }
            self.maps.push(map);
        }
        Ok(())
    }
}

/// The map of a section that neither programs nor anybody else can write, of BTF type `section`.
pub(super) fn constants(name: &str, size: u32, bytes: Vec<u8>, section: TypeId) -> MapDef {
    MapDef {
        name: name.to_owned(),
        map_type: ARRAY,
        key_size: 4,
        value_size: size,
        max_entries: 1,
        flags: BPF_F_RDONLY_PROG,
        btf_value: section,
        initial: Some(InitialData { bytes, frozen: true }),
        ..MapDef::default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DataKind {
    Constant,
    Variable,
}

fn data_kind(section: &str) -> Option<DataKind> {
    let is =
        |head: &str| section == head || section.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
    if is(".rodata") {
        Some(DataKind::Constant)
    } else if is(".data") || is(".bss") {
        Some(DataKind::Variable)
    } else {
        None
    }
}

fn map_def(def: &BtfMapDef) -> MapDef {
    MapDef {
        name: def.name.to_string(),
        map_type: def.map_type,
        key_size: def.key_size,
        value_size: def.value_size,
        max_entries: def.max_entries,
        flags: def.flags,
        extra: def.map_extra,
        numa_node: def.numa_node,
        btf_key: def.key_type.unwrap_or(0),
        btf_value: def.value_type.unwrap_or(0),
        inner: def.inner.as_deref().map(|inner| Box::new(map_def(inner))),
        ..MapDef::default()
    }
}

/// Compilers leave sizes and offsets of BTF's data sections to the loader; they stand in the ELF sections and symbols.
pub(super) fn complete_data_sections(elf: &Elf<'_>, btf: &mut Btf) {
    for section in elf.sections() {
        let Ok(name) = section.name() else { continue };
        let SectionFlags::Elf { .. } = section.flags() else { continue };
        let Ok(size) = u32::try_from(section.size()) else { continue };
        let offset = |variable: &str| {
            elf.symbols()
                .find(|s| s.section_index() == Some(section.index()) && s.name() == Ok(variable))
                .and_then(|s| u32::try_from(s.address()).ok())
        };
        if btf.by_name(name, Kind::DataSec).is_some() {
            btf.fix_datasec(name, size, offset);
        }
    }
}

/// What the function's types say of its context.
pub(super) fn context(btf: &Btf, function: TypeId) -> Context {
    let Some(Type::Func { proto, .. }) = btf.get(function) else { return Context::Untold };
    let Some(Type::FuncProto { params, .. }) = btf.get(*proto) else { return Context::Untold };
    match params.as_slice() {
        [] => Context::Untold,
        [ctx] => match btf.resolved(ctx.ty) {
            Some(Type::Ptr { to }) => Context::of_type(btf.name_of(btf.resolve(*to))),
            _ => Context::Other,
        },
        // A macro of another type of program, whose context is taken apart; no program has two parameters.
        _ => Context::Other,
    }
}

/// What `XDP_RUN_CONFIG(program)` in `.xdp_run_config` says: a variable `_program` of a struct whose members are
/// numbers in the manner of map definitions.
pub(super) fn run_config(btf: &Btf, program: &str) -> Option<RunConfig> {
    let section = btf.by_name(RUN_CONFIG, Kind::DataSec)?;
    let Some(Type::DataSec { vars, .. }) = btf.get(section) else { return None };
    let ty = vars.iter().find_map(|var| match btf.get(var.ty) {
        Some(Type::Var { name, ty, .. }) if name.strip_prefix('_') == Some(program) => Some(*ty),
        _ => None,
    })?;
    let Some(Type::Struct(config)) = btf.resolved(ty) else { return None };
    let number = |ty: TypeId| match btf.resolved(ty) {
        Some(Type::Ptr { to }) => match btf.resolved(*to) {
            Some(Type::Array { count, .. }) => Some(*count),
            _ => None,
        },
        _ => None,
    };
    let mut found = RunConfig::default();
    for member in &config.members {
        let Some(value) = number(member.ty) else { continue };
        let action = match &*member.name {
            "priority" => {
                found.priority = Some(value);
                continue;
            }
            "XDP_ABORTED" => 0,
            "XDP_DROP" => 1,
            "XDP_PASS" => 2,
            "XDP_TX" => 3,
            "XDP_REDIRECT" => 4,
            _ => continue,
        };
        if value != 0 {
            found.chain_call_actions |= 1 << action;
        }
    }
    Some(found)
}
