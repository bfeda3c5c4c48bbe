//! Tables of a file of SQLite's.
//!
//! Changes are committed one after the other there, so a number of the log says all that came before it. SQLite tells nobody of a
//! commit; its `data_version` does, at the cost of a look at the file's header.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, ToSql, params};
use xdpchain_spec::SourceSpec;

use crate::table::{Each, quoted};
use crate::{Changes, Datum, Error, Layout, Position, Result, Row, RowKey, Table};

/// Changes that the log keeps.
const KEPT: i64 = 1_000_000;
/// Changes that are read at a time, so that the file is not locked for long.
const CHUNK: i64 = 4096;
/// How often it is looked whether the file is still the same one.
const LOOK: Duration = Duration::from_secs(1);
/// How long somebody else's write may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A table of a file of SQLite's.
pub(crate) struct SqliteTable {
    connection: Connection,
    path: PathBuf,
    file: (u64, u64),
    table: String,
    key: String,
    version: i64,
    looked: Instant,
}

fn log_of(source: &SourceSpec) -> String {
    format!("xdpchain_{}", source.table)
}

/// The change log's table and triggers.
pub(crate) fn change_log(source: &SourceSpec) -> String {
    let (table, key, log) = (quoted(&source.table), quoted(&source.key), quoted(&log_of(source)));
    let trigger = |what: &str| quoted(&format!("xdpchain_{}_{what}", source.table));
    let prune = format!("DELETE FROM {log} WHERE seq <= (SELECT max(seq) FROM {log}) - {KEPT};");
    format!(
        "BEGIN IMMEDIATE;\n\
         CREATE TABLE IF NOT EXISTS {log} (seq INTEGER PRIMARY KEY AUTOINCREMENT, key);\n\
         CREATE TRIGGER IF NOT EXISTS {insert} AFTER INSERT ON {table} BEGIN\n  \
           INSERT INTO {log} (key) VALUES (NEW.{key});\n  {prune}\nEND;\n\
         CREATE TRIGGER IF NOT EXISTS {update} AFTER UPDATE ON {table} BEGIN\n  \
           INSERT INTO {log} (key) VALUES (NEW.{key});\n  \
           INSERT INTO {log} (key) SELECT OLD.{key} WHERE OLD.{key} IS NOT NEW.{key};\n  {prune}\nEND;\n\
         CREATE TRIGGER IF NOT EXISTS {delete} AFTER DELETE ON {table} BEGIN\n  \
           INSERT INTO {log} (key) VALUES (OLD.{key});\n  {prune}\nEND;\n\
         COMMIT;\n",
        insert = trigger("insert"),
        update = trigger("update"),
        delete = trigger("delete"),
    )
}

/// Installs the change log.
pub(crate) fn install(path: &Path, source: &SourceSpec) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| unreachable(path, &e))?;
    let done = connection.busy_timeout(PATIENCE).and_then(|()| connection.execute_batch(&change_log(source)));
    done.map_err(|e| refused(path, &e))
}

fn unreachable(path: &Path, problem: &impl ToString) -> Error {
    Error::Connect {
        database: format!("sqlite:{}", path.display()),
        problem: problem.to_string(),
        help: "check the path, and who may read the file and its folder",
    }
}

fn refused(path: &Path, problem: &rusqlite::Error) -> Error {
    Error::Database {
        database: format!("sqlite:{}", path.display()),
        problem: problem.to_string(),
        help: "check `table`, `key` and `columns` of the source, and that nobody keeps the file locked",
    }
}

impl SqliteTable {
    pub(crate) fn open(path: &Path, source: &SourceSpec) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let file = identity(path)?;
        let connection = Connection::open_with_flags(path, flags).map_err(|e| unreachable(path, &e))?;
        connection.busy_timeout(PATIENCE).map_err(|e| unreachable(path, &e))?;
        // Nothing is known of changes before the first question, so the first answer is yes.
        let (path, version) = (path.to_owned(), -1);
        let (table, key) = (source.table.clone(), source.key.clone());
        Ok(Self { connection, path, file, table, key, version, looked: Instant::now() })
    }

    fn log(&self) -> String {
        format!("xdpchain_{}", self.table)
    }

    /// Number of the last change; none without a log.
    fn last(&self) -> rusqlite::Result<Option<i64>> {
        let log = self.log();
        let there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        if self.connection.query_row(there, [&log], |_| Ok(())).optional()?.is_none() {
            return Ok(None);
        }
        let last = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
        Ok(Some(self.connection.query_row(last, [&log], |row| row.get(0)).optional()?.unwrap_or(0)))
    }

    fn select(&self, layout: &Layout, table: &str) -> String {
        let columns = layout.columns().iter().map(|column| format!("{table}.{}", quoted(column)));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// Runs `work` as of one moment.
    fn at_once<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.connection.execute_batch("BEGIN").map_err(|e| refused(&self.path, &e))?;
        let result = work();
        // Nothing was written, so there is nothing that ending it could lose.
        let _ = self.connection.execute_batch("ROLLBACK");
        result
    }

    /// Gives `each` the rows of a query whose first value is the key, and whose others are the layout's columns from the second
    /// on; a row without a first column of the layout is gone.
    fn each(&self, sql: &str, values: &[&dyn ToSql], joined: bool, each: &mut Each<'_>) -> Result<()> {
        let failed = |e: rusqlite::Error| refused(&self.path, &e);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let count = statement.column_count();
        let mut rows = statement.query(values).map_err(failed)?;
        let first = usize::from(joined) * 2;
        while let Some(row) = rows.next().map_err(failed)? {
            let mut data = Vec::with_capacity(count - first);
            for at in first..count {
                data.push(datum(row.get_ref(at).map_err(failed)?));
            }
            if joined && row.get_ref(1).map_err(failed)? == ValueRef::Null {
                let key = datum(row.get_ref(0).map_err(failed)?);
                match RowKey::of(&key) {
                    Some(key) => each(Row::Gone(key))?,
                    None => continue,
                }
            } else {
                each(Row::There(&data))?;
            }
        }
        Ok(())
    }
}

