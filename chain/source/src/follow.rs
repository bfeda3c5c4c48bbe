//! A source at work: compared once, or followed until told to stop.
//!
//! Whatever fails, the maps keep what they have, and it is tried again: from where the log was, when the database was only gone,
//! and by a whole comparison when anything else may have been missed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xdpchain_host::{Host, Map};
use xdpchain_spec::SourceSpec;

use crate::status::now;
use crate::table::{self, Changes, Position, Row};
use crate::{
    Batch, Error, Filler, Layout, MapFill, Phase, Rejection, Result, RowKey, SourceStatus, Store, Table,
    Target,
};

/// Rows that are given to the maps at a time.
const ROWS: usize = 4096;
/// How long it is waited before the first new try, and at most before any.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How often it is looked whether the maps are still the same ones.
const LOOK: Duration = Duration::from_secs(1);
/// How often rows that found no room are tried again, since others may have removed entries.
const RETRY: Duration = Duration::from_secs(5);
/// How often a table without a change log is compared.
const WITHOUT_LOG: Duration = Duration::from_secs(60);
/// How often the change log is pruned.
const PRUNE: Duration = Duration::from_secs(600);
/// How often a record is written at most.
const RECORD: Duration = Duration::from_millis(500);

/// What a comparison came to.
pub type Synced = SourceStatus;

/// A source at work.
#[derive(Debug)]
pub struct Follower {
    name: String,
    spec: SourceSpec,
    store: Store,
    status: Arc<Mutex<SourceStatus>>,
}

/// Everything that is open while a source is filled.
struct Session {
    host: Host,
    /// The kernel's number of each map.
    ids: Vec<u32>,
    layout: Layout,
    table: Box<dyn Table + Send>,
    filler: Filler<Map>,
}

impl Follower {
    /// Makes one for a source of chains.yaml.
    ///
    /// # Errors
    /// [`Error::Map`] when the host cannot be opened.
    pub fn new(name: &str, spec: &SourceSpec) -> Result<Self> {
        let store = Store::of(&open_host()?);
        let known = store.read(name).unwrap_or_default();
        let status = SourceStatus {
            source: name.to_owned(),
            from: spec.from.to_string(),
            table: spec.table.clone(),
            in_step_at: known.in_step_at,
            filled: known.filled,
            pid: std::process::id(),
            ..SourceStatus::default()
        };
        Ok(Self { name: name.to_owned(), spec: spec.clone(), store, status: Arc::new(Mutex::new(status)) })
    }

    /// How it is doing, to be looked at by others meanwhile.
    pub fn status(&self) -> Arc<Mutex<SourceStatus>> {
        Arc::clone(&self.status)
    }

    fn lock(&self) -> MutexGuard<'_, SourceStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills and repairs the maps once. With `prune`, also the first time, entries go that no row has.
    ///
    /// # Errors
    /// Whatever keeps it from being done; the maps keep what they have.
    pub fn sync_once(&self, prune: bool) -> Result<Synced> {
        let _alone = self.store.alone(&self.name)?;
        let mut session = self.open()?;
        self.compare(&mut session, "asked for", prune, &AtomicBool::new(false))?;
        let status = {
            let mut status = self.lock();
            status.phase = Phase::Compared;
            status.pid = 0;
            status.clone()
        };
        self.store.write(&status)?;
        Ok(status)
    }

