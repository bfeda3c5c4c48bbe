//! The file as a tree of YAML nodes that know their places, which the typed parse does not keep.
//!
//! In a tree, every key is a scalar, no mapping has a key twice, and nothing is nested deeper than
//! [`DEPTH`], so walking it needs no further care.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};
use serde_path_to_error::{Path, Segment};

use crate::error::Problem;

/// Levels of nesting at most; the format itself has seven.
const DEPTH: usize = 32;

/// A place in the text: a part of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// Characters; 0 when the part's end is not known.
    pub(crate) width: usize,
}

impl Spot {
    pub(crate) const START: Self = Self { line: 1, column: 1, width: 0 };

    fn at(marker: &Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col() + 1, width: 0 }
    }

    fn of(span: &Span) -> Self {
        let width = if span.start.line() == span.end.line() {
            span.end.col().saturating_sub(span.start.col())
        } else {
            0
        };
        Self { width, ..Self::at(&span.start) }
    }
}

/// Where something ends, behind its last character: the line from 1, and characters before it in that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// How a node is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A scalar without quotes.
    Plain,
    /// A scalar in any other style.
    Quoted,
    /// A collection in brackets or braces.
    Flow,
    /// A collection by indentation.
    Block,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    pub(crate) kind: Kind,
    pub(crate) style: Style,
    /// None for an empty scalar.
    pub(crate) end: Option<End>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar(String),
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_spot: Spot,
    pub(crate) value: Rc<Node>,
}

impl Entry {
    /// Where the key ends, the colon not included; keys are on one line.
    pub(crate) fn key_end(&self) -> End {
        End { line: self.key_spot.line, column: self.key_spot.column - 1 + self.key_spot.width }
    }

    /// Where the value ends, or the key when there is none.
    pub(crate) fn end(&self) -> End {
        self.value.end.map_or(self.key_end(), |end| end.max(self.key_end()))
    }
}

/// A step from a node to one below it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The steps of a path of the typed parse; steps that are not in the text are left out.
pub(crate) fn steps(path: &Path) -> Vec<Step<'_>> {
    let step = |segment| match segment {
        &Segment::Seq { index } => Some(Step::Index(index)),
        Segment::Map { key } => Some(Step::Key(key)),
        _ => None,
    };
    path.iter().filter_map(step).collect()
}

