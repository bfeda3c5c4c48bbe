//! Rows of a table made into entries of its maps, by a whole comparison or by changes.
//!
//! - An entry that stays is never removed: entries are written first, and then only keys are removed that no row has.
//! - An entry belongs to one row. Another row with its key does not fit, and is looked at again when the key is free.
//! - A row that does not fit keeps no entry, is counted, and does not stop the others.

use std::collections::{HashMap, HashSet};

use xdpchain_host::Entries;

use crate::index::Index;
use crate::reject::{Rejected, Why};
use crate::sink::Refused;
use crate::{Datum, Error, Layout, Result, RowKey, Sink};

/// Rows as they are read, to be given to a [`Filler`] together.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<(RowKey, State)>,
    /// The entries of rows that fit, one behind the other.
    octets: Vec<u8>,
}

/// What is known of a row.
#[derive(Debug)]
enum State {
    /// The table does not have it.
    Gone,
    /// Its entries begin here.
    Fits(usize),
    /// It makes no entries, and why.
    Misfit(String),
}

impl Batch {
    /// Adds a row that the table has; the first value is that of the key column.
    pub fn add(&mut self, layout: &Layout, row: &[Datum<'_>]) {
        let Some(key) = row.first().and_then(RowKey::of) else {
            let key = row.first().map_or_else(String::new, |datum| format!("{datum:?}"));
            let why = "the key column has a value that tells no rows apart".to_owned();
            return self.rows.push((RowKey::Text(key.into()), State::Misfit(why)));
        };
        if key == RowKey::Null {
            let why = "the key column is null".to_owned();
            return self.rows.push((key, State::Misfit(why)));
        }
        let at = self.octets.len();
        let state = match layout.convert(row, &mut self.octets) {
            Ok(()) => State::Fits(at),
            Err(why) => State::Misfit(why),
        };
        self.rows.push((key, state));
    }

    /// Adds the key of a row that the table does not have any more.
    pub fn add_gone(&mut self, key: RowKey) {
        self.rows.push((key, State::Gone));
    }

    /// Rows in it.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.octets.clear();
    }
}

/// What was done to one map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Entries written, because they were not there or were others.
    pub written: u64,
    /// Entries that were there as they are to be, of a comparison.
    pub same: u64,
    /// Entries removed.
    pub removed: u64,
    /// Entries that no row has, and that stay since the map would be emptier than before without them.
    pub kept: u64,
}

/// Makes rows into entries.
#[derive(Debug)]
pub struct Filler<S> {
    maps: Vec<(String, S)>,
    /// Octets of the key and the value of each map.
    sizes: Vec<(usize, usize)>,
    index: Index,
    rejected: Rejected,
    /// Rows whose entry a map had no room for, by map.
    no_room: Vec<HashSet<RowKey>>,
    done: Vec<Done>,
    /// Of each map, while a table is compared with it: whether it had entries before, and how many.
    before: Vec<u64>,
}

impl<S: Sink> Filler<S> {
    /// Fills these maps, called by their names, with rows as `layout` makes entries of them.
    pub fn new(maps: Vec<(String, S)>, layout: &Layout) -> Self {
        let sizes = layout.sizes();
        let keys: Vec<usize> = sizes.iter().map(|(key, _)| *key).collect();
        Self {
            index: Index::new(&keys),
            rejected: Rejected::default(),
            no_room: maps.iter().map(|_| HashSet::new()).collect(),
            done: vec![Done::default(); maps.len()],
            before: vec![0; maps.len()],
            maps,
            sizes,
        }
    }

    /// Rows that have entries.
    pub fn rows(&self) -> usize {
        self.index.len()
    }

    /// Rows that do not fit.
    pub fn rejected(&self) -> &Rejected {
        &self.rejected
    }

    /// The maps, with what was done to each, and the rows that it has no room for.
    pub fn maps(&self) -> impl Iterator<Item = (&str, &S, Done, usize)> {
        let parts = self.maps.iter().zip(&self.done).zip(&self.no_room);
        parts.map(|(((name, sink), done), no_room)| (name.as_str(), sink, *done, no_room.len()))
    }

    /// Begins to compare the whole table: every row has to come by [`compare`](Self::compare), and then
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn begin(&mut self) -> Result<()> {
        let keys: Vec<usize> = self.sizes.iter().map(|(key, _)| *key).collect();
        self.index = Index::new(&keys);
        self.rejected = Rejected::default();
        self.no_room.iter_mut().for_each(HashSet::clear);
        self.done.fill(Done::default());
        for (at, (name, sink)) in self.maps.iter().enumerate() {
            let (mut count, size) = (0, self.sizes[at].0.max(1));
            sink.walk(&mut |entries| count += (entries.keys.len() / size) as u64).map_err(failed(name))?;
            self.before[at] = count;
        }
        Ok(())
    }

