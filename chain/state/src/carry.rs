//! The entries of a map carried over to another layout of it, and what was written meanwhile put on top.

use xdpchain_compose::btf::{Btf, TypeId};

use crate::StateError;
use crate::map::{PER_CPU_ALIGN, is_per_cpu};
use crate::migrate::{Converter, FieldChange, Misfit, has};
use crate::shape::{Node, Role, Shape};

/// A map's keys or values as one side has them.
#[derive(Clone, Copy, Debug)]
pub struct Half<'a> {
    /// The types and the id of this one; none when it is not known.
    pub ty: Option<(&'a Btf, TypeId)>,
    /// Octets.
    pub size: u32,
}

/// How entries of one layout become entries of another.
#[derive(Clone, Debug)]
pub struct MapConverter {
    key: Converter,
    value: Converter,
    per_cpu: bool,
    /// Paths of fields that do not count.
    newest: Vec<String>,
}

/// A change of part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// A number in host order grew by `delta`; it wraps around.
    Add {
        /// Its first octet.
        offset: usize,
        /// Octets: 1, 2, 4 or 8.
        width: usize,
        /// By how much.
        delta: u64,
    },
    /// Octets that are to be others, where they still are what they were.
    Set {
        /// The first octet.
        offset: usize,
        /// What they were.
        before: Vec<u8>,
        /// What they are to be.
        after: Vec<u8>,
    },
}

impl MapConverter {
    /// Of a map of type `map_type` (`enum bpf_map_type`), from (key, value) `old` to `new`.
    ///
    /// # Errors
    /// As [`Converter::new`]; and when sizes differ and no types say how.
    pub fn new(
        map_type: u32,
        old: (Half<'_>, Half<'_>),
        new: (Half<'_>, Half<'_>),
        renames: &[(String, String)],
        newest: &[String],
    ) -> Result<Self, StateError> {
        let half = |what: &str, old: Half<'_>, new: Half<'_>| match (old.ty, new.ty) {
            (Some(old), Some(new)) => Converter::new(old, new, renames),
            (None, Some((btf, id))) if old.size == new.size => Converter::same_type(btf, id),
            _ if old.size == new.size => Ok(Converter::same(old.size as usize)),
            _ => Err(StateError::Migrate {
                path: String::new(),
                problem: format!(
                    "the {what} of {} octets is to have {}, and no types say which fields those are",
                    old.size, new.size
                ),
                help: "build both objects with `-g`, and define the map by the types of its key and value",
            }),
        };
        let key = half("key", old.0, new.0)?;
        let value = half("value", old.1, new.1)?;
        let known = |path: &str| {
            [old.0, old.1, new.0, new.1].iter().any(|half| {
                let node = half.ty.and_then(|(btf, id)| crate::shape::compile(btf, id).ok());
                node.is_some_and(|node| has(&node, path))
            })
        };
        // A renaming of long ago is known by its new name alone.
        let unknown = renames.iter().find(|(old, new)| !known(old) && !known(new)).map(|(old, _)| old);
        if let Some(path) = unknown.or_else(|| newest.iter().find(|path| !known(path))) {
            return Err(StateError::Migrate {
                path: path.clone(),
                problem: "is named under `migrate:`, and neither layout has such a field".to_owned(),
                help: "`xdpchain check OBJECT` shows the types of an object's maps; nested fields have dots before",
            });
        }
        Ok(Self { key, value, per_cpu: is_per_cpu(map_type), newest: newest.to_vec() })
    }

    /// Whether every entry stays as it is.
    pub fn is_same(&self) -> bool {
        self.key.is_same() && self.value.is_same()
    }

    /// Whether two entries may become one, because their keys lose what told them apart.
    pub fn merges_keys(&self) -> bool {
        self.key.merges()
    }

    /// What becomes of the fields of key and value.
    pub fn changes(&self) -> impl Iterator<Item = &FieldChange> {
        self.key.changes().iter().chain(self.value.changes())
    }

    /// Octets of a new key.
    pub fn key_size(&self) -> usize {
        self.key.new_size()
    }

    /// What the key `old` becomes.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn key(&self, old: &[u8]) -> Result<Vec<u8>, Box<Misfit>> {
        let mut new = vec![0; self.key.new_size()];
        self.key.convert(old, &mut new)?;
        Ok(new)
    }

    /// What the value `old` becomes, as system calls carry both: for a per-CPU map those of every CPU.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn value(&self, old: &[u8]) -> Result<Vec<u8>, Box<Misfit>> {
        let mut new = Vec::new();
        self.value_into(old, &mut new)?;
        Ok(new)
    }

    /// As [`value`](Self::value), behind what `out` has.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn value_into(&self, old: &[u8], out: &mut Vec<u8>) -> Result<(), Box<Misfit>> {
        let (from, to) = (self.value.old_size(), self.value.new_size());
        let (from_stride, stride) = match self.per_cpu {
            true => (from.next_multiple_of(PER_CPU_ALIGN), to.next_multiple_of(PER_CPU_ALIGN)),
            false => (from, to),
        };
        for value in old.chunks_exact(from_stride.max(1)) {
            let start = out.len();
            out.resize(start + stride, 0);
            self.value.convert(&value[..from], &mut out[start..start + to])?;
        }
        Ok(())
    }

    /// Each CPU's value of what a system call gave for the new map; one for a map that is not per CPU.
    pub fn values<'a>(&self, octets: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let size = self.value.new_size();
        let stride = if self.per_cpu { size.next_multiple_of(PER_CPU_ALIGN) } else { size };
        octets.chunks_exact(stride.max(1)).map(move |value| &value[..size])
    }

    /// What turns the new layout's value `before` into `after`, field by field: numbers in host order by their increase,
    /// everything else by what it is to be.
    pub fn merges(&self, before: &[u8], after: &[u8]) -> Vec<Merge> {
        let mut out = Vec::new();
        self.merge(self.value.node(), 0, "", before, after, &mut out);
        out
    }

    fn merge(&self, node: &Node, at: usize, path: &str, before: &[u8], after: &[u8], out: &mut Vec<Merge>) {
        let here = at..at + node.size;
        if before[here.clone()] == after[here.clone()] {
            return;
        }
        match &node.shape {
            Shape::Array(element, count) => {
                for i in 0..*count {
                    self.merge(element, at + i * element.size, path, before, after, out);
                }
            }
            Shape::Struct(fields) => {
                for field in fields.iter().filter(|f| f.is_shown() && f.role != Role::Padding) {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", field.name);
                    self.merge(&field.node, at + field.offset, &path, before, after, out);
                }
            }
            Shape::Leaf(leaf) => {
                let (was, is) = (&before[here.clone()], &after[here]);
                let whole = leaf.countable().filter(|n| n.shift == 0 && usize::from(n.bits) == node.size * 8);
                let width = node.size;
                let counts = matches!(width, 1 | 2 | 4 | 8) && at.is_multiple_of(width);
                out.push(match whole {
                    Some(number) if counts && !self.newest.iter().any(|newest| newest == path) => {
                        let delta = number.raw(is).wrapping_sub(number.raw(was)) as u64;
                        Merge::Add { offset: at, width, delta }
                    }
                    _ => Merge::Set { offset: at, before: was.to_vec(), after: is.to_vec() },
                });
            }
        }
    }
}
