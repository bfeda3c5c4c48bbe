//! The entries of a map as they were read last, found by key.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::maps::Entries;
use crate::store;

/// What an entry was when it was read last, in the order in which they were found.
#[derive(Debug)]
pub struct Snapshot {
    key_size: usize,
    value_len: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
    /// Of each entry, the number of the last pass that found it; 0 when it is gone.
    seen: Vec<u32>,
    pass: u32,
    /// Where an entry is, by the hash of its key; open addressing, [`FREE`] where nothing is.
    table: Vec<u32>,
    hasher: RandomState,
}

const FREE: u32 = u32::MAX;

/// What one pass found of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// It was not there before.
    New {
        /// The key.
        key: Vec<u8>,
        /// The value.
        now: Vec<u8>,
    },
    /// Its value was another.
    Changed {
        /// The key.
        key: Vec<u8>,
        /// What it was.
        before: Vec<u8>,
        /// What it is.
        now: Vec<u8>,
    },
    /// It is not there any more.
    Gone {
        /// The key.
        key: Vec<u8>,
        /// What it was.
        before: Vec<u8>,
    },
}

impl Since {
    /// The old key.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::New { key, .. } | Self::Changed { key, .. } | Self::Gone { key, .. } => key,
        }
    }
}

impl Snapshot {
    /// With nothing in it, of a map with keys and values of so many octets.
    pub fn new(key_size: usize, value_len: usize) -> Self {
        Self {
            key_size,
            value_len,
            keys: Vec::new(),
            values: Vec::new(),
            seen: Vec::new(),
            pass: 1,
            table: vec![FREE; 64],
            hasher: RandomState::new(),
        }
    }

    /// Whether no entry is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that are there.
    pub fn len(&self) -> usize {
        self.seen.iter().filter(|seen| **seen != 0).count()
    }

