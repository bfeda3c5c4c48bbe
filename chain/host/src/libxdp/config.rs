//! What libxdp's dispatcher is told: the programs that it calls, and after which verdicts it goes on to the next.
//!
//! It stands in the dispatcher's read-only data, where libxdp reads it again, in the layout of version 2 of its protocol.

use std::collections::BTreeMap;

use xdpchain_compose::libxdp::SLOTS;
use xdpchain_spec::VerdictSet;

/// First octet of every configuration since version 2.
const MAGIC: u8 = 236;
/// The version of the protocol.
pub(crate) const VERSION: u8 = 2;
/// Octets of a configuration: four of one octet, then three arrays of [`SLOTS`] numbers.
pub(crate) const SIZE: usize = 4 + 3 * SLOTS * 4;
/// Bit after which the dispatcher always goes on: what it takes a function that nobody replaced to have returned.
const UNREPLACED: u32 = 1 << 31;
/// `BPF_F_XDP_HAS_FRAGS`.
const HAS_FRAGS: u32 = 1 << 5;

/// What the dispatcher is told of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Run priority: lower runs first.
    pub(crate) priority: u32,
    /// Bit n is set when the next program runs after verdict n.
    pub(crate) calls: u32,
    /// Made for packets in several buffers.
    pub(crate) frags: bool,
}

impl Entry {
    /// The verdicts after which the next program runs.
    pub(crate) fn verdicts(self) -> VerdictSet {
        VerdictSet::from_bits(self.calls)
    }
}

/// The programs in the order in which they run, at most [`SLOTS`].
pub(crate) fn to_bytes(entries: &[Entry], frags: bool) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..4].copy_from_slice(&[MAGIC, VERSION, entries.len() as u8, u8::from(frags)]);
    let mut put = |array: usize, index: usize, value: u32| {
        let at = 4 + (array * SLOTS + index) * 4;
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    };
    for (index, entry) in entries.iter().enumerate() {
        put(0, index, entry.calls | UNREPLACED);
        put(1, index, entry.priority);
        put(2, index, if entry.frags { HAS_FRAGS } else { 0 });
    }
    bytes
}

/// The programs of a configuration; none when `bytes` is none of this version.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (MAGIC, VERSION, count) = (*bytes.first()?, *bytes.get(1)?, usize::from(*bytes.get(2)?)) else {
        return None;
    };
    if bytes.len() != SIZE || count > SLOTS {
        return None;
    }
    let number = |array: usize, index: usize| {
        let at = 4 + (array * SLOTS + index) * 4;
        bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes)
    };
    let entry = |index| Entry {
        calls: number(0, index) & !UNREPLACED,
        priority: number(1, index),
        frags: number(2, index) & HAS_FRAGS != 0,
    };
    Some((0..count).map(entry).collect())
}

/// Priority that programs have whose author and operator said nothing.
const DEFAULT_PRIORITY: u32 = 50;
/// Where a chain's priorities start when nobody is in the way: behind xdp-filter's, and apart from round numbers.
const FIRST: u32 = 11;
/// The distance of a chain's priorities, so that others can get between on purpose.
const STEP: u32 = 10;

/// Run priorities for `slots`, ascending, none of them one of `others`.
///
/// Slots that had a priority keep it while their order is the same. A new chain stands together: all of it before the
/// programs of others, or after them, as the numbers allow, and before those of the default priority when it can.
pub(crate) fn priorities(slots: &[&str], had: &BTreeMap<String, u32>, others: &[u32]) -> Vec<u32> {
    let kept: Vec<Option<u32>> = slots.iter().map(|slot| had.get(*slot).copied()).collect();
    kept_between(&kept, others).unwrap_or_else(|| together(slots.len(), others))
}

/// Keeps what is given, in ascending order, and finds numbers for the rest between; none when there is no room.
fn kept_between(kept: &[Option<u32>], others: &[u32]) -> Option<Vec<u32>> {
    if kept.iter().all(Option::is_none) {
        return None;
    }
    let mut found: Vec<u32> = Vec::with_capacity(kept.len());
    let mut at = 0;
    while at < kept.len() {
        if let Some(priority) = kept[at] {
            if others.contains(&priority) || found.last().is_some_and(|last| *last >= priority) {
                return None;
            }
            found.push(priority);
            at += 1;
            continue;
        }
        let run = kept[at..].iter().take_while(|priority| priority.is_none()).count();
        let low = found.last().map_or(0, |last| last.saturating_add(1));
        let high = match kept.get(at + run).copied().flatten() {
            Some(next) => next,
            None => next_other(low, others).unwrap_or(low.saturating_add(STEP * (run as u32 + 1))),
        };
        // The nearest neighbour of one's own is the one that the new slots belong to.
        let low = if found.is_empty() {
            others.iter().map(|p| p.saturating_add(1)).filter(|p| *p <= high).max().unwrap_or(low)
        } else {
            low
        };
        found.extend(spread(run, low, high, others)?);
        at += run;
    }
    Some(found)
}

