//! Layouts of types, printed and compared.
//!
//! Two types have the same layout when user space could read the one as the other: same fields by name,
//! offset, size and kind. Names of types, typedefs and qualifiers do not count, and what a pointer points to
//! does not either, for a map's bytes do not hold it.

use std::fmt::{self, Write as _};

use super::types::{Composite, Enumeration, Member, Type, encoding};
use super::{Btf, MAX_DEPTH, TypeId};

/// Lines that [`Btf::describe`] prints, and fields that [`Btf::same_layout`] looks at, at most. No map value
/// comes near; a small hostile BTF can describe 2^64 nested fields.
const FIELDS_LIMIT: usize = 4096;

/// A line of a layout in C's manner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutLine {
    /// How deep it is nested.
    pub depth: usize,
    /// The declaration, or the bracket that opens or closes one.
    pub text: String,
    /// The name that it declares, with a bracket in front where it opens or closes a struct or union.
    pub name: String,
    /// Octets from the start of the type; none where a struct or union opens.
    pub offset: Option<u64>,
    /// Octets; none for what has no size, and for a bitfield.
    pub size: Option<u32>,
    /// Of a bitfield: its first bit within the octet at `offset`, and how many there are.
    pub bits: Option<(u64, u8)>,
    /// What kind of scalar it is, names of types aside; what makes two lines the same to user space.
    pub kind: String,
}

impl LayoutLine {
    /// Whether user space could read the one as the other, were it alone.
    pub fn same(&self, other: &Self) -> bool {
        (&self.name, self.offset, self.size, self.bits, &self.kind)
            == (&other.name, other.offset, other.size, other.bits, &other.kind)
    }

    /// What [`Btf::describe`] says beside it.
    fn note(&self) -> Option<String> {
        let offset = self.offset?;
        Some(match (self.bits, self.size) {
            (Some((bit, bits)), _) => format!("offset {offset}, bit {bit}, {bits} bits"),
            (None, Some(size)) => format!("offset {offset}, size {size}"),
            (None, None) => format!("offset {offset}, no size"),
        })
    }
}

/// The first place where two layouts differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutDiff {
    /// The field, as a dotted path; empty for the type itself.
    pub path: String,
    /// What the first type has there.
    pub expected: String,
    /// What the second type has there.
    pub found: String,
}

impl fmt::Display for LayoutDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

impl Btf {
    /// The type as it would be declared, e.g. `unsigned int`, `struct key`, `u8[4]`.
    pub fn type_name(&self, id: TypeId) -> String {
        let mut id = id;
        let mut suffix = String::new();
        for _ in 0..MAX_DEPTH {
            let text = match self.get(id) {
                None => "void".to_owned(),
                Some(Type::Array { element, count, .. }) => {
                    let _ = write!(suffix, "[{count}]");
                    id = *element;
                    continue;
                }
                Some(Type::Ptr { to }) => {
                    suffix.insert(0, '*');
                    id = *to;
                    continue;
                }
                Some(
                    Type::Const { to }
                    | Type::Volatile { to }
                    | Type::Restrict { to }
                    | Type::TypeTag { to, .. }
                    | Type::Var { ty: to, .. },
                ) => {
                    id = *to;
                    continue;
                }
                Some(ty @ (Type::Struct(_) | Type::Union(_) | Type::Enum(_) | Type::Enum64(_))) => {
                    let kind = if matches!(ty, Type::Enum64(_)) { "enum" } else { ty.kind().name() };
                    match ty.name() {
                        "" => kind.to_owned(),
                        name => format!("{kind} {name}"),
                    }
                }
                Some(ty) if ty.name().is_empty() => ty.kind().name().to_owned(),
                Some(ty) => ty.name().to_owned(),
            };
            return text + &suffix;
        }
        "…".to_owned()
    }

    /// The layout in C's manner, one field a line, each with its offset and size in octets; nested structs are
    /// unfolded. Ends without a newline.
    pub fn describe(&self, id: TypeId) -> String {
        let mut out = String::new();
        for line in self.layout(id) {
            let indent = 4 * line.depth;
            let _ = match line.note() {
                None => writeln!(out, "{:indent$}{}", "", line.text),
                Some(note) => {
                    let width = 40usize.saturating_sub(indent);
                    writeln!(out, "{:indent$}{:width$} // {note}", "", line.text)
                }
            };
        }
        out.truncate(out.trim_end().len());
        out
    }

