//! Tables of a PostgreSQL server.
//!
//! The log's rows have the number of the transaction that wrote them. A number that was given out early may be committed late, so
//! a position is no number but the set of transactions that were seen, a snapshot: what is new is what that snapshot does not see
//! and the present one does. So nothing is missed, nothing waits for somebody's long transaction, and nothing comes twice.

mod connect;
mod log;
mod tls;
mod value;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Client, Statement};
use xdpchain_spec::{PostgresUrl, SourceSpec};

use crate::table::{Each, quoted};
use crate::{Changes, Datum, Error, Layout, Position, Result, Row, RowKey, Table};

use connect::Place;
pub(crate) use log::change_log;

/// Keys of rows that are read at a time.
const CHUNK: usize = 4096;
/// How often it is asked for changes without having been told of any, which also tells whether the server is there.
const BEAT: Duration = Duration::from_secs(1);
/// How long one wait is.
const WAIT: Duration = Duration::from_millis(100);
/// How long an answer to a small question may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Seconds after which changes are not looked for any more, since they may have been removed: an hour less than they are kept.
const REACH: i64 = 23 * 60 * 60;
/// Begins what is read as of one moment.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// The same for a few rows. A plan that reads all of the log, or all of the table, is never the right one then, whatever the
/// planner knows of a log that just grew.
const BEGIN_FEW: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = off";
/// The oldest server that has `pg_snapshot`.
const OLDEST: i32 = 130_000;

/// A table of a PostgreSQL server.
pub(crate) struct PostgresTable {
    runtime: Runtime,
    client: Client,
    told: Arc<Notify>,
    asked: Instant,
    shown: String,
    names: log::Names,
    key: String,
    /// The type of the key column.
    key_type: String,
    /// The statement that reads rows by their keys, and what it reads.
    by_key: Option<(String, Statement)>,
}