    /// Takes rows of a table that is being compared.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn compare(&mut self, batch: &mut Batch) -> Result<()> {
        self.claim(batch, &mut Freed::new(self.maps.len()), true)?;
        batch.clear();
        Ok(())
    }

    /// Ends the comparison: what no row has goes. Not where `keep` says so of a map, and it would have fewer entries than it had
    /// before. Returns rows to read again, for which there is room now.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn finish(&mut self, keep: impl Fn(&str) -> bool) -> Result<Vec<RowKey>> {
        let mut again = Vec::new();
        for at in 0..self.maps.len() {
            let (name, sink) = &self.maps[at];
            let size = self.sizes[at].0.max(1);
            let (mut stale, mut count) = (Vec::new(), 0);
            if self.before[at] > 0 {
                let index = &self.index;
                let mut look = |entries: &Entries| {
                    for key in entries.keys.chunks_exact(size) {
                        count += 1;
                        if index.owner(at, key).is_none() {
                            stale.extend_from_slice(key);
                        }
                    }
                };
                sink.walk(&mut look).map_err(failed(name))?;
            }
            let gone = (stale.len() / size) as u64;
            let room = self.no_room[at].len() as u64;
            if gone > 0 && keep(name) && count - gone + room.min(gone) < self.before[at] {
                self.done[at].kept = gone;
                continue;
            }
            sink.remove(&stale).map_err(failed(name))?;
            self.done[at].removed += gone;
            again.extend(self.no_room[at].iter().take(gone as usize).cloned());
        }
        again.sort_unstable();
        again.dedup();
        Ok(again)
    }

    /// Takes rows that changed, as they are now. Returns rows to read again, because what stood in their way may be gone.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn change(&mut self, batch: &mut Batch) -> Result<Vec<RowKey>> {
        let mut freed = Freed::new(self.maps.len());
        let mut again = Vec::new();
        for (row, state) in &batch.rows {
            // A row that keeps its keys does not let go of them, so that nobody takes them meanwhile.
            let stays = match state {
                State::Fits(at) => {
                    let keys = entries(&self.sizes, &batch.octets, *at).map(|(key, _)| key);
                    self.index.has_keys(row, &keys.collect::<Vec<_>>())
                }
                State::Gone | State::Misfit(_) => false,
            };
            if !stays {
                self.index.remove(row, |map, key| freed.add(map, key));
            }
            self.rejected.forget(row);
            for rows in &mut self.no_room {
                rows.remove(row);
            }
        }
        self.claim(batch, &mut freed, false)?;
        for at in 0..self.maps.len() {
            let (name, sink) = &self.maps[at];
            let keys: Vec<u8> = freed.keys[at].iter().flatten().copied().collect();
            sink.remove(&keys).map_err(failed(name))?;
            let count = freed.keys[at].len();
            self.done[at].removed += count as u64;
            again.extend(self.no_room[at].iter().take(count).cloned());
            for key in &freed.keys[at] {
                again.extend(self.rejected.waiting_for(at, key));
            }
        }
        // Whoever has the key that a row wants may be gone without the log having told.
        let asked: HashSet<&RowKey> = batch.rows.iter().map(|(row, _)| row).collect();
        again.extend(freed.owners.drain(..).filter(|owner| !asked.contains(owner)));
        batch.clear();
        again.sort_unstable();
        again.dedup();
        Ok(again)
    }

    /// A row that no map had room for, and that may be tried again.
    pub fn without_room(&self) -> Option<&RowKey> {
        self.no_room.iter().find_map(|rows| rows.iter().next())
    }

    /// All of these.
    pub fn all_without_room(&self) -> Vec<RowKey> {
        let mut rows: Vec<RowKey> = self.no_room.iter().flatten().cloned().collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Gives each row that fits its keys, and writes its entries.
    fn claim(&mut self, batch: &mut Batch, freed: &mut Freed, compare: bool) -> Result<()> {
        let mut writes: Vec<Writes> = self.maps.iter().map(|_| Writes::default()).collect();
        for (row, state) in std::mem::take(&mut batch.rows) {
            let at = match state {
                State::Gone => {
                    batch.rows.push((row, State::Gone));
                    continue;
                }
                State::Misfit(why) => {
                    self.rejected.add(row.clone(), Why::Misfit(why));
                    batch.rows.push((row, State::Gone));
                    continue;
                }
                State::Fits(at) => at,
            };
            let entries: Vec<(&[u8], &[u8])> = entries(&self.sizes, &batch.octets, at).collect();
            let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| *key).collect();
            let stays = !compare && self.index.has_keys(&row, &keys);
            let taken = entries.iter().enumerate().find_map(|(map, (key, _))| {
                self.index.owner(map, key).map(|owner| (map, *key, owner.clone()))
            });
            if let (Some((map, key, owner)), false) = (taken, stays) {
                let why =
                    Why::Taken { map, name: self.maps[map].0.clone(), key: key.into(), by: owner.clone() };
                self.rejected.add(row.clone(), why);
                freed.owners.push(owner);
            } else if self.index.has(&row) && !stays {
                let why = "another row has the same value in the key column".to_owned();
                self.rejected.add(row.clone(), Why::Misfit(why));
            } else {
                if !stays {
                    self.index.insert(row.clone(), &keys);
                }
                for (map, (key, value)) in entries.iter().enumerate() {
                    freed.keys[map].remove(*key);
                    if compare && self.before[map] > 0 {
                        let (name, sink) = &self.maps[map];
                        if sink.value(key).map_err(failed(name))?.as_deref() == Some(value) {
                            self.done[map].same += 1;
                            continue;
                        }
                    }
                    writes[map].add(batch.rows.len(), key, value);
                }
            }
            batch.rows.push((row, State::Gone));
        }
        for (map, writes) in writes.into_iter().enumerate() {
            self.write(map, &writes, batch)?;
        }
        Ok(())
    }

    /// Writes entries; those that there is no room for are noted, and the others are written.
    fn write(&mut self, map: usize, writes: &Writes, batch: &Batch) -> Result<()> {
        let (name, sink) = &self.maps[map];
        let (key, value) = self.sizes[map];
        let (mut done, mut refused) = sink.write(&writes.entries);
        self.done[map].written += done as u64;
        // From the first one on for which there is no room, each is asked for by itself: others are there already.
        while let Some(why) = refused.take() {
            match why {
                Refused::Failed(error) => return Err(failed(name)(error)),
                Refused::Full => {
                    self.no_room[map].insert(batch.rows[writes.rows[done]].0.clone());
                }
            }
            done += 1;
            while done < writes.rows.len() && refused.is_none() {
                let one = Entries {
                    keys: writes.entries.keys[done * key..(done + 1) * key].to_vec(),
                    values: writes.entries.values[done * value..(done + 1) * value].to_vec(),
                };
                match sink.write(&one) {
                    (_, None) => {
                        self.done[map].written += 1;
                        done += 1;
                    }
                    (_, why) => refused = why,
                }
            }
        }
        Ok(())
    }
}

