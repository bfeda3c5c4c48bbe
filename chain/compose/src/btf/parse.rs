//! BTF read from bytes.
//!
//! Nothing is read before its bounds are checked, and what is allocated stays within a constant factor of
//! the input, but for names, which may overlap in the input and so have a limit of their own.

use std::collections::HashMap;
use std::sync::Arc;

use super::types::{Composite, EnumValue, Enumeration, Linkage, Member, Name, Param, SecVar, Type};
use super::{Btf, BtfError};

const MAGIC: u16 = 0xeb9f;
pub(super) const HEADER: u32 = 24;

/// Octets that distinct names may take. vmlinux, the largest BTF there is, has about 5 MB of strings.
const STRINGS_LIMIT: usize = 64 << 20;

/// Little-endian numbers from a byte slice, each bounds-checked.
pub(super) struct Reader<'a> {
    section: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(section: &'static str, bytes: &'a [u8]) -> Self {
        Self { section, bytes, at: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], BtfError> {
        let end = self.at as u64 + len as u64;
        let found = usize::try_from(end).ok().and_then(|end| self.bytes.get(self.at..end));
        let found = found.ok_or(BtfError::Truncated {
            section: self.section,
            what,
            end,
            len: self.bytes.len() as u64,
        })?;
        self.at += len;
        Ok(found)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], BtfError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, BtfError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, BtfError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, BtfError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Octets `offset..offset + len` after a header of `header` octets.
    pub(super) fn part(
        &self,
        header: u32,
        offset: u32,
        len: u32,
        what: &'static str,
    ) -> Result<&'a [u8], BtfError> {
        let start = u64::from(header) + u64::from(offset);
        let end = start + u64::from(len);
        let part = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        part.and_then(|(start, end)| self.bytes.get(start..end)).ok_or(BtfError::Truncated {
            section: self.section,
            what,
            end,
            len: self.bytes.len() as u64,
        })
    }

    /// Reads magic, version, flags and header length, and returns the latter.
    pub(super) fn preamble(&mut self) -> Result<u32, BtfError> {
        let section = self.section;
        match self.u16("the magic number")? {
            MAGIC => {}
            other if other.swap_bytes() == MAGIC => return Err(BtfError::BigEndian { section }),
            found => return Err(BtfError::Magic { section, found }),
        }
        let version = self.u8("the version")?;
        let _flags = self.u8("the flags")?;
        let header = self.u32("the header length")?;
        if version != 1 || header < HEADER {
            return Err(BtfError::Version { section, version, header });
        }
        Ok(header)
    }
}

/// The octets at `offset` up to the next NUL.
pub(super) fn string_at(strings: &[u8], offset: u32) -> Option<&[u8]> {
    let rest = strings.get(offset as usize..)?;
    let end = rest.iter().position(|b| *b == 0)?;
    Some(&rest[..end])
}

/// Names by their offset, each made once.
pub(super) struct Strings<'a> {
    section: &'static str,
    /// Strings of a base, at the offsets before those of `bytes`.
    base: &'a [u8],
    bytes: &'a [u8],
    names: HashMap<u32, Name>,
    spent: usize,
}

impl<'a> Strings<'a> {
    pub(super) fn new(section: &'static str, bytes: &'a [u8]) -> Self {
        Self { section, base: &[], bytes, names: HashMap::new(), spent: 0 }
    }

    pub(super) fn name(&mut self, offset: u32, what: impl FnOnce() -> String) -> Result<Name, BtfError> {
        if let Some(name) = self.names.get(&offset) {
            return Ok(name.clone());
        }
        let text = match offset.checked_sub(self.base.len() as u32) {
            Some(offset) => string_at(self.bytes, offset),
            None => string_at(self.base, offset),
        };
        let text = text.ok_or_else(|| BtfError::BadString {
            what: what(),
            offset,
            len: (self.base.len() + self.bytes.len()) as u32,
        })?;
        self.spent += text.len();
        if self.spent > STRINGS_LIMIT {
            return Err(BtfError::TooManyStrings { section: self.section, limit: STRINGS_LIMIT });
        }
        let name = Name::from(String::from_utf8_lossy(text));
        self.names.insert(offset, name.clone());
        Ok(name)
    }
}

