//! `state`: what maps hold, saved to a file, restored from one, and compared with one.

mod diff;
mod restore;
mod save;
mod target;

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};

use xdpchain_host::Host;
use xdpchain_spec::MapRef;
use xdpchain_state::{SavedMap, StateError, StateReader};

use crate::args::StateCommand;
use crate::error::{Error, Result};
use crate::output::Output;

pub(super) use restore::put_back;

/// A reader of a state file.
type Reader = StateReader<BufReader<File>>;

pub(crate) fn run(out: Output, command: &StateCommand) -> Result<u8> {
    let host = Host::open()?;
    match command {
        StateCommand::Save { file, maps, iface, twice } => {
            save::run(&host, out, file, &save::What { maps, iface: iface.as_deref(), twice: *twice })
        }
        StateCommand::Restore(restore) => restore::run(&host, out, restore),
        StateCommand::Diff { file, other, maps, limit } => {
            diff::run(&host, out, (file, other.as_deref()), maps, *limit)
        }
    }
}

/// A state file that is open for as long as it is worked with, so that every reading is of the same one.
struct Source {
    path: PathBuf,
    file: File,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::ReadRows { file: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Reads it from its start.
    fn reader(&self) -> Result<Reader> {
        let failed = |source| Error::ReadRows { file: self.path.clone(), source };
        let mut file = self.file.try_clone().map_err(failed)?;
        file.rewind().map_err(failed)?;
        StateReader::new(BufReader::with_capacity(1 << 18, file)).map_err(|source| self.bad(source))
    }

    fn bad(&self, source: StateError) -> Error {
        Error::StateFile { file: self.path.clone(), source: Box::new(source) }
    }

    /// Refuses names that it does not have.
    fn has_all(&self, maps: &[SavedMap], wanted: &[MapRef]) -> Result<()> {
        let missing = wanted.iter().find(|name| !maps.iter().any(|map| is(map, name)));
        match missing {
            None => Ok(()),
            Some(name) => Err(Error::NotInFile {
                file: self.path.clone(),
                map: name.to_string(),
                known: maps.iter().map(SavedMap::name).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

fn is(map: &SavedMap, name: &MapRef) -> bool {
    map.module == name.module && map.map == name.map
}

/// Whether a map is among the named ones; where none is named, all are.
fn is_wanted(map: &SavedMap, wanted: &[MapRef]) -> bool {
    wanted.is_empty() || wanted.iter().any(|name| is(map, name))
}