/// The key and the value of a row's entry in each map, whose sizes are known, from `at` on.
fn entries<'a>(
    sizes: &'a [(usize, usize)],
    octets: &'a [u8],
    at: usize,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    sizes.iter().scan(at, move |at, (key, value)| {
        let start = *at;
        *at += key + value;
        Some(octets[start..*at].split_at(*key))
    })
}

/// Entries to write to one map, and which row of the batch each is of.
#[derive(Default)]
struct Writes {
    rows: Vec<usize>,
    entries: Entries,
}

impl Writes {
    fn add(&mut self, row: usize, key: &[u8], value: &[u8]) {
        self.rows.push(row);
        self.entries.keys.extend_from_slice(key);
        self.entries.values.extend_from_slice(value);
    }
}

/// Keys that rows gave up and no row has taken, by map.
struct Freed {
    keys: Vec<HashSet<Vec<u8>>>,
    /// Rows that have a key which another row wants.
    owners: Vec<RowKey>,
}

impl Freed {
    fn new(maps: usize) -> Self {
        Self { keys: vec![HashSet::new(); maps], owners: Vec::new() }
    }

    fn add(&mut self, map: usize, key: &[u8]) {
        self.keys[map].insert(key.to_vec());
    }
}

fn failed(map: &str) -> impl FnOnce(xdpchain_host::Error) -> Error {
    let map = map.to_owned();
    move |source| Error::Map { map, source: Box::new(source) }
}

/// Rows that wait for the same key, by map and key.
pub(crate) type Waiting = HashMap<(usize, Box<[u8]>), Vec<RowKey>>;

#[cfg(test)]
mod tests;
