//! A converter between two layouts of a value: what one build of a module wrote, as another build reads it.
//!
//! Fields are found by their names, through structs and arrays. What is new is zero, what is gone is dropped and told, and
//! no value changes on the way: one that does not fit into its new field is refused. A union has to stay as it is.

use std::collections::BTreeMap;
use std::fmt;

use xdpchain_compose::btf::{Btf, Name, TypeId};

use crate::StateError;
use crate::leaf::Leaf;
use crate::scalar::{carry, fits, type_name};
use crate::shape::{self, Field, Node, Role, Shape};

/// How values of one layout become values of another.
#[derive(Clone, Debug)]
pub struct Converter {
    from: usize,
    to: Node,
    steps: Vec<Step>,
    changes: Vec<FieldChange>,
    /// Whether the octets stay as they are.
    same: bool,
}

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// The field in the new layout; of one that is gone, in the old one. Empty for a type that is no struct.
    pub path: String,
    /// What becomes of it.
    pub what: What,
}

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// It is new, and zero.
    Added,
    /// It is gone, and its values are dropped.
    Removed,
    /// It had another name.
    Renamed {
        /// The name in the old layout.
        from: String,
    },
    /// Every value of the old type is one of the new type.
    Widened {
        /// The old type.
        from: String,
        /// The new type.
        to: String,
    },
    /// Values that do not fit are refused.
    Narrowed {
        /// The old type.
        from: String,
        /// The new type.
        to: String,
    },
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the whole" } else { &self.path };
        match &self.what {
            What::Added => write!(f, "`{path}` is new, and zero"),
            What::Removed => write!(f, "`{path}` is gone, and its values are dropped"),
            What::Renamed { from } => write!(f, "`{path}` was `{from}`"),
            What::Widened { from, to } => write!(f, "`{path}` becomes {to}, from {from}"),
            What::Narrowed { from, to } => {
                write!(f, "`{path}` becomes {to}, from {from}, which every value has to fit into")
            }
        }
    }
}

/// A value that its new field cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{value} does not fit into {to}", place(.path))]
pub struct Misfit {
    /// The field.
    pub path: String,
    /// The value.
    pub value: String,
    /// The type that it does not fit into.
    pub to: String,
}

fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}

/// A part of the way from the old octets to the new ones, which are zero before.
#[derive(Clone, Debug)]
enum Step {
    /// Octets stay.
    Copy { from: usize, to: usize, len: usize },
    /// Octets that have to be zero, for they are dropped.
    Zero { from: usize, len: usize, path: String, to: String },
    /// A scalar changes its type.
    Leaf { from: (usize, usize, Leaf), to: (usize, usize, Leaf), path: String },
    /// Each element of an array.
    Each { from: (usize, usize), to: (usize, usize), count: usize, steps: Vec<Step> },
}

impl Converter {
    /// From the type `old` to the type `new`; `renames` are paths of fields, before and after. One that was renamed already,
    /// or is renamed back by going back to an older build, is understood.
    ///
    /// # Errors
    /// [`StateError::Type`], and [`StateError::Migrate`] with the first field of which no value can be carried over, or a
    /// renaming that neither layout knows.
    pub fn new(
        old: (&Btf, TypeId),
        new: (&Btf, TypeId),
        renames: &[(String, String)],
    ) -> Result<Self, StateError> {
        let (from, to) = (shape::compile(old.0, old.1)?, shape::compile(new.0, new.1)?);
        let renamed = Renames::new(&from, &to, renames)?;
        let mut walk = Walk { renames: renamed, changes: Vec::new() };
        let mut steps = Vec::new();
        walk.node((&from, 0, ""), (&to, 0, ""), &mut steps)?;
        let same = from == to;
        Ok(Self { from: from.size, to, steps, changes: walk.changes, same })
    }

    /// For octets that stay as they are.
    pub fn same(size: usize) -> Self {
        let to = Node::leaf(size, Leaf::Bytes);
        let steps = vec![Step::Copy { from: 0, to: 0, len: size }];
        Self { from: size, to, steps, changes: Vec::new(), same: true }
    }

    /// As [`Converter::same`], for a type of which the fields are known.
    ///
    /// # Errors
    /// [`StateError::Type`].
    pub fn same_type(btf: &Btf, id: TypeId) -> Result<Self, StateError> {
        Self::new((btf, id), (btf, id), &[])
    }

