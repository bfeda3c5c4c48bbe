//! The codec of one type: octets to values and back.

use std::fmt::Write as _;

use serde_json::Value as Json;
use xdpchain_compose::btf::{Btf, TypeId};

use crate::columns::Columns;
use crate::leaf::Leaf;
use crate::shape::{self, Field, Node, Role, Shape};
use crate::{StateError, Value};

const GIVE_ALL: &str = "give every field, or ask for zeros in the others";

/// What the octets of one type mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Codec {
    node: Node,
    name: String,
}

impl Codec {
    /// The codec of a type.
    ///
    /// # Errors
    /// [`StateError::Type`] when values of the type cannot be in a map.
    pub fn new(btf: &Btf, id: TypeId) -> Result<Self, StateError> {
        Ok(Self { node: shape::compile(btf, id)?, name: btf.type_name(id) })
    }

    /// The codec of `size` octets of which nothing is known: hexadecimal.
    pub fn opaque(size: usize) -> Self {
        Self { node: Node::leaf(size, Leaf::Bytes), name: format!("u8[{size}]") }
    }

    /// The codec of an unsigned number of 32 bits in host order, the key of an array.
    pub fn index() -> Self {
        Self { node: Node::number(4), name: "u32".to_owned() }
    }

    /// Octets of a value.
    pub fn size(&self) -> usize {
        self.node.size
    }

    /// Name of the type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a value is a single scalar rather than a struct or an array.
    pub fn is_scalar(&self) -> bool {
        matches!(self.node.shape, Shape::Leaf(_))
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    fn check(&self, octets: &[u8]) -> Result<(), StateError> {
        match octets.len() == self.node.size {
            true => Ok(()),
            false => Err(StateError::Length { expected: self.node.size, found: octets.len() }),
        }
    }

    /// The meaning of `octets`.
    ///
    /// # Errors
    /// When there are not [`Codec::size`] of them.
    pub fn decode(&self, octets: &[u8]) -> Result<Value, StateError> {
        self.check(octets)?;
        Ok(decode(&self.node, octets))
    }

    /// The octets of a value as JSON has it: structs as objects, arrays as lists, all else as a number or as the
    /// text that [`Value`] prints. Every field has to be there but padding, and one member of each union.
    ///
    /// # Errors
    /// The first field that is missing, unknown, or not what its type takes.
    pub fn encode_json(&self, json: &Json) -> Result<Vec<u8>, StateError> {
        let mut octets = vec![0; self.node.size];
        self.encode_json_into(json, &mut octets, false)?;
        Ok(octets)
    }

    /// Writes the fields that `json` names into `octets`, a value of this type, and leaves the others as they are.
    ///
    /// # Errors
    /// As [`Codec::encode_json`], and when there are not [`Codec::size`] octets.
    pub fn overlay_json(&self, json: &Json, octets: &mut [u8]) -> Result<(), StateError> {
        self.decode(octets)?;
        self.encode_json_into(json, octets, true)
    }

    /// As [`Codec::encode_json`], into zeroed `octets`. With `defaults`, fields that are missing stay zero.
    pub(crate) fn encode_json_into(
        &self,
        json: &Json,
        octets: &mut [u8],
        defaults: bool,
    ) -> Result<(), StateError> {
        encode(&self.node, json, octets, defaults)
    }

    /// The octets of a decoded value, perhaps of another codec.
    ///
    /// # Errors
    /// As [`Codec::encode_json`].
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>, StateError> {
        self.encode_json(&Json::from(value.clone()))
    }

    /// The value on one line: a scalar as it is, a struct as `local=192.0.2.1,teid=7`. [`Codec::parse`] takes it.
    ///
    /// # Errors
    /// When there are not [`Codec::size`] octets.
    pub fn print(&self, octets: &[u8]) -> Result<String, StateError> {
        self.check(octets)?;
        if self.is_scalar() {
            return Ok(decode(&self.node, octets).to_string());
        }
        let Ok(columns) = Columns::new(&self.node) else {
            return Ok(Json::from(decode(&self.node, octets)).to_string());
        };
        let mut out = String::new();
        for column in columns.shown() {
            let text = column.print(octets);
            if column.path.is_empty() {
                return Ok(text);
            }
            let separator = if out.is_empty() { "" } else { "," };
            let _ = write!(out, "{separator}{}=", column.path);
            if text.contains(['"', ',', '=']) || text.trim() != text || text.is_empty() {
                let _ = write!(out, "{}", Json::from(text));
            } else {
                out.push_str(&text);
            }
        }
        Ok(out)
    }

    /// The octets of a value as an operator types it: a scalar, `local=192.0.2.1,teid=7`, or JSON.
    ///
    /// # Errors
    /// As [`Codec::encode_json`].
    pub fn parse(&self, text: &str) -> Result<Vec<u8>, StateError> {
        let (whole, text) = (text, text.trim());
        let mut octets = vec![0; self.node.size];
        if let Shape::Leaf(leaf) = &self.node.shape {
            // Blanks are a text's own.
            leaf.parse(if *leaf == Leaf::Text { whole } else { text }, &mut octets)?;
            return Ok(octets);
        }
        if text.starts_with(['{', '[']) {
            let json = serde_json::from_str(text).map_err(json_error)?;
            return self.encode_json(&json);
        }
        let columns = Columns::new(&self.node)?;
        if let Some(whole) = columns.find("") {
            whole.parse(text, &mut octets)?;
            return Ok(octets);
        }
        let mut given = Vec::new();
        for (name, value) in pairs(text)? {
            let Some(column) = columns.find(&name) else {
                let known = columns.shown().map(|c| c.path.clone()).collect();
                return Err(StateError::Unknown { field: name, known });
            };
            column.parse(&value, &mut octets).map_err(|e| e.within(&column.path))?;
            given.push(column);
        }
        columns.check(&given, false, GIVE_ALL)?;
        Ok(octets)
    }

    /// The sum of the values of several CPUs, field by field, as octets of this type; `None` when a field is
    /// anything but a number in host order. Each field wraps around.
    pub fn sum<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
        if !countable(&self.node) {
            return None;
        }
        let mut total = vec![0; self.node.size];
        for octets in values {
            if octets.len() != total.len() {
                return None;
            }
            add(&self.node, octets, &mut total);
        }
        Some(total)
    }
}

