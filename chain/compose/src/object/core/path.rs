//! Paths through types: of a relocation through the object's own, and the same through the kernel's.

use std::fmt::Write as _;

use super::Wanted;
use super::compat::{essential, fields_compatible, type_likeness, types_compatible};
use crate::btf::{Btf, Composite, Kind, Type, TypeId};

/// Members and elements that a path may have, the anonymous ones counted.
const DEPTH_LIMIT: usize = 64;

/// One step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// For a member or an enumerator the type that has it, for an element its own type.
    pub(super) ty: TypeId,
    /// Index of the member, element or enumerator.
    pub(super) index: u32,
    /// Whether it is a member or enumerator.
    pub(super) named: bool,
}

/// A path from a type to something inside.
#[derive(Clone, Debug)]
pub(super) struct Path<'a> {
    pub(super) btf: &'a Btf,
    /// The type that it starts from, as the relocation names it.
    pub(super) root: TypeId,
    pub(super) steps: Vec<Step>,
    /// Bits from the start of the root to where the path leads.
    pub(super) bit_offset: u64,
    /// Members and elements passed, the anonymous ones counted.
    depth: usize,
}

impl<'a> Path<'a> {
    fn new(btf: &'a Btf, root: TypeId) -> Self {
        Self { btf, root, steps: Vec::new(), bit_offset: 0, depth: 0 }
    }

