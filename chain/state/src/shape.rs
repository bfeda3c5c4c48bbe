//! The shape of a type: BTF compiled to offsets and scalars, so that no id is followed per value.

use std::collections::HashSet;
use std::sync::Arc;

use xdpchain_compose::btf::{Btf, Composite, Enumeration, Member, Name, Type, TypeId, encoding};

use crate::StateError;
use crate::leaf::{Leaf, Meaning, Number};

/// How deep structs and arrays may nest, and how many nodes a type may have, each enumerator being one. No real value comes near.
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 32_768;

/// A type as the codec sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Octets.
    pub(crate) size: usize,
    pub(crate) shape: Shape,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Leaf(Leaf),
    /// Fields in order of their offsets. A union is a struct whose fields are all alternatives.
    Struct(Vec<Field>),
    Array(Box<Node>, usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: Name,
    /// Octets from the start of the struct.
    pub(crate) offset: usize,
    pub(crate) node: Node,
    pub(crate) role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Shown, and required.
    Plain,
    /// Padding: not shown, zero when not given.
    Padding,
    /// A member of the union with this number within the struct; exactly one of them has to be given, and the one
    /// that has a bit for each of the union's is shown.
    Alternative { union: usize, shown: bool },
}

impl Node {
    pub(crate) fn leaf(size: usize, leaf: Leaf) -> Self {
        Self { size, shape: Shape::Leaf(leaf) }
    }

    /// An unsigned number in host order.
    pub(crate) fn number(size: usize) -> Self {
        Self::leaf(
            size,
            Leaf::Number(Number {
                signed: false,
                big: false,
                shift: 0,
                bits: (size * 8) as u8,
                meaning: Meaning::Plain,
            }),
        )
    }

    /// Whether a dotted path leads to a field.
    pub(crate) fn has_field(&self, path: &str) -> bool {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let Some(field) = self.fields().iter().find(|f| *f.name == *first) else { return false };
        rest.is_none_or(|rest| field.node.has_field(rest))
    }

    /// The fields, none for what is no struct.
    pub(crate) fn fields(&self) -> &[Field] {
        match &self.shape {
            Shape::Struct(fields) => fields,
            _ => &[],
        }
    }

    /// Bits that are shown.
    fn coverage(&self) -> usize {
        match &self.shape {
            Shape::Leaf(Leaf::Number(number)) => usize::from(number.bits),
            Shape::Leaf(_) => self.size * 8,
            Shape::Array(element, count) => element.coverage().saturating_mul(*count),
            Shape::Struct(fields) => fields
                .iter()
                .filter(|f| matches!(f.role, Role::Plain | Role::Alternative { shown: true, .. }))
                .fold(0, |sum: usize, f| sum.saturating_add(f.node.coverage())),
        }
    }
}

/// Compiles a type.
pub(crate) fn compile(btf: &Btf, id: TypeId) -> Result<Node, StateError> {
    let mut compiler = Compiler { btf, nodes: 0 };
    compiler.node(id, "", 0)
}

struct Compiler<'a> {
    btf: &'a Btf,
    nodes: usize,
}

