//! Entries of a module's map carried over to one with another layout or size, while traffic flows.
//!
//! The new map is filled before the change is committed, and what was written to the old one since is put on top when no
//! program writes there any more. Until then the old map keeps its pin and its entries, and the new one is pinned beside
//! it, under a name that no map has; taking its place there is one rename. So whoever comes after a crash sees by the pins,
//! and by the ids in the manifests, which map is whose.

mod entries;
mod merger;
mod settle;
pub(crate) mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya_obj::generated::bpf_map_type;
use xdpchain_compose::btf::Btf;
use xdpchain_compose::{Image, MapDef, MapOwner, MapUse};
use xdpchain_spec::MigrateSpec;
use xdpchain_state::{FieldChange, Half, MapConverter, is_kept};

use crate::error::{Error, Result};
use crate::features;
use crate::host::Host;
use crate::load::{self, Shape};
use crate::manifest::ChainState;
use crate::maps::Map;
use crate::places::escape;
use crate::store::{remove_empty, remove_file};
use crate::sys;
use crate::undo::Undo;
use entries::Moving;
use snapshot::Snapshot;

/// What a map that is to take another one's place is pinned as, behind that one's name. No name of a map has a dot but
/// those of data sections, which have the object's digest at their end.
pub(crate) const NEXT: &str = ".next";
/// The same for the number of the last change that was put on top of it.
pub(crate) const DONE: &str = ".done";

/// A map whose entries were carried over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Migrated {
    /// The module.
    pub module: String,
    /// The map.
    pub map: String,
    /// Entries that were carried over before the change.
    pub entries: usize,
    /// Entries that were new, changed or gone when the programs before had ended.
    pub since: usize,
    /// Entries that could not be put into the new map after the change, because it was full by then.
    pub lost: usize,
    /// What became of the fields.
    pub changes: Vec<FieldChange>,
    /// Entries that the map can have: before, and now.
    pub max_entries: (u32, u32),
    /// How long it took, all passes together.
    pub took: Duration,
}

/// The maps that one transaction migrates.
#[derive(Default)]
pub(crate) struct Migrations {
    /// The interfaces of the transaction.
    interfaces: BTreeSet<String>,
    /// What chains.yaml says, before and now, by module and map.
    told: BTreeMap<(String, String), MigrateSpec>,
    list: Vec<Migration>,
    /// Maps that an interface of the transaction uses as they are: (module, map, interface).
    kept: BTreeSet<(String, String, String)>,
}

struct Migration {
    module: String,
    name: String,
    moving: Moving,
    /// None when it is lost; then entries that both maps have stay as they are.
    snapshot: Option<Snapshot>,
    /// The chain of another interface uses the new map already.
    live: bool,
    path: PathBuf,
    saved: PathBuf,
    report: Migrated,
}

impl Migrations {
    /// For the interfaces of a transaction.
    pub(crate) fn new(interfaces: impl Iterator<Item = String>) -> Self {
        Self { interfaces: interfaces.collect(), ..Self::default() }
    }

    /// Takes in what a generation says of its maps' fields; what a later one says counts more.
    pub(crate) fn hear(&mut self, state: &ChainState) {
        for (module, state) in &state.modules {
            for (map, spec) in &state.spec.migrate {
                let told = self.told.entry((module.clone(), map.clone())).or_default();
                told.renames.extend(spec.renames.clone());
                told.newest.extend(spec.newest.iter().cloned());
            }
        }
    }

    /// Renamings and fields that do not count, of a module's map.
    fn told(&self, module: &str, name: &str) -> (Vec<(String, String)>, Vec<String>) {
        let told = self.told.get(&(module.to_owned(), name.to_owned())).cloned().unwrap_or_default();
        (told.renames.into_iter().collect(), told.newest)
    }

    /// The map that a map of an image is to be, when that is a new one.
    pub(crate) fn new_map(&self, map: &MapUse) -> Result<Option<OwnedFd>> {
        let MapOwner::Module(module) = &map.owner else { return Ok(None) };
        let found = self.list.iter().find(|m| m.module == *module && m.name == map.def.name);
        found.map(|migration| migration.moving.new.clone_fd()).transpose()
    }

