//! ELF sections, symbols and relocations turned into functions, programs and maps.

use std::collections::HashMap;

use object::elf::{EM_BPF, FileHeader64};
use object::read::elf::{ElfFile, FileHeader as _};
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget,
    SectionIndex, SectionKind, SymbolFlags, SymbolIndex, SymbolKind,
};

use xdpchain_abi::SKIPPED_SECTION;

use super::externs::ExternTable;
use super::maps::{self, MapTable};
use super::program::{self, Program};
use super::{CoreRelocation, Function, Line, Object, ObjectError, Reference, Referent};
use crate::Insn;
use crate::btf::{Btf, BtfExt, Linkage, Type};
use crate::insn::{call, code, pseudo};

pub(super) type Elf<'a> = ElfFile<'a, FileHeader64<LittleEndian>>;
pub(super) type ElfSection<'a> = object::read::elf::ElfSection64<'a, 'a, LittleEndian>;

/// Relocation types of the BPF psABI (LLVM, `llvm/BinaryFormat/ELFRelocs/BPF.def`).
const R_BPF_64_64: u32 = 1;
const R_BPF_64_32: u32 = 10;

/// Where a function stands in the file.
struct Place {
    section: SectionIndex,
    /// Octets from the start of the section.
    start: u64,
    end: u64,
}

pub(super) fn read(bytes: &[u8]) -> Result<Object, ObjectError> {
    let elf = open(bytes)?;
    let (mut btf, ext) = read_btf(&elf)?;
    let mut functions = Vec::new();
    let mut places = Vec::new();
    find_functions(&elf, &mut functions, &mut places)?;
    if let (Some(btf), Some(ext)) = (&btf, &ext) {
        attach_debug_info(&elf, btf, ext, &mut functions, &places)?;
    }
    if let Some(btf) = &mut btf {
        hide_functions(&elf, btf, &functions, &places);
        maps::complete_data_sections(&elf, btf);
    }
    let mut table = MapTable::read(&elf, btf.as_ref())?;
    let externs = ExternTable::read(&elf, btf.as_mut(), &mut table)?;
    let file = File { elf: &elf, places: &places, table: &table, externs: &externs };
    file.resolve(&mut functions)?;
    let entry = |section, address| {
        let at = function_at(&places, section, address).filter(|&i| places[i].start == address);
        at.map(|i| functions[i].name.clone())
    };
    table.read_values(&elf, entry)?;
    let programs = find_programs(&elf, btf.as_ref(), &functions, &places)?;
    let license = section_text(&elf, "license")?;
    let externs = externs.externs;
    let heeds_skipped = elf.section_by_name(SKIPPED_SECTION).is_some();
    let mut object = Object { functions, programs, maps: table.maps, license, btf, externs, heeds_skipped };
    object.note_needs();
    Ok(object)
}

fn open(bytes: &[u8]) -> Result<Elf<'_>, ObjectError> {
    let kind = object::FileKind::parse(bytes).map_err(|e| ObjectError::NotElf(e.to_string()))?;
    if kind != object::FileKind::Elf64 {
        return Err(match kind {
            object::FileKind::Elf32 => ObjectError::NotBpf("a 32-bit ELF file".into()),
            other => ObjectError::NotElf(format!("a file of kind {other:?}")),
        });
    }
    if bytes.get(5) != Some(&object::elf::ELFDATA2LSB) {
        return Err(ObjectError::NotBpf("big-endian".into()));
    }
    let elf = Elf::parse(bytes).map_err(|e| ObjectError::NotElf(e.to_string()))?;
    let machine = elf.elf_header().e_machine(LittleEndian);
    if machine != EM_BPF {
        return Err(ObjectError::NotBpf(format!("machine {machine}, not {EM_BPF}")));
    }
    if elf.elf_header().e_type(LittleEndian) != object::elf::ET_REL {
        return Err(ObjectError::NotBpf("not a relocatable object".into()));
    }
    Ok(elf)
}

fn read_btf(elf: &Elf<'_>) -> Result<(Option<Btf>, Option<BtfExt>), ObjectError> {
    let Some(section) = elf.section_by_name(".BTF") else { return Ok((None, None)) };
    let data = section.data().map_err(ObjectError::damaged)?;
    let btf = Btf::parse(data)?;
    let ext = match elf.section_by_name(".BTF.ext") {
        Some(section) => Some(BtfExt::parse(section.data().map_err(ObjectError::damaged)?, &btf)?),
        None => None,
    };
    Ok((Some(btf), ext))
}

