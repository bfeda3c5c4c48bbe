//! The kinds of BTF types.

use std::sync::Arc;

/// Number of a type within one [`Btf`](super::Btf); 0 is void.
pub type TypeId = u32;

/// A name; empty when there is none. Shared, so copying types copies no text.
pub type Name = Arc<str>;

/// Bits of an integer's `encoding`.
pub mod encoding {
    /// Two's complement.
    pub const SIGNED: u8 = 1;
    /// A character.
    pub const CHAR: u8 = 2;
    /// True or false.
    pub const BOOL: u8 = 4;
}

/// A BTF type. Names that the format allows but the kernel refuses (on a pointer, say) are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// An integer.
    Int {
        /// Name.
        name: Name,
        /// Octets.
        size: u32,
        /// Any of [`encoding`].
        encoding: u8,
        /// First bit of the value, counted from the start of the storage; 0 but for old-style bitfields.
        offset: u8,
        /// Bits of the value; `size * 8` but for old-style bitfields.
        bits: u8,
    },
    /// A pointer; 8 octets.
    Ptr {
        /// What it points to.
        to: TypeId,
    },
    /// An array.
    Array {
        /// Type of an element.
        element: TypeId,
        /// Type of the index.
        index: TypeId,
        /// Elements.
        count: u32,
    },
    /// A struct.
    Struct(Composite),
    /// A union.
    Union(Composite),
    /// An enumeration of at most 32 bits. Values are sign-extended when `signed`, else zero-extended.
    Enum(Enumeration),
    /// A forward declaration.
    Fwd {
        /// Name.
        name: Name,
        /// Of a union rather than a struct.
        union: bool,
    },
    /// A typedef.
    Typedef {
        /// Name.
        name: Name,
        /// What it stands for.
        to: TypeId,
    },
    /// `volatile`.
    Volatile {
        /// What is qualified.
        to: TypeId,
    },
    /// `const`.
    Const {
        /// What is qualified.
        to: TypeId,
    },
    /// `restrict`.
    Restrict {
        /// What is qualified.
        to: TypeId,
    },
    /// A function with a body, or an external one.
    Func {
        /// Name.
        name: Name,
        /// Its [`Type::FuncProto`].
        proto: TypeId,
        /// Linkage.
        linkage: Linkage,
    },
    /// The type of a function.
    FuncProto {
        /// Return type.
        ret: TypeId,
        /// Parameters; a last one without name and type stands for `...`.
        params: Vec<Param>,
    },
    /// A variable.
    Var {
        /// Name.
        name: Name,
        /// Its type.
        ty: TypeId,
        /// Linkage.
        linkage: Linkage,
    },
    /// An ELF section with variables.
    DataSec {
        /// Name of the section.
        name: Name,
        /// Octets; compilers leave 0 for the loader to fill in.
        size: u32,
        /// What is in it.
        vars: Vec<SecVar>,
    },
    /// A floating-point number. Linux 5.13.
    Float {
        /// Name.
        name: Name,
        /// Octets.
        size: u32,
    },
    /// A tag on a declaration. Linux 5.16.
    DeclTag {
        /// The tag.
        name: Name,
        /// What is tagged.
        ty: TypeId,
        /// Member or parameter that is tagged, -1 for the whole.
        component: i32,
        /// The text is a whole compiler attribute rather than a `btf_decl_tag`. Linux 6.14.
        attribute: bool,
    },
    /// A tag on a type. Linux 5.17.
    TypeTag {
        /// The tag.
        name: Name,
        /// What is tagged.
        to: TypeId,
        /// The text is a whole compiler attribute rather than a `btf_type_tag`. Linux 6.14.
        attribute: bool,
    },
    /// An enumeration of 64 bits. Linux 6.0.
    Enum64(Enumeration),
}

/// A struct or union.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composite {
    /// Name; empty when anonymous.
    pub name: Name,
    /// Octets.
    pub size: u32,
    /// Members in order of declaration.
    pub members: Vec<Member>,
    /// `kind_flag`: member offsets have 24 bits and members have a `bit_size`.
    pub bitfields: bool,
}

/// A member of a struct or union.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Name; empty for an anonymous struct or union inside.
    pub name: Name,
    /// Type.
    pub ty: TypeId,
    /// Bits from the start of the struct.
    pub bit_offset: u32,
    /// Bits of a bitfield; 0 for a member that is none. Always 0 unless [`Composite::bitfields`].
    pub bit_size: u8,
}

/// An enumeration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enumeration {
    /// Name; empty when anonymous.
    pub name: Name,
    /// Octets: 1, 2, 4 or 8.
    pub size: u32,
    /// Values are signed. `kind_flag` of Linux 6.0; older compilers leave it out for signed ones too.
    pub signed: bool,
    /// The enumerators.
    pub values: Vec<EnumValue>,
}

/// An enumerator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnumValue {
    /// Name.
    pub name: Name,
    /// Value; the bit pattern of a `u64` when the enumeration is unsigned and 64 bits wide.
    pub value: i64,
}

/// A parameter of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Param {
    /// Name.
    pub name: Name,
    /// Type; 0 with an empty name for `...`.
    pub ty: TypeId,
}

/// A variable within a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecVar {
    /// Its [`Type::Var`], or [`Type::Func`] in `.ksyms`.
    pub ty: TypeId,
    /// Octets from the start of the section; compilers leave 0 for the loader to fill in.
    pub offset: u32,
    /// Octets.
    pub size: u32,
}