    /// The lines of [`Btf::describe`].
    pub fn layout(&self, id: TypeId) -> Vec<LayoutLine> {
        let mut printer = Printer { btf: self, lines: Vec::new() };
        printer.ty(id, "", 0, 0, 0);
        printer.lines
    }

    /// Compares the layouts of type `a` here and type `b` in `other`.
    ///
    /// # Errors
    /// The first difference, in order of offsets.
    pub fn same_layout(&self, a: TypeId, other: &Btf, b: TypeId) -> Result<(), LayoutDiff> {
        let behind_variable = |btf: &Btf, id| match btf.get(id) {
            Some(Type::Var { ty, .. }) => *ty,
            _ => id,
        };
        let (a, b) = (behind_variable(self, a), behind_variable(other, b));
        let mut comparison = Comparison { a: self, b: other, path: Vec::new(), fields: 0 };
        comparison.ty(a, b)
    }
}

/// Whether the type is a struct or union, or an array of them.
fn composite(btf: &Btf, id: TypeId) -> Option<&Composite> {
    match btf.resolved(id)? {
        Type::Struct(c) | Type::Union(c) => Some(c),
        _ => None,
    }
}

struct Printer<'a> {
    btf: &'a Btf,
    lines: Vec<LayoutLine>,
}

impl Printer<'_> {
    fn bracket(&mut self, depth: usize, text: String, name: String) -> &mut LayoutLine {
        let line =
            LayoutLine { depth, text, name, offset: None, size: None, bits: None, kind: String::new() };
        self.lines.push(line);
        let last = self.lines.len() - 1;
        &mut self.lines[last]
    }

    fn ty(&mut self, id: TypeId, name: &str, bits: u64, bit_size: u8, depth: usize) {
        if self.lines.len() >= FIELDS_LIMIT || depth > MAX_DEPTH {
            if self.lines.len() <= FIELDS_LIMIT {
                self.bracket(depth, "…".to_owned(), String::new());
            }
            return;
        }
        // An array of structs is unfolded as one element.
        let (mut element, mut dimensions) = (id, String::new());
        for _ in 0..MAX_DEPTH {
            let Some(Type::Array { element: next, count, .. }) = self.btf.resolved(element) else { break };
            let _ = write!(dimensions, "[{count}]");
            element = *next;
        }
        let size = self.btf.size_of(id);
        let declared = if dimensions.is_empty() { id } else { element };
        let type_name = self.btf.type_name(declared);
        if let Some(c) = composite(self.btf, element) {
            self.bracket(depth, format!("{type_name} {{"), format!("{{{name}"));
            for member in &c.members {
                let at = bits + u64::from(member.bit_offset);
                self.ty(member.ty, &member.name, at, member.bit_size, depth + 1);
            }
            let space = if name.is_empty() && dimensions.is_empty() { "" } else { " " };
            let line =
                self.bracket(depth, format!("}}{space}{name}{dimensions};"), format!("}}{name}{dimensions}"));
            (line.offset, line.size) = (Some(bits / 8), size);
        } else {
            let space = if name.is_empty() { "" } else { " " };
            let kind = self.btf.resolved(element).and_then(scalar).map(|kind| format!("{kind:?}"));
            let field = if bit_size == 0 { String::new() } else { format!(" : {bit_size}") };
            let text = format!("{type_name}{space}{name}{dimensions}{field};");
            let line = self.bracket(depth, text, name.to_owned());
            line.kind = kind.unwrap_or_default() + &dimensions;
            line.offset = Some(bits / 8);
            match bit_size {
                0 => line.size = size,
                n => line.bits = Some((bits % 8, n)),
            }
        }
    }
}

struct Comparison<'a> {
    a: &'a Btf,
    b: &'a Btf,
    path: Vec<String>,
    fields: usize,
}

