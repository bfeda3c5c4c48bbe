//! BTF made acceptable to the kernel.
//!
//! Compilers write what `kernel/bpf/btf.c` refuses: names that are no C identifiers, sections whose sizes the
//! loader is to fill in, members out of order, kinds that an older kernel does not know. Ids never change
//! here; a type that cannot be kept becomes an integer of one octet.

use super::types::{Composite, EnumValue, Linkage, Name, SecVar, Type, encoding};
use super::{Btf, Kind, TypeId};

/// Longest name that every kernel takes: `KSYM_NAME_LEN` was 128 with the NUL before Linux 6.1.
const NAME_LIMIT: usize = 127;

/// Which kinds a kernel knows beyond those of Linux 5.10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `BTF_KIND_FLOAT`, Linux 5.13.
    pub float: bool,
    /// `BTF_KIND_DECL_TAG`, Linux 5.16.
    pub decl_tag: bool,
    /// `BTF_KIND_TYPE_TAG`, Linux 5.17.
    pub type_tag: bool,
    /// `BTF_KIND_ENUM64` and signed enumerations, Linux 6.0.
    pub enum64: bool,
}

impl Features {
    /// A kernel that knows every kind.
    pub const ALL: Self = Self { float: true, decl_tag: true, type_tag: true, enum64: true };
}

/// A type that stands where one cannot be kept.
fn placeholder(name: &str) -> Type {
    Type::Int { name: Name::from(name), size: 1, encoding: 0, offset: 0, bits: 8 }
}

/// What sanitizing has to know of other types, collected before any is changed.
struct Facts {
    kinds: Vec<Kind>,
    sizes: Vec<Option<u32>>,
}

impl Facts {
    fn kind(&self, id: TypeId) -> Option<Kind> {
        self.kinds.get((id as usize).checked_sub(1)?).copied()
    }

    fn size(&self, id: TypeId) -> Option<u32> {
        self.sizes.get((id as usize).checked_sub(1)?).copied().flatten()
    }
}

impl Btf {
    /// Fills in the size of a section and the offsets of its variables, which compilers leave to the loader.
    /// `offset_of` gives a symbol's offset in octets from the start of the section; variables that it does
    /// not know keep theirs. Returns the section's type id, or `None` when there is no such section.
    pub fn fix_datasec(
        &mut self,
        name: &str,
        size: u32,
        mut offset_of: impl FnMut(&str) -> Option<u32>,
    ) -> Option<TypeId> {
        let id = self.by_name(name, Kind::DataSec)?;
        let Some(Type::DataSec { vars, .. }) = self.get(id) else { return None };
        let mut vars = vars.clone();
        for var in &mut vars {
            if let Some(offset) = offset_of(self.name_of(var.ty)) {
                var.offset = offset;
            }
            if var.size == 0 {
                var.size = self.size_of(var.ty).unwrap_or(0);
            }
        }
        vars.sort_by_key(|var| var.offset);
        if let Some(Type::DataSec { size: old, vars: list, .. }) = self.get_mut(id) {
            *old = size;
            *list = vars;
        }
        Some(id)
    }

    /// Changes what kernels since 5.10 refuse. Sections have to be filled in before, see [`Btf::fix_datasec`];
    /// one that is not becomes a placeholder.
    pub fn sanitize(&mut self) {
        let facts = Facts {
            kinds: self.types.iter().map(Type::kind).collect(),
            sizes: (1..=self.len()).map(|id| self.size_of(id)).collect(),
        };
        let mut fillers = Fillers { next: self.len() + 1, octet: None, variable: None, types: Vec::new() };
        for ty in &mut self.types {
            sanitize_type(ty, &facts, &mut fillers);
        }
        self.types.extend(fillers.types);
        self.drop_tags_of_nothing();
    }

    /// Replaces tags on members that are not there (any more).
    fn drop_tags_of_nothing(&mut self) {
        let parts: Vec<usize> = self.types.iter().map(|ty| self.taggable_parts(ty)).collect();
        for ty in &mut self.types {
            let Type::DeclTag { name, ty: to, component, .. } = ty else { continue };
            let parts = parts.get((*to as usize).wrapping_sub(1)).copied().unwrap_or(0);
            if usize::try_from(*component).is_ok_and(|component| component >= parts) {
                *ty = placeholder(name);
            }
        }
    }

