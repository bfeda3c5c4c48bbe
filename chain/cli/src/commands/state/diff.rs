//! `state diff`: a state file compared with the maps here, or with another one.

use std::path::Path;

use serde::Serialize;
use serde_json::Value as Json;
use xdpchain_host::{Entries, Host, Map, Since, Snapshot, can_become};
use xdpchain_spec::MapRef;
use xdpchain_state::{MapCodec, Record, Refit, SavedMap, StateError, Target};

use super::target::Into;
use super::{Reader, Source, is_wanted};
use crate::error::{Error, Result, exit};
use crate::output::{Output, Page, grouped};

/// Octets of a map's entries in a file at most: what only one side has is held too.
const MOST: usize = 1 << 30;

/// What differs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    map: String,
    /// Entries that are the same.
    same: u64,
    /// Entries that only the file has.
    only_first: u64,
    /// Entries that only the maps, or the other file, have.
    only_second: u64,
    changed: u64,
    /// Fields that the two layouts do not have alike, in words.
    fields: Vec<String>,
    /// The first of the entries that differ.
    entries: Vec<Entry>,
    /// What the whole map lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Entry {
    key: Json,
    first: Option<Json>,
    second: Option<Json>,
}

impl Difference {
    fn new(map: String) -> Self {
        let (fields, entries) = (Vec::new(), Vec::new());
        Self { map, same: 0, only_first: 0, only_second: 0, changed: 0, fields, entries, problem: None }
    }

    fn lacking(map: String, problem: &str) -> Self {
        Self { problem: Some(problem.to_owned()), ..Self::new(map) }
    }

    fn is_same(&self) -> bool {
        let counts = [self.only_first, self.only_second, self.changed];
        self.problem.is_none() && self.fields.is_empty() && counts == [0; 3]
    }

    /// Counts what differs, and keeps the first of it.
    fn add(&mut self, codec: &MapCodec, limit: usize, since: Since) -> Result<(), StateError> {
        let (key, first, second) = match &since {
            Since::New { key, now } => (key, Some(now), None),
            Since::Changed { key, before, now } => (key, Some(now), Some(before)),
            Since::Gone { key, before } => (key, None, Some(before)),
        };
        match since {
            Since::New { .. } => self.only_first += 1,
            Since::Changed { .. } => self.changed += 1,
            Since::Gone { .. } => self.only_second += 1,
        }
        if self.entries.len() < limit {
            let mut values = [first, second].map(|value| value.map(|octets| codec.decode_value(octets)));
            if values[0].is_some() && values[0] == values[1] {
                // The same in sum.
                values = [first, second].map(|value| value.map(|octets| codec.decode_cpus(octets)));
            }
            let [first, second] = values;
            let json = |value: Option<Result<xdpchain_state::Value, StateError>>| {
                value.transpose().map(|value| value.map(Json::from))
            };
            let key = codec.key.decode(key)?.into();
            self.entries.push(Entry { key, first: json(first)?, second: json(second)? });
        }
        Ok(())
    }
}

pub(super) fn run(
    host: &Host,
    out: Output,
    (file, other): (&Path, Option<&Path>),
    maps: &[MapRef],
    limit: usize,
) -> Result<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        first: &'a Path,
        second: Option<&'a Path>,
        maps: Vec<Difference>,
    }
    let source = Source::open(file)?;
    let other_source = other.map(Source::open).transpose()?;
    let found = differences(host, &source, other_source.as_ref(), maps, limit)?;
    let same = found.iter().all(Difference::is_same);
    let document = Document { first: file, second: other, maps: found };
    out.print("Difference", &document, |page| {
        for map in &document.maps {
            if !map.is_same() || out.wide() {
                show(page, map, other.is_some());
            }
        }
        if same {
            page.line(format!("the same: {} maps", document.maps.len()));
        }
    })?;
    Ok(if same { exit::DONE } else { exit::NOT_READY })
}

/// What a map of the first file is compared with.
enum Second {
    Here(Map),
    /// A map of the other file, by its place there.
    File(usize),
}

/// A map of the first file, and how its entries look in the layout of the second.
struct Pair {
    refit: Refit,
    second: Second,
}

