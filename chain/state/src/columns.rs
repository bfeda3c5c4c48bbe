//! A type as columns of a table: each scalar, and each array of scalars, by its dotted path.

use std::collections::HashMap;

use crate::StateError;
use crate::codec::parse_list;
use crate::leaf::Leaf;
use crate::shape::{Node, Role, Shape};

/// More columns than this are no table.
const LIMIT: usize = 4096;

/// The columns of one type.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    by_path: HashMap<String, usize>,
}

/// A cell's place in the octets, and its meaning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    /// Dotted path, empty for a type that is one scalar.
    pub(crate) path: String,
    offset: usize,
    /// Octets of one scalar.
    size: usize,
    /// Elements of an array of scalars.
    count: Option<usize>,
    pub(crate) leaf: Leaf,
    /// Shown when printed, and required but for `choices`.
    shown: bool,
    padding: bool,
    /// An element of an array that has a column of its own: accepted, but the array's is what is shown.
    element: bool,
    /// The unions that the column is inside of, outermost first.
    choices: Vec<Choice>,
}

/// A union that a column is inside of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    /// Number of the union within the type.
    union: usize,
    /// Which member the column is of.
    member: usize,
    /// Whether that is the one that is shown.
    shown: bool,
}

impl Columns {
    /// # Errors
    /// When there are too many.
    pub(crate) fn new(node: &Node) -> Result<Self, StateError> {
        let mut walk = Walk { columns: Vec::new(), unions: 0 };
        walk.node(
            node,
            &Place { path: String::new(), offset: 0, shown: true, padding: false, choices: Vec::new() },
        )?;
        let by_path = walk.columns.iter().enumerate().map(|(i, c)| (c.path.clone(), i)).collect();
        Ok(Self { columns: walk.columns, by_path })
    }

    /// The columns that are printed, in order of their offsets.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.shown)
    }

    /// The column with this path.
    pub(crate) fn find(&self, path: &str) -> Option<&Column> {
        self.by_path.get(path).map(|i| &self.columns[*i])
    }

    /// Checks that what is given makes a whole value: nothing twice, one member of each union, nothing missing
    /// unless `defaults`.
    pub(crate) fn check(
        &self,
        given: &[&Column],
        defaults: bool,
        help: &'static str,
    ) -> Result<(), StateError> {
        let mut chosen: HashMap<usize, (usize, &Column)> = HashMap::new();
        let mut places: Vec<(usize, usize, &Column)> = Vec::new();
        for column in given {
            for choice in &column.choices {
                let (other, first) = chosen.entry(choice.union).or_insert((choice.member, column));
                if *other != choice.member {
                    return Err(StateError::Union { fields: vec![first.path.clone(), column.path.clone()] });
                }
            }
            places.push((column.offset, column.offset + column.len(), column));
        }
        for (i, (start, end, column)) in places.iter().enumerate() {
            let overlaps = |(s, e, other): &&(usize, usize, &Column)| {
                let one_array = column.element || other.element;
                column.path == other.path || one_array && s < end && start < e
            };
            if places[..i].iter().any(|p| overlaps(&p)) {
                return Err(StateError::Twice { field: column.path.clone() });
            }
        }
        if defaults {
            return Ok(());
        }
        let is_given = |path: &str| given.iter().any(|c| c.path == path);
        let missing = |column: &&Column| {
            if column.element || column.padding || is_given(&column.path) {
                return false;
            }
            // A column of a union's member is due when that member is the one given, or is shown and none is.
            let due = column.choices.iter().all(|choice| match chosen.get(&choice.union) {
                Some((chosen, _)) => *chosen == choice.member,
                None => choice.shown,
            });
            due && !self.elements_given(column, given)
        };
        let fields: Vec<String> = self.columns.iter().filter(missing).map(|c| c.path.clone()).collect();
        if fields.is_empty() { Ok(()) } else { Err(StateError::Missing { fields, help }) }
    }

    /// Whether the array `column` is given by a column for each element.
    fn elements_given(&self, column: &Column, given: &[&Column]) -> bool {
        let Some(count) = column.count else { return false };
        let range = column.offset..column.offset + column.len();
        count > 0 && given.iter().filter(|c| c.element && range.contains(&c.offset)).count() == count
    }
}

