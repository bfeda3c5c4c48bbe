//! The text of a file by its nodes, and the smallest edits of it.

use std::ops::Range;
use std::rc::Rc;

use crate::tree::{self, End, Entry, Kind, Node, Style};

type Edited<T = String> = Result<T, String>;

/// A text with the tree of its nodes.
pub(super) struct Layout<'a> {
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
    root: Rc<Node>,
}

impl<'a> Layout<'a> {
    pub(super) fn read(text: &'a str) -> Edited<Self> {
        if text.replace("\r\n", "\n").contains('\r') {
            return Err("it has lines that end in a carriage return".to_owned());
        }
        let root = tree::read(text).map_err(|(problem, spot)| format!("line {}: {problem}", spot.line))?;
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        Ok(Self { text, lines: std::iter::once(0).chain(starts).collect(), root: root.ok_or("it is empty")? })
    }

    /// What `path` leads to.
    pub(super) fn node(&self, path: &[&str]) -> Edited<&Node> {
        let mut node = &*self.root;
        for key in path {
            node = node.value(key).ok_or_else(|| format!("`{}` is not there", path.join(".")))?;
        }
        Ok(node)
    }

    /// The text with a new item in a list, which is `item` as it would stand behind a dash. Lines below its first one
    /// are indented as from the dash on; lines above it that are comments begin with `#`.
    pub(super) fn with_item(&self, path: &[&str], index: usize, item: &str) -> Edited {
        let (node, items) = self.sequence(path)?;
        if node.style == Style::Flow {
            return match items.get(index) {
                Some(next) => Ok(self.inserted(self.start(next)?, &format!("{item}, "))),
                None => self.at_flow_end(node, items.last().map(|item| self.end(item)).transpose()?, item),
            };
        }
        let first = items.first().ok_or("its list is empty")?;
        let indent = self.dash(first)?;
        let at = match index.checked_sub(1) {
            Some(before) => self.block(&items[before], indent)?.end,
            None => self.with_comments(self.dash_line(first)?, indent, 0),
        };
        let pad = " ".repeat(indent);
        let mut lines = Vec::new();
        let mut dash = Some("- ");
        for line in item.lines() {
            lines.push(match (line.starts_with('#'), dash) {
                (_, None) if line.is_empty() => String::new(),
                (true, Some(_)) | (_, None) => format!("{pad}{line}"),
                (false, Some(mark)) => {
                    dash = None;
                    format!("{pad}{mark}{line}")
                }
            });
        }
        Ok(self.with_lines(at, &lines))
    }

    /// The text without an item of a list, and the item as [`with_item`](Self::with_item) takes it. With `comments`, those
    /// right above it go with it.
    pub(super) fn without_item(
        &self,
        path: &[&str],
        index: usize,
        comments: bool,
    ) -> Edited<(String, String)> {
        let (node, items) = self.sequence(path)?;
        let item = items.get(index).ok_or("its list is shorter")?;
        if node.style == Style::Flow {
            let text = self.text[self.start(item)?..self.end(item)?].to_owned();
            if text.contains('\n') {
                return Err("an item of its list is on several lines between brackets".to_owned());
            }
            let beside = match index.checked_sub(1) {
                Some(before) => Some((self.start(&items[before])?, self.end(&items[before])?)),
                None => None,
            };
            let next = items.get(index + 1).map(|next| self.start(next)).transpose()?;
            let without = self.without_flow(self.start(item)?..self.end(item)?, beside.map(|b| b.1), next)?;
            return Ok((without, text));
        }
        let indent = self.dash(item)?;
        let mut lines = self.block(item, indent)?;
        let dash = lines.start;
        if comments {
            let floor = match index.checked_sub(1) {
                Some(before) => self.block(&items[before], indent)?.end,
                None => 0,
            };
            lines.start = self.with_comments(lines.start, indent, floor);
        }
        let mut kept = Vec::new();
        for line in lines.clone() {
            let text = self.line(line).trim_end();
            let text = text.get(indent..).map_or(text.trim_start(), |cut| cut);
            kept.push(if line == dash { text.strip_prefix('-').unwrap_or(text).trim_start() } else { text });
        }
        let without = format!("{}{}", &self.text[..self.lines[lines.start]], self.rest(lines.end));
        Ok((without, kept.join("\n")))
    }