    /// Brings the new maps up to what the old ones have now.
    pub(crate) fn catch_up(&mut self) -> Result<()> {
        for migration in self.list.iter_mut().filter(|migration| !migration.live) {
            let Some(snapshot) = &mut migration.snapshot else { continue };
            let start = Instant::now();
            if migration.moving.follow(snapshot)? {
                snapshot.save(&migration.saved)?;
            }
            migration.report.took += start.elapsed();
        }
        Ok(())
    }

    /// Carries over what was written to the old maps since, which no program does any more, and lets the new ones take
    /// their places.
    pub(crate) fn finish(mut self) -> Result<Vec<Migrated>> {
        if !self.list.is_empty() {
            sys::wait_for_programs();
        }
        for migration in &mut self.list {
            let start = Instant::now();
            let done = migration.moving.merge(migration.snapshot.take(), &progress(&migration.path)?)?;
            (migration.report.since, migration.report.lost) = (done.since, done.lost);
            take_place(&migration.path)?;
            forget(&migration.saved)?;
            migration.report.took += start.elapsed();
        }
        Ok(self.list.into_iter().map(|migration| migration.report).collect())
    }

    /// What is to be carried over, without what happens after the change.
    pub(crate) fn planned(self) -> Vec<Migrated> {
        self.list.into_iter().map(|migration| migration.report).collect()
    }
}

/// The pin of the map that is to take the place of the one that is pinned at `path`.
pub(crate) fn next_pin(path: &Path) -> PathBuf {
    beside(path, NEXT)
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(name + &escape(what))
}

/// The map with the number of the last change that was put on top, pinned beside the map that it was put into: the one that
/// an interrupted command has left, or a new one.
fn progress(path: &Path) -> Result<OwnedFd> {
    let pin = beside(path, DONE);
    match sys::open_pin(&pin) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            sys::raise_memlock();
            let map = merger::progress().map_err(Error::query("a map for migrations"))?;
            sys::pin(map.as_fd(), &pin).map_err(Error::io("pin", &pin))?;
            Ok(map)
        }
        other => other.map_err(Error::io("open", &pin)),
    }
}

/// Removes a saved snapshot.
fn forget(saved: &Path) -> Result<()> {
    remove_file(saved)?;
    remove_empty(&saved.parent().into_iter().collect::<Vec<_>>());
    Ok(())
}

/// Lets the map that is pinned beside `path` have that pin.
fn take_place(path: &Path) -> Result<()> {
    std::fs::rename(next_pin(path), path).map_err(Error::io("rename", next_pin(path)))?;
    remove_file(&beside(path, DONE))
}

/// The number of the map that is pinned at `path`; none when there is none.
pub(crate) fn pinned_id(path: &Path) -> Option<u32> {
    let fd = sys::open_pin(path).ok()?;
    sys::map_info(fd.as_fd()).ok().map(|info| info.id)
}

/// Makes everything as it was: the old map has its pin, and the new one has none.
fn take_back(old: &OwnedFd, path: &Path) -> Result<()> {
    let next = next_pin(path);
    remove_file(&next)?;
    remove_file(&beside(path, DONE))?;
    let id = sys::map_info(old.as_fd()).map_err(Error::query("a map"))?.id;
    if pinned_id(path) == Some(id) {
        return Ok(());
    }
    sys::pin(old.as_fd(), &next).map_err(Error::io("pin", &next))?;
    take_place(path)
}

/// Whether entries of a map of one type (`enum bpf_map_type`) can become entries of the other.
pub fn can_become(old: u32, new: u32) -> bool {
    use bpf_map_type::*;
    let families: [&[bpf_map_type]; 5] = [
        &[BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH],
        &[BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH],
        &[BPF_MAP_TYPE_ARRAY],
        &[BPF_MAP_TYPE_PERCPU_ARRAY],
        &[BPF_MAP_TYPE_LPM_TRIE],
    ];
    let of = |ty: u32| families.iter().position(|family| family.iter().any(|member| *member as u32 == ty));
    of(old).is_some() && of(old) == of(new)
}

