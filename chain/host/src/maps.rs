//! The maps of modules and chains, read and written while they are in use.
//!
//! Values are octets as system calls carry them; for a per-CPU map that is every CPU's value, each rounded up to 8 octets
//! ([`Map::per_cpu`]). What the octets mean is in the map's BTF.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use aya_obj::generated::{BPF_EXIST, BPF_NOEXIST, bpf_map_type};
use xdpchain_compose::MapOwner;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::{ChainState, Manifest, MapRecord};
use crate::sys::{self, BatchError, BatchOp, MapFd, MapInfo};

/// Octets of keys and values in one batch: large enough that a system call costs nothing, small enough to stay in cache.
const BATCH_OCTETS: usize = 1 << 20;

/// A map that a chain of this network namespace uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapName {
    /// Whose it is.
    pub owner: MapOwner,
    /// Its name in the object.
    pub name: String,
    /// The interfaces whose chains use it; for a chain's own map there is one.
    pub interfaces: Vec<String>,
    /// The generations that run and use it, one for each interface. It lives as long as there is one.
    pub users: Vec<MapUser>,
    /// Earlier generations that had such a map: the interface, and their numbers. They do not keep it alive; one that is
    /// gone back to when the map is gone begins with an empty one.
    pub kept: Vec<(String, Vec<u64>)>,
}

/// A generation that uses a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapUser {
    /// The interface.
    pub interface: String,
    /// The generation.
    pub generation: u64,
    /// The modules in its slots that have the map, as their own or imported; none for a chain's own map.
    pub modules: Vec<String>,
}

impl MapUser {
    fn of(manifest: &Manifest, record: &MapRecord) -> Self {
        let modules = match &record.module {
            Some(owner) => users(&manifest.state, owner, &record.name),
            None => Vec::new(),
        };
        Self { interface: manifest.ifname.clone(), generation: manifest.generation, modules }
    }
}

/// The modules in slots whose map it is, as their own or imported.
fn users(state: &ChainState, owner: &str, map: &str) -> Vec<String> {
    let uses = |module: &str| {
        module == owner
            || state.modules.get(module).is_some_and(|given| {
                given.spec.imports.values().any(|import| {
                    let (mut at, mut name) = (import.module.as_str(), import.map.as_str());
                    // No import leads through a module twice.
                    for _ in 0..=state.modules.len() {
                        match state.modules.get(at).and_then(|given| given.spec.imports.get(name)) {
                            Some(next) => (at, name) = (&next.module, &next.map),
                            None => break,
                        }
                    }
                    (at, name) == (owner, map)
                })
            })
    };
    state.chain.slots.iter().map(|slot| &slot.module).filter(|module| uses(module)).cloned().collect()
}