    /// The text with a new entry in a mapping: behind the one with the key `after`, or behind all others.
    pub(super) fn with_entry(&self, path: &[&str], after: Option<&str>, entry: &str) -> Edited {
        let node = self.node(path)?;
        let Kind::Mapping(entries) = &node.kind else {
            return Err(format!("`{}` is no mapping", path.join(".")));
        };
        let behind = match after {
            Some(key) => entries.iter().find(|entry| entry.key == key),
            None => entries.last(),
        };
        if node.style == Style::Flow {
            return self.at_flow_end(node, behind.map(|entry| self.offset(self.tight(entry.end()))), entry);
        }
        let behind = behind.ok_or("its mapping is empty")?;
        let indent = behind.key_spot.column - 1;
        let pad = " ".repeat(indent);
        Ok(self.with_lines(self.entry_lines(behind)?.end, &[format!("{pad}{entry}")]))
    }

    /// The text without an entry of a mapping.
    pub(super) fn without_entry(&self, path: &[&str], key: &str) -> Edited {
        let node = self.node(path)?;
        let Kind::Mapping(entries) = &node.kind else {
            return Err(format!("`{}` is no mapping", path.join(".")));
        };
        let index = entries.iter().position(|entry| entry.key == key).ok_or("its key is gone")?;
        let start = |entry: &Entry| self.offset(End { column: entry.key_spot.column - 1, ..entry.key_end() });
        if node.style == Style::Flow {
            let before = index.checked_sub(1).map(|before| self.offset(self.tight(entries[before].end())));
            let entry = &entries[index];
            let next = entries.get(index + 1).map(start);
            return self.without_flow(start(entry)..self.offset(self.tight(entry.end())), before, next);
        }
        let lines = self.entry_lines(&entries[index])?;
        Ok(format!("{}{}", &self.text[..self.lines[lines.start]], self.rest(lines.end)))
    }

    /// The text with another scalar in place of one, in quotes when that one has them.
    pub(super) fn with_scalar(&self, path: &[&str], value: &str) -> Edited {
        let node = self.node(path)?;
        if !matches!(node.kind, Kind::Scalar(_)) {
            return Err(format!("`{}` is no scalar", path.join(".")));
        }
        let value = if node.style == Style::Plain { super::scalar(value) } else { super::quoted(value) };
        self.with_value(path, &value)
    }

    /// The text with other text in place of a scalar.
    pub(super) fn with_value(&self, path: &[&str], value: &str) -> Edited {
        let node = self.node(path)?;
        let range = self.start(node)?..self.end(node)?;
        if self.text[range.clone()].contains('\n') {
            return Err(format!("`{}` is on several lines", path.join(".")));
        }
        Ok(format!("{}{value}{}", &self.text[..range.start], &self.text[range.end..]))
    }

    fn sequence(&self, path: &[&str]) -> Edited<(&Node, &[Rc<Node>])> {
        let node = self.node(path)?;
        match &node.kind {
            Kind::Sequence(items) => Ok((node, items)),
            _ => Err(format!("`{}` is no list", path.join("."))),
        }
    }

    fn at_flow_end(&self, node: &Node, last: Option<usize>, item: &str) -> Edited {
        match last {
            Some(end) => Ok(self.inserted(end, &format!(", {item}"))),
            None => Ok(self.inserted(self.end(node)? - 1, item)),
        }
    }

    /// The text without a part of a collection between brackets, and without one comma beside it.
    fn without_flow(&self, part: Range<usize>, before: Option<usize>, next: Option<usize>) -> Edited {
        let cut = match (before, next) {
            (_, Some(next)) => part.start..next,
            (Some(before), None) => before..part.end,
            (None, None) => part,
        };
        if self.text[cut.clone()].contains('\n') {
            return Err("a collection between brackets is on several lines".to_owned());
        }
        Ok(format!("{}{}", &self.text[..cut.start], &self.text[cut.end..]))
    }

