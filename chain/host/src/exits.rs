//! The exit counters: a row for each slot, in which packets are counted where their chain ended.
//!
//! What came to a slot is what ended in it or after it, so it can be told only of packets that went through one and the
//! same order of slots. Each order of slots therefore counts in rows of its own, and what the rows before it held at last
//! is carried on in the manifest: [`carry`]. Rows are clear before any program counts in them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use xdpchain_compose::{EXIT_COLUMNS, EXIT_MAP, EXIT_ROWS, EXIT_UNKNOWN, Image, MAX_SLOTS, MapOwner};
use xdpchain_spec::{Place, SlotSpec, Verdict};

use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::manifest::{ChainState, Manifest};
use crate::maps::Map;

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Octets of their frames as they were when the chain ended.
    pub bytes: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

/// What came to one slot, and what ended in it, since the slot was added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotExits {
    /// The slot.
    pub slot: String,
    /// Packets that came to its place in the chain. For a slot at exit, all packets.
    pub reached: u64,
    /// By [`Verdict`]'s number.
    pub verdicts: [Count; Verdict::ALL.len()],
    /// Return values that were no verdict, whatever became of the packet.
    pub unknown: Count,
}

impl SlotExits {
    /// Everything that ended here.
    pub fn total(&self) -> Count {
        self.verdicts.iter().fold(Count::default(), |mut sum, count| {
            sum += *count;
            sum
        })
    }

    fn add(&mut self, more: &Self) {
        self.reached += more.reached;
        self.unknown += more.unknown;
        for (sum, more) in self.verdicts.iter_mut().zip(&more.verdicts) {
            *sum += *more;
        }
    }
}

/// What became of the packets of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// Slot by slot, in the order of the chain's.
    pub slots: Vec<SlotExits>,
    /// Everything since the chain was attached, also what ended in slots that are gone.
    pub total: Count,
}

/// Counts of orders of slots that do not run any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Of the slots that are still there, by name.
    pub slots: BTreeMap<String, SlotExits>,
    /// Of all slots that there ever were.
    pub total: Count,
}

/// Refuses a chain with more slots than there are rows, of which one half is the generation's before.
pub(crate) fn check_rows(ifname: &str, image: &Image, state: &ChainState) -> Result<()> {
    let counted = image.maps.iter().any(is_counters);
    if counted && state.rows.values().any(|row| *row >= EXIT_ROWS) {
        return Err(Error::Rows { ifname: ifname.to_owned(), slots: state.rows.len(), rows: MAX_SLOTS });
    }
    Ok(())
}

fn is_counters(map: &xdpchain_compose::MapUse) -> bool {
    map.owner == MapOwner::Chain && map.def.name == EXIT_MAP
}

