//! The entries of one map on their way into another.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;

use aya_obj::generated::bpf_map_type;
use xdpchain_state::{MapConverter, Merge, Misfit};

use super::merger::{Inserted, Merger, changes};
use super::snapshot::{Since, Snapshot};
use crate::cpus;
use crate::error::{Error, Result};
use crate::maps::{Entries, Map};
use crate::sys;

/// A map, the one that is to take its place, and how entries of the one become entries of the other.
pub(crate) struct Moving {
    /// `MODULE/MAP`.
    pub(crate) name: String,
    pub(crate) old: Map,
    pub(crate) new: Map,
    pub(crate) converter: MapConverter,
    /// Whether they do at all, or the new map begins empty.
    pub(crate) carries: bool,
}

/// What is to be changed of which entry, for each CPU.
type ByCpu = BTreeMap<usize, Vec<(Vec<u8>, Vec<Merge>)>>;

/// An entry in the new layout; what is not there is zeros.
struct Converted {
    key: Vec<u8>,
    before: Vec<u8>,
    now: Vec<u8>,
}

/// What the last pass did.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// Entries that were new, changed or gone.
    pub(crate) since: usize,
    /// Entries for which the new map had no room.
    pub(crate) lost: usize,
}

/// Entries that do not fit, the first of them in words.
#[derive(Default)]
struct Misfits {
    first: Option<(Vec<u8>, Box<Misfit>)>,
    count: usize,
}

impl Misfits {
    fn add(&mut self, key: &[u8], misfit: Box<Misfit>) {
        self.first.get_or_insert_with(|| (key.to_vec(), misfit));
        self.count += 1;
    }
}

