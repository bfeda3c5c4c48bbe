//! Database tables that fill maps: where they are, and which column becomes which field.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::{mask, redact};
use crate::{MapRef, Timespan, parse};

/// A database table that fills maps: each row is one entry of each of its maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Where the database is: `sqlite:FILE`, or `postgres://USER@HOST/DATABASE`. A relative path is relative to the file's
    /// folder. A password does not belong here: it comes from `password_file`, from `PGPASSWORD`, or from `~/.pgpass`.
    pub from: Database,
    /// The table; in PostgreSQL `schema.table`, or a table of the schema `public`.
    #[serde(deserialize_with = "parse::text")]
    pub table: String,
    /// The column that tells the rows apart: the primary key, or one that is unique and never null.
    #[serde(deserialize_with = "parse::text")]
    pub key: String,
    /// The maps that each row goes to. No map has two sources.
    pub maps: Vec<MapRef>,
    /// Which column a field comes from, where that has another name than the field or needs a cast: by the field's name, or
    /// by `module/map.field` where the maps differ.
    #[serde(default)]
    pub columns: IndexMap<String, ColumnSpec>,
    /// Fields that are the same in every row: by the field's name, or by `module/map.field`.
    #[serde(default)]
    pub constants: IndexMap<String, Constant>,
    /// Whether fields of a value for which there is neither a column nor a constant are zero, instead of an error.
    #[serde(default)]
    pub defaults: bool,
    /// How often the agent looks for changes where the database does not tell of them by itself, which SQLite cannot: `20ms`
    /// when not given.
    #[serde(default = "SourceSpec::default_poll")]
    pub poll: Timespan,
    /// A file whose first line is the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A file of certificates (PEM) that vouch for the database's server; those of the system when not given.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl SourceSpec {
    const fn default_poll() -> Timespan {
        Timespan::milliseconds(20)
    }

    /// Which of the source's maps a name of `columns` or `constants` is about, none for all of them, and the field.
    pub fn field<'a>(&'a self, name: &'a str) -> (Option<&'a MapRef>, &'a str) {
        let of = |map: &'a MapRef| {
            let field = name.strip_prefix(&map.to_string())?.strip_prefix('.')?;
            Some((map, field))
        };
        // A map's name may have dots of its own.
        match self.maps.iter().filter_map(of).min_by_key(|(_, field)| field.len()) {
            Some((map, field)) => (Some(map), field),
            None => (None, name),
        }
    }
}

/// Where a database is. What is printed of one, also for debugging, has no password in it.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(PostgresUrl),
}

/// The address of a PostgreSQL database, perhaps with a password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

impl PostgresUrl {
    /// The address with everything that is in it. It is not to be printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(PostgresUrl(url)) => f.write_str(&redact(url)),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

/// Text that names no database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no database\nhelp: write `sqlite:FILE` or `postgres://USER@HOST/DATABASE`")]
pub struct BadDatabase {
    /// The text, without what may be secret.
    pub text: String,
}

impl FromStr for Database {
    type Err = BadDatabase;

    fn from_str(text: &str) -> Result<Self, BadDatabase> {
        let rest = |prefix: &str| text.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        match (rest("sqlite:"), rest("postgres://").or_else(|| rest("postgresql://"))) {
            (Some(path), _) => Ok(Self::Sqlite(path.into())),
            (None, Some(_)) => Ok(Self::Postgres(PostgresUrl(text.to_owned()))),
            (None, None) => Err(BadDatabase { text: mask(text) }),
        }
    }
}

impl Serialize for Database {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Database {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The column that a field comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnSpec {
    /// The column.
    pub column: String,
    /// What of the column's value the field is.
    pub cast: Cast,
    /// What stands for null; when not given, a row with null here does not fit.
    pub when_null: Option<Constant>,
}

/// A column with options.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Column")]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnOptions {
    /// The column.
    #[serde(deserialize_with = "parse::text")]
    column: String,
    /// What of the column's value the field is.
    #[serde(default)]
    cast: Cast,
    /// What stands for null; when not given, a row with null here does not fit.
    #[serde(default)]
    when_null: Option<Constant>,
}

impl ColumnSpec {
    /// A column whose value is the field's.
    pub fn new(column: impl Into<String>) -> Self {
        Self { column: column.into(), cast: Cast::None, when_null: None }
    }
}

impl<'de> Deserialize<'de> for ColumnSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Column;

        impl<'de> Visitor<'de> for Column {
            type Value = ColumnSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a column, alone or with options: `prefix` or `{ column: prefix, cast: address }`",
                )
            }

            fn visit_str<E>(self, column: &str) -> Result<ColumnSpec, E> {
                Ok(ColumnSpec::new(column))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnSpec, A::Error> {
                let ColumnOptions { column, cast, when_null } =
                    ColumnOptions::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ColumnSpec { column, cast, when_null })
            }
        }

        deserializer.deserialize_any(Column)
    }
}

/// What of a column's value a field is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cast {
    /// The value itself.
    #[default]
    None,
    /// The address of `inet` or `cidr`, or of text such as `192.0.2.0/24`; and the one that a number or octets stand for.
    Address,
    /// The length of the prefix of `inet` or `cidr`, or of such text; that of the whole address where none is written.
    PrefixLength,
}

/// A value that chains.yaml has: a number, a word or text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant(String);

impl Constant {
    /// The value as it stands in a cell of a table.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl Serialize for Constant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Constant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;

        impl Visitor<'_> for Scalar {
            type Value = Constant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, true, false, or text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Constant, E> {
                Ok(Constant(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Constant, E> {
                Ok(Constant(value.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Constant, E> {
                Ok(Constant(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Constant, E> {
                Ok(Constant(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Constant, E> {
                Ok(Constant(number.to_string()))
            }
        }

        deserializer.deserialize_any(Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_prints_without_its_password() {
        let url: Database = "postgres://user:geh%40im@db.example/net?password=auch".parse().unwrap();
        for text in [url.to_string(), format!("{url:?}"), serde_json::to_string(&url).unwrap()] {
            assert!(!text.contains("geh") && !text.contains("auch"), "{text}");
            assert!(text.contains("postgres://user:") && text.contains("@db.example/net"), "{text}");
        }
        let Database::Postgres(url) = url else { panic!("it is one") };
        assert!(url.expose().contains("geh%40im"));
        assert!(!format!("{url:?}").contains("geh"));
        let error = "mysql://user:geheim@db/net".parse::<Database>().unwrap_err().to_string();
        assert!(error.contains("names no database") && !error.contains("geheim"), "{error}");
        assert!(matches!("sqlite:s.db".parse(), Ok(Database::Sqlite(path)) if path == *"s.db"));
        for bad in ["", "sqlite:", "postgres://", "s.db"] {
            assert!(bad.parse::<Database>().is_err(), "{bad}");
        }
    }
}