    /// Octets of an old value.
    pub fn old_size(&self) -> usize {
        self.from
    }

    /// Octets of a new value.
    pub fn new_size(&self) -> usize {
        self.to.size
    }

    /// The new layout.
    pub(crate) fn node(&self) -> &Node {
        &self.to
    }

    /// Whether every value stays as it is.
    pub fn is_same(&self) -> bool {
        self.same
    }

    /// Whether two different old values can become the same new one.
    pub fn merges(&self) -> bool {
        self.changes.iter().any(|change| change.what == What::Removed)
    }

    /// What becomes of the fields, those that stay as they are left out.
    pub fn changes(&self) -> &[FieldChange] {
        &self.changes
    }

    /// Writes what `old` becomes into `new`, which has to be zeros.
    ///
    /// # Errors
    /// [`Misfit`] for the first field whose value its new type cannot hold.
    ///
    /// # Panics
    /// When the slices are not as long as the types.
    pub fn convert(&self, old: &[u8], new: &mut [u8]) -> Result<(), Box<Misfit>> {
        assert_eq!((old.len(), new.len()), (self.from, self.to.size), "octets of both types");
        if self.same {
            new.copy_from_slice(old);
            return Ok(());
        }
        run(&self.steps, old, new)
    }
}

fn run(steps: &[Step], old: &[u8], new: &mut [u8]) -> Result<(), Box<Misfit>> {
    for step in steps {
        match step {
            Step::Copy { from, to, len } => new[*to..to + len].copy_from_slice(&old[*from..from + len]),
            Step::Zero { from, len, path, to } => {
                let dropped = &old[*from..from + len];
                if dropped.iter().any(|octet| *octet != 0) {
                    let value = Leaf::Bytes.value(dropped).to_string();
                    return Err(Box::new(Misfit { path: path.clone(), value, to: to.clone() }));
                }
            }
            Step::Leaf { from: (at, len, from), to: (to_at, to_len, to), path } => {
                let (old, new) = (&old[*at..at + len], &mut new[*to_at..to_at + to_len]);
                if carry(from, old, to, new).is_none() {
                    let (value, to) = (from.value(old).to_string(), type_name(to, *to_len));
                    return Err(Box::new(Misfit { path: path.clone(), value, to }));
                }
            }
            Step::Each { from, to, count, steps } => {
                for i in 0..*count {
                    let (at, to_at) = (from.0 + i * from.1, to.0 + i * to.1);
                    run(steps, &old[at..at + from.1], &mut new[to_at..to_at + to.1])?;
                }
            }
        }
    }
    Ok(())
}

/// Whether a dotted path leads to a field, also of the elements of an array.
pub(crate) fn has(node: &Node, path: &str) -> bool {
    if let Shape::Array(element, _) = &node.shape {
        return has(element, path);
    }
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let field = node.fields().iter().find(|f| *f.name == *first);
    field.is_some_and(|field| rest.is_none_or(|rest| has(&field.node, rest)))
}

/// What the new layout calls what the old one calls otherwise: by the new path the old one.
struct Renames(BTreeMap<String, String>);

impl Renames {
    fn new(from: &Node, to: &Node, given: &[(String, String)]) -> Result<Self, StateError> {
        let mut by_new = BTreeMap::new();
        for (a, b) in given {
            let [old_a, old_b, new_a, new_b] = [has(from, a), has(from, b), has(to, a), has(to, b)];
            match (old_a && new_b, old_b && new_a) {
                (true, false) => drop(by_new.insert(b.clone(), a.clone())),
                // An older build comes back.
                (false, true) => drop(by_new.insert(a.clone(), b.clone())),
                (true, true) => {}
                // It was renamed before, or is not yet.
                (false, false) if (old_a && new_a) || (old_b && new_b) => {}
                // The other half of the entries has it.
                (false, false) if !(old_a || old_b || new_a || new_b) => {}
                (false, false) => {
                    let help = "write `old: new` under `renames:`, with dots before nested fields";
                    let problem = format!("is to become `{b}`, but not both layouts have such a field");
                    return Err(StateError::Migrate { path: a.clone(), problem, help });
                }
            }
        }
        Ok(Self(by_new))
    }