impl Moving {
    /// A snapshot of the old map with nothing in it yet.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.old.info().key_size as usize, self.old.value_len())
    }

    /// Puts everything into the new map, which is empty and which nobody uses.
    pub(crate) fn fill(&self, snapshot: &mut Snapshot) -> Result<()> {
        for batch in self.entries() {
            snapshot.fill(&batch?);
        }
        let (entries, room) = (snapshot.len(), self.new.info().max_entries);
        if !self.new.is_array() && entries > room as usize {
            return Err(Error::MigrateFull { map: self.name.clone(), entries, room });
        }
        let mut keys = HashSet::new();
        let mut batch = Entries::default();
        let mut misfits = Misfits::default();
        for (key, value) in snapshot.iter() {
            if self.is_cut_off(key) {
                if value.iter().any(|octet| *octet != 0) {
                    return Err(self.out_of_range(snapshot));
                }
                continue;
            }
            match self.convert(key, value, &mut batch) {
                Ok(()) => {}
                Err(misfit) => misfits.add(key, misfit),
            }
            if self.converter.merges_keys() {
                let key = batch.keys[batch.keys.len().saturating_sub(self.converter.key_size())..].to_vec();
                if misfits.count == 0 && !keys.insert(key) {
                    let reason = "entries become one, because their keys lose the fields that tell them apart\n\
                                  help: keep those fields, or remove entries until the keys differ without them";
                    return Err(Error::Migrate { map: self.name.clone(), reason: reason.to_owned() });
                }
            }
        }
        self.refuse(misfits)?;
        self.new.update_all(&batch)
    }

    /// Brings the new map, which nobody uses yet, up to what the old one has now; whether anything had changed.
    pub(crate) fn follow(&self, snapshot: &mut Snapshot) -> Result<bool> {
        let mut batch = Entries::default();
        let mut misfits = Misfits::default();
        let mut gone = Vec::new();
        let all = self.read(snapshot)?;
        let changed = !all.is_empty();
        for since in all {
            match since {
                Since::New { key, now } | Since::Changed { key, now, .. } => {
                    if self.is_cut_off(&key) {
                        return Err(self.out_of_range(snapshot));
                    }
                    if let Err(misfit) = self.convert(&key, &now, &mut batch) {
                        misfits.add(&key, misfit);
                    }
                }
                Since::Gone { key, .. } => gone.extend(self.key(&key)?),
            }
        }
        self.refuse(misfits)?;
        self.new.delete_all(&gone)?;
        match self.new.update_all(&batch) {
            Err(Error::Map { source, .. }) if source.raw_os_error() == Some(libc::E2BIG) => {
                let (entries, room) = (snapshot.len(), self.new.info().max_entries);
                Err(Error::MigrateFull { map: self.name.clone(), entries, room })
            }
            other => other.map(|()| changed),
        }
    }

    /// Puts on top of the new map, which programs use, what was written to the old one since, which none does any more.
    ///
    /// What there is to do follows from the old map and the snapshot, neither of which changes any more, in an order that is
    /// always the same; so `progress`, the number of the last change, lets a command go on where another was killed. Without
    /// a snapshot only entries that the new map lacks are put there, since nobody knows what of the others is there already.
    pub(crate) fn merge(&self, snapshot: Option<Snapshot>, progress: &OwnedFd) -> Result<Merged> {
        let known = snapshot.is_some();
        let mut all = self.read(&mut snapshot.unwrap_or_else(|| self.snapshot()))?;
        all.sort_by(|a, b| a.key().cmp(b.key()));
        let mut merged = Merged { since: all.len(), lost: 0 };
        // What the values become is known before anything is changed.
        let mut todo = Vec::with_capacity(all.len());
        let mut misfits = Misfits::default();
        for since in all {
            match self.converted(&since) {
                Ok(done) => todo.push((since, done)),
                Err(misfit) => misfits.add(since.key(), misfit),
            }
        }
        self.refuse(misfits)?;
        let failed = |e| Error::Map { action: "merge entries of", name: self.name.clone(), source: e };
        let merger = Merger::new(&self.new, progress).map_err(failed)?;
        let trie = self.new.info().map_type == bpf_map_type::BPF_MAP_TYPE_LPM_TRIE as u32;
        // Such a map finds shorter prefixes too, and older kernels put an entry over another whatever is asked for.
        let exact: Option<HashSet<Vec<u8>>> = trie.then(|| self.keys_of_new()).transpose()?;
        let per_cpu = self.new.per_cpu().is_some();
        let mut number = 0;
        let mut by_cpu: ByCpu = BTreeMap::new();
        for (since, Converted { key, before, now }) in todo {
            let there = exact.as_ref().is_none_or(|keys| keys.contains(&key));
            let new = matches!(since, Since::New { .. });
            if matches!(since, Since::Gone { .. }) {
                // An entry that the new program has written since is its own.
                if there && self.new.lookup(&key)?.is_some_and(|value| value == before) {
                    self.new.delete(&key)?;
                }
                continue;
            }
            if per_cpu {
                // Every CPU's value is added to what is there, if only zeros.
                let inserted = if new { self.new.insert_raw(&key, &before) } else { Ok(false) };
                let full = inserted.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::E2BIG));
                merged.lost += usize::from(full);
                // What there is no room for is counted too, and finds nothing to change.
                if full || inserted.map_err(failed)? || known {
                    self.plan(&key, &before, &now, &mut by_cpu);
                }
                continue;
            }
            let merges = self.converter.merges(&before, &now);
            let first = number + 1;
            number += u64::from(new) + merges.iter().map(changes).sum::<u64>();
            let first = match new {
                false => first,
                true if there && trie => first + 1,
                true => match merger.insert(&key, &now, (first, number)).map_err(failed)? {
                    Inserted::Exists => first + 1,
                    done => {
                        merged.lost += usize::from(done == Inserted::Full);
                        continue;
                    }
                },
            };
            if known && there {
                merger.apply(&key, None, &merges, first).map_err(failed)?;
            }
        }
        for (cpu, list) in by_cpu {
            let run = || {
                list.iter().try_for_each(|(key, merges)| {
                    let first = number + 1;
                    number += merges.iter().map(changes).sum::<u64>();
                    merger.apply(key, Some(cpu), merges, first)
                })
            };
            cpus::number(cpu).and_then(|number| sys::on_cpu(number, run)).map_err(failed)?;
        }
        Ok(merged)
    }

    /// The old map's entries, as far as they are carried over.
    fn entries(&self) -> impl Iterator<Item = Result<Entries>> + '_ {
        self.carries.then(|| self.old.entries()).into_iter().flatten()
    }

    /// What is not as it was when it was read last.
    fn read(&self, snapshot: &mut Snapshot) -> Result<Vec<Since>> {
        let mut since = Vec::new();
        snapshot.begin();
        for batch in self.entries() {
            snapshot.update(&batch?, &mut since);
        }
        snapshot.end(&mut since);
        Ok(since)
    }

    /// Adds what turns `before` into `now`, for each CPU.
    fn plan(&self, key: &[u8], before: &[u8], now: &[u8], by_cpu: &mut ByCpu) {
        let values = self.converter.values(before).zip(self.converter.values(now)).enumerate();
        for (cpu, (before, now)) in values {
            let merges = self.converter.merges(before, now);
            if !merges.is_empty() {
                by_cpu.entry(cpu).or_default().push((key.to_vec(), merges));
            }
        }
    }

    /// What an entry was and is, in the new layout.
    fn converted(&self, since: &Since) -> Result<Converted, Box<Misfit>> {
        let nothing = || vec![0; self.new.value_len()];
        let value = |old: &[u8]| self.converter.value(old);
        let (before, now) = match since {
            Since::New { now, .. } => (nothing(), value(now)?),
            Since::Changed { before, now, .. } => (value(before)?, value(now)?),
            Since::Gone { before, .. } => (value(before)?, nothing()),
        };
        Ok(Converted { key: self.converter.key(since.key())?, before, now })
    }

    fn convert(&self, key: &[u8], value: &[u8], out: &mut Entries) -> Result<(), Box<Misfit>> {
        let key = self.converter.key(key)?;
        let start = out.values.len();
        if let Err(misfit) = self.converter.value_into(value, &mut out.values) {
            out.values.truncate(start);
            return Err(misfit);
        }
        out.keys.extend(key);
        Ok(())
    }

    fn key(&self, old: &[u8]) -> Result<Vec<u8>> {
        self.converter.key(old).map_err(|misfit| {
            let mut misfits = Misfits::default();
            misfits.add(old, misfit);
            self.refuse(misfits).err().unwrap_or_else(|| Error::Migrate {
                map: self.name.clone(),
                reason: "a key does not fit".to_owned(),
            })
        })
    }

    fn refuse(&self, misfits: Misfits) -> Result<()> {
        match misfits.first {
            None => Ok(()),
            Some((key, misfit)) => Err(Error::Misfit {
                map: self.name.clone(),
                key: key.iter().map(|octet| format!("{octet:02x}")).collect(),
                misfit: misfit.to_string(),
                others: misfits.count - 1,
            }),
        }
    }

    /// Whether a smaller array ends before this index.
    fn is_cut_off(&self, key: &[u8]) -> bool {
        let index = || key.try_into().map_or(0, u32::from_ne_bytes);
        self.new.is_array() && index() >= self.new.info().max_entries
    }

    fn out_of_range(&self, snapshot: &Snapshot) -> Error {
        let used = |(key, value): (&[u8], &[u8])| {
            value.iter().any(|octet| *octet != 0).then(|| key.try_into().map_or(0, u32::from_ne_bytes))
        };
        let last = snapshot.iter().filter_map(used).max().unwrap_or(0) as usize;
        Error::MigrateFull { map: self.name.clone(), entries: last + 1, room: self.new.info().max_entries }
    }

    fn keys_of_new(&self) -> Result<HashSet<Vec<u8>>> {
        let mut keys = HashSet::new();
        for batch in self.new.entries() {
            let size = self.converter.key_size().max(1);
            keys.extend(batch?.keys.chunks_exact(size).map(<[u8]>::to_vec));
        }
        Ok(keys)
    }
}