    /// Fills the maps, and follows the table until `stop` is set.
    pub fn follow(&self, stop: &AtomicBool) {
        let mut pause = PAUSE.0;
        let mut kept: Option<(Session, Option<Position>)> = None;
        let mut alone = None;
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let error = match self.try_to_follow(&mut kept, &mut alone, stop) {
                Err(Error::Stopped) | Ok(()) => break,
                Err(error) => error,
            };
            if begun.elapsed() > PAUSE.1 {
                pause = PAUSE.0;
            }
            // What is kept of a session is only right as long as nothing but the database failed.
            let gone = matches!(error, Error::Connect { .. });
            if !gone {
                kept = None;
            }
            let text = error.to_string();
            let was = {
                let mut status = self.lock();
                status.phase = if gone { Phase::Disconnected } else { Phase::Failed };
                status.error.replace(text.clone())
            };
            if was.as_ref() != Some(&text) {
                tracing::warn!("source `{}`: {text}", self.name);
            }
            self.record();
            rest(pause, stop);
            pause = (pause * 2).min(PAUSE.1);
        }
        self.record();
    }

    fn try_to_follow(
        &self,
        kept: &mut Option<(Session, Option<Position>)>,
        alone: &mut Option<std::fs::File>,
        stop: &AtomicBool,
    ) -> Result<()> {
        if alone.is_none() {
            *alone = Some(self.store.alone(&self.name)?);
        }
        let (mut session, mut position, mut because) = match kept.take() {
            Some((mut session, position)) => {
                // Put back first, so that it is there for the next try when this one fails.
                match self.reconnect(&mut session) {
                    Ok(true) => (session, position, "the connection was lost without a change log"),
                    Ok(false) => (session, None, "the table or the maps are others"),
                    Err(error) => {
                        *kept = Some((session, position));
                        return Err(error);
                    }
                }
            }
            None => (self.open()?, None, "begun"),
        };
        let result = loop {
            if position.is_none() {
                match self.compare(&mut session, because, false, stop) {
                    Ok(found) => position = found,
                    // Half a comparison is none.
                    Err(error) => break Err(error),
                }
            }
            match self.keep_in_step(&mut session, &mut position, stop) {
                Ok(why) => because = why,
                Err(error) => break Err(error),
            }
            if !self.same_maps(&session)? {
                session = self.open()?;
            }
            position = None;
        };
        *kept = Some((session, position));
        result
    }

    /// Opens the maps and the table.
    fn open(&self) -> Result<Session> {
        let host = open_host()?;
        let targets: Vec<Target> =
            self.spec.maps.iter().map(|map| Target::open(&host, map)).collect::<Result<_>>()?;
        let mut table = table::open(&self.spec)?;
        let codecs: Vec<_> = targets.iter().map(|target| &target.codec).collect();
        let layout = Layout::new(&self.name, &self.spec, &codecs, &table.columns()?)?;
        let ids = targets.iter().map(|target| target.map.info().id).collect();
        let names = self.spec.maps.iter().map(ToString::to_string);
        let filler = Filler::new(names.zip(targets.into_iter().map(|target| target.map)).collect(), &layout);
        Ok(Session { host, ids, layout, table, filler })
    }

    /// Opens the table again; whether rows still become the same entries of the same maps.
    fn reconnect(&self, session: &mut Session) -> Result<bool> {
        session.table = table::open(&self.spec)?;
        let columns = session.table.columns()?;
        if !self.same_maps(session)? {
            *session = self.open()?;
            return Ok(false);
        }
        let targets: Vec<Target> =
            self.spec.maps.iter().map(|map| Target::open(&session.host, map)).collect::<Result<_>>()?;
        let codecs: Vec<_> = targets.iter().map(|target| &target.codec).collect();
        let layout = Layout::new(&self.name, &self.spec, &codecs, &columns)?;
        let same = layout.same(&session.layout);
        if !same {
            *session = self.open()?;
        }
        Ok(same)
    }

    fn same_maps(&self, session: &Session) -> Result<bool> {
        let ids = self.spec.maps.iter().map(|map| {
            let failed = |source| Error::Map { map: map.to_string(), source: Box::new(source) };
            Ok(session.host.module_map(&map.module, &map.map).map_err(failed)?.info().id)
        });
        Ok(ids.collect::<Result<Vec<_>>>()? == session.ids)
    }

    /// Compares the whole table with the maps, and makes these as that is.
    fn compare(
        &self,
        session: &mut Session,
        because: &str,
        prune: bool,
        stop: &AtomicBool,
    ) -> Result<Option<Position>> {
        {
            let mut status = self.lock();
            status.phase = Phase::Comparing;
            status.compared_because = Some(because.to_owned());
        }
        self.record();
        let start = Instant::now();
        let Session { layout, table, filler, .. } = session;
        filler.begin()?;
        let mut batch = Batch::default();
        let position = table.scan(layout, &mut |row| {
            take(&mut batch, layout, row);
            if batch.len() < ROWS {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            filler.compare(&mut batch)
        })?;
        filler.compare(&mut batch)?;
        let filled = self.lock().filled.clone();
        let ids: Vec<(String, u32)> =
            self.spec.maps.iter().map(ToString::to_string).zip(session.ids.iter().copied()).collect();
        let first = |map: &str| ids.iter().any(|(name, id)| name == map && filled.get(map) != Some(id));
        let again = session.filler.finish(|map| !prune && first(map))?;
        self.settle(session, again)?;
        let rows = session.filler.rows();
        tracing::info!("source `{}`: {rows} rows compared in {:?}: {because}", self.name, start.elapsed());
        let mut status = self.lock();
        for (map, id) in ids {
            let kept = session.filler.maps().any(|(name, _, done, _)| name == map && done.kept > 0);
            if !kept {
                status.filled.insert(map, id);
            }
        }
        status.comparisons += 1;
        status.in_step_at = Some(now());
        drop(status);
        self.tell(session, position.as_ref());
        Ok(position)
    }

    /// Reads rows again until none has to be.
    fn settle(&self, session: &mut Session, mut again: Vec<RowKey>) -> Result<()> {
        /// Each round is for rows that the one before made way for; more are left to the next change.
        const ROUNDS: usize = 64;
        for _ in 0..ROUNDS {
            if again.is_empty() {
                break;
            }
            let Session { layout, table, filler, .. } = &mut *session;
            let mut next = Vec::new();
            let mut batch = Batch::default();
            table.rows(layout, &again, &mut |row| {
                take(&mut batch, layout, row);
                if batch.len() >= ROWS {
                    next.extend(filler.change(&mut batch)?);
                }
                Ok(())
            })?;
            next.extend(filler.change(&mut batch)?);
            again = next;
        }
        Ok(())
    }

    /// Follows the log until the table has to be compared, and says why.
    fn keep_in_step(
        &self,
        session: &mut Session,
        position: &mut Option<Position>,
        stop: &AtomicBool,
    ) -> Result<&'static str> {
        let poll = self.spec.poll.duration();
        let begun = Instant::now();
        let (mut looked, mut retried, mut recorded, mut pruned) = (begun, begun, begun, begun);
        {
            let mut status = self.lock();
            status.phase = Phase::Following;
            status.error = position.is_none().then(|| {
                let (source_name, table) = (self.name.clone(), self.spec.table.clone());
                Error::NoLog { source_name, table }.to_string()
            });
        }
        self.record();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let changed = session.table.wait(poll)?;
            if let Some(since) = position.as_mut() {
                if changed {
                    let Session { layout, table, filler, .. } = &mut *session;
                    let (mut batch, mut again, mut count) = (Batch::default(), Vec::new(), 0);
                    let changes = table.changes(layout, since, &mut |row| {
                        count += 1;
                        take(&mut batch, layout, row);
                        if batch.len() >= ROWS {
                            again.extend(filler.change(&mut batch)?);
                        }
                        Ok(())
                    })?;
                    again.extend(filler.change(&mut batch)?);
                    self.settle(session, again)?;
                    match changes {
                        Changes::Until(until) => *since = until,
                        Changes::Gap(why) => {
                            tracing::info!("source `{}`: {why}", self.name);
                            return Ok("there was a gap in the change log");
                        }
                    }
                    self.lock().changes += count;
                }
                self.lock().in_step_at = Some(now());
            } else if begun.elapsed() >= WITHOUT_LOG {
                return Ok("there is no change log");
            }
            if retried.elapsed() >= RETRY {
                retried = Instant::now();
                self.try_again(session)?;
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                if !self.same_maps(session)? {
                    return Ok("the maps are others");
                }
            }
            if pruned.elapsed() >= PRUNE {
                pruned = Instant::now();
                session.table.prune()?;
            }
            if recorded.elapsed() >= RECORD {
                recorded = Instant::now();
                self.tell(session, position.as_ref());
            }
        }
    }

    /// Tries rows again that found no room, one first.
    fn try_again(&self, session: &mut Session) -> Result<()> {
        let waiting =
            |session: &Session| session.filler.maps().map(|(_, _, _, no_room)| no_room).sum::<usize>();
        let before = waiting(session);
        let Some(one) = session.filler.without_room().cloned() else { return Ok(()) };
        self.settle(session, vec![one])?;
        if waiting(session) < before {
            let all = session.filler.all_without_room();
            self.settle(session, all)?;
        }
        Ok(())
    }

    /// Writes down how it is doing.
    fn tell(&self, session: &Session, position: Option<&Position>) {
        let filler = &session.filler;
        let explained = filler.rejected().explained().into_iter();
        let rejections =
            explained.map(|(key, reason)| Rejection { key: key.to_string(), reason: reason.to_owned() });
        let maps: Vec<MapFill> = filler
            .maps()
            .map(|(map, _, done, no_room)| MapFill {
                map: map.to_owned(),
                written: done.written,
                same: done.same,
                removed: done.removed,
                kept: done.kept,
                no_room: no_room as u64,
            })
            .collect();
        let mut status = self.lock();
        for map in &maps {
            let before = status.maps.iter().find(|other| other.map == map.map).map_or(0, |map| map.no_room);
            if map.no_room > 0 && before == 0 {
                tracing::warn!(
                    "source `{}`: map {} is full: {} rows have no room",
                    self.name,
                    map.map,
                    map.no_room
                );
            }
        }
        let rejected = filler.rejected().len() as u64;
        if rejected > 0 && status.rejected == 0 {
            tracing::warn!(
                "source `{0}`: {rejected} rows do not fit; `xdpchain source status {0}` tells why",
                self.name
            );
        }
        status.rows = filler.rows() as u64;
        status.rejected = rejected;
        status.rejections = rejections.collect();
        status.maps = maps;
        status.position = position.map(ToString::to_string);
        drop(status);
        self.record();
    }

    fn record(&self) {
        let status = {
            let mut status = self.lock();
            status.written_at = now();
            status.clone()
        };
        if let Err(error) = self.store.write(&status) {
            tracing::warn!("source `{}`: {error}", self.name);
        }
    }
}

fn take(batch: &mut Batch, layout: &Layout, row: Row<'_>) {
    match row {
        Row::There(row) => batch.add(layout, row),
        Row::Gone(key) => batch.add_gone(key),
    }
}

fn open_host() -> Result<Host> {
    Host::open().map_err(|source| Error::Map { map: "any".to_owned(), source: Box::new(source) })
}

/// Sleeps, but not on when it is to stop.
fn rest(time: Duration, stop: &AtomicBool) {
    let end = Instant::now() + time;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}
