//! BTF: types read from, and written to, the kernel's format (Documentation/bpf/btf.rst).
//!
//! Type ids start at 1; id 0 is `void` and has no [`Type`]. Every id inside a [`Btf`] that came from
//! [`Btf::parse`] is in range; cycles are possible (a struct with a pointer to itself is one), so whatever
//! follows ids stops at a depth. Names live in the types, so types of several objects are put together
//! with [`Btf::append`], and the string section is made afresh by [`Btf::to_bytes`].

mod error;
mod ext;
mod find;
mod layout;
mod maps;
mod parse;
mod sanitize;
mod types;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

pub use error::BtfError;
pub use ext::{BtfExt, CoreRelo, ExtSection, FuncInfo, LineInfo};
pub use find::find_function;
pub use layout::{LayoutDiff, LayoutLine};
pub use maps::{BtfMapDef, MAPS_SECTION, kernel_takes_types, map_type_name};
pub use sanitize::Features;
pub use types::{
    Composite, EnumValue, Enumeration, Kind, Linkage, Member, Name, Param, SecVar, Type, TypeId, encoding,
};

/// How deep typedefs, qualifiers and arrays may nest before a type counts as having no size. The kernel's
/// own limit is 32.
const MAX_DEPTH: usize = 64;

/// The types of one object, or of several put together.
#[derive(Clone, Debug, Default)]
pub struct Btf {
    /// What the ids below the first of `types` belong to.
    base: Option<Arc<Btf>>,
    types: Vec<Type>,
    /// String section of the bytes this was parsed from, for the offsets in `.BTF.ext`.
    source: Arc<[u8]>,
    interned: Interned,
}

/// Strings that are not names of types, in the order of their offsets.
#[derive(Clone, Debug, Default)]
struct Interned {
    bytes: Vec<u8>,
    offsets: HashMap<Name, u32>,
}

impl PartialEq for Btf {
    /// Same types in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.types == other.types
    }
}

impl Btf {
    /// No types.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of types, which is also the last valid id.
    pub fn len(&self) -> u32 {
        self.base_len() + self.types.len() as u32
    }

    /// Whether there are no types.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last id that is the base's.
    fn base_len(&self) -> u32 {
        self.base.as_ref().map_or(0, |base| base.len())
    }

    /// The type with this id; `None` for void (0) and for ids past the end.
    pub fn get(&self, id: TypeId) -> Option<&Type> {
        match &self.base {
            Some(base) if id <= base.len() => base.get(id),
            _ => self.types.get(((id - self.base_len()) as usize).checked_sub(1)?),
        }
    }

    /// As [`Btf::get`], to change the type; `None` for types of a base.
    pub fn get_mut(&mut self, id: TypeId) -> Option<&mut Type> {
        let first = self.base_len() + 1;
        self.types.get_mut(id.checked_sub(first)? as usize)
    }

    /// Every type with its id, ascending, but for those of a base.
    pub fn iter(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        (self.base_len() + 1..).zip(&self.types)
    }

