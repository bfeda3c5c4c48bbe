//! A table of a database, whichever that is.

use std::time::Duration;

use xdpchain_spec::{Database, SourceSpec};

use crate::{Datum, Error, Layout, Result, RowKey};

/// Up to where a table's changes are known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// In a file of SQLite's, where one change is committed after the other.
    Sqlite {
        /// Device and inode of the file.
        file: (u64, u64),
        /// The last change.
        number: i64,
    },
    /// In PostgreSQL, where a change that got its number early may be committed late.
    Postgres {
        /// The transactions that were seen, as `pg_snapshot` has them.
        snapshot: String,
        /// The history of the server that they are of.
        timeline: String,
        /// When, in seconds by the server's clock.
        at: i64,
    },
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite { number, .. } => write!(f, "change {number}"),
            Self::Postgres { snapshot, .. } => write!(f, "snapshot {snapshot}"),
        }
    }
}

/// A row that may have changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Row<'a> {
    /// What it is now: the values of [`Layout::columns`].
    There(&'a [Datum<'a>]),
    /// The table does not have it.
    Gone(RowKey),
}

/// What became of a question for changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Every row that changed was given, up to here.
    Until(Position),
    /// The log does not reach back to where one was, and why: the table has to be compared.
    Gap(String),
}

/// Takes the rows that are read.
pub type Each<'a> = dyn FnMut(Row<'_>) -> Result<()> + 'a;

/// A table of a database, to which a connection is open.
pub trait Table {
    /// The names of its columns.
    ///
    /// # Errors
    /// [`Error::Database`] when there is no such table.
    fn columns(&mut self) -> Result<Vec<String>>;

    /// Reads every row, as of one moment; the position of that moment, none without a change log.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Database`], and what `each` fails with.
    fn scan(&mut self, layout: &Layout, each: &mut Each<'_>) -> Result<Option<Position>>;

    /// Reads every row that changed since `since`, as it is now.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    fn changes(&mut self, layout: &Layout, since: &Position, each: &mut Each<'_>) -> Result<Changes>;

    /// Reads the rows with these keys.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    fn rows(&mut self, layout: &Layout, keys: &[RowKey], each: &mut Each<'_>) -> Result<()>;

    /// Waits until there may be changes, `poll` at most where the database does not tell; whether there may be.
    ///
    /// # Errors
    /// [`Error::Connect`] when the connection is gone.
    fn wait(&mut self, poll: Duration) -> Result<bool>;

    /// Removes changes from the log that are older than anybody should need. One who may not write there does nothing.
    ///
    /// # Errors
    /// [`Error::Connect`] when the connection is gone.
    fn prune(&mut self) -> Result<()>;
}

/// Connects to the database of a source.
///
/// # Errors
/// [`Error::Connect`], and [`Error::NotBuilt`] in a build without its client.
pub fn open(source: &SourceSpec) -> Result<Box<dyn Table + Send>> {
    match &source.from {
        #[cfg(feature = "sqlite")]
        Database::Sqlite(path) => Ok(Box::new(crate::sqlite::SqliteTable::open(path, source)?)),
        #[cfg(feature = "postgres")]
        Database::Postgres(url) => Ok(Box::new(crate::postgres::PostgresTable::open(url, source)?)),
        #[allow(unreachable_patterns, reason = "some builds are without a database")]
        other => Err(not_built(other)),
    }
}

/// The statements that install the change log of a source's table: a table, and triggers that write to it.
///
/// # Errors
/// [`Error::NotBuilt`] in a build without the database's client.
pub fn change_log(source: &SourceSpec) -> Result<String> {
    match &source.from {
        #[cfg(feature = "sqlite")]
        Database::Sqlite(_) => Ok(crate::sqlite::change_log(source)),
        #[cfg(feature = "postgres")]
        Database::Postgres(_) => Ok(crate::postgres::change_log(source)),
        #[allow(unreachable_patterns, reason = "some builds are without a database")]
        other => Err(not_built(other)),
    }
}

/// Installs the change log.
///
/// # Errors
/// [`Error::Connect`], [`Error::Database`], [`Error::NotBuilt`].
pub fn install(source: &SourceSpec) -> Result<()> {
    match &source.from {
        #[cfg(feature = "sqlite")]
        Database::Sqlite(path) => crate::sqlite::install(path, source),
        #[cfg(feature = "postgres")]
        Database::Postgres(url) => crate::postgres::PostgresTable::install(url, source),
        #[allow(unreachable_patterns, reason = "some builds are without a database")]
        other => Err(not_built(other)),
    }
}

#[allow(dead_code, reason = "some builds have every database")]
fn not_built(database: &Database) -> Error {
    let feature = if matches!(database, Database::Sqlite(_)) { "sqlite" } else { "postgres" };
    Error::NotBuilt { database: database.to_string(), feature }
}

/// A name as SQL has it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
