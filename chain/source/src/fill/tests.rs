//! Random tables and changes, against maps that have room for few entries.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;
use xdpchain_host as host;

use super::*;

/// A map as the kernel's are: full is full, and whoever looks sees what is there.
#[derive(Clone, Default)]
struct Fake {
    entries: Rc<RefCell<BTreeMap<Vec<u8>, Vec<u8>>>>,
    room: usize,
    /// Keys that must not go while they are watched.
    watched: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Sink for Fake {
    fn write(&self, entries: &Entries) -> (usize, Option<Refused>) {
        let mut map = self.entries.borrow_mut();
        for (at, (key, value)) in entries.keys.chunks(1).zip(entries.values.chunks(2)).enumerate() {
            if map.len() >= self.room && !map.contains_key(key) {
                return (at, Some(Refused::Full));
            }
            map.insert(key.to_vec(), value.to_vec());
        }
        (entries.keys.len(), None)
    }

    fn remove(&self, keys: &[u8]) -> Result<(), host::Error> {
        for key in keys.chunks(1) {
            assert!(!self.watched.borrow().contains(&key.to_vec()), "an entry that stays was removed");
            self.entries.borrow_mut().remove(key);
        }
        Ok(())
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, host::Error> {
        Ok(self.entries.borrow().get(key).cloned())
    }

    fn walk(&self, each: &mut dyn FnMut(&Entries)) -> Result<(), host::Error> {
        for (keys, values) in self.entries.borrow().clone() {
            each(&Entries { keys, values });
        }
        Ok(())
    }
}

/// The keys of a row's entries and the value of both; none when it does not fit.
type Content = Option<(u8, u8, u8)>;

/// A row as it becomes; none when it goes.
type Change = (i64, Option<Content>);

/// A table: the key of each row, with the keys of its entries and the value of both; none is a row that does not fit.
type Table = BTreeMap<i64, Content>;

fn batch(table: &Table, rows: impl IntoIterator<Item = i64>) -> Batch {
    let mut batch = Batch::default();
    for row in rows {
        let state = match table.get(&row) {
            None => State::Gone,
            Some(None) => State::Misfit("bad".to_owned()),
            Some(Some((a, b, value))) => {
                let at = batch.octets.len();
                batch.octets.extend([*a, *value, *value, *b, *value, *value]);
                State::Fits(at)
            }
        };
        batch.rows.push((RowKey::Integer(row), state));
    }
    batch
}

fn filler(room: usize) -> (Filler<Fake>, [Fake; 2]) {
    let maps = [0, 1].map(|_| Fake { room, ..Fake::default() });
    let [a, b] = maps.clone();
    let filler = Filler {
        maps: vec![("a".to_owned(), a), ("b".to_owned(), b)],
        sizes: vec![(1, 2), (1, 2)],
        index: Index::new(&[1, 1]),
        rejected: Rejected::default(),
        no_room: vec![HashSet::new(); 2],
        done: vec![Done::default(); 2],
        before: vec![0; 2],
    };
    (filler, maps)
}

fn number(key: RowKey) -> i64 {
    match key {
        RowKey::Integer(number) => number,
        other => panic!("{other:?}"),
    }
}

fn settle(filler: &mut Filler<Fake>, table: &Table, mut again: Vec<RowKey>) {
    for _ in 0..64 {
        if again.is_empty() {
            return;
        }
        again = filler.change(&mut batch(table, again.into_iter().map(number))).unwrap();
    }
    panic!("rows are read again without end");
}

fn compare(filler: &mut Filler<Fake>, table: &Table) {
    filler.begin().unwrap();
    for part in table.keys().copied().collect::<Vec<_>>().chunks(3) {
        filler.compare(&mut batch(table, part.iter().copied())).unwrap();
    }
    let again = filler.finish(|_| false).unwrap();
    settle(filler, table, again);
}

/// Every entry is of a row that fits and has no other's key, and rows without one have a reason.
fn check(filler: &Filler<Fake>, maps: &[Fake; 2], table: &Table, room: usize) {
    let mut accepted = 0;
    for (row, state) in table {
        let key = RowKey::Integer(*row);
        let rejected = filler.rejected.explained().iter().any(|(other, _)| **other == key);
        assert_ne!(rejected, filler.index.has(&key), "row {row} either fits or does not");
        let Some((a, b, value)) = state else {
            assert!(rejected, "row {row} does not fit");
            continue;
        };
        if rejected {
            let taken = filler.index.owner(0, &[*a]).or(filler.index.owner(1, &[*b]));
            assert!(taken.is_some(), "row {row} is kept out by nobody");
            continue;
        }
        accepted += 1;
        for (at, key) in [a, b].into_iter().enumerate() {
            let found = maps[at].entries.borrow().get(&vec![*key]).cloned();
            let no_room = filler.no_room[at].contains(&RowKey::Integer(*row));
            assert_eq!(found, (!no_room).then(|| vec![*value; 2]), "row {row} in map {at}");
        }
    }
    for (at, map) in maps.iter().enumerate() {
        let there = map.entries.borrow().len();
        assert_eq!(there + filler.no_room[at].len(), accepted, "nothing else is in map {at}");
        assert!(filler.no_room[at].is_empty() || there == room, "there is no room left in map {at}");
    }
}

fn row() -> impl Strategy<Value = Change> {
    let entry = (0..12_u8, 0..12_u8, any::<u8>());
    (0..16_i64, prop_oneof![1 => Just(None), 1 => Just(Some(None)), 6 => entry.prop_map(|e| Some(Some(e)))])
}

fn change(table: &mut Table, changes: &[Change]) -> Vec<i64> {
    let mut rows = Vec::new();
    for (row, state) in changes {
        match state {
            None => drop(table.remove(row)),
            Some(state) => drop(table.insert(*row, *state)),
        }
        rows.push(*row);
    }
    rows.sort_unstable();
    rows.dedup();
    rows
}

proptest! {
    #[test]
    fn maps_are_what_the_table_says_whatever_came_in_which_order(
        first in prop::collection::vec(row(), 0..16),
        steps in prop::collection::vec(prop::collection::vec(row(), 1..6), 0..20),
        foreign in prop::collection::vec((any::<u8>(), any::<u8>()), 0..6),
        room in 3..20_usize,
    ) {
        let (mut filler, maps) = filler(room);
        for (key, value) in foreign.into_iter().take(room) {
            maps[0].entries.borrow_mut().insert(vec![key], vec![value; 2]);
        }
        let mut table = Table::new();
        change(&mut table, &first);
        compare(&mut filler, &table);
        check(&filler, &maps, &table, room);
        for step in steps {
            let before: Vec<Vec<u8>> = maps.iter().map(|map| map.entries.borrow().keys().flatten().copied().collect()).collect();
            let rows = change(&mut table, &step);
            // What rows that did not change have stays throughout.
            for (at, map) in maps.iter().enumerate() {
                let owned = |key: &u8| filler.index.owner(at, &[*key]).cloned();
                let stays = before[at].iter().filter(|key| owned(key).is_some_and(|row| !rows.contains(&number(row))));
                *map.watched.borrow_mut() = stays.map(|key| vec![*key]).collect();
            }
            let again = filler.change(&mut batch(&table, rows)).unwrap();
            settle(&mut filler, &table, again);
            check(&filler, &maps, &table, room);
            maps.iter().for_each(|map| map.watched.borrow_mut().clear());
        }
        compare(&mut filler, &table);
        check(&filler, &maps, &table, room);
    }
}

#[test]
fn a_first_filling_does_not_leave_a_map_emptier() {
    let (mut filler, maps) = filler(8);
    for key in 0..5 {
        maps[0].entries.borrow_mut().insert(vec![key], vec![9, 9]);
    }
    let table = Table::from([(1, Some((0, 0, 1))), (2, Some((7, 1, 1)))]);
    filler.begin().unwrap();
    filler.compare(&mut batch(&table, [1, 2])).unwrap();
    assert!(filler.finish(|map| map == "a").unwrap().is_empty());
    assert_eq!(maps[0].entries.borrow().len(), 6);
    assert_eq!(maps[0].entries.borrow()[&vec![0]], [1, 1]);
    assert_eq!(filler.maps().next().map(|(_, _, done, _)| done.kept), Some(4));
    compare(&mut filler, &table);
    assert_eq!(maps[0].entries.borrow().len(), 2);
    assert_eq!(filler.maps().next().map(|(_, _, done, _)| (done.same, done.removed)), Some((2, 4)));
}

#[test]
fn rows_that_swap_keys_in_one_commit_lose_no_entry() {
    let (mut filler, maps) = filler(2);
    let mut table = Table::from([(1, Some((0, 0, 1))), (2, Some((1, 1, 2)))]);
    compare(&mut filler, &table);
    table.insert(1, Some((1, 1, 1)));
    table.insert(2, Some((0, 0, 2)));
    *maps[0].watched.borrow_mut() = vec![vec![0], vec![1]];
    assert!(filler.change(&mut batch(&table, [1, 2])).unwrap().is_empty());
    check(&filler, &maps, &table, 2);
}