impl Host {
    /// The maps of all chains of this network namespace; a map that several share is there once.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::Permission`].
    pub fn maps(&self) -> Result<Vec<MapName>> {
        let mut found: Vec<MapName> = Vec::new();
        let interfaces = self.interfaces()?;
        for ifname in &interfaces {
            let manifest = self.manifest(ifname)?;
            for record in &manifest.maps {
                let (owner, user) = (record.owner(), MapUser::of(&manifest, record));
                let shared = found.iter_mut().find(|map| {
                    map.owner != MapOwner::Chain && map.owner == owner && map.name == record.name
                });
                match shared {
                    Some(map) => {
                        map.interfaces.push(ifname.clone());
                        map.users.push(user);
                    }
                    None => found.push(MapName {
                        owner,
                        name: record.name.clone(),
                        interfaces: vec![ifname.clone()],
                        users: vec![user],
                        kept: Vec::new(),
                    }),
                }
            }
        }
        for ifname in &interfaces {
            let current = self.manifest(ifname)?.generation;
            for manifest in self.history(ifname)?.iter().filter(|manifest| manifest.generation != current) {
                for record in &manifest.maps {
                    let of_it = |map: &&mut MapName| {
                        let its = map.owner != MapOwner::Chain || map.interfaces == [ifname.as_str()];
                        its && map.owner == record.owner() && map.name == record.name
                    };
                    if let Some(map) = found.iter_mut().find(of_it) {
                        match map.kept.last_mut().filter(|(last, _)| last == ifname) {
                            Some((_, generations)) => generations.push(manifest.generation),
                            None => map.kept.push((ifname.clone(), vec![manifest.generation])),
                        }
                    }
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Opens a map of a module.
    ///
    /// # Errors
    /// [`Error::NoMap`], [`Error::Permission`].
    pub fn module_map(&self, module: &str, name: &str) -> Result<Map> {
        self.open_map("", &MapOwner::Module(module.to_owned()), name)
    }

    /// Opens a map of the chain on an interface.
    ///
    /// # Errors
    /// [`Error::NoMap`], [`Error::Permission`].
    pub fn chain_map(&self, ifname: &str, name: &str) -> Result<Map> {
        // The pin of a map that each generation has of its own is known by the manifest.
        let current = self.store().current(ifname)?;
        let record = current.as_ref().and_then(|manifest| {
            manifest.maps.iter().find(|record| record.module.is_none() && record.name == name)
        });
        match record {
            Some(record) => self.open_record(ifname, record),
            None => self.open_map(ifname, &MapOwner::Chain, name),
        }
    }

    /// Opens a map that a generation on `ifname` uses.
    pub(crate) fn open_record(&self, ifname: &str, record: &MapRecord) -> Result<Map> {
        self.open_map(ifname, &record.owner(), &record.pin())
    }

    pub(crate) fn open_map(&self, ifname: &str, owner: &MapOwner, name: &str) -> Result<Map> {
        let path = self.at.map(ifname, owner, name);
        match sys::open_pin(&path) {
            Ok(fd) => Map::from_fd(fd, name),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoMap { owner: owner.clone(), name: name.to_owned() })
            }
            Err(e) => Err(Error::io("open", path)(e)),
        }
    }
}

/// An open map.
#[derive(Debug)]
pub struct Map {
    map: MapFd,
    name: String,
}

/// Entries, one after the other: `keys` has [`MapInfo::key_size`] octets for each, `values` [`Map::value_len`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// The keys.
    pub keys: Vec<u8>,
    /// The values.
    pub values: Vec<u8>,
}

impl Map {
    /// A map of which the descriptor is held; `name` is for error messages.
    ///
    /// # Errors
    /// [`Error::Query`] when it is no map.
    pub fn from_fd(fd: OwnedFd, name: &str) -> Result<Self> {
        let failed = |e| Error::query(format!("map `{name}`"))(e);
        Ok(Self { map: MapFd::new(fd).map_err(failed)?, name: name.to_owned() })
    }

    /// What the kernel says about it.
    pub fn info(&self) -> &MapInfo {
        self.map.info()
    }

    /// The name by which it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What [`MapFd::read_octets`] gives.
    pub(crate) fn octets<T>(&self, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        self.map.read_octets(look)
    }

    /// Octets of a value as this type's functions take and give it.
    pub fn value_len(&self) -> usize {
        self.map.value_len()
    }

    /// The number of values in [`value_len`](Self::value_len): the possible CPUs for a per-CPU map; none else.
    pub fn per_cpu(&self) -> Option<usize> {
        let one = (self.info().value_size as usize).next_multiple_of(8);
        sys::is_per_cpu(self.info().map_type).then(|| self.value_len() / one.max(1))
    }

    /// Whether its entries always exist and cannot be removed.
    pub fn is_array(&self) -> bool {
        [bpf_map_type::BPF_MAP_TYPE_ARRAY as u32, bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32]
            .contains(&self.info().map_type)
    }

    /// The raw BTF that [`MapInfo::btf_key`] and [`MapInfo::btf_value`] are numbers of; none when the map has none.
    ///
    /// # Errors
    /// [`Error::Permission`], [`Error::Query`].
    pub fn btf(&self) -> Result<Option<Vec<u8>>> {
        match self.info().btf_id {
            0 => Ok(None),
            id => {
                sys::btf_bytes(id).map(Some).map_err(Error::query(format!("the BTF of map `{}`", self.name)))
            }
        }
    }

    /// Octets of memory that the kernel counts for it.
    ///
    /// # Errors
    /// [`Error::Query`] without `/proc`.
    pub fn memory(&self) -> Result<u64> {
        let path = format!("/proc/thread-self/fdinfo/{}", self.map.fd().as_raw_fd());
        let text =
            fs::read_to_string(&path).map_err(Error::query(format!("the memory of map `{}`", self.name)))?;
        Ok(memlock(&text).unwrap_or(0))
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        matches!(sys::map_next_key(&self.map, None), Ok(None))
    }