fn section_text(elf: &Elf<'_>, name: &str) -> Result<String, ObjectError> {
    let Some(section) = elf.section_by_name(name) else { return Ok(String::new()) };
    let data = section.data().map_err(ObjectError::damaged)?;
    let text = data.split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8(text.to_vec())
        .map_err(|_| ObjectError::damaged(format!("section `{name}` is not text")))
}

/// Cuts the executable sections into functions, at their symbols.
fn find_functions(
    elf: &Elf<'_>,
    functions: &mut Vec<Function>,
    places: &mut Vec<Place>,
) -> Result<(), ObjectError> {
    for section in elf.sections().filter(|s| s.kind() == SectionKind::Text && s.size() > 0) {
        let section_name = section.name().map_err(ObjectError::damaged)?;
        let data = section.data().map_err(ObjectError::damaged)?;
        if data.len() % 8 != 0 {
            return Err(ObjectError::damaged(format!("section `{section_name}` is not whole instructions")));
        }
        // A global symbol names the function better than a local alias of the same address.
        let mut starts: Vec<(u64, bool, &str)> = elf
            .symbols()
            .filter(|s| is_function(s) && s.section_index() == Some(section.index()))
            .map(|s| (s.address(), !s.is_global(), s.name().unwrap_or_default()))
            .collect();
        starts.sort();
        starts.dedup_by_key(|s| s.0);
        if starts.first().is_none_or(|s| s.0 != 0) {
            starts.insert(0, (0, true, section_name));
        }
        for (i, &(start, _, name)) in starts.iter().enumerate() {
            let end = starts.get(i + 1).map_or(data.len() as u64, |s| s.0);
            if start % 8 != 0 || start >= end || end > data.len() as u64 {
                return Err(ObjectError::damaged(format!(
                    "function `{name}` does not lie within `{section_name}`"
                )));
            }
            let code = &data[start as usize..end as usize];
            let insns =
                code.chunks_exact(8).map(|c| Insn::from_bytes(c.try_into().expect("eight octets"))).collect();
            functions.push(Function {
                name: name.to_owned(),
                insns,
                references: Vec::new(),
                btf_type: None,
                lines: Vec::new(),
                core: Vec::new(),
                problem: None,
                remark: None,
            });
            places.push(Place { section: section.index(), start, end });
        }
    }
    Ok(())
}

/// Index of the function that contains an address of a section.
fn function_at(places: &[Place], section: SectionIndex, address: u64) -> Option<usize> {
    places.iter().position(|p| p.section == section && p.start <= address && address < p.end)
}

/// Hands BTF's function types and source lines to the functions they are about.
fn attach_debug_info(
    elf: &Elf<'_>,
    btf: &Btf,
    ext: &BtfExt,
    functions: &mut [Function],
    places: &[Place],
) -> Result<(), ObjectError> {
    let section_index = |name: &str| elf.section_by_name(name).map(|s| s.index());
    for section in &ext.functions {
        let Some(index) = section_index(&section.section) else { continue };
        for record in &section.records {
            let offset = u64::from(record.offset);
            if btf.get(record.type_id).is_none() {
                return Err(ObjectError::damaged(format!("function info names type {}", record.type_id)));
            }
            if let Some(i) = function_at(places, index, offset)
                && places[i].start == offset
            {
                functions[i].btf_type = Some(record.type_id);
            }
        }
    }
    for section in &ext.lines {
        let Some(index) = section_index(&section.section) else { continue };
        for record in &section.records {
            let offset = u64::from(record.offset);
            let Some(i) = function_at(places, index, offset) else { continue };
            let insn = ((offset - places[i].start) / 8) as usize;
            functions[i].lines.push(Line { insn, source: record.clone() });
        }
    }
    for section in &ext.relocations {
        let Some(index) = section_index(&section.section) else { continue };
        for record in &section.records {
            let offset = u64::from(record.offset);
            if let Some(i) = function_at(places, index, offset) {
                let insn = ((offset - places[i].start) / 8) as usize;
                functions[i].core.push(CoreRelocation { insn, record: record.clone() });
            }
        }
    }
    for function in functions {
        function.lines.sort_by_key(|l| l.insn);
        function.lines.dedup_by_key(|l| l.insn);
    }
    Ok(())
}