    /// The line that an item's dash is in, from 0; it has nothing before the dash.
    fn dash_line(&self, item: &Node) -> Edited<usize> {
        let line = item.spot.line - 1;
        match self.line(line).trim_start().starts_with('-') {
            true => Ok(line),
            false => Err(format!("line {} does not begin with the dash of its item", line + 1)),
        }
    }

    /// Blanks before an item's dash.
    fn dash(&self, item: &Node) -> Edited<usize> {
        self.dash_line(item).map(|line| indent(self.line(line)))
    }

    /// The lines of an item, and of the comments below it that are indented deeper than its dash.
    fn block(&self, item: &Node, dash: usize) -> Edited<Range<usize>> {
        let start = self.dash_line(item)?;
        Ok(start..self.behind(item.end, start, dash))
    }

    /// The lines of an entry, which has nothing else beside it, and of the comments below it that are indented deeper.
    fn entry_lines(&self, entry: &Entry) -> Edited<Range<usize>> {
        let start = entry.key_spot.line - 1;
        let column = entry.key_spot.column - 1;
        if indent(self.line(start)) != column {
            return Err(format!("line {} has something before `{}`", start + 1, entry.key));
        }
        Ok(start..self.behind(Some(entry.end()), start, column))
    }

    /// The line behind what ends at `end`.
    fn behind(&self, end: Option<End>, start: usize, column: usize) -> usize {
        let mut next = end.map_or(start, |end| self.tight(end).line - 1) + 1;
        while next < self.lines.len()
            && self.line(next).trim_start().starts_with('#')
            && indent(self.line(next)) > column
        {
            next += 1;
        }
        next
    }

    /// The first of the comment lines right above `line` that are indented like it, and not above `floor`.
    fn with_comments(&self, line: usize, column: usize, floor: usize) -> usize {
        let mut first = line;
        while first > floor
            && self.line(first - 1).trim_start().starts_with('#')
            && indent(self.line(first - 1)) == column
        {
            first -= 1;
        }
        first
    }

    /// The text with lines put before line `at`.
    fn with_lines(&self, at: usize, lines: &[String]) -> String {
        let newline = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let head = &self.text[..self.lines.get(at).copied().unwrap_or(self.text.len())];
        let open = if head.is_empty() || head.ends_with('\n') { "" } else { newline };
        let lines: String = lines.iter().map(|line| format!("{line}{newline}")).collect();
        format!("{head}{open}{lines}{}", self.rest(at))
    }

    fn inserted(&self, at: usize, what: &str) -> String {
        format!("{}{what}{}", &self.text[..at], &self.text[at..])
    }

    fn rest(&self, line: usize) -> &str {
        self.lines.get(line).map_or("", |start| &self.text[*start..])
    }

    fn line(&self, line: usize) -> &str {
        self.rest(line).lines().next().unwrap_or_default()
    }

    fn start(&self, node: &Node) -> Edited<usize> {
        node.end.ok_or("a value is empty")?;
        Ok(self.offset(End { line: node.spot.line, column: node.spot.column - 1 }))
    }

    fn end(&self, node: &Node) -> Edited<usize> {
        Ok(self.offset(self.tight(node.end.ok_or("a value is empty")?)))
    }

    /// The same end without the blanks before it, which the parser counts in behind a quote.
    fn tight(&self, end: End) -> End {
        let offset = self.offset(end);
        let tight = self.text[..offset].trim_end().len();
        let line = self.lines.partition_point(|start| *start <= tight) - 1;
        End { line: line + 1, column: self.text[self.lines[line]..tight].chars().count() }
    }

    fn offset(&self, end: End) -> usize {
        let line = self.rest(end.line - 1);
        let column = line.char_indices().nth(end.column).map_or(line.len(), |(at, _)| at);
        self.text.len() - line.len() + column
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}
