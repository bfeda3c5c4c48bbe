//! The maps that entries of a file go into, and how they get there.

use std::collections::HashSet;

use serde::Serialize;
use xdpchain_acl::Compiled;
use xdpchain_compose::btf::{Btf, map_type_name};
use xdpchain_host::{Entries, Host, Map, Since, Snapshot, can_become};
use xdpchain_spec::MapRef;
use xdpchain_state::{Half, SavedMap, Target};

use super::{Reader, save};
use crate::commands::compiled;
use crate::commands::map::Open;
use crate::error::{Error, Result};

/// `BPF_F_RDONLY`: user space may not write.
const READ_ONLY: u32 = 1 << 3;
/// `enum bpf_map_type` of maps that throw out the least used entry for a new one.
const EVICTING: [u32; 2] = [9, 10];

/// A map that entries go into.
pub(super) struct Into {
    pub(super) open: Open,
    pub(super) refit: xdpchain_state::Refit,
    /// What the map is compiled to, if it is.
    compiled: Option<Map>,
    /// Its rows as they are to be, while they are gathered, and what they become.
    rows: Entries,
    tables: Option<Compiled>,
    /// Keys as they are to be, where two may become one.
    keys: HashSet<Vec<u8>>,
    pub(super) report: Report,
}

/// What became of a map.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) map: String,
    /// Entries of the file.
    pub(super) entries: u64,
    pub(super) new: u64,
    pub(super) changed: u64,
    pub(super) removed: u64,
    /// Entries that a map which throws out the least used has thrown out at once.
    pub(super) evicted: u64,
    /// What becomes of the fields, in words.
    pub(super) fields: Vec<String>,
}

impl Into {
    /// The map here that `map` of a file goes into.
    pub(super) fn find(host: &Host, reader: &Reader, map: &SavedMap) -> Result<Self> {
        let here = host.module_map(&map.module, &map.map)?;
        let cannot = |problem: String| Error::CannotRestore { map: map.name(), problem };
        let (info, cpus) = (here.info().clone(), here.per_cpu());
        if !can_become(map.map_type, info.map_type) {
            let (was, is) = (map_type_name(map.map_type), map_type_name(info.map_type));
            return Err(cannot(format!("it was of type {was}, and is of type {is} here")));
        }
        if info.flags & READ_ONLY != 0 {
            return Err(cannot("its module lets nobody write to it".to_owned()));
        }
        let btf = here.btf()?.map(|bytes| Btf::parse(&bytes)).transpose();
        let btf = btf.map_err(|error| cannot(error.to_string()))?;
        let open = Open::new(map.name(), here)?;
        let half = |id: u32, size| Half { ty: btf.as_ref().filter(|_| id != 0).map(|btf| (btf, id)), size };
        let target = Target {
            map_type: info.map_type,
            key: half(info.btf_key, info.key_size),
            value: half(info.btf_value, info.value_size),
            cpus,
        };
        let refit = xdpchain_state::Refit::new(reader, map, &target, &renames(host, map)?)
            .map_err(|error| cannot(error.to_string()))?;
        let name = MapRef { module: map.module.clone(), map: map.map.clone() };
        let compiled = compiled::of(host, &name, &open)?;
        let fields = refit.changes().map(ToString::to_string).collect();
        let report = Report { map: map.name(), fields, ..Report::default() };
        let (rows, keys) = (Entries::default(), HashSet::new());
        Ok(Self { open, refit, compiled, rows, tables: None, keys, report })
    }

    /// The other descriptor of it that saving takes.
    pub(super) fn named(&self, host: &Host, map: &SavedMap) -> Result<save::Named> {
        let open = host.module_map(&map.module, &map.map)?;
        Ok(save::Named { module: map.module.clone(), name: map.map.clone(), map: open })
    }

    fn key_size(&self) -> usize {
        self.open.map.info().key_size.max(1) as usize
    }

    fn room(&self) -> u64 {
        self.open.map.info().max_entries.into()
    }

    /// Takes in entries that are to come, already in the layout here; those that an array here has no place for go when they
    /// are zeros.
    pub(super) fn check(&mut self, entries: &mut Entries) -> Result<()> {
        let key_size = self.key_size();
        self.report.entries += (entries.keys.len() / key_size) as u64;
        if self.open.map.is_array() {
            return self.cut(entries);
        }
        if self.report.entries > self.room() {
            // Counted on, for the error to say how many there are, but not for as long as a file likes.
            return match self.report.entries > 4 * self.room() + 1024 {
                true => self.checked(false),
                false => Ok(()),
            };
        }
        if self.refit.merges_keys() {
            for key in entries.keys.chunks_exact(key_size) {
                if !self.keys.insert(key.to_vec()) {
                    let problem =
                        "entries become one, because their keys lose the fields that tell them apart";
                    return Err(self.cannot(problem.to_owned()));
                }
            }
        }
        if self.compiled.is_some() {
            self.rows.keys.extend_from_slice(&entries.keys);
            self.rows.values.extend_from_slice(&entries.values);
        }
        Ok(())
    }