/// Makes functions of hidden visibility static in BTF, as libbpf does: the verifier then follows their calls, instead of
/// judging them once by parameter types that compilers' built-ins (`memset` and the like) do not have.
fn hide_functions(elf: &Elf<'_>, btf: &mut Btf, functions: &[Function], places: &[Place]) {
    for symbol in elf.symbols().filter(|s| s.kind() == SymbolKind::Text) {
        let SymbolFlags::Elf { st_other, .. } = symbol.flags() else { continue };
        let visibility = st_other & 3;
        if visibility != object::elf::STV_HIDDEN && visibility != object::elf::STV_INTERNAL {
            continue;
        }
        let Some(section) = symbol.section_index() else { continue };
        let id = function_at(places, section, symbol.address()).and_then(|i| functions[i].btf_type);
        if let Some(Type::Func { linkage, .. }) = id.and_then(|id| btf.get_mut(id)) {
            *linkage = Linkage::Static;
        }
    }
}

/// An object's file and what has been read of it, to follow references by.
struct File<'a> {
    elf: &'a Elf<'a>,
    places: &'a [Place],
    table: &'a MapTable,
    externs: &'a ExternTable,
}

impl File<'_> {
    /// Fills every function's references from relocations, and from calls that need none.
    fn resolve(&self, functions: &mut [Function]) -> Result<(), ObjectError> {
        let mut relocations: HashMap<(SectionIndex, u64), (SymbolIndex, u32)> = HashMap::new();
        for section in self.elf.sections().filter(|s| s.kind() == SectionKind::Text) {
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else {
                    return Err(ObjectError::damaged(format!("relocation at octet {offset} has no symbol")));
                };
                let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
                relocations.insert((section.index(), offset), (symbol, r_type));
            }
        }
        for (function, place) in functions.iter_mut().zip(self.places) {
            let mut skip = false;
            for i in 0..function.insns.len() {
                // The second half of a wide load is data, whatever it looks like.
                if std::mem::take(&mut skip) {
                    continue;
                }
                let insn = function.insns[i];
                skip = insn.is_wide();
                if skip && i + 1 == function.insns.len() {
                    return Err(ObjectError::damaged(format!(
                        "`{}` ends within a 64-bit load",
                        function.name
                    )));
                }
                let at = place.start + i as u64 * 8;
                let here = || at as i64 + 8 + i64::from(insn.imm) * 8;
                let to = match relocations.get(&(place.section, at)) {
                    Some(&(symbol, r_type)) => self.relocation(&function.name, insn, symbol, r_type),
                    None if insn.code == code::CALL && insn.src() == call::SUBPROGRAM => {
                        self.called(place.section, here(), &function.name).map(Referent::Call)
                    }
                    None if insn.is_wide() && insn.src() == pseudo::FUNC => {
                        self.called(place.section, here(), &function.name).map(Referent::Address)
                    }
                    None => continue,
                };
                match to {
                    Ok(to) => {
                        let value = matches!(to, Referent::Value { .. });
                        function.references.push(Reference { insn: i, to });
                        if let Some((symbol, _)) = relocations.get(&(place.section, at)).filter(|_| value) {
                            self.remark(function, *symbol);
                        }
                    }
                    Err(problem) => drop(function.problem.get_or_insert(problem)),
                }
            }
        }
        Ok(())
    }

    /// The function that starts at octet `target` of the section.
    fn called(&self, section: SectionIndex, target: i64, caller: &str) -> Result<usize, ObjectError> {
        u64::try_from(target)
            .ok()
            .and_then(|t| function_at(self.places, section, t).filter(|&i| self.places[i].start == t))
            .ok_or_else(|| {
                ObjectError::damaged(format!("`{caller}` calls octet {target}, where no function starts"))
            })
    }

    /// What the instruction refers to by way of a symbol.
    fn relocation(
        &self,
        function: &str,
        insn: Insn,
        index: SymbolIndex,
        r_type: u32,
    ) -> Result<Referent, ObjectError> {
        let symbol = self.elf.symbol_by_index(index).map_err(ObjectError::damaged)?;
        let name = symbol.name().unwrap_or_default();
        let wrong = || {
            let opcode = insn.code;
            ObjectError::damaged(format!("relocation of type {r_type} on opcode {opcode:#x} in `{function}`"))
        };
        let Some(section) = symbol.section_index() else {
            let undefined =
                || ObjectError::Undefined { function: function.to_owned(), symbol: name.to_owned() };
            let to = self.externs.referent(index).ok_or_else(undefined)?;
            let fits = match insn.code {
                code::CALL => self.externs.is_function(to),
                code::LD_IMM64 => true,
                _ => false,
            };
            return if fits { Ok(to) } else { Err(wrong()) };
        };
        match (r_type, insn.code) {
            (R_BPF_64_32, code::CALL) if insn.src() == call::SUBPROGRAM => {
                // The compiler leaves the distance from the symbol, less one, in the immediate.
                let target = symbol.address() as i64 + (i64::from(insn.imm) + 1) * 8;
                self.called(section, target, function).map(Referent::Call)
            }
            (R_BPF_64_64, code::LD_IMM64) => {
                let offset = symbol.address() as i64 + i64::from(insn.imm);
                let map = self.table.definition_at(section, offset as u64);
                // Loaders do not look at the immediate where the symbol is the map's own.
                if let Some(map) = map.or_else(|| self.table.definition_at(section, symbol.address())) {
                    return Ok(Referent::Map(map));
                }
                if let Some(map) = self.table.data_section(section) {
                    let offset = u32::try_from(offset).map_err(|_| {
                        ObjectError::damaged(format!("`{function}` refers to {offset} octets into `{name}`"))
                    })?;
                    return Ok(Referent::Value { map, offset });
                }
                if self.places.iter().any(|p| p.section == section) {
                    return self.called(section, offset, function).map(Referent::Address);
                }
                Err(ObjectError::Unsupported {
                    place: function.to_owned(),
                    feature: format!("`{name}` in section `{}`", self.section_name(section)),
                })
            }
            _ => Err(wrong()),
        }
    }

    fn section_name(&self, section: SectionIndex) -> String {
        let section = self.elf.section_by_index(section);
        section.and_then(|s| s.name().map(str::to_owned)).unwrap_or_default()
    }

    /// Remarks that a reference leads to a variable that holds addresses: every loader leaves what the compiler put there.
    fn remark(&self, function: &mut Function, symbol: SymbolIndex) {
        let Ok(symbol) = self.elf.symbol_by_index(symbol) else { return };
        let Some(section) = symbol.section_index() else { return };
        let Some(insn) = function.references.last().map(|reference| function.insns[reference.insn]) else {
            return;
        };
        let Ok(offset) = u64::try_from(symbol.address() as i64 + i64::from(insn.imm)) else { return };
        let addresses = self.table.addresses_in(section);
        let variable = self.elf.symbols().find(|s| {
            s.kind() == SymbolKind::Data
                && s.section_index() == Some(section)
                && s.address() <= offset
                && offset - s.address() < s.size()
        });
        let (name, start, size) = match &variable {
            Some(s) => (s.name().unwrap_or_default(), s.address(), s.size()),
            None => ("", offset, 8),
        };
        let first = addresses.partition_point(|address| *address < start);
        if addresses.get(first).is_some_and(|address| address - start < size) {
            function.remark.get_or_insert_with(|| {
                format!(
                    "`{}` uses `{name}` in section `{}`, which is to hold addresses of other things, and holds none in a \
                     BPF program: arrays of octets or indices do",
                    function.name,
                    self.section_name(section)
                )
            });
        }
    }
}