pub(crate) fn json_error(error: serde_json::Error) -> StateError {
    StateError::Syntax {
        format: "JSON",
        problem: error.to_string(),
        help: "quote every name and every text with `\"`",
    }
}

fn decode(node: &Node, octets: &[u8]) -> Value {
    match &node.shape {
        Shape::Leaf(leaf) => leaf.value(octets),
        Shape::Array(element, count) => {
            let elements = octets.chunks_exact(element.size.max(1)).take(*count);
            Value::List(elements.map(|octets| decode(element, octets)).collect())
        }
        Shape::Struct(fields) => {
            let shown = fields.iter().filter(|f| f.is_shown());
            Value::Struct(shown.map(|f| (f.name.clone(), decode(&f.node, f.of(octets)))).collect())
        }
    }
}

fn encode(node: &Node, json: &Json, octets: &mut [u8], defaults: bool) -> Result<(), StateError> {
    match &node.shape {
        Shape::Leaf(leaf) => leaf.parse_json(json, octets),
        Shape::Array(element, count) => {
            let Json::Array(list) = json else {
                return encode_text_list(element, *count, json, octets);
            };
            if list.len() > *count || list.len() < *count && !defaults {
                return Err(wrong_count(*count, list.len()));
            }
            let elements = octets.chunks_exact_mut(element.size.max(1));
            for (i, (json, octets)) in list.iter().zip(elements).enumerate() {
                encode(element, json, octets, defaults).map_err(|e| e.within(&i.to_string()))?;
            }
            Ok(())
        }
        Shape::Struct(fields) => encode_struct(fields, json, octets, defaults),
    }
}

/// An array of scalars may be one text too, as it is in a cell of a table.
fn encode_text_list(element: &Node, count: usize, json: &Json, octets: &mut [u8]) -> Result<(), StateError> {
    match (json, &element.shape) {
        (Json::String(text), Shape::Leaf(leaf)) if *leaf != Leaf::Text => {
            parse_list(leaf, element.size, count, text, octets)
        }
        _ => Err(StateError::Field {
            path: String::new(),
            expected: format!("a list of {count}"),
            found: summary(json),
            help: "write the elements in brackets, with commas between",
        }),
    }
}

/// Elements of an array of scalars in one text, with spaces or semicolons between.
pub(crate) fn parse_list(
    leaf: &Leaf,
    size: usize,
    count: usize,
    text: &str,
    octets: &mut [u8],
) -> Result<(), StateError> {
    let mut parts = text.split([' ', ';']).filter(|part| !part.is_empty());
    for (i, octets) in octets.chunks_exact_mut(size.max(1)).take(count).enumerate() {
        let part = parts.next().ok_or_else(|| wrong_count(count, i))?;
        leaf.parse(part, octets).map_err(|e| e.within(&i.to_string()))?;
    }
    match parts.count() {
        0 => Ok(()),
        more => Err(wrong_count(count, count + more)),
    }
}

fn wrong_count(expected: usize, found: usize) -> StateError {
    StateError::Field {
        path: String::new(),
        expected: format!("{expected} elements"),
        found: found.to_string(),
        help: "give every element; those that are not used are 0",
    }
}