/// Clears the rows of `state`, unless the map is new and so clear.
pub(crate) fn clear_rows(image: &Image, loaded: &Loaded, state: &ChainState) -> Result<()> {
    let found = image.maps.iter().zip(&loaded.maps).find(|(map, _)| is_counters(map));
    let Some((_, counters)) = found.filter(|(_, map)| !map.created) else { return Ok(()) };
    let map = Map::from_fd(clone(&counters.fd)?, EXIT_MAP)?;
    let zero = vec![0; map.value_len()];
    for row in state.rows.values() {
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

/// What became of the packets of the chain that `manifest` is about; `map` are its counters.
pub(crate) fn read(map: &Map, manifest: &Manifest) -> Result<Exits> {
    let live = live(map, &manifest.state)?;
    Ok(with_carried(live, &manifest.carried))
}

/// What `after` has to carry on of the generation before it, in whose rows nobody counts any more.
pub(crate) fn carry(map: &Map, before: &Manifest, after: &ChainState) -> Result<Carried> {
    Ok(carried(read(map, before)?, after))
}

/// Adds what was counted before to what is counted now.
fn with_carried(mut live: Vec<SlotExits>, carried: &Carried) -> Exits {
    let mut total = carried.total;
    for exits in &mut live {
        total += exits.total();
        if let Some(before) = carried.slots.get(&exits.slot) {
            exits.add(before);
        }
    }
    Exits { slots: live, total }
}

fn carried(before: Exits, after: &ChainState) -> Carried {
    let stays = |exits: &SlotExits| after.chain.slot(&exits.slot).is_some();
    let slots = before.slots.into_iter().filter(stays).map(|exits| (exits.slot.clone(), exits)).collect();
    Carried { slots, total: before.total }
}

/// What was counted in the rows of `state`, all CPUs together.
fn live(map: &Map, state: &ChainState) -> Result<Vec<SlotExits>> {
    let mut found = Vec::new();
    for slot in &state.chain.slots {
        let mut exits = SlotExits { slot: slot.name.clone(), ..SlotExits::default() };
        if let Some(row) = state.rows.get(&slot.name) {
            for verdict in Verdict::ALL {
                exits.verdicts[verdict as usize] = count(map, *row, verdict as u32)?;
            }
            exits.unknown = count(map, *row, EXIT_UNKNOWN)?;
        }
        found.push(exits);
    }
    reach(&state.chain.slots, &mut found);
    Ok(found)
}

/// A packet that ended in a slot has been seen by the slots in order before it, and by every slot at exit.
fn reach(slots: &[SlotSpec], exits: &mut [SlotExits]) {
    let total: u64 = exits.iter().map(|exits| exits.total().packets).sum();
    let mut left = total;
    for (slot, exits) in slots.iter().zip(exits) {
        match slot.at {
            Place::Exit => exits.reached = total,
            Place::Order => {
                exits.reached = left;
                left -= exits.total().packets;
            }
        }
    }
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
        total += Count { packets: word(0), bytes: word(8) };
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::state;

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

    fn exits(slot: &str, packets: u64, verdict: Verdict) -> SlotExits {
        let mut exits = SlotExits { slot: slot.into(), ..SlotExits::default() };
        exits.verdicts[verdict as usize] = Count { packets, bytes: packets * 64 };
        exits
    }

    #[test]
    fn what_came_to_a_slot_is_what_ended_in_it_or_later() {
        let slots = [
            SlotSpec { observer: true, at: Place::Exit, ..SlotSpec::new("stats") },
            SlotSpec::new("decap"),
            SlotSpec::new("acl"),
            SlotSpec::new("encap"),
        ];
        let mut found = [
            exits("stats", 0, Verdict::Pass),
            exits("decap", 5, Verdict::Drop),
            exits("acl", 20, Verdict::Drop),
            exits("encap", 75, Verdict::Tx),
        ];
        reach(&slots, &mut found);
        assert_eq!(found.map(|exits| exits.reached), [100, 100, 95, 75]);
    }

    /// Packets through chains whose slots come, go and change places, each slot's own count beside what is told of it.
    #[test]
    fn what_is_told_of_a_slot_is_what_it_saw_whatever_came_and_went() {
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..200 {
            let mut seen: BTreeMap<String, u64> = BTreeMap::new();
            let mut all = 0;
            let mut before = Carried::default();
            for _ in 0..10 {
                let mut names: Vec<&str> =
                    ["a", "b", "c", "d", "e"].into_iter().filter(|_| random(3) > 0).collect();
                if names.is_empty() {
                    names.push("a");
                }
                let first = random(names.len() as u64) as usize;
                names.rotate_left(first);
                let mut state = state(&names);
                for slot in &mut state.chain.slots {
                    if slot.name == "e" && names.len() > 1 {
                        (slot.at, slot.observer) = (Place::Exit, true);
                    }
                }
                // A slot that went away and came back is a new one.
                before.slots.retain(|name, _| names.contains(&name.as_str()));
                seen.retain(|name, _| names.contains(&name.as_str()));
                let in_order: Vec<usize> =
                    (0..names.len()).filter(|i| state.chain.slots[*i].at == Place::Order).collect();
                let mut live: Vec<SlotExits> =
                    names.iter().map(|name| exits(name, 0, Verdict::Pass)).collect();
                for _ in 0..random(50) {
                    let end = random(in_order.len() as u64) as usize;
                    live[in_order[end]].verdicts[random(5) as usize] += Count { packets: 1, bytes: 60 };
                    all += 1;
                    for (i, slot) in state.chain.slots.iter().enumerate() {
                        if slot.at == Place::Exit || i <= in_order[end] {
                            *seen.entry(slot.name.clone()).or_default() += 1;
                        }
                    }
                }
                reach(&state.chain.slots, &mut live);
                let told = with_carried(live, &before);
                assert_eq!(told.total.packets, all);
                for exits in &told.slots {
                    assert_eq!(exits.reached, seen.get(&exits.slot).copied().unwrap_or(0), "{}", exits.slot);
                }
                before = carried(told, &state);
            }
        }
    }
}
