//! Which types of the kernel can stand for which of an object.

use crate::btf::{Btf, Composite, Enumeration, Kind, Type, TypeId, encoding};

/// How deep types of function pointers and the like are compared. `None` of the functions below means deeper.
const DEPTH_LIMIT: u32 = 32;

/// A name without its flavour: what comes before the last `___` that has other characters on both sides.
pub(in crate::object) fn essential(name: &str) -> &str {
    let bytes = name.as_bytes();
    let flavour = |w: &[u8]| w[0] != b'_' && w[1..4] == *b"___" && w[4] != b'_';
    match bytes.windows(5).rposition(flavour) {
        Some(at) => name.get(..at + 1).unwrap_or(name),
        None => name,
    }
}

fn is_enum(ty: &Type) -> bool {
    matches!(ty, Type::Enum(_) | Type::Enum64(_))
}

/// Whether the kinds are the same, where enumerations of 32 and of 64 bits are.
pub(super) fn same_kind(a: &Type, b: &Type) -> bool {
    a.kind() == b.kind() || is_enum(a) && is_enum(b)
}

/// Whether two types, `None` for void, are of the same kind.
fn same_kind_or_void(a: Option<&Type>, b: Option<&Type>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same_kind(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// Whether a member of the kernel's type can be read as one of the object's. Sizes and signs may differ.
pub(super) fn fields_compatible(local: &Btf, local_id: TypeId, kernel: &Btf, kernel_id: TypeId) -> bool {
    let (mut a, mut b) = (local_id, kernel_id);
    for _ in 0..DEPTH_LIMIT {
        let (Some(local_type), Some(kernel_type)) = (local.resolved(a), kernel.resolved(b)) else {
            return false;
        };
        match (local_type, kernel_type) {
            (Type::Struct(_) | Type::Union(_), Type::Struct(_) | Type::Union(_))
            | (Type::Ptr { .. }, Type::Ptr { .. })
            | (Type::Float { .. }, Type::Float { .. }) => return true,
            (Type::Int { offset: a, .. }, Type::Int { offset: b, .. }) => return *a == 0 && *b == 0,
            (Type::Array { element: x, .. }, Type::Array { element: y, .. }) => (a, b) = (*x, *y),
            (a, b) if matches!(a, Type::Fwd { .. }) || is_enum(a) => {
                let (x, y) = (essential(a.name()), essential(b.name()));
                return same_kind(a, b) && (x.is_empty() || y.is_empty() || x == y);
            }
            _ => return false,
        }
    }
    false
}

/// Whether two types, whose names agree, are of the same kind all the way down to structs, which are not looked into.
pub(in crate::object) fn types_compatible(
    local: &Btf,
    local_id: TypeId,
    kernel: &Btf,
    kernel_id: TypeId,
) -> Option<bool> {
    if !same_kind_or_void(local.get(local_id), kernel.get(kernel_id)) {
        return Some(false);
    }
    compatible(local, local_id, kernel, kernel_id, DEPTH_LIMIT)
}

fn compatible(local: &Btf, mut a: TypeId, kernel: &Btf, mut b: TypeId, depth: u32) -> Option<bool> {
    for _ in 0..DEPTH_LIMIT {
        let (local_type, kernel_type) = (local.resolved(a), kernel.resolved(b));
        if !same_kind_or_void(local_type, kernel_type) {
            return Some(false);
        }
        let (Some(local_type), Some(kernel_type)) = (local_type, kernel_type) else { return Some(true) };
        match (local_type, kernel_type) {
            (Type::Int { offset: a, .. }, Type::Int { offset: b, .. }) => return Some(*a == 0 && *b == 0),
            (Type::Ptr { to: x }, Type::Ptr { to: y }) => (a, b) = (*x, *y),
            (Type::Array { element: x, .. }, Type::Array { element: y, .. }) => (a, b) = (*x, *y),
            (Type::FuncProto { ret: x, params: p }, Type::FuncProto { ret: y, params: q }) => {
                if p.len() != q.len() {
                    return Some(false);
                }
                let depth = depth.checked_sub(1)?;
                for (p, q) in p.iter().zip(q) {
                    if !compatible(local, p.ty, kernel, q.ty, depth)? {
                        return Some(false);
                    }
                }
                (a, b) = (*x, *y);
            }
            (a, _) => return Some(is_enum(a) || matches!(a.kind(), Kind::Struct | Kind::Union | Kind::Fwd)),
        }
    }
    None
}

/// Whether the object's type is a part of the kernel's: members and enumerators by name, and types all the way down
/// but behind pointers, where names are enough (`bpf_core_type_matches`).
pub(super) fn type_likeness(local: &Btf, local_id: TypeId, kernel: &Btf, kernel_id: TypeId) -> Option<bool> {
    Likeness { local, kernel }.types(local_id, kernel_id, false, DEPTH_LIMIT)
}

struct Likeness<'a> {
    local: &'a Btf,
    kernel: &'a Btf,
}

/// Whether names agree but for flavours; a type without a name is like another without.
fn names_agree(local: &str, kernel: &str) -> bool {
    if kernel.is_empty() { local.is_empty() } else { essential(local) == essential(kernel) }
}

impl Likeness<'_> {
    fn types(&self, mut a: TypeId, mut b: TypeId, mut behind: bool, depth: u32) -> Option<bool> {
        let depth = depth.checked_sub(1)?;
        for _ in 0..DEPTH_LIMIT {
            let (local, kernel) = (self.local.resolved(a), self.kernel.resolved(b));
            let (Some(local), Some(kernel)) = (local, kernel) else {
                return Some(local.is_none() && kernel.is_none());
            };
            if !names_agree(local.name(), kernel.name()) {
                return Some(false);
            }
            match (local, kernel) {
                (Type::Fwd { union: x, .. }, Type::Fwd { union: y, .. }) => return Some(x == y),
                (Type::Fwd { union, .. }, Type::Struct(_)) => return Some(behind && !union),
                (Type::Fwd { union, .. }, Type::Union(_)) => return Some(behind && *union),
                (Type::Struct(_), Type::Fwd { union, .. }) => return Some(behind && !union),
                (Type::Union(_), Type::Fwd { union, .. }) => return Some(behind && *union),
                (Type::Enum(x) | Type::Enum64(x), Type::Enum(y) | Type::Enum64(y)) => {
                    return Some(enumerations(x, y));
                }
                (Type::Struct(x), Type::Struct(y)) | (Type::Union(x), Type::Union(y)) => {
                    return if behind { Some(true) } else { Some(self.composites(x, y, depth)) };
                }
                (Type::Int { size: x, encoding: e, .. }, Type::Int { size: y, encoding: f, .. }) => {
                    return Some(x == y && e & encoding::SIGNED == f & encoding::SIGNED);
                }
                (Type::Ptr { to: x }, Type::Ptr { to: y }) => {
                    behind = true;
                    (a, b) = (*x, *y);
                }
                (Type::Array { element: x, count: m, .. }, Type::Array { element: y, count: n, .. }) => {
                    if m != n {
                        return Some(false);
                    }
                    (a, b) = (*x, *y);
                }
                (Type::FuncProto { ret: x, params: p }, Type::FuncProto { ret: y, params: q }) => {
                    if p.len() != q.len() {
                        return Some(false);
                    }
                    for (p, q) in p.iter().zip(q) {
                        if !self.types(p.ty, q.ty, behind, depth)? {
                            return Some(false);
                        }
                    }
                    (a, b) = (*x, *y);
                }
                _ => return Some(false),
            }
        }
        None
    }

    /// Whether every member has one like it.
    fn composites(&self, local: &Composite, kernel: &Composite, depth: u32) -> bool {
        local.members.len() <= kernel.members.len()
            && local.members.iter().all(|member| {
                kernel.members.iter().any(|other| {
                    names_agree(&member.name, &other.name)
                        && self.types(member.ty, other.ty, false, depth) == Some(true)
                })
            })
    }
}

fn enumerations(local: &Enumeration, kernel: &Enumeration) -> bool {
    local.values.len() <= kernel.values.len()
        && local.values.iter().all(|v| kernel.values.iter().any(|other| names_agree(&v.name, &other.name)))
}
