//! Manifests and objects in `/run`.
//!
//! A reader without the lock sees the generation before or the one after: files appear whole, by rename.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;

use crate::error::{Error, Result};
use crate::manifest::{Manifest, ObjectId, VERSION};
use crate::places::{NetnsPlaces, unescape};

/// Generations that are kept.
const KEPT: usize = 5;
/// The link to the committed generation's manifest.
const CURRENT: &str = "current";
/// A generation that is prepared and not committed.
const STAGED: &str = "staged.json";

/// Extension of a file that is being written.
pub(crate) const UNFINISHED: &str = "new";

/// The manifests and objects of one network namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store<'a>(pub(crate) &'a NetnsPlaces);

impl Store<'_> {
    /// The committed generation on an interface.
    pub(crate) fn current(&self, ifname: &str) -> Result<Option<Manifest>> {
        read(&self.0.manifests(ifname).join(CURRENT), ifname)
    }

    /// The generation that was prepared and not committed.
    pub(crate) fn staged(&self, ifname: &str) -> Result<Option<Manifest>> {
        read(&self.0.manifests(ifname).join(STAGED), ifname)
    }

    /// The generations that are kept, oldest first.
    pub(crate) fn history(&self, ifname: &str) -> Result<Vec<Manifest>> {
        let directory = self.0.manifests(ifname);
        let mut found = Vec::new();
        for name in names(&directory)? {
            if generation_of(&name).is_some() {
                found.extend(read(&directory.join(name), ifname)?);
            }
        }
        found.sort_by_key(|m| m.generation);
        Ok(found)
    }

    /// The interfaces that have manifests.
    pub(crate) fn interfaces(&self) -> Result<Vec<String>> {
        Ok(names(&self.0.manifest_root())?.iter().filter_map(|name| unescape(name)).collect())
    }

    /// Keeps a prepared generation.
    pub(crate) fn stage(&self, manifest: &Manifest) -> Result<()> {
        write_json(&self.0.manifests(&manifest.ifname).join(STAGED), manifest)
    }

    /// Forgets the prepared generation.
    pub(crate) fn unstage(&self, ifname: &str) -> Result<()> {
        remove_file(&self.0.manifests(ifname).join(STAGED))
    }

    /// Makes `manifest` the committed generation, which it was prepared as.
    pub(crate) fn publish(&self, manifest: &Manifest) -> Result<()> {
        let directory = self.0.manifests(&manifest.ifname);
        write_json(&directory.join(file_of(manifest.generation)), manifest)?;
        self.point_at(&manifest.ifname, manifest.generation)?;
        self.unstage(&manifest.ifname)
    }

    /// Makes `back_to` the committed generation again instead of `generation`, which may not have been published whole.
    pub(crate) fn withdraw(&self, ifname: &str, generation: u64, back_to: Option<u64>) -> Result<()> {
        let directory = self.0.manifests(ifname);
        match back_to {
            Some(back_to) => self.point_at(ifname, back_to)?,
            None => remove_file(&directory.join(CURRENT))?,
        }
        remove_file(&directory.join(file_of(generation)))
    }

    fn point_at(&self, ifname: &str, generation: u64) -> Result<()> {
        let directory = self.0.manifests(ifname);
        let next = directory.join(CURRENT).with_extension(UNFINISHED);
        remove_file(&next)?;
        symlink(file_of(generation), &next).map_err(Error::io("write", &next))?;
        fs::rename(&next, directory.join(CURRENT)).map_err(Error::io("write", directory.join(CURRENT)))
    }

    /// Removes all but the newest generations of an interface.
    pub(crate) fn prune(&self, ifname: &str) -> Result<()> {
        let directory = self.0.manifests(ifname);
        let mut generations: Vec<u64> =
            names(&directory)?.iter().filter_map(|name| generation_of(name)).collect();
        generations.sort_unstable();
        for old in generations.iter().rev().skip(KEPT) {
            remove_file(&directory.join(file_of(*old)))?;
        }
        Ok(())
    }

    /// Removes everything about an interface.
    pub(crate) fn remove(&self, ifname: &str) -> Result<()> {
        let directory = self.0.manifests(ifname);
        match fs::remove_dir_all(&directory) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", directory)(e)),
            _ => Ok(()),
        }
    }

    /// Stores an object.
    pub(crate) fn put_object(&self, id: ObjectId, bytes: &[u8]) -> Result<()> {
        let path = self.0.objects().join(id.to_string());
        if path.exists() { Ok(()) } else { write(&path, bytes) }
    }

    /// A stored object; none when it is not there or not what its name says.
    pub(crate) fn object(&self, id: ObjectId) -> Result<Option<Vec<u8>>> {
        let path = self.0.objects().join(id.to_string());
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes).filter(|bytes| ObjectId::of(bytes) == id)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path)(e)),
        }
    }

    /// Removes the objects that no manifest refers to.
    pub(crate) fn collect_objects(&self) -> Result<()> {
        let mut live = BTreeSet::new();
        for ifname in self.interfaces()? {
            for manifest in self.history(&ifname)?.into_iter().chain(self.staged(&ifname)?) {
                live.extend(manifest.state.modules.values().map(|m| m.object.to_string()));
            }
        }
        for name in names(&self.0.objects())? {
            if !live.contains(&name) {
                remove_file(&self.0.objects().join(name))?;
            }
        }
        Ok(())
    }
}

fn file_of(generation: u64) -> String {
    format!("gen-{generation}.json")
}

fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix("gen-")?.strip_suffix(".json")?.parse().ok()
}

