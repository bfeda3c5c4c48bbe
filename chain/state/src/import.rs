//! Rows of a file as keys and values.
//!
//! CSV: the header names the fields, by dotted paths (`inner4`, `uplink.packets`); `key.` or `value.` in front where
//! both halves have the name. JSON lines: one object a line, `{"key": …, "value": …}` or the fields side by
//! side. Every field has to be there but padding, unless [`ImportOptions::defaults`].

use std::io::BufRead;

use serde_json::{Map, Value as Json};

use crate::StateError;
use crate::codec::json_error;
use crate::columns::Column;
use crate::leaf::Leaf;
use crate::map::{MapCodec, MapColumns, Side};
use crate::shape::Role;

const GIVE_COLUMNS: &str = "add the columns, or ask for zeros in them";

/// Format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Comma-separated values with a header (RFC 4180). Lines that start with `#` are comments.
    Csv,
    /// One JSON object on each line; empty lines are skipped.
    JsonLines,
}

/// How to read a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Fields that are not given, and empty cells, are zero rather than an error.
    pub defaults: bool,
}

/// Reads rows. As an iterator it yields each row's key and value; [`Importer::fill`] is for many rows at a time.
pub struct Importer<'a, R> {
    map: &'a MapCodec,
    options: ImportOptions,
    rows: Rows<R>,
}

enum Rows<R> {
    Csv {
        // Boxed, for the reader and its buffers are large.
        reader: Box<csv::Reader<R>>,
        record: csv::StringRecord,
        plan: Vec<Cell>,
    },
    Json {
        reader: R,
        text: String,
        line: u64,
    },
}

/// Where a cell of a row goes.
struct Cell {
    side: Side,
    column: Column,
    /// As the header has it.
    name: String,
}

impl<'a, R: BufRead> Importer<'a, R> {
    /// Starts to read `input`; of CSV, the header is read and checked here.
    ///
    /// # Errors
    /// When the header has unknown, ambiguous or repeated names, or lacks some.
    pub fn new(
        map: &'a MapCodec,
        input: R,
        format: Format,
        options: ImportOptions,
    ) -> Result<Self, StateError> {
        let rows = match format {
            Format::Csv => {
                let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(input);
                let header = reader.headers().map_err(csv_error)?.clone();
                let plan = plan(&map.columns()?, &header, options)?;
                Rows::Csv { reader: Box::new(reader), record: csv::StringRecord::new(), plan }
            }
            Format::JsonLines => Rows::Json { reader: input, text: String::new(), line: 0 },
        };
        Ok(Self { map, options, rows })
    }

    /// Appends the keys and values of up to `rows` rows, without gaps, as batch operations of the kernel take them, and
    /// returns how many there were: fewer than asked for only at the end.
    ///
    /// # Errors
    /// [`StateError::Row`] for the first row that is wrong; what was read before it has been appended.
    pub fn fill(
        &mut self,
        keys: &mut Vec<u8>,
        values: &mut Vec<u8>,
        rows: usize,
    ) -> Result<usize, StateError> {
        for done in 0..rows {
            let (key_at, value_at) = (keys.len(), values.len());
            keys.resize(key_at + self.map.key.size(), 0);
            values.resize(value_at + self.map.value.size(), 0);
            let row = self.row(&mut keys[key_at..], &mut values[value_at..]);
            if !matches!(row, Ok(true)) {
                keys.truncate(key_at);
                values.truncate(value_at);
                return row.map(|_| done);
            }
        }
        Ok(rows)
    }

