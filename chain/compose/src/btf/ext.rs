//! `.BTF.ext`: which instruction belongs to which function and source line, and what CO-RE has to relocate.
//!
//! Strings are resolved while reading, so records can be moved to a `Btf` with other strings.

use super::parse::{Reader, Strings};
use super::types::Name;
use super::{Btf, BtfError, TypeId};

/// The records of one object, for each of its program sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BtfExt {
    /// Functions.
    pub functions: Vec<ExtSection<FuncInfo>>,
    /// Source lines.
    pub lines: Vec<ExtSection<LineInfo>>,
    /// CO-RE relocations.
    pub relocations: Vec<ExtSection<CoreRelo>>,
}

/// The records of one program section, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtSection<T> {
    /// Name of the section.
    pub section: Name,
    /// Its records.
    pub records: Vec<T>,
}

/// The function that starts at an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FuncInfo {
    /// Octets from the start of the section.
    pub offset: u32,
    /// Its `Type::Func`.
    pub type_id: TypeId,
}

/// The source line that an instruction came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineInfo {
    /// Octets from the start of the section.
    pub offset: u32,
    /// Source file.
    pub file: Name,
    /// Text of the line.
    pub text: Name,
    /// Number of the line, from 1; 22 bits.
    pub line: u32,
    /// Column, from 1; 10 bits.
    pub column: u32,
}

/// An instruction whose operand depends on the kernel's layout of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreRelo {
    /// Octets from the start of the section.
    pub offset: u32,
    /// The type that the path starts from.
    pub type_id: TypeId,
    /// The path, indices of members and elements, e.g. `0:1:2`.
    pub access: Name,
    /// `enum bpf_core_relo_kind`.
    pub kind: u32,
}

impl FuncInfo {
    /// A `struct bpf_func_info` for the instruction with this index.
    pub fn record(insn: u32, type_id: TypeId) -> [u8; 8] {
        let mut out = [0; 8];
        out[..4].copy_from_slice(&insn.to_le_bytes());
        out[4..].copy_from_slice(&type_id.to_le_bytes());
        out
    }
}

impl LineInfo {
    /// A `struct bpf_line_info` for the instruction with this index. Its strings are put into `btf`, and are
    /// where it says in what [`Btf::to_bytes`] returns.
    pub fn record(&self, insn: u32, btf: &mut Btf) -> [u8; 16] {
        let line_col = self.line.min(0x003f_ffff) << 10 | self.column.min(0x3ff);
        let mut out = [0; 16];
        out[..4].copy_from_slice(&insn.to_le_bytes());
        out[4..8].copy_from_slice(&btf.intern_name(&self.file).to_le_bytes());
        out[8..12].copy_from_slice(&btf.intern_name(&self.text).to_le_bytes());
        out[12..].copy_from_slice(&line_col.to_le_bytes());
        out
    }
}

impl BtfExt {
    /// Reads a `.BTF.ext` section; `btf` is the parsed `.BTF` of the same object, whose strings it uses.
    ///
    /// # Errors
    /// When it is big-endian or damaged. Type ids in the result exist in `btf`.
    pub fn parse(bytes: &[u8], btf: &Btf) -> Result<Self, BtfError> {
        let mut reader = Reader::new(".BTF.ext", bytes);
        let header = reader.preamble()?;
        let mut parts = [(0, 0); 3];
        for (i, part) in parts.iter_mut().enumerate() {
            // Compilers before CO-RE write a header without the third part.
            if header >= 16 + 8 * i as u32 {
                *part = (reader.u32("the header")?, reader.u32("the header")?);
            }
        }
        let mut strings = Strings::new(".BTF.ext", &btf.source);
        let list = |i: usize, what| reader.part(header, parts[i].0, parts[i].1, what);
        let (functions, lines, relocations) =
            (list(0, "the functions")?, list(1, "the lines")?, list(2, "the relocations")?);
        let check = |type_id: u32| match type_id > btf.len() {
            true => Err(BtfError::BadExtId { found: type_id, last: btf.len() }),
            false => Ok(type_id),
        };
        Ok(Self {
            functions: sections(functions, 8, &mut strings, |record, _| {
                Ok(FuncInfo { offset: record.u32("a function")?, type_id: check(record.u32("a function")?)? })
            })?,
            lines: sections(lines, 16, &mut strings, |record, strings| {
                let offset = record.u32("a line")?;
                let file = record.u32("a line")?;
                let text = record.u32("a line")?;
                let line_col = record.u32("a line")?;
                Ok(LineInfo {
                    offset,
                    file: strings.name(file, || format!("the line at {offset}"))?,
                    text: strings.name(text, || format!("the line at {offset}"))?,
                    line: line_col >> 10,
                    column: line_col & 0x3ff,
                })
            })?,
            relocations: sections(relocations, 16, &mut strings, |record, strings| {
                let offset = record.u32("a relocation")?;
                let type_id = check(record.u32("a relocation")?)?;
                let access = record.u32("a relocation")?;
                Ok(CoreRelo {
                    offset,
                    type_id,
                    access: strings.name(access, || format!("the relocation at {offset}"))?,
                    kind: record.u32("a relocation")?,
                })
            })?,
        })
    }
}

/// Reads a list of sections with records of at least `least` octets; later formats may make them longer.
fn sections<T>(
    bytes: &[u8],
    least: u32,
    strings: &mut Strings<'_>,
    mut read: impl FnMut(&mut Reader<'_>, &mut Strings<'_>) -> Result<T, BtfError>,
) -> Result<Vec<ExtSection<T>>, BtfError> {
    let mut out = Vec::new();
    if bytes.is_empty() {
        return Ok(out);
    }
    let mut reader = Reader::new(".BTF.ext", bytes);
    let record_size = reader.u32("a record size")?;
    if record_size < least {
        return Err(BtfError::RecordSize { found: record_size, least });
    }
    while !reader.is_empty() {
        let name = reader.u32("a section")?;
        let count = reader.u32("a section")?;
        let section = strings.name(name, || "a section".to_owned())?;
        let mut records = Vec::new();
        for _ in 0..count {
            let record = reader.take(record_size as usize, "a record")?;
            records.push(read(&mut Reader::new(".BTF.ext", record), strings)?);
        }
        out.push(ExtSection { section, records });
    }
    Ok(out)
}