/// `count` numbers from `low` up to but not `high`, evenly, none of them one of `others`.
fn spread(count: usize, low: u32, high: u32, others: &[u32]) -> Option<Vec<u32>> {
    let free = |priority: &u32| !others.contains(priority);
    let step = high.checked_sub(low)? / (count as u32 + 1);
    let even: Vec<u32> = (1..=count as u32).map(|i| low + i * step).filter(free).collect();
    if step > 0 && even.len() == count {
        return Some(even);
    }
    let dense: Vec<u32> = (low..high).filter(free).take(count).collect();
    (dense.len() == count).then_some(dense)
}

fn next_other(low: u32, others: &[u32]) -> Option<u32> {
    others.iter().copied().filter(|priority| *priority >= low).min()
}

/// `count` numbers with none of `others` between.
fn together(count: usize, others: &[u32]) -> Vec<u32> {
    let count = count as u32;
    let mut first = FIRST;
    loop {
        let bound = next_other(first, others);
        let room = bound.unwrap_or(DEFAULT_PRIORITY.max(first.saturating_add(STEP))).saturating_sub(first);
        if bound.is_none() || room >= count {
            let step = (room / count.max(1)).clamp(1, STEP);
            return (0..count).map(|i| first.saturating_add(i * step)).collect();
        }
        first = bound.map_or(first, |bound| bound.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_as_it_was_written() {
        let entries = [
            Entry { priority: 10, calls: 0b100, frags: true },
            Entry { priority: 50, calls: 0b11111, frags: false },
        ];
        let bytes = to_bytes(&entries, false);
        assert_eq!(bytes[..4], [236, 2, 2, 0]);
        assert_eq!(bytes[4..8], 0x8000_0004u32.to_ne_bytes());
        assert_eq!(from_bytes(&bytes).as_deref(), Some(&entries[..]));
        assert_eq!(entries[1].verdicts().iter().count(), 5);
    }

    #[test]
    fn another_version_is_not_read() {
        let bytes = to_bytes(&[], false);
        assert_eq!(from_bytes(&bytes).as_deref(), Some(&[][..]));
        assert_eq!(from_bytes(&bytes[..84]), None, "the first version's size");
        assert_eq!(from_bytes(&[]), None);
        for (at, octet) in [(0, 0), (1, 1), (1, 3), (2, 11)] {
            let mut other = bytes;
            other[at] = octet;
            assert_eq!(from_bytes(&other), None, "octet {at}");
        }
    }

    fn plan(slots: &[&str], had: &[(&str, u32)], others: &[u32]) -> Vec<u32> {
        let had = had.iter().map(|(slot, priority)| ((*slot).to_owned(), *priority)).collect();
        let found = priorities(slots, &had, others);
        assert_eq!(found.len(), slots.len());
        assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
        assert!(found.iter().all(|priority| !others.contains(priority)), "{found:?}");
        found
    }

    #[test]
    fn a_new_chain_stands_together_and_before_the_default_priority() {
        assert_eq!(plan(&["a", "b", "c"], &[], &[]), [11, 21, 31]);
        assert_eq!(plan(&["a", "b", "c"], &[], &[50]), [11, 21, 31]);
        let ten = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        assert_eq!(plan(&ten, &[], &[]), [11, 14, 17, 20, 23, 26, 29, 32, 35, 38]);
        assert_eq!(plan(&["a", "b", "c"], &[], &[5, 25]), [11, 15, 19]);
        assert_eq!(plan(&["a", "b", "c"], &[], &[10, 12, 50]), [13, 23, 33]);
        assert_eq!(plan(&["a", "b"], &[], &[10, 11, 12]), [13, 23]);
        assert_eq!(plan(&["a", "b"], &[], &[10, 50, 51]), [11, 21]);
        assert_eq!(plan(&["a"], &[], &[u32::MAX]), [11]);
    }

    #[test]
    fn slots_that_stay_keep_their_priority() {
        let had = [("a", 10), ("b", 20), ("c", 30)];
        assert_eq!(plan(&["a", "b", "c"], &had, &[15]), [10, 20, 30]);
        assert_eq!(plan(&["a", "c"], &had, &[]), [10, 30]);
        assert_eq!(plan(&["a", "x", "b", "c"], &had, &[]), [10, 15, 20, 30]);
        assert_eq!(plan(&["a", "x", "y", "b"], &had, &[15]), [10, 14, 17, 20]);
        assert_eq!(plan(&["x", "a"], &had, &[]), [5, 10]);
        assert_eq!(plan(&["x", "a"], &had, &[3]), [7, 10]);
        assert_eq!(plan(&["a", "b", "c", "x"], &had, &[50]), [10, 20, 30, 40]);
        assert_eq!(plan(&["a", "b", "c", "x"], &had, &[]), [10, 20, 30, 41]);
        // What cannot stay is laid out anew.
        assert_eq!(plan(&["b", "a"], &had, &[]), [11, 21]);
        assert_eq!(plan(&["a", "b"], &had, &[20]), [11, 15]);
    }
}
