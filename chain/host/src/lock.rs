//! The lock of a network namespace: one changing operation at a time.
//!
//! The lock file goes away together with the last chain, so that a lock on a file that is no longer the one in its place
//! is no lock.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::places::NetnsPlaces;
use crate::store::{make_directory, names, remove_empty};
use crate::sys;

/// How long to wait between two looks at a lock that somebody holds.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// A held lock. Dropping it removes the namespace's directories when they are empty, then releases it.
#[derive(Debug)]
pub(crate) struct NetnsLock<'a> {
    places: &'a NetnsPlaces,
    _file: File,
}

impl<'a> NetnsLock<'a> {
    /// Waits for the lock, at most as long as `wait`.
    pub(crate) fn acquire(places: &'a NetnsPlaces, wait: Duration) -> Result<Self> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = Self::try_acquire(places)? {
                return Ok(lock);
            }
            if start.elapsed() >= wait {
                return Err(Error::Locked { path: places.lock(), seconds: wait.as_secs() });
            }
            // flock(2) itself has no limit of time.
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes the lock when it is free.
    pub(crate) fn try_acquire(places: &'a NetnsPlaces) -> Result<Option<Self>> {
        let file = open(places)?;
        let locked = sys::try_lock_exclusive(&file).map_err(Error::io("lock", places.lock()))?;
        let ours = locked && sys::same_file(&file, &places.lock());
        // Made only when it is held: dropping one that is not would remove the holder's lock file.
        Ok(ours.then(|| Self { places, _file: file }))
    }
}

fn open(places: &NetnsPlaces) -> Result<File> {
    let path = places.lock();
    let mut tries = 1000;
    loop {
        make_directory(&places.run)?;
        match OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path) {
            // The holder of the lock may have removed the directory in between.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && tries > 0 => tries -= 1,
            other => return other.map_err(Error::io("open", path)),
        }
    }
}

impl Drop for NetnsLock<'_> {
    fn drop(&mut self) {
        let (pins, run) = (&self.places.pins, &self.places.run);
        remove_empty(&[&self.places.chain_root(), &self.places.module_root(), pins]);
        remove_empty(&[&self.places.objects(), &self.places.manifest_root()]);
        if names(run).is_ok_and(|left| left == ["lock"]) {
            let _ = std::fs::remove_file(self.places.lock());
            for directory in [Some(run.as_path()), run.parent(), pins.parent()].into_iter().flatten() {
                remove_empty(&[directory]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_excludes_and_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let places =
            NetnsPlaces { pins: directory.path().join("p/pins/1"), run: directory.path().join("r/run/1") };
        let lock = NetnsLock::acquire(&places, Duration::ZERO).expect("free");
        assert!(NetnsLock::try_acquire(&places).expect("no failure").is_none());
        assert!(places.lock().exists(), "who does not get the lock leaves it alone");
        let late = NetnsLock::acquire(&places, Duration::from_millis(5)).expect_err("it is held");
        assert_eq!(late.class().code(), 9, "{late}");
        drop(lock);
        assert!(!places.run.exists());
        assert!(NetnsLock::try_acquire(&places).expect("no failure").is_some());
        assert!(!directory.path().join("r/run").exists());
    }

    #[test]
    fn threads_take_turns_though_the_file_comes_and_goes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let places = NetnsPlaces { pins: directory.path().join("p/1"), run: directory.path().join("r/1") };
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock =
                            NetnsLock::acquire(&places, Duration::from_secs(60)).expect("free in the end");
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