/// `steps` as messages name them: `chains.edge.slots[2].acl`.
pub(crate) fn path_name(steps: &[Step<'_>]) -> String {
    let mut name = String::new();
    for step in steps {
        match step {
            Step::Key(key) if name.is_empty() => name.push_str(key),
            Step::Key(key) => name.extend([".", key]),
            Step::Index(index) => name.push_str(&format!("[{index}]")),
        }
    }
    name
}

impl Node {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The value under `key`.
    pub(crate) fn value(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &*entry.value)
    }

    /// The place of what `steps` lead to, or of the last step that leads somewhere.
    pub(crate) fn value_spot(&self, steps: &[Step<'_>]) -> Spot {
        self.spot_of(steps, false)
    }

    /// The place of the key that the last of `steps` is, or of what stands there when it is no key.
    pub(crate) fn key_spot(&self, steps: &[Step<'_>]) -> Spot {
        self.spot_of(steps, true)
    }

    fn spot_of(&self, steps: &[Step<'_>], key: bool) -> Spot {
        let (mut node, mut spot) = (self, self.spot);
        for (i, step) in steps.iter().enumerate() {
            match (step, &node.kind) {
                (Step::Key(name), Kind::Mapping(_)) => {
                    let Some(entry) = node.entry(name) else { return spot };
                    node = &entry.value;
                    // A mapping in block style and an empty value begin where the eye does not look for them.
                    let at_key = match &node.kind {
                        Kind::Scalar(text) => text.is_empty() && node.spot.width == 0,
                        _ => node.spot.line != entry.key_spot.line,
                    };
                    let last = i + 1 == steps.len();
                    spot = if at_key || (key && last) { entry.key_spot } else { node.spot };
                }
                (Step::Index(index), Kind::Sequence(items)) => {
                    let Some(item) = items.get(*index) else { return spot };
                    node = item;
                    spot = match &node.kind {
                        Kind::Mapping(entries) if node.spot.width == 0 => {
                            entries.first().map_or(node.spot, |entry| entry.key_spot)
                        }
                        _ => node.spot,
                    };
                }
                _ => return spot,
            }
        }
        spot
    }
}

impl End {
    fn of(span: &Span) -> Self {
        Self { line: span.end.line().max(1), column: span.end.col() }
    }
}

/// Where a scalar in quotes ends; the parser counts in what is skipped behind it. None when something is before the quote.
fn quoted_end(lines: &[&str], span: &Span) -> Option<End> {
    let mut end = End { line: span.start.line().max(1), column: span.start.col() };
    let rest = lines.get(end.line - 1..).unwrap_or_default().iter();
    let mut rest = rest.flat_map(|line| line.chars().chain(['\n'])).skip(end.column);
    let quote = rest.next().filter(|c| matches!(c, '"' | '\''))?;
    end.column += 1;
    let mut rest = rest.peekable();
    while let Some(c) = rest.next() {
        end = if c == '\n' {
            End { line: end.line + 1, column: 0 }
        } else {
            End { column: end.column + 1, ..end }
        };
        let escaped = match quote {
            '"' => c == '\\',
            _ => c == quote && rest.peek() == Some(&quote),
        };
        if escaped {
            end = match rest.next() {
                Some('\n') => End { line: end.line + 1, column: 0 },
                _ => End { column: end.column + 1, ..end },
            };
        } else if c == quote {
            return Some(end);
        }
    }
    None
}

/// A mapping or sequence that has begun.
struct Open {
    spot: Spot,
    style: Style,
    anchor: usize,
    path: String,
    content: Content,
}

enum Content {
    Sequence(Vec<Rc<Node>>),
    Mapping { entries: Vec<Entry>, key: Option<(String, Spot)> },
}

/// The lines of `text` as YAML has them: a carriage return alone ends one as well (YAML 1.2, 5.4).
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Reads `text`. `None` when it holds no document.
pub(crate) fn read(text: &str) -> Result<Option<Rc<Node>>, (Problem, Spot)> {
    let mut root = None;
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Rc<Node>> = HashMap::new();
    let lines: Vec<&str> = lines(text).collect();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(syntax)?;
        let spot = Spot::of(&span);
        let (node, anchor) = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::DocumentStart(_) if root.is_some() => return Err((Problem::SecondDocument, spot)),
            Event::DocumentStart(_) => continue,
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (Rc::clone(node), 0),
                None => return Err((Problem::AliasOfItself, spot)),
            },
            Event::Scalar(value, style, anchor, _) => {
                let end = match style {
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => quoted_end(&lines, &span),
                    _ => (!span.is_empty()).then(|| End::of(&span)),
                };
                let style = if style == ScalarStyle::Plain { Style::Plain } else { Style::Quoted };
                (Rc::new(Node { spot, kind: Kind::Scalar(Cow::into_owned(value)), style, end }), anchor)
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                let content = match event {
                    Event::SequenceStart(..) => Content::Sequence(Vec::new()),
                    _ => Content::Mapping { entries: Vec::new(), key: None },
                };
                if open.len() == DEPTH {
                    return Err((Problem::TooDeep { limit: DEPTH }, spot));
                }
                let path = open.last().map_or(String::new(), Open::path_of_next);
                // Brackets and braces are the only collections whose beginning takes room.
                let style = if span.is_empty() { Style::Block } else { Style::Flow };
                open.push(Open { spot, style, anchor, path, content });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(closed) = open.pop() else { continue };
                let (kind, inner) = match closed.content {
                    Content::Sequence(items) => {
                        let end = items.iter().filter_map(|item| item.end).max();
                        (Kind::Sequence(items), end)
                    }
                    Content::Mapping { entries, .. } => {
                        let end = entries.iter().map(Entry::end).max();
                        (Kind::Mapping(entries), end)
                    }
                };
                let Open { spot, style, anchor, .. } = closed;
                // A block ends where what is in it does; the parser says where the next thing begins.
                let end = if style == Style::Flow { Some(End::of(&span)) } else { inner };
                (Rc::new(Node { spot, kind, style, end }), anchor)
            }
        };
        if anchor != 0 {
            anchors.insert(anchor, Rc::clone(&node));
        }
        match open.last_mut() {
            None => root = Some(node),
            Some(parent) => parent.add(node, spot)?,
        }
    }
    Ok(root)
}

impl Open {
    fn path_of_next(&self) -> String {
        let step = match &self.content {
            Content::Sequence(items) => format!("[{}]", items.len()),
            Content::Mapping { key: Some((key, _)), .. } if self.path.is_empty() => key.clone(),
            Content::Mapping { key: Some((key, _)), .. } => format!(".{key}"),
            Content::Mapping { key: None, .. } => String::new(),
        };
        format!("{}{step}", self.path)
    }

    fn add(&mut self, node: Rc<Node>, spot: Spot) -> Result<(), (Problem, Spot)> {
        match &mut self.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, key } => match key.take() {
                Some((key, key_spot)) => entries.push(Entry { key, key_spot, value: node }),
                None => {
                    let Kind::Scalar(name) = &node.kind else {
                        return Err((Problem::KeyIsNoName, node.spot));
                    };
                    if let Some(first) = entries.iter().find(|entry| entry.key == *name) {
                        let (key, first_line) = (name.clone(), first.key_spot.line);
                        let path = self.path.clone();
                        return Err((Problem::DuplicateKey { key, path, first_line }, spot));
                    }
                    *key = Some((name.clone(), spot));
                }
            },
        }
        Ok(())
    }
}

fn syntax(error: ScanError) -> (Problem, Spot) {
    (Problem::Syntax { message: error.info().to_owned() }, Spot::at(error.marker()))
}