    /// Drops entries of an array behind its end here.
    pub(super) fn cut(&self, entries: &mut Entries) -> Result<()> {
        let len = self.open.map.value_len().max(1);
        let index = |key: &[u8]| key.try_into().map_or(u32::MAX, u32::from_ne_bytes);
        let beyond = |key: &[u8]| u64::from(index(key)) >= self.room();
        if !entries.keys.chunks_exact(4).any(beyond) {
            return Ok(());
        }
        let mut kept = Entries::default();
        for (key, value) in entries.keys.chunks_exact(4).zip(entries.values.chunks_exact(len)) {
            if !beyond(key) {
                kept.keys.extend_from_slice(key);
                kept.values.extend_from_slice(value);
            } else if value.iter().any(|octet| *octet != 0) {
                let (index, room) = (index(key), self.room());
                return Err(
                    self.cannot(format!("it has a value at index {index}, and has room for {room} here"))
                );
            }
        }
        *entries = kept;
        Ok(())
    }

    /// Every entry was taken in: whether there is room for them, and what they are compiled to.
    pub(super) fn checked(&mut self, merge: bool) -> Result<()> {
        let (entries, room) = (self.report.entries, self.room());
        if !self.open.map.is_array() && entries > room {
            return Err(self.cannot(format!("it has {entries} entries, and has room for {room} here")));
        }
        self.keys = HashSet::new();
        if self.compiled.is_some() {
            let rows = std::mem::take(&mut self.rows);
            self.tables = Some(compiled::tables(&self.open, &rows, merge)?);
        }
        Ok(())
    }

    fn cannot(&self, problem: String) -> Error {
        Error::CannotRestore { map: self.open.name.clone(), problem }
    }

    /// Begins to write: what the map has now.
    pub(super) fn begin(&mut self) -> Result<Writing> {
        let mut present = Snapshot::new(self.key_size(), self.open.map.value_len());
        for batch in self.open.map.entries() {
            present.fill(&batch?);
        }
        present.begin();
        let empty = present.is_empty();
        Ok(Writing { present, empty, held: Entries::default(), since: Vec::new() })
    }

    /// Writes entries, those alone that the map does not have so. New ones wait where there is no room before others go.
    pub(super) fn write(&mut self, writing: &mut Writing, mut entries: Entries) -> Result<()> {
        if self.open.map.is_array() {
            self.cut(&mut entries)?;
        }
        if !writing.empty {
            writing.present.update(&entries, &mut writing.since);
            entries = Entries::default();
            for since in writing.since.drain(..) {
                let (key, now, is_new) = match since {
                    Since::New { key, now } => (key, now, true),
                    Since::Changed { key, now, .. } => (key, now, false),
                    Since::Gone { .. } => continue,
                };
                self.report.new += u64::from(is_new);
                self.report.changed += u64::from(!is_new);
                let to = if is_new { &mut writing.held } else { &mut entries };
                to.keys.extend(key);
                to.values.extend(now);
            }
            let held = (writing.held.keys.len() / self.key_size()) as u64;
            if writing.present.len() as u64 <= self.room() {
                // With all of them there is room still.
                entries.keys.append(&mut writing.held.keys);
                entries.values.append(&mut writing.held.values);
            } else {
                tracing::debug!(held, "entries wait for others to go");
            }
        } else {
            self.report.new += (entries.keys.len() / self.key_size()) as u64;
        }
        self.put(&entries)
    }

    /// Ends writing: what was not written goes, unless it is to stay.
    pub(super) fn end(&mut self, mut writing: Writing, merge: bool) -> Result<()> {
        if !writing.empty && !merge {
            writing.present.end(&mut writing.since);
            let mut gone = Entries::default();
            for since in &writing.since {
                gone.keys.extend_from_slice(since.key());
            }
            self.report.removed = writing.since.len() as u64;
            if self.open.map.is_array() {
                gone.values = vec![0; writing.since.len() * self.open.map.value_len()];
                self.put(&gone)?;
            } else {
                self.open.map.delete_all(&gone.keys)?;
            }
        }
        self.put(&writing.held)?;
        if EVICTING.contains(&self.open.map.info().map_type) {
            self.count_evicted(merge)?;
        }
        if let (Some(compiled), Some(tables)) = (&self.compiled, &self.tables) {
            compiled::put_in_force(&self.open, compiled, tables)?;
        }
        Ok(())
    }

    fn put(&self, entries: &Entries) -> Result<()> {
        self.open.map.update_all(entries).map_err(|error| self.open.failed(error))
    }

    fn count_evicted(&mut self, merge: bool) -> Result<()> {
        if merge {
            return Ok(());
        }
        let mut there = 0;
        for batch in self.open.map.entries() {
            there += (batch?.keys.len() / self.key_size()) as u64;
        }
        self.report.evicted = self.report.entries.saturating_sub(there);
        Ok(())
    }
}

/// A map that is being written.
pub(super) struct Writing {
    present: Snapshot,
    /// It had nothing, so that there is nothing to compare with.
    empty: bool,
    /// New entries that have to wait for others to go.
    held: Entries,
    since: Vec<Since>,
}

/// What the running chains say of names that fields had.
fn renames(host: &Host, map: &SavedMap) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for iface in host.interfaces()? {
        let manifest = host.manifest(&iface)?;
        let told = manifest.state.modules.get(&map.module).and_then(|state| state.spec.migrate.get(&map.map));
        for (old, new) in told.iter().flat_map(|told| &told.renames) {
            let pair = (old.clone(), new.clone());
            if !found.contains(&pair) {
                found.push(pair);
            }
        }
    }
    Ok(found)
}
