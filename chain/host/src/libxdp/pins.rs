//! libxdp's directory in the BPF file system: for each dispatcher, what keeps its programs in their places.
//!
//! `xdp/dispatch-<ifindex>-<dispatcher's id>/` has `prog<n>-prog` and `prog<n>-link` for each program. libxdp locks the
//! directory above while it reads and writes there, and so does everything here.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::places::Places;
use crate::store::{names, remove_file};
use crate::sys;

/// libxdp's directory, locked.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
    _lock: File,
}

impl Pins {
    /// Waits for the lock.
    pub(crate) fn lock(places: &Places) -> Result<Self> {
        let directory = places.libxdp();
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", &directory)(e));
            }
            _ => {}
        }
        let lock = File::open(&directory).map_err(Error::io("open", &directory))?;
        sys::lock_exclusive(&lock).map_err(Error::io("lock", &directory))?;
        Ok(Self { directory, _lock: lock })
    }

    /// The directory of a dispatcher.
    pub(crate) fn of(&self, ifindex: u32, dispatcher: u32) -> PathBuf {
        self.directory.join(format!("dispatch-{ifindex}-{dispatcher}"))
    }

    /// Opens the first `count` programs of a dispatcher; none when they are not pinned there.
    pub(crate) fn programs(
        &self,
        ifindex: u32,
        dispatcher: u32,
        count: usize,
    ) -> Result<Option<Vec<OwnedFd>>> {
        let directory = self.of(ifindex, dispatcher);
        let mut found = Vec::with_capacity(count);
        for index in 0..count {
            let path = directory.join(format!("prog{index}-prog"));
            match sys::open_pin(&path) {
                Ok(program) => found.push(program),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(Error::io("open", path)(e)),
            }
        }
        Ok(Some(found))
    }

    /// Pins a dispatcher's links, and the programs that they put in place, in order.
    pub(crate) fn pin(&self, directory: &Path, links: &[(OwnedFd, OwnedFd)]) -> Result<()> {
        DirBuilder::new().mode(0o700).create(directory).map_err(Error::io("create", directory))?;
        for (index, (link, program)) in links.iter().enumerate() {
            for (fd, what) in [(link, "link"), (program, "prog")] {
                let path = directory.join(format!("prog{index}-{what}"));
                sys::pin(fd.as_fd(), &path).map_err(Error::io("pin", &path))?;
            }
        }
        Ok(())
    }

    /// The directories of dispatchers that no interface runs.
    pub(crate) fn stale(&self, what: &Stale) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let prefix = format!("dispatch-{}-", what.ifindex);
        for name in names(&self.directory)?.iter().filter(|name| name.starts_with("dispatch-")) {
            let directory = self.directory.join(name);
            if what.kept.contains(&directory) {
                continue;
            }
            let pins = names(&directory)?;
            let stale = pins.iter().filter(|pin| pin.ends_with("-prog")).any(|pin| {
                let info = sys::open_pin(&directory.join(pin)).and_then(|fd| sys::prog_info(fd.as_fd()));
                info.is_ok_and(|info| {
                    what.ours.contains(&info.id)
                        || (name.starts_with(&prefix) && what.running.contains(&info.id))
                })
            });
            if stale {
                found.push(directory);
            }
        }
        Ok(found)
    }
}

/// By what dispatchers are known that have had their day.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    /// Programs of ours, which are in no dispatcher but that of one interface.
    pub(crate) ours: Vec<u32>,
    /// The interface; 0 when it is gone.
    pub(crate) ifindex: u32,
    /// All programs of the dispatcher that it runs, which may be in those of other interfaces too.
    pub(crate) running: Vec<u32>,
    /// The directories of what it runs, dispatcher or not.
    pub(crate) kept: Vec<PathBuf>,
}

/// Removes a dispatcher's directory, and with its links the programs from the dispatcher.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    for name in names(directory)? {
        remove_file(&directory.join(name))?;
    }
    match fs::remove_dir(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", directory)(e)),
        _ => Ok(()),
    }
}