impl PostgresTable {
    pub(crate) fn open(url: &PostgresUrl, source: &SourceSpec) -> Result<Self> {
        let place = Place::of(url, source)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| place.unreachable(&e.to_string()))?;
        let told = Arc::new(Notify::new());
        let names = log::Names::of(source);
        let client = runtime.block_on(async {
            let (client, mut connection) = place.connect().await?;
            let (told, payload) = (Arc::clone(&told), names.payload());
            tokio::spawn(async move {
                let mut messages = pin!(stream::poll_fn(move |context| connection.poll_message(context)));
                while let Some(Ok(message)) = messages.next().await {
                    if matches!(&message, AsyncMessage::Notification(note) if note.payload() == payload) {
                        told.notify_one();
                    }
                }
                told.notify_one();
            });
            Ok::<_, Error>(client)
        })?;
        let mut table = Self {
            runtime,
            client,
            told,
            asked: Instant::now() - BEAT,
            shown: place.shown().to_owned(),
            names,
            key: source.key.clone(),
            key_type: String::new(),
            by_key: None,
        };
        table.prepare()?;
        Ok(table)
    }

    /// Installs the change log.
    pub(crate) fn install(url: &PostgresUrl, source: &SourceSpec) -> Result<()> {
        let table = Self::open(url, source)?;
        table.block(table.client.batch_execute(&change_log(source)))
    }

    /// Asks who the server is, and listens for changes from now on.
    fn prepare(&mut self) -> Result<()> {
        let version =
            self.block(self.client.query_one("SELECT current_setting('server_version_num')::int4", &[]))?;
        let version: i32 = version.get(0);
        if version < OLDEST {
            let problem = format!("server version {version} is older than {OLDEST}");
            let help = "sources need PostgreSQL 13 or later";
            return Err(Error::Database { database: self.shown.clone(), problem, help });
        }
        let key_type = "SELECT format_type(atttypid, NULL) FROM pg_attribute \
                        WHERE attrelid = to_regclass($1) AND attname = $2 AND attnum > 0 AND NOT attisdropped";
        let found = self.block(self.client.query_opt(key_type, &[&self.names.table(), &self.key]))?;
        // Without the column, `columns` says so better.
        self.key_type = found.map_or_else(String::new, |row| row.get(0));
        self.block(self.client.batch_execute("SET application_name = 'xdpchain'; LISTEN xdpchain"))
    }

    /// Waits for an answer to a small question.
    fn block<T>(&self, future: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
        match answer {
            Ok(answer) => answer.map_err(|error| self.failed(&error)),
            Err(_) => Err(self.gone("the server does not answer")),
        }
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Error {
        connect::failed(&self.shown, error)
    }

    fn gone(&self, problem: &str) -> Error {
        connect::unreachable(&self.shown, problem)
    }

    /// Runs `work` as of one moment.
    fn at_once<T>(&self, begin: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.block(self.client.batch_execute(begin))?;
        let result = work();
        let ended = self.block(self.client.batch_execute("ROLLBACK"));
        result.and_then(|value| ended.map(|()| value))
    }

    /// The present snapshot; none without a log.
    fn position(&self) -> Result<Option<Position>> {
        let sql = "SELECT pg_current_snapshot()::text, \
                   CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END, \
                   extract(epoch FROM now())::int8, to_regclass($1) IS NOT NULL";
        let row = self.block(self.client.query_one(sql, &[&self.names.log()]))?;
        let position = Position::Postgres { snapshot: row.get(0), timeline: row.get(1), at: row.get(2) };
        Ok(row.get::<_, bool>(3).then_some(position))
    }

    fn select(layout: &Layout) -> String {
        layout.columns().iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
    }

    /// Gives `each` the rows of a statement.
    fn each(
        &self,
        statement: &Statement,
        parameters: &[Vec<String>],
        each: &mut dyn FnMut(&[Datum<'_>]) -> Result<()>,
    ) -> Result<()> {
        self.runtime.block_on(async {
            let rows = self.client.query_raw(statement, parameters).await.map_err(|e| self.failed(&e))?;
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await.map_err(|e| self.failed(&e))? {
                let data = (0..row.len()).map(|at| row.try_get::<_, Datum<'_>>(at));
                let data = data.collect::<Result<Vec<_>, _>>().map_err(|e| self.failed(&e))?;
                each(&data)?;
            }
            Ok(())
        })
    }

    /// Reads rows by their keys; those that are not there are gone.
    fn read(&self, statement: &Statement, keys: &[RowKey], each: &mut Each<'_>) -> Result<()> {
        for keys in keys.chunks(CHUNK) {
            let mut missing: HashSet<&RowKey> = keys.iter().collect();
            let texts = keys.iter().map(|key| value::key_text(key, &self.key_type)).collect();
            self.each(statement, &[texts], &mut |row| {
                if let Some(key) = row.first().and_then(RowKey::of) {
                    missing.remove(&key);
                }
                each(Row::There(row))
            })?;
            missing.into_iter().try_for_each(|key| each(Row::Gone(key.clone())))?;
        }
        Ok(())
    }

    /// The statement that reads rows by their keys.
    fn by_key(&mut self, layout: &Layout) -> Result<Statement> {
        let sql = format!(
            "SELECT {} FROM {} WHERE {} = ANY($1::text[]::{}[])",
            Self::select(layout),
            self.names.table(),
            quoted(&self.key),
            self.key_type,
        );
        if let Some((same, statement)) = &self.by_key
            && *same == sql
        {
            return Ok(statement.clone());
        }
        let statement = self.block(self.client.prepare(&sql))?;
        self.by_key = Some((sql, statement.clone()));
        Ok(statement)
    }
}

/// The transaction before which a snapshot sees all, and the one from which on it sees none.
fn bounds(snapshot: &str) -> Option<(u64, u64)> {
    let mut parts = snapshot.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Table for PostgresTable {
    fn columns(&mut self) -> Result<Vec<String>> {
        let sql = format!("SELECT * FROM {} LIMIT 0", self.names.table());
        let statement = self.block(self.client.prepare(&sql))?;
        Ok(statement.columns().iter().map(|column| column.name().to_owned()).collect())
    }

    fn scan(&mut self, layout: &Layout, each: &mut Each<'_>) -> Result<Option<Position>> {
        let sql = format!("SELECT {} FROM {}", Self::select(layout), self.names.table());
        let statement = self.block(self.client.prepare(&sql))?;
        self.at_once(BEGIN, || {
            let position = self.position()?;
            self.each(&statement, &[], &mut |row| each(Row::There(row)))?;
            Ok(position)
        })
    }

    fn changes(&mut self, layout: &Layout, since: &Position, each: &mut Each<'_>) -> Result<Changes> {
        self.asked = Instant::now();
        let gap = |why: &str| Ok(Changes::Gap(why.to_owned()));
        let Position::Postgres { snapshot, timeline, at } = since else {
            return gap("the source was another database");
        };
        let statement = self.by_key(layout)?;
        let sql = format!(
            "SELECT DISTINCT key FROM {} WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot) \
             AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)",
            self.names.log(),
        );
        self.at_once(BEGIN_FEW, || {
            let now = self.position()?;
            let Some(Position::Postgres { snapshot: new, timeline: own, at: time }) = &now else {
                return gap("the change log is gone");
            };
            let seen = |snapshot| bounds(snapshot).map_or(0, |(_, end)| end);
            if own != timeline || seen(new) < seen(snapshot) {
                return gap("the server's history is another one");
            }
            if time - at > REACH {
                return gap("the change log does not reach back so far");
            }
            if new != snapshot {
                let mut keys = Vec::new();
                let mut truncated = false;
                for row in self.block(self.client.query(&sql, &[snapshot]))? {
                    let key: Datum<'_> = row.try_get(0).map_err(|e| self.failed(&e))?;
                    match RowKey::of(&key) {
                        Some(RowKey::Null) | None => truncated = true,
                        Some(key) => keys.push(key),
                    }
                }
                if truncated {
                    return gap("the table was emptied at once");
                }
                self.read(&statement, &keys, each)?;
            }
            Ok(now.map_or_else(|| Changes::Gap(String::new()), Changes::Until))
        })
    }

    fn rows(&mut self, layout: &Layout, keys: &[RowKey], each: &mut Each<'_>) -> Result<()> {
        let statement = self.by_key(layout)?;
        self.read(&statement, keys, each)
    }

    fn wait(&mut self, _: Duration) -> Result<bool> {
        let told =
            self.runtime.block_on(async { tokio::time::timeout(WAIT, self.told.notified()).await.is_ok() });
        if self.client.is_closed() {
            return Err(self.gone("the connection was closed"));
        }
        Ok(told || self.asked.elapsed() >= BEAT)
    }

    fn prune(&mut self) -> Result<()> {
        match self.block(self.client.execute(&log::prune(&self.names), &[])) {
            Err(Error::Database { problem, .. }) => {
                tracing::debug!("the change log is not pruned: {problem}")
            }
            other => drop(other?),
        }
        Ok(())
    }
}
