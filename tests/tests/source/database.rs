//! Both kinds of database behind one face.

use std::path::PathBuf;
use std::sync::Mutex;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use tempfile::TempDir;
use xdpchain_tests::Netns;
use xdpchain_tests::postgres::Postgres;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A database of a test's own.
pub(crate) enum Database {
    Sqlite { connection: Mutex<Connection>, path: PathBuf, _folder: TempDir },
    Postgres(Postgres),
}

impl Database {
    pub(crate) fn new(kind: Kind, ns: &Netns) -> Self {
        if kind == Kind::Postgres {
            return Self::Postgres(Postgres::start(ns));
        }
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("t.db");
        let connection = Connection::open(&path).expect("a file can be made");
        connection.busy_timeout(std::time::Duration::from_secs(60)).expect("it can wait");
        connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;").expect("it can log");
        Self::Sqlite { connection: Mutex::new(connection), path, _folder: folder }
    }

    /// `from:` and what else chains.yaml has to say of it.
    pub(crate) fn from(&self) -> String {
        match self {
            Self::Sqlite { path, .. } => format!("from: 'sqlite:{}'", path.display()),
            Self::Postgres(server) => {
                format!("from: '{}'\n    password_file: {}", server.url(), server.password_file().display())
            }
        }
    }

    pub(crate) fn server(&self) -> &Postgres {
        match self {
            Self::Postgres(server) => server,
            Self::Sqlite { .. } => panic!("SQLite has no server"),
        }
    }

    /// Runs statements.
    pub(crate) fn run(&self, sql: &str) {
        match self {
            Self::Sqlite { connection, .. } => {
                connection
                    .lock()
                    .expect("no thread panicked")
                    .execute_batch(sql)
                    .expect("the statements are right");
            }
            Self::Postgres(server) => drop(server.sql(sql)),
        }
    }

    /// The rows of a query as text.
    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<String>> {
        match self {
            Self::Sqlite { connection, .. } => {
                let connection = connection.lock().expect("no thread panicked");
                let mut statement = connection.prepare(sql).expect("the query is right");
                let count = statement.column_count();
                let rows =
                    statement.query_map([], |row| (0..count).map(|at| Ok(text(row.get_ref(at)?))).collect());
                rows.expect("the query runs").map(|row| row.expect("a row")).collect()
            }
            Self::Postgres(server) => {
                let text = server.sql(sql);
                text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
            }
        }
    }
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("{other:?}"),
    }
}