impl Compiler<'_> {
    fn error<T>(&self, id: TypeId, problem: impl Into<String>) -> Result<T, StateError> {
        let name = match self.btf.type_name(id) {
            name if name.is_empty() => format!("#{id}"),
            name => name,
        };
        Err(StateError::Type { name, problem: problem.into() })
    }

    /// `field` is the name of the field that has the type; only a name tells a MAC from other octets in C.
    fn node(&mut self, id: TypeId, field: &str, depth: usize) -> Result<Node, StateError> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return self.error(id, "it is nested too deep");
        }
        let Some(size) = self.btf.size_of(id) else {
            return self.error(id, "it has no size");
        };
        let size = size as usize;
        if self.network_order(id) == Some(size) {
            let bits = (size * 8) as u8;
            let number = Number { signed: false, big: true, shift: 0, bits, meaning: Meaning::Plain };
            return Ok(Node::leaf(size, Leaf::Number(number)));
        }
        let Some(ty) = self.btf.resolved(id) else {
            return self.error(id, "it has no size");
        };
        match ty {
            Type::Int { encoding, offset, bits, .. } => {
                if !(1..=16).contains(&size)
                    || *bits == 0
                    || u32::from(*offset) + u32::from(*bits) > 8 * size as u32
                {
                    return Ok(Node::leaf(size, Leaf::Bytes));
                }
                let meaning = if encoding & encoding::BOOL != 0 { Meaning::Bool } else { Meaning::Plain };
                let signed = encoding & encoding::SIGNED != 0;
                let number = Number { signed, big: false, shift: *offset, bits: *bits, meaning };
                Ok(Node::leaf(size, Leaf::Number(number)))
            }
            Type::Enum(e) | Type::Enum64(e) => self.enumeration(id, e),
            Type::Float { .. } if size == 4 || size == 8 => Ok(Node::leaf(size, Leaf::Float)),
            Type::Ptr { .. } => Ok(Node::number(8)),
            Type::Var { ty, .. } => self.node(*ty, field, depth + 1),
            Type::Array { element, count, .. } => self.array(*element, *count as usize, size, field, depth),
            Type::Struct(c) => match (well_known(&c.name, size), self.wrapped(c)) {
                (Some(leaf), _) => Ok(Node::leaf(size, leaf)),
                (None, Some(inner)) => self.node(inner, field, depth + 1),
                (None, None) => self.composite(id, c, false, depth),
            },
            Type::Union(c) if &*c.name == "in6_addr" && size == 16 => Ok(Node::leaf(size, Leaf::Ipv6)),
            Type::Union(c) => self.composite(id, c, true, depth),
            Type::DataSec { size, vars, .. } => {
                let members = vars.iter().map(|var| Member {
                    name: Name::from(self.btf.name_of(var.ty)),
                    ty: var.ty,
                    bit_offset: var.offset.saturating_mul(8),
                    bit_size: 0,
                });
                let section = Composite { size: *size, members: members.collect(), ..Composite::default() };
                self.composite(id, &section, false, depth)
            }
            _ => Ok(Node::leaf(size, Leaf::Bytes)),
        }
    }

    /// Octets of a type that is a number in network byte order, by its name.
    fn network_order(&self, id: TypeId) -> Option<usize> {
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            match self.btf.get(id)? {
                Type::Typedef { name, to } => match &**name {
                    "__be16" => return Some(2),
                    "__be32" => return Some(4),
                    "__be64" => return Some(8),
                    _ => id = *to,
                },
                Type::Const { to }
                | Type::Volatile { to }
                | Type::Restrict { to }
                | Type::TypeTag { to, .. } => {
                    id = *to;
                }
                Type::Struct(c) => {
                    return match &*c.name {
                        "Be16" => Some(2),
                        "Be32" => Some(4),
                        "Be64" => Some(8),
                        _ => None,
                    };
                }
                _ => return None,
            }
        }
        None
    }

    /// The type inside a struct that only wraps it: a Rust newtype, whose field is called `__0`, an atomic or a cell.
    fn wrapped(&self, c: &Composite) -> Option<TypeId> {
        let mut members = c.members.iter().filter(|m| self.btf.size_of(m.ty) != Some(0));
        let only =
            members.next().filter(|m| members.next().is_none() && m.bit_offset == 0 && m.bit_size == 0)?;
        let newtype = matches!(&*only.name, "__0" | "_0" | "0");
        let wrapper = ["Atomic", "UnsafeCell", "Cell", "ManuallyDrop", "Wrapping"];
        let of_core =
            wrapper.iter().any(|name| c.name.starts_with(name)) && matches!(&*only.name, "v" | "value");
        let whole = self.btf.size_of(only.ty) == Some(c.size);
        ((newtype || of_core) && whole).then_some(only.ty)
    }

    fn enumeration(&mut self, id: TypeId, e: &Enumeration) -> Result<Node, StateError> {
        if !matches!(e.size, 1 | 2 | 4 | 8) {
            return self.error(id, format!("an enumeration of {} octets", e.size));
        }
        // Each field of the type has its names.
        self.nodes += e.values.len();
        if self.nodes > MAX_NODES {
            return self.error(id, "it has too many enumerators");
        }
        let bits = e.size * 8;
        // Compilers before Linux 6.0 do not say that an enumeration is signed; a negative value shows as a huge one.
        let extend = |value: i64| match e.signed {
            true => i128::from(value),
            false => (value as u64 & (u64::MAX >> (64 - bits))) as i128,
        };
        let names: Arc<[_]> = e.values.iter().map(|v| (v.name.clone(), extend(v.value))).collect();
        let meaning = Meaning::Enum(names);
        let number = Number { signed: e.signed, big: false, shift: 0, bits: bits as u8, meaning };
        Ok(Node::leaf(e.size as usize, Leaf::Number(number)))
    }

    fn array(
        &mut self,
        element: TypeId,
        count: usize,
        size: usize,
        field: &str,
        depth: usize,
    ) -> Result<Node, StateError> {
        if size == 0 {
            return Ok(Node::leaf(0, Leaf::Bytes));
        }
        let node = self.node(element, field, depth + 1)?;
        if let (1, Shape::Leaf(Leaf::Number(number))) = (node.size, &node.shape) {
            if self.is_char(element) {
                return Ok(Node::leaf(size, Leaf::Text));
            }
            let octets = !number.signed && number.bits == 8 && matches!(number.meaning, Meaning::Plain);
            if octets {
                let leaf = if size == 6 && names_a_mac(field) { Leaf::Mac } else { Leaf::Bytes };
                return Ok(Node::leaf(size, leaf));
            }
        }
        Ok(Node { size, shape: Shape::Array(Box::new(node), count) })
    }

    fn is_char(&self, id: TypeId) -> bool {
        matches!(self.btf.resolved(id), Some(Type::Int { name, encoding, size: 1, .. })
            if &**name == "char" || encoding & encoding::CHAR != 0)
    }

    fn composite(
        &mut self,
        id: TypeId,
        c: &Composite,
        union: bool,
        depth: usize,
    ) -> Result<Node, StateError> {
        let mut fields = Vec::new();
        let mut unions = 0;
        if union {
            unions = 1;
            self.members(id, c, 0, Some(0), &mut fields, &mut unions, depth)?;
            self.choose(c.size as usize, 0, 0, &mut fields);
        } else {
            self.members(id, c, 0, None, &mut fields, &mut unions, depth)?;
        }
        fields.sort_by_key(|f| f.offset);
        let mut names = HashSet::with_capacity(fields.len());
        if let Some(field) = fields.iter().find(|field| !names.insert(&field.name)) {
            return self.error(id, format!("two members are named `{}`", field.name));
        }
        Ok(Node { size: c.size as usize, shape: Shape::Struct(fields) })
    }

    /// Adds the members of `c`, which starts at octet `base`; those of anonymous structs and unions inside too,
    /// as C lets a program name them.
    #[allow(clippy::too_many_arguments)]
    fn members(
        &mut self,
        id: TypeId,
        c: &Composite,
        base: usize,
        group: Option<usize>,
        fields: &mut Vec<Field>,
        unions: &mut usize,
        depth: usize,
    ) -> Result<(), StateError> {
        if depth > MAX_DEPTH {
            return self.error(id, "it is nested too deep");
        }
        for member in &c.members {
            let offset = base + member.bit_offset as usize / 8;
            if member.name.is_empty() && group.is_none() && member.bit_size == 0 {
                match self.btf.resolved(member.ty) {
                    Some(Type::Struct(inner)) => {
                        self.members(id, inner, offset, None, fields, unions, depth + 1)?;
                        continue;
                    }
                    Some(Type::Union(inner)) => {
                        let union = *unions;
                        *unions += 1;
                        self.members(id, inner, offset, Some(union), fields, unions, depth + 1)?;
                        self.choose(inner.size as usize, offset, union, fields);
                        continue;
                    }
                    _ => {}
                }
            }
            let name = match &*member.name {
                "" => Name::from(format!("_{}", fields.len())),
                _ => member.name.clone(),
            };
            let (offset, node) = self.member(id, member, &name, offset, depth)?;
            if offset - base + node.size > c.size as usize {
                return self.error(id, format!("member `{name}` ends past its end"));
            }
            let role = match group {
                _ if node.size == 0 || pads(&name) || self.kernel_owned(member.ty) => Role::Padding,
                Some(union) => Role::Alternative { union, shown: false },
                None => Role::Plain,
            };
            fields.push(Field { name, offset, node, role });
        }
        Ok(())
    }

    /// The member's first octet and its node; a bitfield's node covers the octets that it touches.
    fn member(
        &mut self,
        id: TypeId,
        member: &Member,
        name: &str,
        offset: usize,
        depth: usize,
    ) -> Result<(usize, Node), StateError> {
        let node = self.node(member.ty, name, depth + 1)?;
        let misaligned = member.bit_offset % 8;
        if member.bit_size == 0 && misaligned == 0 {
            return Ok((offset, node));
        }
        let Shape::Leaf(Leaf::Number(mut number)) = node.shape else {
            return self.error(id, format!("bitfield `{name}` is no integer"));
        };
        let bits = if member.bit_size == 0 { number.bits } else { member.bit_size };
        let shift = misaligned + u32::from(number.shift);
        if bits > number.bits || shift + u32::from(bits) > 128 || number.big {
            return self.error(id, format!("bitfield `{name}` has {bits} bits from bit {shift}"));
        }
        number.shift = shift as u8;
        number.bits = bits;
        let size = (shift as usize + usize::from(bits)).div_ceil(8);
        Ok((offset, Node::leaf(size, Leaf::Number(number))))
    }

    /// Picks the member of a union that is shown: the first that has a bit for each of the union's. When
    /// there is none, the octets stand for it, for nothing may be lost.
    fn choose(&self, size: usize, offset: usize, union: usize, fields: &mut Vec<Field>) {
        let of_union = |f: &Field| matches!(f.role, Role::Alternative { union: u, .. } if u == union);
        let whole =
            fields.iter_mut().find(|f| of_union(f) && f.offset == offset && f.node.coverage() == size * 8);
        let shown = Role::Alternative { union, shown: true };
        match whole {
            Some(field) => field.role = shown,
            None if size > 0 => {
                let taken = |name: &str| fields.iter().any(|f| &*f.name == name);
                let mut name = "octets".to_owned();
                while taken(&name) {
                    name.push('_');
                }
                let node = Node::leaf(size, Leaf::Bytes);
                fields.push(Field { name: Name::from(name), offset, node, role: shown });
            }
            None => {}
        }
    }

    /// Whether the kernel alone reads and writes the field; from user space it is always zero.
    fn kernel_owned(&self, id: TypeId) -> bool {
        matches!(self.btf.resolved(id), Some(Type::Struct(c))
            if matches!(&*c.name, "bpf_spin_lock" | "bpf_timer" | "bpf_wq" | "bpf_list_head" | "bpf_rb_root"))
    }
}

/// Types that stand for one thing, by name and size.
fn well_known(name: &str, size: usize) -> Option<Leaf> {
    match (name, size) {
        ("Ipv4" | "Ipv4Addr" | "in_addr", 4) => Some(Leaf::Ipv4),
        ("Ipv6" | "Ipv6Addr" | "in6_addr", 16) => Some(Leaf::Ipv6),
        ("UserAddress", 8) => Some(Leaf::User),
        ("Mac" | "MacAddr" | "MacAddress" | "EthAddr", 6) => Some(Leaf::Mac),
        _ => None,
    }
}

fn names_a_mac(field: &str) -> bool {
    let field = field.to_ascii_lowercase();
    field.contains("mac") || matches!(&*field, "h_dest" | "h_source" | "smac" | "dmac" | "lladdr" | "eth")
}

/// Whether a field of this name only fills a gap: `reserved`, `padding` or `pad`, with underscores and a number.
fn pads(name: &str) -> bool {
    let name = name.trim_start_matches('_');
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    matches!(stem, "reserved" | "padding" | "pad")
}