    /// The old field's path for the new one at `new`, where it has another name.
    fn old(&self, new: &str) -> Option<&str> {
        self.0.get(new).map(String::as_str)
    }
}

/// A node at its octet, with the path to it.
type At<'a> = (&'a Node, usize, &'a str);

struct Walk {
    renames: Renames,
    changes: Vec<FieldChange>,
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Walk {
    fn refuse<T>(&self, path: &str, problem: String) -> Result<T, StateError> {
        let help = "give the field another name, so that it begins with zeros, or keep the type that it has";
        Err(StateError::Migrate { path: path.to_owned(), problem, help })
    }

    fn change(&mut self, path: &str, what: What) {
        self.changes.push(FieldChange { path: path.to_owned(), what });
    }

    fn node(&mut self, old: At<'_>, new: At<'_>, steps: &mut Vec<Step>) -> Result<(), StateError> {
        let ((from, at, from_path), (to, to_at, path)) = (old, new);
        if from == to && !is_partial(to) && !self.renames_within(from_path) {
            steps.push(Step::Copy { from: at, to: to_at, len: to.size });
            return Ok(());
        }
        match (&from.shape, &to.shape) {
            (Shape::Struct(old), Shape::Struct(new)) => {
                self.fields((old, at, from_path), (new, to_at, path), steps)
            }
            (Shape::Array(old, from_count), Shape::Array(new, count)) => {
                let mut each = Vec::new();
                self.node((old, 0, from_path), (new, 0, path), &mut each)?;
                let (from, to) = ((at, old.size), (to_at, new.size));
                steps.push(Step::Each { from, to, count: *from_count.min(count), steps: each });
                self.elements(path, *from_count, *count);
                if from_count > count {
                    let (from, len) = (at + count * old.size, (from_count - count) * old.size);
                    let (path, to) = (path.to_owned(), format!("{count} elements"));
                    steps.push(Step::Zero { from, len, path, to });
                }
                Ok(())
            }
            (Shape::Leaf(old), Shape::Leaf(new)) => {
                let sizes = (from.size, to.size);
                let Some(fits) = fits(old, sizes.0, new, sizes.1) else {
                    return self.kinds(from, to, path);
                };
                if old != new || sizes.0 != sizes.1 {
                    let (from, to) = (type_name(old, sizes.0), type_name(new, sizes.1));
                    match fits {
                        true if from == to => {}
                        true => self.change(path, What::Widened { from, to }),
                        false => self.change(path, What::Narrowed { from, to }),
                    }
                }
                steps.push(Step::Leaf {
                    from: (at, sizes.0, old.clone()),
                    to: (to_at, sizes.1, new.clone()),
                    path: path.to_owned(),
                });
                Ok(())
            }
            _ => self.kinds(from, to, path),
        }
    }

    fn elements(&mut self, path: &str, old: usize, new: usize) {
        let (from, to) = (format!("{old} elements"), format!("{new} elements"));
        match old.cmp(&new) {
            std::cmp::Ordering::Less => self.change(path, What::Widened { from, to }),
            std::cmp::Ordering::Greater => self.change(path, What::Narrowed { from, to }),
            std::cmp::Ordering::Equal => {}
        }
    }

    fn kinds<T>(&self, from: &Node, to: &Node, path: &str) -> Result<T, StateError> {
        let (from, to) = (node_name(from), node_name(to));
        self.refuse(
            path,
            format!("was {from} and is to be {to}, and no value of the one is one of the other"),
        )
    }

    /// Whether a field below `path` has another name in the other layout.
    fn renames_within(&self, path: &str) -> bool {
        self.renames
            .0
            .values()
            .any(|old| path.is_empty() || old.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    fn fields(
        &mut self,
        (old, at, from_path): (&[Field], usize, &str),
        (new, to_at, path): (&[Field], usize, &str),
        steps: &mut Vec<Step>,
    ) -> Result<(), StateError> {
        let mut used: Vec<&Name> = Vec::new();
        let mut unions = Vec::new();
        for field in new {
            let here = join(path, &field.name);
            match field.role {
                Role::Padding => continue,
                Role::Alternative { union, .. } => {
                    if !unions.contains(&union) {
                        unions.push(union);
                        self.union((old, at), (new, to_at), union, &here, &mut used, steps)?;
                    }
                    continue;
                }
                Role::Plain => {}
            }
            let renamed = self.renames.old(&here).map(str::to_owned);
            let name = match &renamed {
                None => &*field.name,
                Some(full) => match full.rsplit_once('.').unwrap_or(("", full)) {
                    (parent, name) if parent == from_path => name,
                    _ => {
                        return self.refuse(&here, format!("cannot come from `{full}`, which is elsewhere"));
                    }
                },
            };
            let taken = |f: &&Field| {
                f.role == Role::Plain
                    && *f.name == *name
                    && (renamed.is_some() || !self.renames.0.values().any(|o| *o == join(from_path, &f.name)))
            };
            let Some(before) = old.iter().find(taken) else {
                if old.iter().any(|f| *f.name == *name && matches!(f.role, Role::Alternative { .. })) {
                    return self.refuse(&here, "was a member of a union".to_owned());
                }
                self.change(&here, What::Added);
                continue;
            };
            used.push(&before.name);
            if let Some(from) = renamed {
                self.change(&here, What::Renamed { from });
            }
            let from_here = join(from_path, &before.name);
            self.node(
                (&before.node, at + before.offset, &from_here),
                (&field.node, to_at + field.offset, &here),
                steps,
            )?;
        }
        for field in old {
            let gone = match field.role {
                Role::Plain => true,
                // Of a union its whole is told, once.
                Role::Alternative { shown, .. } => shown,
                Role::Padding => false,
            };
            if gone && !used.contains(&&field.name) {
                self.change(&join(from_path, &field.name), What::Removed);
            }
        }
        Ok(())
    }

    /// A union stays as it is: which of its members an entry means, nobody knows.
    fn union<'f>(
        &mut self,
        (old, at): (&'f [Field], usize),
        (new, to_at): (&[Field], usize),
        union: usize,
        path: &str,
        used: &mut Vec<&'f Name>,
        steps: &mut Vec<Step>,
    ) -> Result<(), StateError> {
        let of = |fields: &'_ [Field], number| -> Vec<usize> {
            let is = |f: &Field| matches!(f.role, Role::Alternative { union, .. } if union == number);
            (0..fields.len()).filter(|i| is(&fields[*i])).collect()
        };
        let members = of(new, union);
        let first = &new[members[0]];
        let before = old.iter().find_map(|f| match f.role {
            Role::Alternative { union, .. } if f.name == first.name => Some(of(old, union)),
            _ => None,
        });
        let Some(before) = before else {
            let clash = old.iter().any(|f| members.iter().any(|m| f.name == new[*m].name));
            if clash {
                return self.refuse(path, "is to be a member of a union, which it was not".to_owned());
            }
            self.change(path, What::Added);
            return Ok(());
        };
        let start = |fields: &[Field], of: &[usize]| of.iter().map(|i| fields[*i].offset).min().unwrap_or(0);
        let (from, to) = (start(old, &before), start(new, &members));
        let same = before.len() == members.len()
            && before.iter().zip(&members).all(|(a, b)| {
                let (a, b) = (&old[*a], &new[*b]);
                a.name == b.name && a.offset - from == b.offset - to && a.node == b.node
            });
        if !same {
            let problem =
                "is a member of a union that has changed, and which member an entry means is not known";
            return self.refuse(path, problem.to_owned());
        }
        let end = members.iter().map(|i| new[*i].offset + new[*i].node.size).max().unwrap_or(to);
        used.extend(before.iter().map(|i| &old[*i].name));
        steps.push(Step::Copy { from: at + from, to: to_at + to, len: end - to });
        Ok(())
    }
}

/// Whether the node leaves some bits of its octets to others.
fn is_partial(node: &Node) -> bool {
    matches!(&node.shape, Shape::Leaf(Leaf::Number(n)) if n.shift != 0 || usize::from(n.bits) != node.size * 8)
}

fn node_name(node: &Node) -> String {
    match &node.shape {
        Shape::Leaf(leaf) => type_name(leaf, node.size),
        Shape::Array(..) => "an array".to_owned(),
        Shape::Struct(_) => "a struct".to_owned(),
    }
}