    /// Every entry that is there.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.seen.len()).filter(|at| self.seen[*at] != 0).map(|at| (self.key(at), self.value(at)))
    }

    /// Begins another pass.
    pub fn begin(&mut self) {
        self.pass += 1;
    }

    /// Takes in what was read now, and gives to `since` what is not as it was. An entry that is read twice in one pass is
    /// one that was written in between.
    pub fn update(&mut self, entries: &Entries, since: &mut Vec<Since>) {
        let values = entries.values.chunks_exact(self.value_len.max(1));
        for (key, now) in entries.keys.chunks_exact(self.key_size.max(1)).zip(values) {
            match self.find(key) {
                Ok(at) if self.seen[at] == 0 => {
                    self.put(at, now);
                    since.push(Since::New { key: key.to_vec(), now: now.to_vec() });
                }
                Ok(at) if self.value(at) == now => self.seen[at] = self.pass,
                Ok(at) => {
                    let before = self.value(at).to_vec();
                    self.put(at, now);
                    since.push(Since::Changed { key: key.to_vec(), before, now: now.to_vec() });
                }
                Err(slot) => {
                    self.add(slot, key, now);
                    since.push(Since::New { key: key.to_vec(), now: now.to_vec() });
                }
            }
        }
    }

    /// Takes in what was read first.
    pub fn fill(&mut self, entries: &Entries) {
        let values = entries.values.chunks_exact(self.value_len.max(1));
        for (key, now) in entries.keys.chunks_exact(self.key_size.max(1)).zip(values) {
            match self.find(key) {
                Ok(at) => self.put(at, now),
                Err(slot) => self.add(slot, key, now),
            }
        }
    }

    /// Ends a pass: what it did not find is gone.
    pub fn end(&mut self, since: &mut Vec<Since>) {
        for at in 0..self.seen.len() {
            if self.seen[at] != 0 && self.seen[at] != self.pass {
                let (key, before) = (self.key(at).to_vec(), self.value(at).to_vec());
                self.seen[at] = 0;
                since.push(Since::Gone { key, before });
            }
        }
    }

    /// Writes it to a file, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut octets = Vec::with_capacity(16 + self.keys.len() + self.values.len());
        for number in [self.key_size, self.value_len] {
            octets.extend((number as u64).to_le_bytes());
        }
        for (key, value) in self.iter() {
            octets.extend_from_slice(key);
            octets.extend_from_slice(value);
        }
        store::write(path, &octets)
    }

    /// What was saved at `path`, put into `empty`; none when nothing was, or something else.
    pub(crate) fn load(path: &Path, mut empty: Self) -> Result<Option<Self>> {
        let octets = match fs::read(path) {
            Ok(octets) => octets,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", path)(e)),
        };
        let sizes = [empty.key_size, empty.value_len].map(|number| (number as u64).to_le_bytes()).concat();
        let Some(entries) = octets.strip_prefix(&sizes[..]) else { return Ok(None) };
        for entry in entries.chunks_exact((empty.key_size + empty.value_len).max(1)) {
            let (key, value) = entry.split_at(empty.key_size);
            empty.fill(&Entries { keys: key.to_vec(), values: value.to_vec() });
        }
        Ok(Some(empty))
    }

    fn key(&self, at: usize) -> &[u8] {
        &self.keys[at * self.key_size..(at + 1) * self.key_size]
    }

    fn value(&self, at: usize) -> &[u8] {
        &self.values[at * self.value_len..(at + 1) * self.value_len]
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.values[at * self.value_len..(at + 1) * self.value_len].copy_from_slice(value);
        self.seen[at] = self.pass;
    }

    /// The entry with `key`, or the place of the table where it belongs.
    fn find(&self, key: &[u8]) -> std::result::Result<usize, usize> {
        let mask = self.table.len() - 1;
        let mut slot = self.hasher.hash_one(key) as usize & mask;
        loop {
            match self.table[slot] {
                FREE => return Err(slot),
                at if self.key(at as usize) == key => return Ok(at as usize),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn add(&mut self, slot: usize, key: &[u8], value: &[u8]) {
        self.table[slot] = self.seen.len() as u32;
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
        self.seen.push(self.pass);
        if self.seen.len() * 2 > self.table.len() {
            self.table = vec![FREE; self.table.len() * 4];
            for at in 0..self.seen.len() {
                if let Err(slot) = self.find(self.key(at)) {
                    self.table[slot] = at as u32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(u32, u8)]) -> Entries {
        Entries {
            keys: list.iter().flat_map(|(key, _)| key.to_le_bytes()).collect(),
            values: list.iter().map(|(_, value)| *value).collect(),
        }
    }

    #[test]
    fn what_came_changed_and_went_is_told_once() {
        let mut snapshot = Snapshot::new(4, 1);
        let all: Vec<(u32, u8)> = (0..1000).map(|key| (key * 7, key as u8)).collect();
        snapshot.fill(&entries(&all));
        assert_eq!(snapshot.len(), 1000);
        let key = |key: u32| key.to_le_bytes().to_vec();
        let mut pass = |list: &[(u32, u8)]| {
            let mut since = Vec::new();
            snapshot.begin();
            // In two reads, the second of which has some of the first again.
            snapshot.update(&entries(&list[..list.len() / 2]), &mut since);
            snapshot.update(&entries(&list[list.len() / 4..]), &mut since);
            snapshot.end(&mut since);
            since
        };
        assert_eq!(pass(&all), []);
        let mut other = all.clone();
        other[3].1 = 99;
        let gone = other.remove(500);
        other.push((1, 5));
        assert_eq!(
            pass(&other),
            [
                Since::Changed { key: key(21), before: vec![3], now: vec![99] },
                Since::New { key: key(1), now: vec![5] },
                Since::Gone { key: key(gone.0), before: vec![gone.1] },
            ]
        );
        assert_eq!(pass(&other), []);
        // One that comes back is new.
        other.push(gone);
        assert_eq!(pass(&other), [Since::New { key: key(gone.0), now: vec![gone.1] }]);

        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("7");
        snapshot.save(&path).expect("written");
        let load = |path: &Path, len| Snapshot::load(path, Snapshot::new(4, len)).expect("readable");
        let loaded = load(&path, 1).expect("saved");
        assert!(loaded.iter().eq(snapshot.iter()) && loaded.len() == 1001);
        assert!(load(&path, 2).is_none(), "it is another map's");
        assert!(load(&directory.path().join("8"), 1).is_none());
    }
}