fn summary(json: &Json) -> String {
    match json {
        Json::Object(_) => "an object".to_owned(),
        Json::Array(list) => format!("a list of {}", list.len()),
        scalar => format!("`{scalar}`"),
    }
}

fn encode_struct(fields: &[Field], json: &Json, octets: &mut [u8], defaults: bool) -> Result<(), StateError> {
    let names = || fields.iter().filter(|f| f.role != Role::Padding).map(|f| f.name.to_string()).collect();
    let Json::Object(object) = json else {
        let names: Vec<String> = names();
        return Err(StateError::Field {
            path: String::new(),
            expected: format!("an object with {}", names.join(", ")),
            found: summary(json),
            help: "write it as {\"name\": value, …}",
        });
    };
    for name in object.keys() {
        if !fields.iter().any(|f| *f.name == **name) {
            return Err(StateError::Unknown { field: name.clone(), known: names() });
        }
    }
    let mut missing = Vec::new();
    for field in fields {
        match (object.get(&*field.name), field.role) {
            (Some(json), _) => {
                encode(&field.node, json, field.of_mut(octets), defaults)
                    .map_err(|e| e.within(&field.name))?;
            }
            (None, Role::Plain) if !defaults => missing.push(field.name.to_string()),
            (None, _) => {}
        }
        if let Role::Alternative { union, shown: true } = field.role {
            let of_union = |f: &&Field| matches!(f.role, Role::Alternative { union: u, .. } if u == union);
            let given = fields.iter().filter(of_union).filter(|f| object.contains_key(&*f.name));
            let given: Vec<String> = given.map(|f| f.name.to_string()).collect();
            match given.len() {
                0 if !defaults => missing.push(field.name.to_string()),
                0 | 1 => {}
                _ => return Err(StateError::Union { fields: given }),
            }
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(StateError::Missing { fields: missing, help: GIVE_ALL }),
    }
}

fn countable(node: &Node) -> bool {
    match &node.shape {
        Shape::Leaf(leaf) => leaf.countable().is_some(),
        Shape::Array(element, _) => countable(element),
        Shape::Struct(fields) => {
            let mut counters = fields.iter().filter(|f| f.role != Role::Padding).peekable();
            counters.peek().is_some() && counters.all(|f| f.role == Role::Plain && countable(&f.node))
        }
    }
}

fn add(node: &Node, octets: &[u8], total: &mut [u8]) {
    match &node.shape {
        Shape::Leaf(leaf) => {
            if let Some(number) = leaf.countable() {
                number.set_raw(number.raw(total).wrapping_add(number.raw(octets)), total);
            }
        }
        Shape::Array(element, _) => {
            let size = element.size.max(1);
            for (octets, total) in octets.chunks_exact(size).zip(total.chunks_exact_mut(size)) {
                add(element, octets, total);
            }
        }
        Shape::Struct(fields) => {
            for field in fields.iter().filter(|f| f.role != Role::Padding) {
                add(&field.node, field.of(octets), field.of_mut(total));
            }
        }
    }
}

/// `name=value` pairs with commas between; a value in double quotes is a JSON string.
fn pairs(text: &str) -> Result<Vec<(String, String)>, StateError> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            return Err(StateError::Field {
                path: String::new(),
                expected: "`name=value` pairs with commas between, or JSON".to_owned(),
                found: format!("`{rest}`"),
                help: "write a struct as `local=192.0.2.1,teid=7`",
            });
        };
        let after = after.trim_start();
        let (value, next) = if after.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = strings.next().transpose().map_err(json_error)?.unwrap_or_default();
            let end = strings.byte_offset();
            (value, after[end..].trim_start())
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        out.push((name.trim().to_owned(), value));
        rest = match next.strip_prefix(',') {
            Some(rest) => rest,
            None if next.is_empty() => next,
            None => {
                return Err(StateError::Field {
                    path: name.trim().to_owned(),
                    expected: "a comma after the closing quote".to_owned(),
                    found: format!("`{next}`"),
                    help: "separate the fields with commas",
                });
            }
        };
    }
    Ok(out)
}

impl Field {
    /// Whether the field is part of what is printed.
    pub(crate) fn is_shown(&self) -> bool {
        matches!(self.role, Role::Plain | Role::Alternative { shown: true, .. })
    }

    /// The field's octets within those of its struct.
    pub(crate) fn of<'a>(&self, octets: &'a [u8]) -> &'a [u8] {
        &octets[self.offset..self.offset + self.node.size]
    }

    /// As [`Field::of`], to change them.
    pub(crate) fn of_mut<'a>(&self, octets: &'a mut [u8]) -> &'a mut [u8] {
        &mut octets[self.offset..self.offset + self.node.size]
    }
}
