//! Migrations that a command was interrupted in, finished or cleared away. The lock is held.

use std::path::Path;

use xdpchain_state::{MapConverter, is_kept};

use super::entries::Moving;
use super::snapshot::Snapshot;
use super::{Migrations, NEXT, Typed, forget, next_pin, pinned_id, progress, take_place};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::MapRecord;
use crate::maps::Map;
use crate::places::{escape, unescape};
use crate::store::{names, remove_file};
use crate::sys;

impl Host {
    /// Lets maps that chains run with take the places that are theirs, with what was written to the maps before them; removes
    /// those that no chain came to run with.
    pub(crate) fn settle_migrations(&self) -> Result<()> {
        let mut open = Vec::new();
        for directory in names(&self.at.module_root())? {
            let Some(module) = unescape(&directory) else { continue };
            let directory = self.at.module_root().join(&directory);
            for pin in names(&directory)? {
                let Some(name) = pin.strip_suffix(&escape(NEXT)).and_then(unescape) else { continue };
                open.extend(self.settle(&module, &name, &directory.join(escape(&name)))?);
            }
        }
        for saved in names(&self.at.migrations())? {
            if !open.iter().any(|id: &u32| id.to_string() == saved) {
                forget(&self.at.migrations().join(saved))?;
            }
        }
        self.restore_pins()
    }

    /// The number of the new map when some chains run with it and others with the one before: the command that changes the
    /// others goes on.
    fn settle(&self, module: &str, name: &str, path: &Path) -> Result<Option<u32>> {
        let next = next_pin(path);
        let (Some(new), users) = (pinned_id(&next), self.users(module, name)?) else { return Ok(None) };
        if !users.contains(&new) {
            remove_file(&next)?;
            return Ok(None);
        }
        if let Some(old) = pinned_id(path) {
            if users.contains(&old) {
                return Ok(Some(new));
            }
            if let Err(error) = self.carry_on(module, name, path, new) {
                tracing::warn!(
                    "what was written to map `{module}/{name}` before it was replaced is lost: {error}"
                );
            }
        }
        take_place(path)?;
        Ok(None)
    }

    /// Puts what was written to the old map while the change was made into the new one.
    fn carry_on(&self, module: &str, name: &str, path: &Path, new: u32) -> Result<()> {
        let label = format!("{module}/{name}");
        let open = |path: &Path| Map::from_fd(sys::open_pin(path).map_err(Error::io("open", path))?, &label);
        let (old, new_map) = (open(path)?, open(&next_pin(path))?);
        let mut moves = Migrations::default();
        for ifname in self.store().interfaces()? {
            self.store().history(&ifname)?.iter().for_each(|manifest| moves.hear(&manifest.state));
        }
        let (renames, newest) = moves.told(module, name);
        let sizes = |map: &Map| (map.info().key_size, map.info().value_size);
        let (has, wants) = (Typed::of(&old)?, Typed::of(&new_map)?);
        let carries = !is_kept(name);
        let converter = MapConverter::new(
            new_map.info().map_type,
            if carries { has.halves(sizes(&old)) } else { wants.halves(sizes(&new_map)) },
            wants.halves(sizes(&new_map)),
            &renames,
            &newest,
        )
        .map_err(|e| Error::Migrate { map: label.clone(), reason: e.to_string() })?;
        let moving = Moving { name: label.clone(), old, new: new_map, converter, carries };
        let saved = self.at.migration(new);
        let snapshot = Snapshot::load(&saved, moving.snapshot())?;
        sys::wait_for_programs();
        let merged = moving.merge(snapshot, &progress(path)?)?;
        tracing::info!("map `{label}`: {} entries carried over that had changed", merged.since);
        Ok(())
    }

    /// Gives maps that chains run with the pins back that others got meanwhile, which no chain runs with.
    fn restore_pins(&self) -> Result<()> {
        for ifname in self.store().interfaces()? {
            let Some(manifest) = self.store().current(&ifname)? else { continue };
            for record in manifest.maps.iter().filter(|record| record.module.is_some()) {
                self.restore_pin(&ifname, record)?;
            }
        }
        Ok(())
    }

    fn restore_pin(&self, ifname: &str, record: &MapRecord) -> Result<()> {
        let (path, Some(module)) = (self.at.record(ifname, record), &record.module) else { return Ok(()) };
        let Some(id) = pinned_id(&path).filter(|id| *id != record.id) else { return Ok(()) };
        if self.users(module, &record.name)?.contains(&id) {
            return Ok(());
        }
        match sys::map_by_id(record.id) {
            Ok(map) => super::take_back(&map, &path),
            // Its last user went without it.
            Err(_) => Ok(()),
        }
    }
}