impl Btf {
    /// Reads a `.BTF` section.
    ///
    /// # Errors
    /// When it is big-endian, damaged, or has kinds that are not known. Every id and name in the result
    /// is in range.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        Self::read(bytes, None)
    }

    /// Reads the BTF of a kernel module, whose ids and names go on where `base`'s end.
    ///
    /// # Errors
    /// As [`Btf::parse`].
    pub fn parse_on(base: &Arc<Btf>, bytes: &[u8]) -> Result<Self, BtfError> {
        Self::read(bytes, Some(base))
    }

    fn read(bytes: &[u8], base: Option<&Arc<Btf>>) -> Result<Self, BtfError> {
        let mut reader = Reader::new(".BTF", bytes);
        let header = reader.preamble()?;
        let type_off = reader.u32("the header")?;
        let type_len = reader.u32("the header")?;
        let str_off = reader.u32("the header")?;
        let str_len = reader.u32("the header")?;
        let types = reader.part(header, type_off, type_len, "the types")?;
        let source = reader.part(header, str_off, str_len, "the strings")?;
        // What goes on where another section ends has the empty string there.
        let starts_well = base.is_some() || source.first() == Some(&0);
        let ends_well = source.last().is_none_or(|last| *last == 0);
        if !starts_well || !ends_well {
            return Err(BtfError::Strings);
        }

        let mut strings = Strings::new(".BTF", source);
        strings.base = base.map_or(&[], |base| &base.source);
        let mut reader = Reader::new(".BTF", types);
        let mut btf = Self { base: base.cloned(), source: Arc::from(source), ..Self::default() };
        while !reader.is_empty() {
            let id = btf.len() + 1;
            let ty = read_type(&mut reader, &mut strings, id)?;
            btf.push(ty);
        }
        btf.check_ids()?;
        Ok(btf)
    }

    fn check_ids(&self) -> Result<(), BtfError> {
        let last = self.len();
        for (id, ty) in self.iter() {
            let mut bad = None;
            ty.for_each_id(|found| {
                if found > last {
                    bad.get_or_insert(found);
                }
            });
            if let Some(found) = bad {
                return Err(BtfError::BadId { id, found, last });
            }
        }
        Ok(())
    }
}

fn read_type(reader: &mut Reader<'_>, strings: &mut Strings<'_>, id: u32) -> Result<Type, BtfError> {
    let name_off = reader.u32("a type")?;
    let info = reader.u32("a type")?;
    // Size of the value, or the id of the type referred to: the kind decides.
    let size = reader.u32("a type")?;
    let to = size;
    let vlen = info & 0xffff;
    let kind = info >> 24 & 0x1f;
    let flag = info >> 31 == 1;

    let mut name = |offset: u32| strings.name(offset, || format!("type {id}"));
    Ok(match kind {
        1 => {
            let data = reader.u32("an integer")?;
            Type::Int {
                name: name(name_off)?,
                size,
                encoding: (data >> 24 & 0xf) as u8,
                offset: (data >> 16) as u8,
                bits: data as u8,
            }
        }
        2 => Type::Ptr { to },
        3 => Type::Array {
            element: reader.u32("an array")?,
            index: reader.u32("an array")?,
            count: reader.u32("an array")?,
        },
        4 | 5 => {
            let mut members = Vec::new();
            for _ in 0..vlen {
                let member = reader.u32("a member")?;
                let ty = reader.u32("a member")?;
                let offset = reader.u32("a member")?;
                let (bit_offset, bit_size) =
                    if flag { (offset & 0x00ff_ffff, (offset >> 24) as u8) } else { (offset, 0) };
                members.push(Member { name: name(member)?, ty, bit_offset, bit_size });
            }
            let composite = Composite { name: name(name_off)?, size, members, bitfields: flag };
            if kind == 4 { Type::Struct(composite) } else { Type::Union(composite) }
        }
        6 => {
            let mut values = Vec::new();
            for _ in 0..vlen {
                let value_name = name(reader.u32("an enumerator")?)?;
                let raw = reader.u32("an enumerator")?;
                let value = if flag { i64::from(raw as i32) } else { i64::from(raw) };
                values.push(EnumValue { name: value_name, value });
            }
            Type::Enum(Enumeration { name: name(name_off)?, size, signed: flag, values })
        }
        7 => Type::Fwd { name: name(name_off)?, union: flag },
        8 => Type::Typedef { name: name(name_off)?, to },
        9 => Type::Volatile { to },
        10 => Type::Const { to },
        11 => Type::Restrict { to },
        12 => Type::Func { name: name(name_off)?, proto: to, linkage: Linkage::from_raw(vlen) },
        13 => {
            let mut params = Vec::new();
            for _ in 0..vlen {
                let param = reader.u32("a parameter")?;
                params.push(Param { name: name(param)?, ty: reader.u32("a parameter")? });
            }
            Type::FuncProto { ret: to, params }
        }
        14 => {
            Type::Var { name: name(name_off)?, ty: to, linkage: Linkage::from_raw(reader.u32("a variable")?) }
        }
        15 => {
            let mut vars = Vec::new();
            for _ in 0..vlen {
                vars.push(SecVar {
                    ty: reader.u32("a section's variable")?,
                    offset: reader.u32("a section's variable")?,
                    size: reader.u32("a section's variable")?,
                });
            }
            Type::DataSec { name: name(name_off)?, size, vars }
        }
        16 => Type::Float { name: name(name_off)?, size },
        17 => Type::DeclTag {
            name: name(name_off)?,
            ty: to,
            component: reader.u32("a declaration tag")? as i32,
            attribute: flag,
        },
        18 => Type::TypeTag { name: name(name_off)?, to, attribute: flag },
        19 => {
            let mut values = Vec::new();
            for _ in 0..vlen {
                let value_name = name(reader.u32("an enumerator")?)?;
                let low = reader.u32("an enumerator")?;
                let high = reader.u32("an enumerator")?;
                values.push(EnumValue {
                    name: value_name,
                    value: (u64::from(high) << 32 | u64::from(low)) as i64,
                });
            }
            Type::Enum64(Enumeration { name: name(name_off)?, size, signed: flag, values })
        }
        kind => return Err(BtfError::Kind { id, kind }),
    })
}