impl Column {
    /// Octets.
    pub(crate) fn len(&self) -> usize {
        self.size * self.count.unwrap_or(1)
    }

    /// The meaning of a column that is no array.
    pub(crate) fn scalar(&self) -> Option<&Leaf> {
        self.count.is_none().then_some(&self.leaf)
    }

    /// Whether it is a row of single octets.
    pub(crate) fn is_octets(&self) -> bool {
        self.size == 1 || self.leaf == Leaf::Bytes
    }

    /// Its place in the octets of a whole value.
    pub(crate) fn place<'o>(&self, octets: &'o mut [u8]) -> &'o mut [u8] {
        &mut octets[self.offset..self.offset + self.len()]
    }

    /// The cell's text.
    pub(crate) fn print(&self, octets: &[u8]) -> String {
        let octets = &octets[self.offset..self.offset + self.len()];
        if self.count.is_none() {
            return self.leaf.value(octets).to_string();
        }
        let elements =
            octets.chunks_exact(self.size.max(1)).map(|octets| self.leaf.value(octets).to_string());
        elements.collect::<Vec<_>>().join(" ")
    }

    /// Writes what the cell's text means to its place in `octets`. The error does not name the column.
    pub(crate) fn parse(&self, text: &str, octets: &mut [u8]) -> Result<(), StateError> {
        let octets = &mut octets[self.offset..self.offset + self.len()];
        match self.count {
            None if self.leaf == Leaf::Text => self.leaf.parse(text, octets),
            None => self.leaf.parse(text.trim(), octets),
            Some(count) => parse_list(&self.leaf, self.size, count, text, octets),
        }
    }
}

struct Walk {
    columns: Vec<Column>,
    unions: usize,
}

#[derive(Clone)]
struct Place {
    path: String,
    offset: usize,
    shown: bool,
    padding: bool,
    choices: Vec<Choice>,
}

impl Place {
    fn inside(&self, name: &str, offset: usize) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, offset: self.offset + offset, ..self.clone() }
    }
}

impl Walk {
    fn push(
        &mut self,
        place: &Place,
        size: usize,
        count: Option<usize>,
        leaf: &Leaf,
        element: bool,
    ) -> Result<(), StateError> {
        if self.columns.len() >= LIMIT {
            return Err(StateError::TooManyColumns { limit: LIMIT });
        }
        self.columns.push(Column {
            path: place.path.clone(),
            offset: place.offset,
            size,
            count,
            leaf: leaf.clone(),
            shown: place.shown && !element,
            padding: place.padding,
            element,
            choices: place.choices.clone(),
        });
        Ok(())
    }

    fn node(&mut self, node: &Node, place: &Place) -> Result<(), StateError> {
        match &node.shape {
            Shape::Leaf(leaf) => self.push(place, node.size, None, leaf, false),
            Shape::Array(element, count) => match &element.shape {
                Shape::Leaf(leaf) if *leaf != Leaf::Text => {
                    self.push(place, element.size, Some(*count), leaf, false)?;
                    // Longer ones are given whole.
                    for i in 0..if *count <= 64 { *count } else { 0 } {
                        let place = place.inside(&i.to_string(), i * element.size);
                        self.push(&place, element.size, None, leaf, true)?;
                    }
                    Ok(())
                }
                _ => (0..*count)
                    .try_for_each(|i| self.node(element, &place.inside(&i.to_string(), i * element.size))),
            },
            Shape::Struct(fields) => {
                let first_union = self.unions;
                let unions = fields.iter().filter_map(|f| match f.role {
                    Role::Alternative { union, .. } => Some(union + 1),
                    _ => None,
                });
                self.unions += unions.max().unwrap_or(0);
                for (member, field) in fields.iter().enumerate() {
                    let mut inside = place.inside(&field.name, field.offset);
                    match field.role {
                        Role::Plain => {}
                        Role::Padding => (inside.shown, inside.padding) = (false, true),
                        Role::Alternative { union, shown } => {
                            inside.shown &= shown;
                            inside.choices.push(Choice { union: first_union + union, member, shown });
                        }
                    }
                    self.node(&field.node, &inside)?;
                }
                Ok(())
            }
        }
    }
}