    /// The value of `key`; none when there is no such entry.
    ///
    /// # Errors
    /// [`Error::Map`], with `EINVAL` for a key of the wrong size.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        sys::map_lookup(&self.map, key).map_err(|e| self.failed("read", e))
    }

    /// Writes an entry, new or not.
    ///
    /// # Errors
    /// [`Error::Map`], with `EINVAL` for a key or value of the wrong size and `E2BIG` when it is full.
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<()> {
        sys::map_update(&self.map, key, value, 0).map_err(|e| self.failed("write", e))
    }

    /// Writes an entry unless there is one with its key; whether there was none.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<bool> {
        self.insert_raw(key, value).map_err(|e| self.failed("write", e))
    }

    /// As [`insert`](Self::insert), with the kernel's own error.
    pub(crate) fn insert_raw(&self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        match sys::map_update(&self.map, key, value, BPF_NOEXIST.into()) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes an entry that is there; whether it was.
    pub(crate) fn update_existing(&self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        match sys::map_update(&self.map, key, value, BPF_EXIST.into()) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// As [`lookup`](Self::lookup), with the kernel's own error.
    pub(crate) fn lookup_raw(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        sys::map_lookup(&self.map, key)
    }

    /// Another descriptor of it.
    pub(crate) fn clone_fd(&self) -> Result<OwnedFd> {
        self.map.fd().try_clone_to_owned().map_err(Error::query("a descriptor"))
    }

    /// Its descriptor as instructions carry it.
    pub(crate) fn raw_fd(&self) -> i32 {
        self.map.fd().as_raw_fd()
    }

    /// Removes an entry; whether it was there.
    ///
    /// # Errors
    /// [`Error::Map`], with `EINVAL` for arrays.
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        sys::map_delete(&self.map, key).map_err(|e| self.failed("delete from", e))
    }

    /// Writes many entries. Those before one that fails stay written.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn update_all(&self, entries: &Entries) -> Result<()> {
        self.batch(BatchOp::Update, &entries.keys, &entries.values)
    }

    /// Writes entries in order up to the first that fails: how many were written, and why no more.
    pub fn update_some(&self, entries: &Entries) -> (usize, Result<()>) {
        self.batch_some(BatchOp::Update, &entries.keys, &entries.values)
    }

    /// Removes many entries; one that is not there is no failure.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn delete_all(&self, keys: &[u8]) -> Result<()> {
        self.batch(BatchOp::Delete, keys, &[])
    }

    /// Every entry, a batch at a time. Entries that come and go meanwhile may or may not be there.
    pub fn entries(&self) -> Batches<'_> {
        Batches { map: self, cursor: Cursor::Batch(Vec::new()), count: self.batch_count(), walked: 0 }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Map { action, name: self.name.clone(), source }
    }

    fn batch_count(&self) -> usize {
        let entry = self.map.key_size() + self.value_len();
        (BATCH_OCTETS / entry.max(1)).clamp(16, (self.info().max_entries as usize).max(16))
    }

    /// Does `op` in batches, and one by one where the type or the kernel has none.
    fn batch(&self, op: BatchOp, keys: &[u8], values: &[u8]) -> Result<()> {
        self.batch_some(op, keys, values).1
    }

    /// As [`batch`](Self::batch), with the number of entries that were done.
    fn batch_some(&self, op: BatchOp, keys: &[u8], values: &[u8]) -> (usize, Result<()>) {
        let (key_size, value_len, step) = (self.map.key_size(), self.value_len(), self.batch_count());
        let action = if op == BatchOp::Update { "write" } else { "delete from" };
        let count = keys.len().checked_div(key_size).unwrap_or(0);
        if keys.len() != count * key_size || (op == BatchOp::Update && values.len() != count * value_len) {
            return (0, Err(self.failed(action, io::Error::from_raw_os_error(libc::EINVAL))));
        }
        let mut first = 0;
        let mut batches = true;
        while first < count {
            let last = count.min(first + step);
            if batches {
                let value =
                    if op == BatchOp::Update { &values[first * value_len..last * value_len] } else { values };
                match sys::map_batch(op, &self.map, &keys[first * key_size..last * key_size], value, 0) {
                    Ok(()) => first = last,
                    Err(BatchError { done: 0, error }) if no_batches(&error) => batches = false,
                    // The batch stopped at an entry that is not there.
                    Err(BatchError { done, error })
                        if op == BatchOp::Delete && error.kind() == io::ErrorKind::NotFound =>
                    {
                        first += done + 1;
                    }
                    Err(BatchError { done, error }) => {
                        return (first + done, Err(self.failed(action, error)));
                    }
                }
                continue;
            }
            let key = &keys[first * key_size..(first + 1) * key_size];
            let done = match op {
                BatchOp::Update => self.update(key, &values[first * value_len..(first + 1) * value_len]),
                BatchOp::Delete => self.delete(key).map(drop),
            };
            if done.is_err() {
                return (first, done);
            }
            first += 1;
        }
        (first, Ok(()))
    }
}