/// Reads a manifest. The interface may have been renamed since it was written; the directory has the present name.
fn read(path: &Path, ifname: &str) -> Result<Option<Manifest>> {
    // The version decides whether the rest can be read at all.
    let Some(value) = read_json::<serde_json::Value>(path)? else { return Ok(None) };
    let bad = |reason: String| Error::Manifest { path: path.to_path_buf(), reason };
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(VERSION)) {
        let found = version.map_or_else(|| "none".to_owned(), |v| v.to_string());
        return Err(bad(format!("expected version {VERSION}, found {found}")));
    }
    let mut manifest: Manifest = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
    manifest.ifname = ifname.to_owned();
    Ok(Some(manifest))
}

/// Reads a file that [`write_json`] has written; none when it is not there.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let bad = |e: serde_json::Error| Error::Manifest { path: path.to_path_buf(), reason: e.to_string() };
    serde_json::from_slice(&text).map(Some).map_err(bad)
}

/// Writes a file of JSON, whole or not at all.
pub(crate) fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    let bad = |e: serde_json::Error| Error::Manifest { path: path.to_path_buf(), reason: e.to_string() };
    write(path, &serde_json::to_vec_pretty(value).map_err(bad)?)
}

/// Writes a file, whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e| Error::io("write", path)(e);
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    let next = path.with_extension(UNFINISHED);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    fs::rename(&next, path).map_err(failed)
}

/// Removes files that a command was writing when it was interrupted.
pub(crate) fn remove_unfinished(directory: &Path) -> Result<()> {
    for name in names(directory)? {
        let path = directory.join(name);
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Makes a directory that only its owner may enter, and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    // Another command may remove an empty directory between two of these steps; then one above is missing, or this one
    // was there and is not any more.
    let raced = |e: &io::Error| match e.kind() {
        io::ErrorKind::NotFound => true,
        io::ErrorKind::AlreadyExists => !path.exists() || path.is_dir(),
        _ => false,
    };
    let mut tries = 1000;
    loop {
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            Err(e) if raced(&e) && tries > 0 => tries -= 1,
            other => return other.map_err(Error::io("create", path)),
        }
    }
}

/// Removes a file when it is there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The names in a directory, sorted; none when it is not there.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", path))?;
        found.extend(entry.file_name().into_string().ok());
    }
    found.sort();
    Ok(found)
}

/// Removes directories, innermost first, as far as they are empty.
pub(crate) fn remove_empty(paths: &[&Path]) {
    for path in paths {
        // Not empty, or not there: both are as wanted.
        let _ = fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::manifest;

    fn places(directory: &tempfile::TempDir) -> NetnsPlaces {
        NetnsPlaces { pins: directory.path().join("pins"), run: directory.path().join("run") }
    }

    #[test]
    fn a_generation_is_current_only_when_published() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let places = places(&directory);
        let store = Store(&places);
        assert_eq!(store.current("eth1").expect("nothing there is no failure"), None);
        let first = manifest(1, &["acl"]);
        store.stage(&first).expect("written");
        assert_eq!(store.current("eth1").expect("readable"), None);
        assert_eq!(store.staged("eth1").expect("readable"), Some(first.clone()));
        store.publish(&first).expect("renamed");
        assert_eq!(store.current("eth1").expect("readable"), Some(first));
        assert_eq!(store.staged("eth1").expect("readable"), None);
        assert_eq!(store.interfaces().expect("readable"), ["eth1"]);
    }

    #[test]
    fn a_generation_that_is_withdrawn_leaves_the_one_before() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let places = places(&directory);
        let store = Store(&places);
        let current = || store.current("eth1").expect("readable").map(|manifest| manifest.generation);
        for generation in [1, 2] {
            store.publish(&manifest(generation, &["acl"])).expect("written");
        }
        store.withdraw("eth1", 2, Some(1)).expect("removed");
        assert_eq!(current(), Some(1));
        assert_eq!(store.history("eth1").expect("readable").len(), 1);
        store.withdraw("eth1", 1, None).expect("removed");
        assert_eq!(current(), None);
    }

    #[test]
    fn the_last_five_generations_and_their_objects_are_kept() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let places = places(&directory);
        let store = Store(&places);
        for generation in 1..=12 {
            let slot = format!("m{generation}");
            let next = manifest(generation, &[&slot]);
            store.put_object(ObjectId::of(slot.as_bytes()), slot.as_bytes()).expect("written");
            store.stage(&next).expect("written");
            store.publish(&next).expect("renamed");
            store.prune("eth1").expect("removed");
            store.collect_objects().expect("removed");
        }
        let kept: Vec<u64> = store.history("eth1").expect("readable").iter().map(|m| m.generation).collect();
        assert_eq!(kept, [8, 9, 10, 11, 12]);
        assert_eq!(names(&places.objects()).expect("readable").len(), 5);
        assert_eq!(store.object(ObjectId::of(b"m12")).expect("readable").as_deref(), Some(&b"m12"[..]));
        assert_eq!(store.object(ObjectId::of(b"m1")).expect("readable"), None);
        store.remove("eth1").expect("removed");
        store.collect_objects().expect("removed");
        assert!(names(&places.objects()).expect("readable").is_empty());
    }

    #[test]
    fn a_manifest_of_another_version_is_refused_with_its_path() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let places = places(&directory);
        let path = places.manifests("eth1").join(STAGED);
        for (text, found) in [("{\"version\":2}", "found 2"), ("{}", "found none"), ("nonsense", "expected")]
        {
            write(&path, text.as_bytes()).expect("written");
            let error = Store(&places).staged("eth1").expect_err("not readable").to_string();
            assert!(error.contains("staged.json") && error.contains(found), "{error}");
        }
    }

    #[test]
    fn a_damaged_object_is_not_given_out() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let places = places(&directory);
        let id = ObjectId::of(b"whole");
        write(&places.objects().join(id.to_string()), b"damaged").expect("written");
        assert_eq!(Store(&places).object(id).expect("readable"), None);
    }
}