    /// Reads an access string such as `0:1:2`, of indices only: the first one is of an element behind a pointer to
    /// the root, the others are of members and elements inside.
    pub(super) fn parse(btf: &'a Btf, wanted: Wanted, root: TypeId, access: &str) -> Result<Self, String> {
        let indices: Vec<u32> = access
            .split(':')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| "its path is damaged".to_owned())?;
        if indices.len() > DEPTH_LIMIT {
            return Err(format!("its path has {} steps, more than {DEPTH_LIMIT}", indices.len()));
        }
        let mut path = Self::new(btf, root);
        let damaged = || "its path leads nowhere in the object's own types".to_owned();
        if wanted.of_type() {
            return if access == "0" { Ok(path) } else { Err(damaged()) };
        }
        let first = indices[0];
        let mut at = btf.resolve(root);
        if wanted.of_enumerator() {
            let values = enumerators(btf, at).ok_or_else(damaged)?;
            if indices.len() != 1 || first as usize >= values {
                return Err(damaged());
            }
            path.steps.push(Step { ty: at, index: first, named: true });
            return Ok(path);
        }
        path.element(at, first).ok_or_else(damaged)?;
        for &index in &indices[1..] {
            at = match btf.resolved(at) {
                Some(Type::Struct(c) | Type::Union(c)) => {
                    let member = c.members.get(index as usize).ok_or_else(damaged)?;
                    path.bit_offset += u64::from(member.bit_offset);
                    if !member.name.is_empty() {
                        path.steps.push(Step { ty: btf.resolve(at), index, named: true });
                    }
                    member.ty
                }
                Some(Type::Array { element, count, .. }) => {
                    if index >= *count && !path.at_flexible_array(*count) {
                        return Err(damaged());
                    }
                    let element = btf.resolve(*element);
                    path.element(element, index).ok_or_else(damaged)?;
                    element
                }
                _ => return Err(damaged()),
            };
        }
        Ok(path)
    }

    /// Steps on to an element of type `ty`. `None` when that has no size.
    fn element(&mut self, ty: TypeId, index: u32) -> Option<()> {
        let size = self.btf.size_of(ty)?;
        self.steps.push(Step { ty, index, named: false });
        self.bit_offset += u64::from(index) * u64::from(size) * 8;
        Some(())
    }

    /// Whether the path has come to an array without elements that is the last member of its struct, and so as long
    /// as the memory behind it.
    fn at_flexible_array(&self, count: u32) -> bool {
        let Some(last) = self.steps.last().filter(|step| step.named && count == 0) else { return false };
        composite(self.btf, last.ty).is_some_and(|c| last.index as usize + 1 == c.members.len())
    }

    /// This path through type `root` of the kernel; `None` when it has no such path.
    pub(super) fn follow<'k>(
        &self,
        wanted: Wanted,
        btf: &'k Btf,
        root: TypeId,
    ) -> Result<Option<Path<'k>>, String> {
        let mut found = Path::new(btf, root);
        if wanted.of_type() {
            let fits = if wanted == Wanted::TypeMatches {
                type_likeness(self.btf, self.root, btf, root)
            } else {
                types_compatible(self.btf, self.root, btf, root)
            };
            return fits
                .map(|fits| fits.then_some(found))
                .ok_or_else(|| "its types nest too deep".to_owned());
        }
        if wanted.of_enumerator() {
            let (at, name) = (btf.resolve(root), essential(self.enumerator()));
            let same = |i: &u32| essential(enumerator(btf, at, *i)) == name;
            let Some(index) = (0..enumerators(btf, at).unwrap_or(0) as u32).find(same) else {
                return Ok(None);
            };
            found.steps.push(Step { ty: at, index, named: true });
            return Ok(Some(found));
        }
        let mut at = root;
        for (i, step) in self.steps.iter().enumerate() {
            at = btf.resolve(at);
            if step.named {
                match found.member(at, self, *step)? {
                    Some(ty) => at = ty,
                    None => return Ok(None),
                }
                continue;
            }
            // The first step is to an element of an array of the root itself.
            if i > 0 {
                let Some(Type::Array { element, count, .. }) = btf.get(at) else { return Ok(None) };
                if step.index >= *count && !found.at_flexible_array(*count) {
                    return Ok(None);
                }
                at = btf.resolve(*element);
            }
            found.deeper()?;
            found
                .element(at, step.index)
                .ok_or_else(|| format!("{} of the kernel has no size", btf.type_name(at)))?;
        }
        Ok(Some(found))
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(format!("the kernel's type nests deeper than {DEPTH_LIMIT}"));
        }
        Ok(())
    }

    /// Steps on to the member of `at`, or of anonymous members of it, that the local `step` names. The member's type;
    /// `None` when there is no such member, or one of another kind.
    fn member(&mut self, at: TypeId, local: &Path<'_>, step: Step) -> Result<Option<TypeId>, String> {
        let at = self.btf.resolve(at);
        let Some(c) = composite(self.btf, at) else { return Ok(None) };
        let Some(wanted) = composite(local.btf, step.ty).and_then(|c| c.members.get(step.index as usize))
        else {
            return Ok(None);
        };
        for (index, member) in c.members.iter().enumerate() {
            self.deeper()?;
            self.bit_offset += u64::from(member.bit_offset);
            if member.name.is_empty() {
                if let Some(found) = self.member(member.ty, local, step)? {
                    return Ok(Some(found));
                }
            } else if member.name == wanted.name {
                if !fields_compatible(local.btf, wanted.ty, self.btf, member.ty) {
                    return Ok(None);
                }
                self.steps.push(Step { ty: at, index: index as u32, named: true });
                return Ok(Some(member.ty));
            }
            self.bit_offset -= u64::from(member.bit_offset);
            self.depth -= 1;
        }
        Ok(None)
    }

    /// Name of the enumerator that the path leads to.
    fn enumerator(&self) -> &'a str {
        self.steps.last().map_or("", |step| enumerator(self.btf, step.ty, step.index))
    }

    /// What the path leads to, for people.
    pub(super) fn describe(&self, wanted: Wanted) -> String {
        let mut text = format!("{} of `{}", wanted.name(), self.btf.type_name(self.root));
        if wanted.of_enumerator() {
            let _ = write!(text, " {}", self.enumerator());
        } else {
            for (i, step) in self.steps.iter().enumerate() {
                let _ = match composite(self.btf, step.ty).and_then(|c| c.members.get(step.index as usize)) {
                    Some(member) if step.named => write!(text, ".{}", member.name),
                    _ if i > 0 || step.index > 0 => write!(text, "[{}]", step.index),
                    _ => Ok(()),
                };
            }
        }
        text.push('`');
        text
    }
}

/// The struct or union behind typedefs and qualifiers.
pub(super) fn composite(btf: &Btf, id: TypeId) -> Option<&Composite> {
    match btf.resolved(id)? {
        Type::Struct(c) | Type::Union(c) => Some(c),
        _ => None,
    }
}

/// How many enumerators the type has; `None` when it is no enumeration.
fn enumerators(btf: &Btf, id: TypeId) -> Option<usize> {
    match btf.resolved(id)? {
        Type::Enum(e) | Type::Enum64(e) => Some(e.values.len()),
        _ => None,
    }
}

fn enumerator(btf: &Btf, id: TypeId, index: u32) -> &str {
    match btf.resolved(id) {
        Some(Type::Enum(e) | Type::Enum64(e)) => e.values.get(index as usize).map_or("", |v| &*v.name),
        _ => "",
    }
}

/// The enumerator's value as a relocation wants it: numbers of 32 bits count as signed.
pub(super) fn enumerator_value(btf: &Btf, step: Step) -> Option<u64> {
    match btf.resolved(step.ty)? {
        ty @ (Type::Enum(e) | Type::Enum64(e)) => {
            let value = e.values.get(step.index as usize)?.value;
            Some(if ty.kind() == Kind::Enum { i64::from(value as i32) } else { value } as u64)
        }
        _ => None,
    }
}