/// Types of a kernel's map.
struct Typed {
    btf: Option<Btf>,
    key: u32,
    value: u32,
}

impl Typed {
    fn of(map: &Map) -> Result<Self> {
        let (key, value) = (map.info().btf_key, map.info().btf_value);
        let failed = |e: xdpchain_compose::btf::BtfError| Error::Migrate {
            map: map.name().to_owned(),
            reason: format!("the types that the kernel has of it cannot be read: {e}"),
        };
        let btf = map.btf()?.map(|bytes| Btf::parse(&bytes)).transpose().map_err(failed)?;
        Ok(Self { btf, key, value })
    }

    fn halves(&self, sizes: (u32, u32)) -> (Half<'_>, Half<'_>) {
        let half = |id: u32, size| Half { ty: self.btf.as_ref().filter(|_| id != 0).map(|b| (b, id)), size };
        (half(self.key, sizes.0), half(self.value, sizes.1))
    }

    /// Whether both have types, and a field is another.
    fn differs(&self, btf: &Btf, def: &MapDef) -> bool {
        let Some(ours) = &self.btf else { return false };
        [(self.key, def.btf_key), (self.value, def.btf_value)]
            .into_iter()
            .any(|(a, b)| a != 0 && b != 0 && ours.same_layout(a, btf, b).is_err())
    }
}