impl Pair {
    /// With the map here; why there is none.
    fn here(host: &Host, reader: &Reader, map: &SavedMap) -> Result<Result<Self, String>> {
        let here = match Into::find(host, reader, map) {
            Ok(into) => into,
            Err(Error::Host(inner)) if matches!(*inner, xdpchain_host::Error::NoMap { .. }) => {
                return Ok(Err("no chain here has it".to_owned()));
            }
            Err(Error::CannotRestore { problem, .. }) => return Ok(Err(problem)),
            Err(error) => return Err(error),
        };
        Ok(Ok(Self { refit: here.refit, second: Second::Here(here.open.map) }))
    }

    /// With the map of the other file.
    fn of(other: &Reader, reader: &Reader, map: &SavedMap) -> Result<Self, String> {
        let mut there = other.contents().maps.iter().enumerate();
        let Some((at, there)) = there.find(|(_, there)| there.name() == map.name()) else {
            return Err("only the first file has it".to_owned());
        };
        if !can_become(map.map_type, there.map_type) {
            return Err("it is of another type".to_owned());
        }
        let types = other.types(there).map_err(|error| error.to_string())?;
        let (key, value) = there.halves(types.as_deref());
        let cpus = there.cpus.map(|cpus| cpus as usize);
        let target = Target { map_type: there.map_type, key, value, cpus };
        let refit = Refit::new(reader, map, &target, &[]).map_err(|error| error.to_string())?;
        Ok(Self { refit, second: Second::File(at) })
    }

    /// What the second one has.
    fn load(&self, other: Option<&Source>) -> Result<Snapshot> {
        match (&self.second, other) {
            (Second::File(at), Some(other)) => of_file(other, *at),
            (Second::File(_), None) => Ok(Snapshot::new(1, 1)),
            (Second::Here(map), _) => {
                let mut snapshot = Snapshot::new(map.info().key_size as usize, map.value_len());
                for batch in map.entries() {
                    snapshot.fill(&batch?);
                }
                Ok(snapshot)
            }
        }
    }
}

/// The entries of a map of a file.
fn of_file(source: &Source, at: usize) -> Result<Snapshot> {
    let mut reader = source.reader()?;
    let (key_size, value_len) = {
        let map = &reader.contents().maps[at];
        (map.key_size as usize, map.value_len())
    };
    let name = reader.contents().maps[at].name();
    let mut snapshot = Snapshot::new(key_size, value_len);
    let mut octets = 0;
    while let Some(record) = reader.next().map_err(|error| source.bad(error))? {
        match record {
            Record::Rows { map, keys, values } if map == at => {
                octets += keys.len() + values.len();
                not_too_many(octets, &name)?;
                snapshot.fill(&Entries { keys: keys.to_vec(), values: values.to_vec() });
            }
            _ => {}
        }
    }
    Ok(snapshot)
}

fn not_too_many(octets: usize, map: &str) -> Result<()> {
    match octets > MOST {
        false => Ok(()),
        true => Err(Error::TooManyToCompare { map: map.to_owned(), octets: MOST }),
    }
}