    /// Reads one row into zeroed `key` and `value`; `false` at the end.
    fn row(&mut self, key: &mut [u8], value: &mut [u8]) -> Result<bool, StateError> {
        let defaults = self.options.defaults;
        match &mut self.rows {
            Rows::Csv { reader, record, plan } => {
                if !reader.read_record(record).map_err(csv_error)? {
                    return Ok(false);
                }
                for (cell, text) in plan.iter().zip(record.iter()) {
                    if defaults && text.is_empty() {
                        continue;
                    }
                    let octets = if cell.side == Side::Key { &mut *key } else { &mut *value };
                    cell.column.parse(text, octets).map_err(|error| {
                        let line = record.position().map_or(0, csv::Position::line);
                        let error = if text.is_empty() && cell.column.leaf != Leaf::Text {
                            empty_cell(error)
                        } else {
                            error
                        };
                        error.within(&cell.name).in_row(line)
                    })?;
                }
                Ok(true)
            }
            Rows::Json { reader, text, line } => loop {
                text.clear();
                *line += 1;
                if reader.read_line(text).map_err(|e| StateError::Read { problem: e.to_string() })? == 0 {
                    return Ok(false);
                }
                if text.trim().is_empty() {
                    continue;
                }
                json_row(self.map, text, key, value, defaults).map_err(|e| e.in_row(*line))?;
                return Ok(true);
            },
        }
    }
}