/// Whether a symbol is a function's. Old compilers give theirs no type.
fn is_function<'a>(symbol: &impl object::ObjectSymbol<'a>) -> bool {
    match symbol.kind() {
        SymbolKind::Text => true,
        SymbolKind::Unknown => symbol.is_global() && !symbol.name().unwrap_or_default().is_empty(),
        _ => false,
    }
}

fn find_programs(
    elf: &Elf<'_>,
    btf: Option<&Btf>,
    functions: &[Function],
    places: &[Place],
) -> Result<Vec<Program>, ObjectError> {
    let mut programs = Vec::new();
    for section in elf.sections().filter(|s| s.kind() == SectionKind::Text && s.size() > 0) {
        let section_name = section.name().map_err(ObjectError::damaged)?;
        // `.text` holds what programs call; a program is a global function of any other section.
        if section_name == ".text" {
            continue;
        }
        let plain = program::plain_section(section_name);
        let global = |place: &Place| {
            elf.symbols().any(|s| {
                is_function(&s)
                    && s.section_index() == Some(section.index())
                    && s.address() == place.start
                    && s.is_global()
            })
        };
        let here: Vec<usize> = (0..places.len()).filter(|&i| places[i].section == section.index()).collect();
        let nameless = !here.iter().any(|&i| global(&places[i]));
        for i in here {
            if !(global(&places[i]) || nameless && places[i].start == 0) {
                continue;
            }
            let typed = btf.zip(functions[i].btf_type);
            let context = typed.map_or(program::Context::Untold, |(btf, id)| maps::context(btf, id));
            programs.push(Program {
                name: functions[i].name.clone(),
                section: section_name.to_owned(),
                function: i,
                kind: program::kind(section_name, context),
                frags: plain == "xdp.frags" || plain.starts_with("xdp.frags/"),
                run_config: btf.and_then(|btf| maps::run_config(btf, &functions[i].name)),
            });
        }
    }
    Ok(programs)
}