    /// How many members or parameters a tag may be on.
    fn taggable_parts(&self, ty: &Type) -> usize {
        match ty {
            Type::Struct(c) | Type::Union(c) => c.members.len(),
            Type::Func { proto, .. } => match self.get(*proto) {
                Some(Type::FuncProto { params, .. }) => params.len(),
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Replaces kinds that the kernel does not know by ones of the same size that it does.
    pub fn lower_for(&mut self, features: Features) {
        for ty in &mut self.types {
            match ty {
                Type::Float { size, .. } if !features.float => {
                    *ty = Type::Struct(Composite { size: *size, ..Default::default() });
                }
                Type::DeclTag { name, .. } if !features.decl_tag => *ty = placeholder(name),
                Type::TypeTag { to, .. } if !features.type_tag => *ty = Type::Const { to: *to },
                Type::Enum(e) if !features.enum64 && e.signed => {
                    e.signed = false;
                    e.values.iter_mut().for_each(|v| v.value = i64::from(v.value as u32));
                }
                Type::Enum64(e) if !features.enum64 => {
                    *ty = Type::Int {
                        name: e.name.clone(),
                        size: e.size,
                        encoding: if e.signed { encoding::SIGNED } else { 0 },
                        offset: 0,
                        bits: (e.size * 8).min(64) as u8,
                    };
                }
                _ => {}
            }
        }
    }
}

/// Types that are added where the kernel wants one and there is none.
struct Fillers {
    /// Id of the next that is added.
    next: TypeId,
    octet: Option<TypeId>,
    variable: Option<TypeId>,
    types: Vec<Type>,
}

impl Fillers {
    fn add(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        self.next += 1;
        self.next - 1
    }

    /// An integer of one octet.
    fn octet(&mut self) -> TypeId {
        let id = self.octet.unwrap_or_else(|| self.add(placeholder("u8")));
        *self.octet.insert(id)
    }

    /// A variable of one octet.
    fn variable(&mut self) -> TypeId {
        if let Some(id) = self.variable {
            return id;
        }
        let ty = self.octet();
        let variable = Type::Var { name: Name::from("filler"), ty, linkage: Linkage::Static };
        let id = self.add(variable);
        *self.variable.insert(id)
    }
}

fn sanitize_type(ty: &mut Type, facts: &Facts, fillers: &mut Fillers) {
    match ty {
        Type::Struct(c) => sanitize_composite(c, false, facts),
        Type::Union(c) => sanitize_composite(c, true, facts),
        Type::Enum(e) | Type::Enum64(e) => {
            optional(&mut e.name);
            e.values.iter_mut().for_each(|EnumValue { name, .. }| required(name, "value"));
        }
        Type::Fwd { name, .. } => required(name, "fwd"),
        Type::Typedef { name, .. } => required(name, "typedef"),
        Type::Array { element, count, .. } => {
            // btf_array_resolve refuses 4 GiB and more, which a map's `max_entries` can come to.
            if let Some(limit) = facts.size(*element).and_then(|size| u32::MAX.checked_div(size)) {
                *count = (*count).min(limit);
            }
        }
        Type::Func { name, proto, linkage } => {
            required(name, "function");
            if facts.kind(*proto) != Some(Kind::FuncProto) {
                *ty = placeholder(name);
                return;
            }
            // btf_func_check_meta knows static and global only.
            if !matches!(linkage, Linkage::Static | Linkage::Global) {
                *linkage = Linkage::Global;
            }
        }
        Type::FuncProto { params, .. } => {
            let last = params.len().saturating_sub(1);
            for (i, param) in params.iter_mut().enumerate() {
                let ellipsis = i == last && param.ty == 0;
                if ellipsis {
                    param.name = Name::default();
                    continue;
                }
                if param.ty == 0 {
                    param.ty = fillers.octet();
                }
                optional(&mut param.name);
                // btf_func_check wants every parameter of a function named.
                if param.name.is_empty() {
                    param.name = Name::from(format!("arg{i}"));
                }
            }
        }
        Type::Var { name, ty, linkage } => {
            required(name, "variable");
            if facts.size(*ty).is_none() {
                *ty = fillers.octet();
            }
            if !matches!(linkage, Linkage::Static | Linkage::Global) {
                *linkage = Linkage::Global;
            }
        }
        Type::DataSec { name, size, vars } => {
            section_name(name);
            vars.sort_by_key(|var| var.offset);
            let mut end = 0;
            vars.retain(|var| {
                let past = u64::from(var.offset) + u64::from(var.size);
                let keep = facts.kind(var.ty) == Some(Kind::Var)
                    && facts.size(var.ty).is_some_and(|size| size <= var.size)
                    && var.size > 0
                    && u64::from(var.offset) >= end
                    && past <= u64::from(*size);
                if keep {
                    end = past;
                }
                keep
            });
            match (vars.is_empty(), size) {
                (false, _) => {}
                // A map's value may be the section, and kernels before 5.12 refuse one without variables.
                (true, 1..) => vars.push(SecVar { ty: fillers.variable(), offset: 0, size: 1 }),
                (true, 0) => *ty = placeholder(name),
            }
        }
        Type::DeclTag { name, ty: to, component, attribute } => {
            let taggable = matches!(
                facts.kind(*to),
                Some(Kind::Struct | Kind::Union | Kind::Func | Kind::Var | Kind::Typedef)
            );
            if *attribute || !taggable || *component < -1 || name.is_empty() {
                *ty = placeholder(name);
            }
        }
        Type::TypeTag { name, to, attribute } => {
            if *attribute || name.is_empty() {
                *ty = Type::Const { to: *to };
            }
        }
        Type::Int { .. }
        | Type::Ptr { .. }
        | Type::Volatile { .. }
        | Type::Const { .. }
        | Type::Restrict { .. }
        | Type::Float { .. } => {}
    }
}

/// Drops members that the kernel refuses; a program's own view of its types does not come from here.
fn sanitize_composite(c: &mut Composite, union: bool, facts: &Facts) {
    optional(&mut c.name);
    c.members.iter_mut().for_each(|m| optional(&mut m.name));
    // btf_struct_check_meta wants ascending offsets; Rust writes members in source order.
    c.members.sort_by_key(|m| m.bit_offset);
    let bits = u64::from(c.size) * 8;
    c.members.retain(|m| {
        let Some(size) = facts.size(m.ty) else { return false };
        let size = if m.bit_size == 0 { u64::from(size) * 8 } else { u64::from(m.bit_size) };
        u64::from(m.bit_offset) + size <= bits && !(union && m.bit_offset != 0)
    });
}

/// Makes a name that may be empty an identifier.
fn optional(name: &mut Name) {
    if !name.is_empty() {
        required(name, "");
    }
}

/// Makes a name an identifier, and `fallback` when there is none.
fn required(name: &mut Name, fallback: &str) {
    if name.is_empty() {
        *name = Name::from(fallback);
    }
    let valid = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let starts_well = name.bytes().next().is_some_and(|c| !c.is_ascii_digit());
    if starts_well && name.len() <= NAME_LIMIT && name.bytes().all(valid) {
        return;
    }
    let mut text = String::with_capacity(name.len() + 1);
    if !starts_well {
        text.push('_');
    }
    text.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    text.truncate(NAME_LIMIT);
    *name = Name::from(text);
}

/// Makes a section's name one that kernels before 6.11 take: an identifier that may have dots anywhere.
fn section_name(name: &mut Name) {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let starts_well = name.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if starts_well && name.len() <= NAME_LIMIT && name.chars().all(valid) {
        return;
    }
    let mut text = String::from(if starts_well { "" } else { "_" });
    text.extend(name.chars().map(|c| if valid(c) { c } else { '.' }));
    text.truncate(NAME_LIMIT);
    *name = Name::from(text);
}