impl<R: BufRead> Iterator for Importer<'_, R> {
    type Item = Result<(Vec<u8>, Vec<u8>), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut key = vec![0; self.map.key.size()];
        let mut value = vec![0; self.map.value.size()];
        match self.row(&mut key, &mut value) {
            Ok(true) => Some(Ok((key, value))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

fn csv_error(error: csv::Error) -> StateError {
    let line = error.position().map_or(0, csv::Position::line);
    let row = |problem: String, help| StateError::Syntax { format: "CSV", problem, help }.in_row(line);
    match error.kind() {
        csv::ErrorKind::Io(e) => StateError::Read { problem: e.to_string() },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => row(
            format!("{len} cells in the row, {expected_len} in the header"),
            "give every row as many cells as the header has; quote a cell with a comma in it",
        ),
        csv::ErrorKind::Utf8 { .. } => row("not UTF-8".to_owned(), "save the file as UTF-8"),
        _ => row(error.to_string(), "write the file as RFC 4180 has it"),
    }
}

fn empty_cell(error: StateError) -> StateError {
    match error {
        StateError::Field { path, expected, .. } => StateError::Field {
            path,
            expected,
            found: "an empty cell".to_owned(),
            help: "fill in the cell, or ask for zeros in empty ones",
        },
        other => other,
    }
}

/// Finds each column of the header.
fn plan(
    columns: &MapColumns,
    header: &csv::StringRecord,
    options: ImportOptions,
) -> Result<Vec<Cell>, StateError> {
    // Spreadsheets mark the start of UTF-8 text.
    let names = || header.iter().map(|name| name.trim_start_matches('\u{feff}').trim());
    let found = fields(columns, names(), options.defaults).map_err(|e| e.in_row(1))?;
    let cells = found.into_iter().zip(names());
    Ok(cells.map(|((side, column), name)| Cell { side, column, name: name.to_owned() }).collect())
}

/// The columns that `names` mean, which have to be whole entries, but for fields of the value with `defaults`.
pub(crate) fn fields<'n>(
    columns: &MapColumns,
    names: impl Iterator<Item = &'n str>,
    defaults: bool,
) -> Result<Vec<(Side, Column)>, StateError> {
    let mut given: [Vec<&Column>; 2] = [Vec::new(), Vec::new()];
    let mut found = Vec::new();
    for name in names {
        let (side, column) = columns.find(name)?;
        given[side as usize].push(column);
        found.push((side, column.clone()));
    }
    let mut missing = Vec::new();
    for (side, given) in [(Side::Key, &given[0]), (Side::Value, &given[1])] {
        let half = if side == Side::Key { &columns.key } else { &columns.value };
        // Zeros for a whole key would make every row the same entry.
        let defaults = defaults && !(side == Side::Key && given.is_empty());
        match half.check(given, defaults, GIVE_COLUMNS) {
            Err(StateError::Missing { fields, .. }) => {
                let name = |path: &String| half.find(path).map(|c| columns.shortest(side, c));
                missing.extend(fields.iter().filter_map(name));
            }
            other => other?,
        }
    }
    match missing.is_empty() {
        true => Ok(found),
        false => Err(StateError::Missing { fields: missing, help: GIVE_COLUMNS }),
    }
}

fn json_row(
    map: &MapCodec,
    text: &str,
    key: &mut [u8],
    value: &mut [u8],
    defaults: bool,
) -> Result<(), StateError> {
    let object: Map<String, Json> =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(json_error)?;
    let mut halves: [Option<Json>; 2] = [None, None];
    for (name, json) in object {
        let (side, path) = place(map, &name, &json)?;
        insert(&mut halves[side as usize], path, json)
            .map_err(|_| StateError::Twice { field: name.clone() })?;
    }
    let [key_json, value_json] = halves;
    let empty = || Json::Object(Map::new());
    let missing = |what: &str| StateError::Missing {
        fields: vec![what.to_owned()],
        help: "write each line as {\"key\": …, \"value\": …}, or with the fields side by side",
    };
    let key_json = key_json.ok_or_else(|| missing("key"))?;
    let value_json = match value_json {
        Some(json) => json,
        None if defaults && !map.value.is_scalar() => empty(),
        None if defaults => {
            return map.key.encode_json_into(&key_json, key, defaults).map_err(|e| e.within("key"));
        }
        None => return Err(missing("value")),
    };
    map.key.encode_json_into(&key_json, key, defaults).map_err(|e| e.within("key"))?;
    map.value.encode_json_into(&value_json, value, defaults).map_err(|e| e.within("value"))
}

/// Which half a name of a JSON row is about, and the path within it.
fn place<'n>(map: &MapCodec, name: &'n str, json: &Json) -> Result<(Side, &'n str), StateError> {
    let (key, value) = (map.key.node(), map.value.node());
    // `key` may be a whole key, or a field of the value that is called so.
    let whole = |scalar: bool, field: bool| scalar || !field || json.is_object();
    match name {
        "key" if whole(map.key.is_scalar(), value.has_field("key")) => return Ok((Side::Key, "")),
        "value" if whole(map.value.is_scalar(), key.has_field("value")) => return Ok((Side::Value, "")),
        _ => {}
    }
    match (key.has_field(name), value.has_field(name)) {
        (true, true) => return Err(StateError::Ambiguous { field: name.to_owned() }),
        (true, false) => return Ok((Side::Key, name)),
        (false, true) => return Ok((Side::Value, name)),
        (false, false) => {}
    }
    match name.split_once('.') {
        Some(("key", path)) if key.has_field(path) => return Ok((Side::Key, path)),
        Some(("value", path)) if value.has_field(path) => return Ok((Side::Value, path)),
        None if name == "index" && map.key.is_scalar() => return Ok((Side::Key, "")),
        _ => {}
    }
    let fields = key.fields().iter().chain(value.fields()).filter(|f| f.role != Role::Padding);
    let mut known: Vec<String> = fields.map(|f| f.name.to_string()).collect();
    known.extend(["key".to_owned(), "value".to_owned()]);
    Err(StateError::Unknown { field: name.to_owned(), known })
}

/// Puts `json` at a dotted path inside objects.
fn insert(root: &mut Option<Json>, path: &str, json: Json) -> Result<(), ()> {
    if path.is_empty() {
        return match root.replace(json) {
            None => Ok(()),
            Some(_) => Err(()),
        };
    }
    let Json::Object(object) = root.get_or_insert_with(|| Json::Object(Map::new())) else { return Err(()) };
    match path.split_once('.') {
        None => match object.insert(path.to_owned(), json) {
            None => Ok(()),
            Some(_) => Err(()),
        },
        Some((first, rest)) => {
            let mut inner = object.remove(first);
            let inserted = insert(&mut inner, rest, json);
            object.extend(inner.map(|inner| (first.to_owned(), inner)));
            inserted
        }
    }
}