fn differences(
    host: &Host,
    source: &Source,
    other: Option<&Source>,
    wanted: &[MapRef],
    limit: usize,
) -> Result<Vec<Difference>> {
    let mut reader = source.reader()?;
    let saved = reader.contents().maps.clone();
    source.has_all(&saved, wanted)?;
    let other_reader = other.map(Source::reader).transpose()?;
    let mut pairs = Vec::with_capacity(saved.len());
    for map in &saved {
        pairs.push(match &other_reader {
            _ if !is_wanted(map, wanted) => None,
            None => Some(Pair::here(host, &reader, map)?),
            Some(other) => Some(Pair::of(other, &reader, map)),
        });
    }
    let mut found = Vec::new();
    let mut now: Option<(Difference, Snapshot)> = None;
    let mut entries = Entries::default();
    let mut since = Vec::new();
    let mut octets = 0;
    while let Some(record) = reader.next().map_err(|error| source.bad(error))? {
        let (at, rows) = match record {
            Record::Rows { map, keys, values } => (map, Some((keys, values))),
            Record::End { map, .. } => (map, None),
        };
        let pair = match &pairs[at] {
            None => continue,
            Some(Ok(pair)) => pair,
            Some(Err(problem)) => {
                if rows.is_none() {
                    found.push(Difference::lacking(saved[at].name(), problem));
                }
                continue;
            }
        };
        if now.is_none() {
            let mut difference = Difference::new(saved[at].name());
            difference.fields = pair.refit.changes().map(ToString::to_string).collect();
            let mut snapshot = pair.load(other)?;
            snapshot.begin();
            now = Some((difference, snapshot));
            octets = 0;
        }
        let Some((difference, snapshot)) = &mut now else { continue };
        match rows {
            Some(rows) => {
                octets += rows.0.len() + rows.1.len();
                not_too_many(octets, &saved[at].name())?;
                entries.keys.clear();
                entries.values.clear();
                if let Err((_, refused)) = pair.refit.entries(rows, &mut entries.keys, &mut entries.values) {
                    difference.problem.get_or_insert(refused.to_string());
                }
                snapshot.update(&entries, &mut since);
                let count = entries.keys.len() / pair.refit.codec().key.size().max(1);
                difference.same += count.saturating_sub(since.len()) as u64;
            }
            None => snapshot.end(&mut since),
        }
        let ends = rows.is_none();
        for since in since.drain(..) {
            difference.add(pair.refit.codec(), limit, since).map_err(|error| Error::Value {
                map: saved[at].name(),
                what: "entry",
                source: Box::new(error),
            })?;
        }
        if ends {
            found.extend(now.take().map(|(difference, _)| difference));
        }
    }
    if let Some(other) = other_reader {
        let known = |map: &SavedMap| saved.iter().any(|saved| saved.name() == map.name());
        let missing = other.contents().maps.iter().filter(|map| is_wanted(map, wanted) && !known(map));
        found.extend(missing.map(|map| Difference::lacking(map.name(), "only the second file has it")));
    }
    Ok(found)
}

fn show(page: &mut Page, map: &Difference, files: bool) {
    let second = if files { "the second file" } else { "the map" };
    page.line(format!(
        "{}: {} the same, {} changed, {} only in the file, {} only in {second}",
        map.map,
        grouped(map.same),
        grouped(map.changed),
        grouped(map.only_first),
        grouped(map.only_second),
    ));
    map.problem.iter().chain(&map.fields).for_each(|line| page.line(format!("  {line}")));
    for Entry { key, first, second } in &map.entries {
        let (mark, what) = match (first, second) {
            (Some(first), Some(second)) => {
                let mut fields = Vec::new();
                changes("", first, second, &mut fields);
                ('~', fields.join(", "))
            }
            (Some(first), None) => ('-', first.to_string()),
            (None, second) => ('+', second.as_ref().map(Json::to_string).unwrap_or_default()),
        };
        page.line(format!("  {mark} {key}  {what}"));
    }
    let more = (map.changed + map.only_first + map.only_second).saturating_sub(map.entries.len() as u64);
    if more > 0 {
        page.line(format!("  … and {} more", grouped(more)));
    }
}

/// The fields that differ, as `path: before → after`.
fn changes(path: &str, first: &Json, second: &Json, out: &mut Vec<String>) {
    match (first, second) {
        (Json::Object(a), Json::Object(b)) if a.len() == b.len() => {
            for (name, a) in a {
                let dot = if path.is_empty() { "" } else { "." };
                changes(&format!("{path}{dot}{name}"), a, b.get(name).unwrap_or(&Json::Null), out);
            }
        }
        _ if first == second => {}
        _ if path.is_empty() => out.push(format!("{first} → {second}")),
        _ => out.push(format!("{path}: {first} → {second}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_by_the_fields_that_differ() {
        let told = |first: &Json, second: &Json| {
            let mut out = Vec::new();
            changes("", first, second, &mut out);
            out
        };
        let first = json!({"a": 1, "b": {"c": "x", "d": [1, 2]}});
        let second = json!({"a": 1, "b": {"c": "y", "d": [1, 3]}});
        assert_eq!(told(&first, &second), [r#"b.c: "x" → "y""#, "b.d: [1,2] → [1,3]"]);
        assert_eq!(told(&json!(1), &json!(2)), ["1 → 2"]);
        assert_eq!(told(&first, &first), Vec::<String>::new());
    }
}
