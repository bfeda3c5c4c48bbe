//! Which columns of a table become which fields of its maps.

use xdpchain_spec::{Cast, ColumnSpec, Constant, SourceSpec};
use xdpchain_state::{Cell, MapCodec, RowFields};

use crate::{Datum, Error, Result};

/// Which columns of a table become which fields of its maps.
#[derive(Debug)]
pub struct Layout {
    /// What is read of each row: the key column first.
    columns: Vec<String>,
    maps: Vec<MapLayout>,
}

#[derive(Debug)]
struct MapLayout {
    fields: RowFields,
    /// Where each of the fields comes from.
    from: Vec<(String, Origin)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Origin {
    Constant(Constant),
    Column { index: usize, cast: Cast, when_null: Option<Constant> },
}

impl Layout {
    /// Finds a column or a constant for every field of the source's maps, which `codecs` are in order; `table` has the names
    /// of the table's columns.
    ///
    /// # Errors
    /// [`Error::NoColumn`], [`Error::Fields`].
    pub fn new(name: &str, source: &SourceSpec, codecs: &[&MapCodec], table: &[String]) -> Result<Self> {
        let no_column = |column: &str, field: Option<String>| Error::NoColumn {
            table: source.table.clone(),
            column: column.to_owned(),
            field,
            known: table.to_vec(),
        };
        if !table.contains(&source.key) {
            return Err(no_column(&source.key, None));
        }
        let mut columns = vec![source.key.clone()];
        let mut maps = Vec::new();
        for (map, codec) in source.maps.iter().zip(codecs) {
            let bad = |problem: xdpchain_state::StateError| Error::Fields {
                source_name: name.to_owned(),
                map: map.to_string(),
                problem: Box::new(problem),
            };
            let mut from: Vec<(String, Origin)> = Vec::new();
            let mut add = |field: String, origin: Origin| {
                // What is said of one map goes before what is said of all.
                if from.iter().all(|(other, _)| *other != field) {
                    from.push((field, origin));
                }
            };
            let mut take = |spec: &ColumnSpec, field: &str| {
                if !table.contains(&spec.column) {
                    return Err(no_column(&spec.column, Some(format!("{map}.{field}"))));
                }
                let index = columns.iter().position(|column| *column == spec.column).unwrap_or_else(|| {
                    columns.push(spec.column.clone());
                    columns.len() - 1
                });
                Ok(Origin::Column { index, cast: spec.cast, when_null: spec.when_null.clone() })
            };
            for own in [true, false] {
                let of = |field: &str| {
                    let (of, path) = source.field(field);
                    (of.is_some() == own && of.is_none_or(|of| of == map)).then(|| path.to_owned())
                };
                for (field, column) in &source.columns {
                    let Some(path) = of(field) else { continue };
                    match RowFields::name(codec, &path) {
                        Ok(field) => add(field.clone(), take(column, &field)?),
                        // A field that only another of the maps has.
                        Err(_) if !own && is_of_another(source, codecs, &path) => {}
                        Err(problem) => return Err(bad(problem)),
                    }
                }
                for (field, constant) in &source.constants {
                    let Some(path) = of(field) else { continue };
                    match RowFields::name(codec, &path) {
                        Ok(field) => add(field, Origin::Constant(constant.clone())),
                        Err(_) if !own && is_of_another(source, codecs, &path) => {}
                        Err(problem) => return Err(bad(problem)),
                    }
                }
            }
            for field in codec.table().map_err(bad)?.header() {
                let bare = field.strip_prefix("key.").or_else(|| field.strip_prefix("value."));
                let mut column = [Some(field.as_str()), bare].into_iter().flatten();
                let column = column.find(|column| table.iter().any(|other| other == column));
                if let Some(column) = column {
                    add(field.clone(), take(&ColumnSpec::new(column), &field)?);
                }
            }
            let names: Vec<String> = from.iter().map(|(field, _)| field.clone()).collect();
            let fields = RowFields::new(codec, &names, source.defaults).map_err(bad)?;
            maps.push(MapLayout { fields, from });
        }
        Ok(Self { columns, maps })
    }

    /// The columns to read of each row, the key column first.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether rows become the same entries by the other one.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let froms = |layout: &Self| layout.maps.iter().map(|map| map.from.clone()).collect::<Vec<_>>();
        self.columns == other.columns && froms(self) == froms(other)
    }

    /// Octets of the key and the value of each map.
    pub(crate) fn sizes(&self) -> Vec<(usize, usize)> {
        self.maps.iter().map(|map| map.fields.sizes()).collect()
    }

    /// Appends the entries of a row to `out`: the key and the value of each map in turn. `row` has the values of
    /// [`columns`](Self::columns). What does not fit is told, and appends nothing.
    pub(crate) fn convert(&self, row: &[Datum<'_>], out: &mut Vec<u8>) -> Result<(), String> {
        let start = out.len();
        let done = self.maps.iter().try_for_each(|map| {
            let (key, value) = map.fields.sizes();
            let at = out.len();
            out.resize(at + key + value, 0);
            let (key, value) = out[at..].split_at_mut(key);
            map.from.iter().enumerate().try_for_each(|(i, (field, origin))| {
                let (cell, column) = match origin {
                    Origin::Constant(constant) => (Ok(Cell::Text(constant.text())), None),
                    Origin::Column { index, cast, when_null } => {
                        let cell = match (&row[*index], when_null) {
                            (Datum::Null, Some(constant)) => Ok(Cell::Text(constant.text())),
                            (datum, _) => datum.cell(*cast),
                        };
                        (cell, Some(&self.columns[*index]))
                    }
                };
                let cell = cell.map_err(|why| match column {
                    Some(column) if column != field => format!("`{field}` (column `{column}`): {why}"),
                    _ => format!("`{field}`: {why}"),
                })?;
                map.fields.set(i, cell, key, value).map_err(|error| {
                    let text = error.to_string();
                    text.lines().next().unwrap_or_default().to_owned()
                })
            })
        });
        if done.is_err() {
            out.truncate(start);
        }
        done
    }
}

fn is_of_another(source: &SourceSpec, codecs: &[&MapCodec], field: &str) -> bool {
    source.maps.len() > 1 && codecs.iter().any(|codec| RowFields::name(codec, field).is_ok())
}
