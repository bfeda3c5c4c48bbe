//! Which row each entry of the maps comes from.
//!
//! A record is a row's key and the keys of its entries, one behind the other. Records lie in one piece of memory and are found by
//! both kinds of key, exactly: a million of them with two maps take about 100 MB.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::RowKey;

/// Which row each entry of the maps comes from.
#[derive(Debug)]
pub(crate) struct Index {
    /// Where the key of each map's entry begins in a record, and behind the last where it ends.
    offsets: Vec<usize>,
    rows: Vec<RowKey>,
    keys: Vec<u8>,
    /// Places of records that are gone.
    free: Vec<u32>,
    by_row: HashTable<u32>,
    by_key: Vec<HashTable<u32>>,
    hasher: DefaultHashBuilder,
}

impl Index {
    /// An empty index for maps with keys of these sizes.
    pub(crate) fn new(key_sizes: &[usize]) -> Self {
        let mut offsets = vec![0];
        for size in key_sizes {
            offsets.push(offsets[offsets.len() - 1] + size);
        }
        Self {
            offsets,
            rows: Vec::new(),
            keys: Vec::new(),
            free: Vec::new(),
            by_row: HashTable::new(),
            by_key: key_sizes.iter().map(|_| HashTable::new()).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Rows that have entries.
    pub(crate) fn len(&self) -> usize {
        self.by_row.len()
    }

    fn stride(&self) -> usize {
        self.offsets[self.offsets.len() - 1]
    }

    fn key_at(keys: &[u8], offsets: &[usize], record: u32, map: usize) -> usize {
        debug_assert!(keys.len() >= offsets[offsets.len() - 1]);
        record as usize * offsets[offsets.len() - 1] + offsets[map]
    }

    /// The key of the row's entry in a map.
    fn key(&self, record: u32, map: usize) -> &[u8] {
        let at = Self::key_at(&self.keys, &self.offsets, record, map);
        &self.keys[at..at + self.offsets[map + 1] - self.offsets[map]]
    }

    /// The row whose entry in a map has this key.
    pub(crate) fn owner(&self, map: usize, key: &[u8]) -> Option<&RowKey> {
        let hash = self.hasher.hash_one(key);
        let record = self.by_key[map].find(hash, |record| self.key(*record, map) == key)?;
        Some(&self.rows[*record as usize])
    }

    /// Whether the row has entries.
    pub(crate) fn has(&self, row: &RowKey) -> bool {
        self.by_row.find(self.hasher.hash_one(row), |record| self.rows[*record as usize] == *row).is_some()
    }

    /// Whether the row's entries have these keys.
    pub(crate) fn has_keys(&self, row: &RowKey, keys: &[&[u8]]) -> bool {
        let hash = self.hasher.hash_one(row);
        let record = self.by_row.find(hash, |record| self.rows[*record as usize] == *row);
        record.is_some_and(|record| keys.iter().enumerate().all(|(map, key)| self.key(*record, map) == *key))
    }

    /// Adds a row that is not there; `keys` has the key of each map's entry, which no other row has.
    pub(crate) fn insert(&mut self, row: RowKey, keys: &[&[u8]]) {
        let record = match self.free.pop() {
            Some(record) => record,
            None => {
                self.rows.push(RowKey::Null);
                self.keys.resize(self.keys.len() + self.stride(), 0);
                (self.rows.len() - 1) as u32
            }
        };
        for (map, key) in keys.iter().enumerate() {
            let at = Self::key_at(&self.keys, &self.offsets, record, map);
            self.keys[at..at + key.len()].copy_from_slice(key);
        }
        let hash = self.hasher.hash_one(&row);
        self.rows[record as usize] = row;
        let Self { offsets, rows, keys: all, by_row, by_key, hasher, .. } = self;
        by_row.insert_unique(hash, record, |other| hasher.hash_one(&rows[*other as usize]));
        for (map, table) in by_key.iter_mut().enumerate() {
            table.insert_unique(hasher.hash_one(keys[map]), record, |other| {
                let at = Self::key_at(all, offsets, *other, map);
                hasher.hash_one(&all[at..at + offsets[map + 1] - offsets[map]])
            });
        }
    }

    /// Takes a row out and gives `gone` the keys of its entries; whether it was there.
    pub(crate) fn remove(&mut self, row: &RowKey, mut gone: impl FnMut(usize, &[u8])) -> bool {
        let hash = self.hasher.hash_one(row);
        let rows = &self.rows;
        let Ok(found) = self.by_row.find_entry(hash, |record| rows[*record as usize] == *row) else {
            return false;
        };
        let (record, _) = found.remove();
        for map in 0..self.by_key.len() {
            let hash = self.hasher.hash_one(self.key(record, map));
            if let Ok(found) = self.by_key[map].find_entry(hash, |other| *other == record) {
                found.remove();
            }
            gone(map, self.key(record, map));
        }
        self.rows[record as usize] = RowKey::Null;
        self.free.push(record);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_two_tables_would(steps in prop::collection::vec((0..20_i64, 0..40_u16, any::<bool>()), 0..200)) {
            let mut index = Index::new(&[2, 3]);
            let mut rows: HashMap<i64, u16> = HashMap::new();
            for (row, number, add) in steps {
                let key = RowKey::Integer(row);
                if add && !rows.contains_key(&row) && !rows.values().any(|other| *other == number) {
                    let [a, b] = number.to_be_bytes();
                    index.insert(key.clone(), &[&[a, b], &[7, b, a]]);
                    rows.insert(row, number);
                } else {
                    let mut gone = Vec::new();
                    let there = index.remove(&key, |map, octets| gone.push((map, octets.to_vec())));
                    prop_assert_eq!(there, rows.contains_key(&row));
                    if let Some(number) = rows.remove(&row) {
                        let [a, b] = number.to_be_bytes();
                        prop_assert_eq!(gone, vec![(0, vec![a, b]), (1, vec![7, b, a])]);
                    }
                }
                prop_assert_eq!(index.len(), rows.len());
                for number in 0..40_u16 {
                    let owner = rows.iter().find(|(_, other)| **other == number).map(|(row, _)| RowKey::Integer(*row));
                    let [a, b] = number.to_be_bytes();
                    prop_assert_eq!(index.owner(0, &[a, b]), owner.as_ref());
                    prop_assert_eq!(index.owner(1, &[7, b, a]), owner.as_ref());
                }
            }
        }
    }
}