impl<'a> Comparison<'a> {
    fn diff<T>(&self, expected: impl Into<String>, found: impl Into<String>) -> Result<T, LayoutDiff> {
        Err(LayoutDiff { path: self.path.join("."), expected: expected.into(), found: found.into() })
    }

    fn ty(&mut self, a: TypeId, b: TypeId) -> Result<(), LayoutDiff> {
        self.fields += 1;
        if self.fields > FIELDS_LIMIT || self.path.len() > MAX_DEPTH {
            return self.diff("a type that can be compared", "one nested too deep");
        }
        let (size_a, size_b) = (self.a.size_of(a), self.b.size_of(b));
        match (self.a.resolved(a), self.b.resolved(b)) {
            (Some(Type::Struct(x)), Some(Type::Struct(y))) | (Some(Type::Union(x)), Some(Type::Union(y)))
                if size_a == size_b =>
            {
                return self.members(x, y);
            }
            (
                Some(Type::Array { element: x, count: m, .. }),
                Some(Type::Array { element: y, count: n, .. }),
            ) if m == n => {
                self.path.push("[]".to_owned());
                self.ty(*x, *y)?;
                self.path.pop();
                return Ok(());
            }
            (Some(x), Some(y)) if size_a == size_b && same_scalar(x, y) => return Ok(()),
            (None, None) => return Ok(()),
            _ => {}
        }
        self.diff(summary(self.a, a), summary(self.b, b))
    }

    fn members(&mut self, x: &'a Composite, y: &'a Composite) -> Result<(), LayoutDiff> {
        let (xs, ys) = (by_offset(x), by_offset(y));
        let fields = xs.len().max(ys.len());
        for i in 0..fields {
            let (m, n) = (xs.get(i), ys.get(i));
            let place = |btf: &Btf, m: Option<&&Member>| match m {
                None => "nothing".to_owned(),
                Some(m) => format!("{} at {}", field(btf, m), place(m)),
            };
            let same_place = m.zip(n).is_some_and(|(m, n)| {
                m.name == n.name && m.bit_offset == n.bit_offset && m.bit_size == n.bit_size
            });
            if !same_place {
                return self.diff(place(self.a, m), place(self.b, n));
            }
            let Some((m, n)) = m.zip(n) else { continue };
            self.path.push(m.name.to_string());
            self.ty(m.ty, n.ty)?;
            self.path.pop();
        }
        Ok(())
    }
}

fn by_offset(c: &Composite) -> Vec<&Member> {
    let mut members: Vec<_> = c.members.iter().collect();
    members.sort_by_key(|m| m.bit_offset);
    members
}

fn field(btf: &Btf, m: &Member) -> String {
    let bits = if m.bit_size == 0 { String::new() } else { format!(" : {}", m.bit_size) };
    format!("`{} {}{bits}`", btf.type_name(m.ty), m.name)
}

fn place(m: &Member) -> String {
    match (m.bit_offset / 8, m.bit_offset % 8) {
        (octet, 0) => format!("offset {octet}"),
        (octet, bit) => format!("offset {octet} bit {bit}"),
    }
}

/// What is compared of a type that is no struct, union or array.
#[derive(Debug, PartialEq)]
enum Scalar {
    Integer { signed: bool, offset: u8, bits: u8 },
    Enumeration,
    Pointer,
    Float,
}

fn scalar(ty: &Type) -> Option<Scalar> {
    Some(match ty {
        Type::Int { encoding, offset, bits, .. } => {
            Scalar::Integer { signed: encoding & encoding::SIGNED != 0, offset: *offset, bits: *bits }
        }
        Type::Enum(Enumeration { .. }) | Type::Enum64(_) => Scalar::Enumeration,
        Type::Ptr { .. } => Scalar::Pointer,
        Type::Float { .. } => Scalar::Float,
        _ => return None,
    })
}

fn same_scalar(a: &Type, b: &Type) -> bool {
    scalar(a).is_some_and(|a| scalar(b) == Some(a))
}

fn summary(btf: &Btf, id: TypeId) -> String {
    match btf.size_of(id) {
        Some(size) => format!("`{}` of {size} octets", btf.type_name(id)),
        None => format!("`{}`", btf.type_name(id)),
    }
}