impl Host {
    /// Makes and fills the maps that are to take the places of those that have another layout than `image` wants.
    pub(crate) fn migrate<'a>(
        &'a self,
        ifname: &str,
        image: &Image,
        moves: &mut Migrations,
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        let mut image_btf = image.btf.clone();
        image_btf.lower_for(features::btf());
        let mut loaded_btf = None;
        for map in &image.maps {
            let MapOwner::Module(module) = &map.owner else { continue };
            if map.def.initial.is_some() || map.renewed() {
                continue;
            }
            let path = self.at.map(ifname, &map.owner, &map.def.name);
            let Ok(fd) = sys::open_pin(&path) else { continue };
            let name = format!("{module}/{}", map.def.name);
            let old = Map::from_fd(fd, &name)?;
            let describe = Error::query(format!("map `{name}`"));
            let wanted = Shape::wanted(&map.def).map_err(describe)?;
            let differs = |has: &Map| -> Result<bool> {
                Ok(Shape::of(has.info()) != wanted || Typed::of(has)?.differs(&image_btf, &map.def))
            };
            if let Some(migration) = moves.list.iter().find(|m| m.path == path) {
                if differs(&migration.moving.new)? {
                    let interfaces = moves.interfaces.iter().cloned().collect();
                    return Err(Error::MapDisputed { map: name, interfaces });
                }
                continue;
            }
            if !can_become(old.info().map_type, map.def.map_type) || !differs(&old)? {
                let key = (module.clone(), map.def.name.clone(), ifname.to_owned());
                moves.kept.insert(key);
                continue;
            }
            self.check_users(module, &map.def.name, moves)?;
            let typed = Typed::of(&old)?;
            let (renames, newest) = moves.told(module, &map.def.name);
            let wants =
                Typed { btf: Some(image_btf.clone()), key: map.def.btf_key, value: map.def.btf_value };
            let carries = !is_kept(&map.def.name);
            let to = wants.halves((map.def.key_size, map.def.value_size));
            let from = typed.halves((old.info().key_size, old.info().value_size));
            let converter = MapConverter::new(
                map.def.map_type,
                // Of what is not carried over it does not matter what it was.
                if carries { from } else { to },
                to,
                &renames,
                &newest,
            )
            .map_err(|e| Error::Migrate { map: name.clone(), reason: e.to_string() })?;
            let next = next_pin(&path);
            let live = self.next_in_use(module, &map.def.name, &next)?;
            let new = match live {
                true => sys::open_pin(&next).map_err(Error::io("open", &next))?,
                false => {
                    remove_file(&next)?;
                    remove_file(&beside(&path, DONE))?;
                    sys::raise_memlock();
                    if loaded_btf.is_none() {
                        loaded_btf = Some(load::load_btf(image, &image.debug_info(features::btf()))?.0);
                    }
                    let btf = loaded_btf.as_ref().and_then(|btf| btf.as_ref());
                    let made = load::create_map(map, btf.map(AsFd::as_fd))?.fd;
                    sys::pin(made.as_fd(), &next).map_err(Error::io("pin", &next))?;
                    made
                }
            };
            let new = Map::from_fd(new, &name)?;
            let saved = self.at.migration(new.info().id);
            let (old_fd, back, saved_file) = (old.clone_fd()?, path.clone(), saved.clone());
            undo.push("keep the map before, and remove the one that was to take its place", move || {
                forget(&saved_file)?;
                if live { Ok(()) } else { take_back(&old_fd, &back) }
            });
            let start = Instant::now();
            let report = Migrated {
                module: module.clone(),
                map: map.def.name.clone(),
                entries: 0,
                since: 0,
                lost: 0,
                changes: converter.changes().cloned().collect(),
                max_entries: (old.info().max_entries, new.info().max_entries),
                took: Duration::ZERO,
            };
            let moving = Moving { name, old, new, converter, carries };
            let mut snapshot = moving.snapshot();
            let snapshot = if live {
                Snapshot::load(&saved, snapshot)?
            } else {
                moving.fill(&mut snapshot)?;
                snapshot.save(&saved)?;
                Some(snapshot)
            };
            let entries = snapshot.as_ref().map_or(0, Snapshot::len);
            let report = Migrated { entries, took: start.elapsed(), ..report };
            moves.list.push(Migration {
                module: module.clone(),
                name: map.def.name.clone(),
                moving,
                snapshot,
                live,
                path,
                saved,
                report,
            });
        }
        Ok(())
    }

    /// Refuses while the chain of an interface that does not change, or changes otherwise, uses the map as it is.
    fn check_users(&self, module: &str, name: &str, moves: &Migrations) -> Result<()> {
        let mut interfaces: Vec<String> = moves
            .kept
            .iter()
            .filter(|(m, n, _)| m == module && n == name)
            .map(|(.., ifname)| ifname.clone())
            .collect();
        for ifname in self.interfaces()?.into_iter().filter(|ifname| !moves.interfaces.contains(ifname)) {
            let manifest = self.manifest(&ifname)?;
            let next = next_pin(&self.at.map("", &MapOwner::Module(module.to_owned()), name));
            let id = pinned_id(&next);
            let uses = |record: &&crate::manifest::MapRecord| {
                record.module.as_deref() == Some(module) && record.name == name && Some(record.id) != id
            };
            if manifest.maps.iter().any(|record| uses(&record)) {
                interfaces.push(ifname);
            }
        }
        match interfaces.is_empty() {
            true => Ok(()),
            false => Err(Error::MapDisputed { map: format!("{module}/{name}"), interfaces }),
        }
    }

    /// Whether a chain runs with the map that is pinned at `next`.
    fn next_in_use(&self, module: &str, name: &str, next: &Path) -> Result<bool> {
        let Some(id) = pinned_id(next) else { return Ok(false) };
        Ok(self.users(module, name)?.contains(&id))
    }

    /// The numbers of the maps that chains use as a module's map.
    fn users(&self, module: &str, name: &str) -> Result<BTreeSet<u32>> {
        let mut ids = BTreeSet::new();
        for ifname in self.store().interfaces()? {
            for manifest in self.store().current(&ifname)?.into_iter().chain(self.store().staged(&ifname)?) {
                let records = manifest.maps.iter();
                let of_it =
                    |r: &&crate::manifest::MapRecord| r.module.as_deref() == Some(module) && r.name == name;
                ids.extend(records.filter(of_it).map(|record| record.id));
            }
        }
        Ok(ids)
    }
}