    /// As [`Btf::iter`], to change the types.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (TypeId, &mut Type)> {
        (self.base_len() + 1..).zip(&mut self.types)
    }

    /// Adds a type and returns its id. Ids inside it must be valid in this `Btf`.
    pub fn push(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        self.len()
    }

    /// Adds every type of `other` and returns what has to be added to an id of `other` (but not to 0) to
    /// get its id here.
    pub fn append(&mut self, other: &Btf) -> u32 {
        let shift = self.len();
        self.types.extend(other.types.iter().cloned().map(|mut ty| {
            ty.for_each_id_mut(|id| {
                if *id != 0 {
                    *id += shift;
                }
            });
            ty
        }));
        shift
    }

    /// The name of the type, empty for void, anonymous types and kinds without names.
    pub fn name_of(&self, id: TypeId) -> &str {
        self.get(id).map_or("", Type::name)
    }

    /// The first type of this kind with this name, but for those of a base.
    pub fn by_name(&self, name: &str, kind: Kind) -> Option<TypeId> {
        self.iter().find(|(_, ty)| ty.kind() == kind && ty.name() == name).map(|(id, _)| id)
    }

    /// `id` with typedefs, qualifiers and type tags taken off: the id of the first type that is none of
    /// them, or 0 for void and for a chain that never ends.
    pub fn resolve(&self, mut id: TypeId) -> TypeId {
        for _ in 0..MAX_DEPTH {
            match self.get(id) {
                Some(
                    Type::Typedef { to, .. }
                    | Type::Const { to }
                    | Type::Volatile { to }
                    | Type::Restrict { to }
                    | Type::TypeTag { to, .. },
                ) => id = *to,
                Some(_) => return id,
                None => return 0,
            }
        }
        0
    }

    /// The type behind typedefs, qualifiers and type tags.
    pub fn resolved(&self, id: TypeId) -> Option<&Type> {
        self.get(self.resolve(id))
    }

    /// Octets that a value of the type takes. `None` for what has no size (void, functions, forward
    /// declarations) and for one of 4 GiB or more. A variable has the size of its type, a pointer 8 octets.
    pub fn size_of(&self, id: TypeId) -> Option<u32> {
        let mut id = id;
        let mut factor = 1u32;
        for _ in 0..MAX_DEPTH {
            let size = match self.resolved(id)? {
                Type::Int { size, .. } | Type::Float { size, .. } | Type::DataSec { size, .. } => *size,
                Type::Enum(e) | Type::Enum64(e) => e.size,
                Type::Struct(c) | Type::Union(c) => c.size,
                Type::Ptr { .. } => 8,
                Type::Array { element, count, .. } => {
                    factor = factor.checked_mul(*count)?;
                    id = *element;
                    continue;
                }
                Type::Var { ty, .. } => {
                    id = *ty;
                    continue;
                }
                _ => return None,
            };
            return size.checked_mul(factor);
        }
        None
    }

    /// Puts a string into the string section that [`Btf::to_bytes`] will write, and returns its offset
    /// there. For `.BTF.ext` records, whose strings are not names of types.
    pub fn intern(&mut self, text: &str) -> u32 {
        self.interned.offset(&Name::from(text))
    }

    /// Makes [`Btf::to_bytes`] keep the string section that this was parsed from, so that offsets into it, as records of
    /// `.BTF.ext` have them, stay valid when types are changed. What was interned before is forgotten.
    pub fn keep_strings(&mut self) {
        self.interned = Interned { bytes: self.source.to_vec(), offsets: HashMap::new() };
        let mut offset = 0;
        for text in self.source.split(|b| *b == 0) {
            if let (Ok(text), false) = (std::str::from_utf8(text), text.is_empty()) {
                self.interned.offsets.entry(Name::from(text)).or_insert(offset);
            }
            offset += text.len() as u32 + 1;
        }
    }

    /// As [`Btf::intern`], sharing the text.
    fn intern_name(&mut self, name: &Name) -> u32 {
        self.interned.offset(name)
    }

    /// The string at an offset of the string section that this was parsed from; `None` past its end.
    /// Octets that are not UTF-8 become U+FFFD.
    pub fn source_string(&self, offset: u32) -> Option<std::borrow::Cow<'_, str>> {
        let base = self.base.as_ref().map_or(0, |base| base.source.len() as u32);
        match &self.base {
            Some(of_base) if offset < base => of_base.source_string(offset),
            _ => parse::string_at(&self.source, offset - base).map(String::from_utf8_lossy),
        }
    }
}

impl Interned {
    /// Offset of `text` in the string section to be; offset 0 is the empty string.
    fn offset(&mut self, text: &Name) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if self.bytes.is_empty() {
            self.bytes.push(0);
        }
        if let Some(offset) = self.offsets.get(text) {
            return *offset;
        }
        let offset = self.bytes.len() as u32;
        // A NUL ends a string in the section, so what follows one could not be read back.
        self.bytes.extend(text.bytes().take_while(|b| *b != 0));
        self.bytes.push(0);
        self.offsets.insert(text.clone(), offset);
        offset
    }
}