impl Table for SqliteTable {
    fn columns(&mut self) -> Result<Vec<String>> {
        let sql = format!("SELECT * FROM {} LIMIT 0", quoted(&self.table));
        let statement = self.connection.prepare(&sql).map_err(|e| refused(&self.path, &e))?;
        Ok(statement.column_names().into_iter().map(str::to_owned).collect())
    }

    fn scan(&mut self, layout: &Layout, each: &mut Each<'_>) -> Result<Option<Position>> {
        let table = quoted(&self.table);
        let sql = format!("SELECT {} FROM {table}", self.select(layout, &table));
        self.at_once(|| {
            let number = self.last().map_err(|e| refused(&self.path, &e))?;
            self.each(&sql, &[], false, each)?;
            Ok(number.map(|number| Position::Sqlite { file: self.file, number }))
        })
    }

    fn changes(&mut self, layout: &Layout, since: &Position, each: &mut Each<'_>) -> Result<Changes> {
        let Position::Sqlite { file, number: mut after } = *since else {
            return Ok(Changes::Gap("the source was another database".to_owned()));
        };
        if file != self.file {
            return Ok(Changes::Gap("the database is another file".to_owned()));
        }
        let (table, log, key) = (quoted(&self.table), quoted(&self.log()), quoted(&self.key));
        let sql = format!(
            "SELECT c.key, t.{key}, {} FROM (SELECT DISTINCT key FROM {log} WHERE seq > ?1 AND seq <= ?2) AS c \
             LEFT JOIN {table} AS t ON t.{key} = c.key",
            self.select(layout, "t"),
        );
        let first = format!("SELECT min(seq) FROM {log}");
        loop {
            let (last, until) = self.at_once(|| {
                let failed = |e: rusqlite::Error| refused(&self.path, &e);
                let Some(last) = self.last().map_err(failed)? else { return Ok((-1, -1)) };
                if last <= after {
                    return Ok((last, last));
                }
                let first: Option<i64> =
                    self.connection.query_row(&first, [], |row| row.get(0)).map_err(failed)?;
                if first.is_none_or(|first| first > after + 1) {
                    return Ok((-2, -2));
                }
                let until = last.min(after + CHUNK);
                self.each(&sql, params![after, until], true, each)?;
                Ok((last, until))
            })?;
            match until {
                -1 => return Ok(Changes::Gap("the change log is gone".to_owned())),
                -2 => return Ok(Changes::Gap("the change log begins later".to_owned())),
                until if until < after => {
                    return Ok(Changes::Gap("the change log is another one".to_owned()));
                }
                until => after = until,
            }
            if after == last {
                return Ok(Changes::Until(Position::Sqlite { file: self.file, number: after }));
            }
        }
    }

    fn rows(&mut self, layout: &Layout, keys: &[RowKey], each: &mut Each<'_>) -> Result<()> {
        let (table, key) = (quoted(&self.table), quoted(&self.key));
        let sql = format!(
            "SELECT c.key, t.{key}, {} FROM (SELECT ?1 AS key) AS c LEFT JOIN {table} AS t ON t.{key} = c.key",
            self.select(layout, "t"),
        );
        keys.iter().try_for_each(|key| self.each(&sql, &[key], true, each))
    }

    fn wait(&mut self, poll: Duration) -> Result<bool> {
        std::thread::sleep(poll);
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            if identity(&self.path)? != self.file {
                return Err(unreachable(&self.path, &"another file has taken its place"));
            }
        }
        let version = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0));
        let version = version.map_err(|e| refused(&self.path, &e))?;
        Ok(std::mem::replace(&mut self.version, version) != version)
    }

    fn prune(&mut self) -> Result<()> {
        // The triggers do it.
        Ok(())
    }
}

impl ToSql for RowKey {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Octets(octets) => ToSqlOutput::Borrowed(ValueRef::Blob(octets)),
        })
    }
}

fn datum(value: ValueRef<'_>) -> Datum<'_> {
    match value {
        ValueRef::Null => Datum::Null,
        ValueRef::Integer(number) => Datum::Integer(number.into()),
        ValueRef::Real(number) => Datum::Float(number),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Datum::Text(text.into()),
            Err(_) => Datum::Other("text that is not UTF-8".into()),
        },
        ValueRef::Blob(octets) => Datum::Octets(octets),
    }
}

fn identity(path: &Path) -> Result<(u64, u64)> {
    let metadata = std::fs::metadata(path).map_err(|e| unreachable(path, &e))?;
    Ok((metadata.dev(), metadata.ino()))
}
