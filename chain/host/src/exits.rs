//! The exit counters: a row for each slot, in which packets are counted where their chain ended.
//!
//! A row that is given to a new slot is cleared before any program counts in it.

use std::os::fd::OwnedFd;

use xdpchain_compose::{EXIT_COLUMNS, EXIT_MAP, EXIT_ROWS, EXIT_UNKNOWN, Image, MapOwner};
use xdpchain_spec::Verdict;

use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::manifest::ChainState;
use crate::maps::Map;

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Octets of their frames as they were when the chain ended.
    pub bytes: u64,
}

/// What ended in one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotExits {
    /// The slot.
    pub slot: String,
    /// By [`Verdict`]'s number.
    pub verdicts: [Count; Verdict::ALL.len()],
    /// Return values that were no verdict, whatever became of the packet.
    pub unknown: Count,
}

impl SlotExits {
    /// Everything that ended here.
    pub fn total(&self) -> Count {
        self.verdicts.iter().fold(Count::default(), |sum, count| Count {
            packets: sum.packets + count.packets,
            bytes: sum.bytes + count.bytes,
        })
    }
}

/// Refuses a chain with more slots than there are rows.
pub(crate) fn check_rows(ifname: &str, image: &Image, state: &ChainState) -> Result<()> {
    let counted = image.maps.iter().any(|map| map.owner == MapOwner::Chain && map.def.name == EXIT_MAP);
    if counted && state.rows.values().any(|row| *row >= EXIT_ROWS) {
        return Err(Error::Rows { ifname: ifname.to_owned(), slots: state.rows.len(), rows: EXIT_ROWS });
    }
    Ok(())
}

/// Clears the rows of the slots in `fresh`, unless the map is new and so clear.
pub(crate) fn clear_rows(image: &Image, loaded: &Loaded, state: &ChainState, fresh: &[String]) -> Result<()> {
    let found = image
        .maps
        .iter()
        .zip(&loaded.maps)
        .find(|(map, _)| map.owner == MapOwner::Chain && map.def.name == EXIT_MAP);
    let Some((_, counters)) = found.filter(|(_, map)| !map.created) else { return Ok(()) };
    let map = Map::from_fd(clone(&counters.fd)?, EXIT_MAP)?;
    let zero = vec![0; map.value_len()];
    for row in fresh.iter().filter_map(|slot| state.rows.get(slot)) {
        for column in 0..EXIT_COLUMNS {
            map.update(&key(*row, column), &zero)?;
        }
    }
    Ok(())
}

fn clone(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(Error::query("a descriptor"))
}

fn key(row: u32, column: u32) -> [u8; 4] {
    (row * EXIT_COLUMNS + column).to_ne_bytes()
}

/// What ended in each slot of a chain, in the order of its slots, all CPUs together.
pub(crate) fn read(map: &Map, state: &ChainState) -> Result<Vec<SlotExits>> {
    let mut found = Vec::new();
    for slot in &state.chain.slots {
        let Some(row) = state.rows.get(&slot.name) else { continue };
        let mut exits = SlotExits { slot: slot.name.clone(), ..SlotExits::default() };
        for verdict in Verdict::ALL {
            exits.verdicts[verdict as usize] = count(map, *row, verdict as u32)?;
        }
        exits.unknown = count(map, *row, EXIT_UNKNOWN)?;
        found.push(exits);
    }
    Ok(found)
}

fn count(map: &Map, row: u32, column: u32) -> Result<Count> {
    let value = map.lookup(&key(row, column))?.unwrap_or_default();
    Ok(sum(&value))
}

/// The sum over all CPUs of `{ u64 packets; u64 octets; }`.
fn sum(value: &[u8]) -> Count {
    let mut total = Count::default();
    for cpu in value.chunks_exact(16) {
        let word = |at: usize| cpu[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
        total.packets += word(0);
        total.bytes += word(8);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cpus_are_added_up() {
        let mut value = Vec::new();
        for number in [1u64, 60, 2, 120, 0, 0] {
            value.extend(number.to_ne_bytes());
        }
        assert_eq!(sum(&value), Count { packets: 3, bytes: 180 });
        assert_eq!(sum(&[]), Count::default());
    }

    #[test]
    fn rows_do_not_overlap() {
        assert_eq!(key(1, 0), EXIT_COLUMNS.to_ne_bytes());
        assert_eq!(key(0, EXIT_COLUMNS - 1), (EXIT_COLUMNS - 1).to_ne_bytes());
    }
}