/// Linkage of a function or variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Linkage {
    /// Visible in its object only. The verifier follows each call of such a function.
    Static,
    /// Visible outside. The verifier judges such a function once, alone, by the types of its parameters.
    Global,
    /// Defined elsewhere.
    Extern,
    /// A number that the format does not define (yet).
    Other(u32),
}

impl Linkage {
    pub(super) fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Static,
            1 => Self::Global,
            2 => Self::Extern,
            other => Self::Other(other),
        }
    }

    pub(super) fn raw(self) -> u32 {
        match self {
            Self::Static => 0,
            Self::Global => 1,
            Self::Extern => 2,
            Self::Other(raw) => raw,
        }
    }
}

/// `BTF_KIND_*`, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Int = 1,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    DataSec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    /// The kind as it is called in C, in lower case, e.g. `struct`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Ptr => "pointer",
            Self::Array => "array",
            Self::Struct => "struct",
            Self::Union => "union",
            Self::Enum => "enum",
            Self::Fwd => "forward declaration",
            Self::Typedef => "typedef",
            Self::Volatile => "volatile",
            Self::Const => "const",
            Self::Restrict => "restrict",
            Self::Func => "function",
            Self::FuncProto => "function type",
            Self::Var => "variable",
            Self::DataSec => "data section",
            Self::Float => "float",
            Self::DeclTag => "declaration tag",
            Self::TypeTag => "type tag",
            Self::Enum64 => "enum64",
        }
    }
}

impl Type {
    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Int { .. } => Kind::Int,
            Self::Ptr { .. } => Kind::Ptr,
            Self::Array { .. } => Kind::Array,
            Self::Struct(_) => Kind::Struct,
            Self::Union(_) => Kind::Union,
            Self::Enum(_) => Kind::Enum,
            Self::Fwd { .. } => Kind::Fwd,
            Self::Typedef { .. } => Kind::Typedef,
            Self::Volatile { .. } => Kind::Volatile,
            Self::Const { .. } => Kind::Const,
            Self::Restrict { .. } => Kind::Restrict,
            Self::Func { .. } => Kind::Func,
            Self::FuncProto { .. } => Kind::FuncProto,
            Self::Var { .. } => Kind::Var,
            Self::DataSec { .. } => Kind::DataSec,
            Self::Float { .. } => Kind::Float,
            Self::DeclTag { .. } => Kind::DeclTag,
            Self::TypeTag { .. } => Kind::TypeTag,
            Self::Enum64(_) => Kind::Enum64,
        }
    }

    /// Its name, empty when it has none.
    pub fn name(&self) -> &str {
        match self {
            Self::Int { name, .. }
            | Self::Fwd { name, .. }
            | Self::Typedef { name, .. }
            | Self::Func { name, .. }
            | Self::Var { name, .. }
            | Self::DataSec { name, .. }
            | Self::Float { name, .. }
            | Self::DeclTag { name, .. }
            | Self::TypeTag { name, .. } => name,
            Self::Struct(c) | Self::Union(c) => &c.name,
            Self::Enum(e) | Self::Enum64(e) => &e.name,
            _ => "",
        }
    }

    /// Calls `f` with every type id inside.
    pub fn for_each_id(&self, mut f: impl FnMut(TypeId)) {
        match self {
            Self::Ptr { to }
            | Self::Typedef { to, .. }
            | Self::Volatile { to }
            | Self::Const { to }
            | Self::Restrict { to }
            | Self::TypeTag { to, .. } => f(*to),
            Self::Array { element, index, .. } => {
                f(*element);
                f(*index);
            }
            Self::Struct(c) | Self::Union(c) => c.members.iter().for_each(|m| f(m.ty)),
            Self::Func { proto, .. } => f(*proto),
            Self::FuncProto { ret, params } => {
                f(*ret);
                params.iter().for_each(|p| f(p.ty));
            }
            Self::Var { ty, .. } | Self::DeclTag { ty, .. } => f(*ty),
            Self::DataSec { vars, .. } => vars.iter().for_each(|v| f(v.ty)),
            Self::Int { .. } | Self::Enum(_) | Self::Enum64(_) | Self::Fwd { .. } | Self::Float { .. } => {}
        }
    }

    /// Calls `f` with every type id inside, to change it.
    pub fn for_each_id_mut(&mut self, mut f: impl FnMut(&mut TypeId)) {
        match self {
            Self::Ptr { to }
            | Self::Typedef { to, .. }
            | Self::Volatile { to }
            | Self::Const { to }
            | Self::Restrict { to }
            | Self::TypeTag { to, .. } => f(to),
            Self::Array { element, index, .. } => {
                f(element);
                f(index);
            }
            Self::Struct(c) | Self::Union(c) => c.members.iter_mut().for_each(|m| f(&mut m.ty)),
            Self::Func { proto, .. } => f(proto),
            Self::FuncProto { ret, params } => {
                f(ret);
                params.iter_mut().for_each(|p| f(&mut p.ty));
            }
            Self::Var { ty, .. } | Self::DeclTag { ty, .. } => f(ty),
            Self::DataSec { vars, .. } => vars.iter_mut().for_each(|v| f(&mut v.ty)),
            Self::Int { .. } | Self::Enum(_) | Self::Enum64(_) | Self::Fwd { .. } | Self::Float { .. } => {}
        }
    }
}