/// Whether a failed batch means that there are no batches: unknown to the type, or to a kernel before 5.6.
fn no_batches(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(sys::ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL))
}

/// How far a walk through a map has come.
#[derive(Debug)]
enum Cursor {
    /// By batches, from this opaque place on.
    Batch(Vec<u8>),
    /// Entry by entry, after this key.
    Key(Option<Vec<u8>>),
    /// At the end.
    Done,
}

/// The entries of a map, a batch at a time.
#[derive(Debug)]
pub struct Batches<'a> {
    map: &'a Map,
    cursor: Cursor,
    count: usize,
    /// Keys that were walked to one by one.
    walked: u64,
}

impl Iterator for Batches<'_> {
    type Item = Result<Entries>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let result = match std::mem::replace(&mut self.cursor, Cursor::Done) {
                Cursor::Batch(mut at) => {
                    match sys::map_lookup_batch(&self.map.map, &mut at, self.count) {
                        Ok((keys, values, more)) => {
                            if more {
                                self.cursor = Cursor::Batch(at);
                            }
                            Ok(Entries { keys, values })
                        }
                        // One hash bucket has more entries than the batch has places.
                        Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                            self.count *= 2;
                            self.cursor = Cursor::Batch(at);
                            continue;
                        }
                        Err(e) if at.is_empty() && no_batches(&e) => {
                            self.cursor = Cursor::Key(None);
                            continue;
                        }
                        Err(e) => Err(self.map.failed("read", e)),
                    }
                }
                Cursor::Key(after) => self.one_by_one(after),
                Cursor::Done => return None,
            };
            match result {
                Ok(entries) if entries.keys.is_empty() => continue,
                other => return Some(other),
            }
        }
    }
}

impl Batches<'_> {
    /// Whether the kernel gave the entries that came one by one, for want of batches: then each costs two system calls, and
    /// one that is there all the time may come twice while others go.
    pub fn are_single(&self) -> bool {
        self.walked > 0
    }

    fn one_by_one(&mut self, mut after: Option<Vec<u8>>) -> Result<Entries> {
        let map = self.map;
        let mut entries = Entries::default();
        for _ in 0..self.count {
            self.walked += 1;
            // The walk begins anew when the key that it stands at goes.
            if self.walked > 4 * u64::from(map.info().max_entries) + 1024 {
                return Err(
                    map.failed("read", io::Error::other("its entries go faster than they can be read"))
                );
            }
            let next = sys::map_next_key(&map.map, after.as_deref()).map_err(|e| map.failed("read", e))?;
            let Some(key) = next else { return Ok(entries) };
            // Gone since, or, in maps of other objects, empty.
            if let Some(value) = map.lookup(&key)? {
                entries.keys.extend_from_slice(&key);
                entries.values.extend(value);
            }
            after = Some(key);
        }
        self.cursor = Cursor::Key(after);
        Ok(entries)
    }
}

/// The memory in a map's fdinfo, octets.
fn memlock(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_fdinfo() {
        assert_eq!(memlock("pos:\t0\nflags:\t02\nmap_type:\t1\nmemlock:\t81920\nfrozen:\t0\n"), Some(81920));
        assert_eq!(memlock("pos:\t0\n"), None);
    }

    #[test]
    fn only_refusals_of_batches_as_such_are_worked_around() {
        for (errno, wanted) in [(524, true), (libc::EINVAL, true), (libc::E2BIG, false), (libc::EPERM, false)]
        {
            assert_eq!(no_batches(&io::Error::from_raw_os_error(errno)), wanted);
        }
    }
}
