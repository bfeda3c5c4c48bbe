//! `state restore`: the entries of a file put into maps that are there, all of them or none.
//!
//! In this order, under the lock: read the whole file and convert every entry; write what the maps hold to a file of their own;
//! write the maps, one after the other; remove that file. Whoever finds it there finds a restoring that was interrupted, and
//! puts it back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use xdpchain_host::{Entries, Host};
use xdpchain_state::{Record, SavedMap};

use super::target::{Into, Report, Writing};
use super::{Source, is_wanted, save};
use crate::args::Restore;
use crate::error::{Error, Result, exit};
use crate::output::{Output, grouped};

/// What the maps held before a restoring that is not over, in the folder of the network namespace.
const BEFORE: &str = "restore.before";

pub(super) fn run(host: &Host, out: Output, how: &Restore) -> Result<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        file: &'a Path,
        seconds: f64,
        dry_run: bool,
        maps: Vec<Report>,
    }
    let start = Instant::now();
    let _alone = host.hold()?;
    put_back_held(host)?;
    let source = Source::open(&how.file)?;
    let mut maps = Maps::find(host, &source, how)?;
    maps.refuse_losses(how)?;
    maps.check(&source, how.merge)?;
    let checked = start.elapsed();
    if !how.dry_run.set {
        let before = before(host);
        save::write_file(&before, &maps.named(host)?, &[], false)?;
        if let Err(error) = maps.write(&source, how.merge) {
            return Err(match put_back_held(host) {
                Ok(_) => Error::RestoreUndone { source: Box::new(error) },
                Err(undo) => {
                    Error::RestoreStuck { source: Box::new(error), undo: Box::new(undo), file: before }
                }
            });
        }
        remove(&before)?;
    }
    tracing::info!(?checked, all = ?start.elapsed(), "restored");
    let maps: Vec<Report> = maps.list.into_iter().flatten().map(|map| map.report).collect();
    let document =
        Document { file: &how.file, seconds: start.elapsed().as_secs_f64(), dry_run: how.dry_run.set, maps };
    tell(&document.maps, how, document.seconds);
    out.print("Restored", &document, |page| {
        if out.wide() {
            let number = |n: u64| grouped(n);
            page.table(
                &["MAP", ">ENTRIES", ">NEW", ">CHANGED", ">REMOVED", ">EVICTED"],
                document.maps.iter().map(|map| {
                    let counts = [map.entries, map.new, map.changed, map.removed, map.evicted];
                    std::iter::once(map.map.clone()).chain(counts.map(number)).collect()
                }),
            );
        }
    })?;
    Ok(exit::DONE)
}

fn tell(maps: &[Report], how: &Restore, seconds: f64) {
    let entries: u64 = maps.iter().map(|map| map.entries).sum();
    eprintln!(
        "{} {} entries of {} maps from `{}` in {seconds:.2} s",
        if how.dry_run.set { "dry run: would restore" } else { "restored" },
        grouped(entries),
        maps.len(),
        how.file.display(),
    );
    for map in maps {
        map.fields.iter().for_each(|field| eprintln!("  {}: {field}", map.map));
        if map.evicted > 0 {
            eprintln!(
                "warning: map {} throws out the least used entries before it is full: {} of the file's are not there",
                map.map,
                grouped(map.evicted)
            );
        }
    }
}

/// The maps of a file in its order, with those that they go into.
struct Maps {
    saved: Vec<SavedMap>,
    list: Vec<Option<Into>>,
}

impl Maps {
    fn find(host: &Host, source: &Source, how: &Restore) -> Result<Self> {
        let reader = source.reader()?;
        let saved = reader.contents().maps.clone();
        source.has_all(&saved, &how.maps)?;
        let mut list = Vec::with_capacity(saved.len());
        for map in &saved {
            list.push(match is_wanted(map, &how.maps) {
                false => None,
                true => Some(Into::find(host, &reader, map).map_err(|error| match error {
                    Error::Host(inner) if matches!(*inner, xdpchain_host::Error::NoMap { .. }) => {
                        Error::NotRunning { file: source.path.clone(), map: map.name() }
                    }
                    other => other,
                })?),
            });
        }
        Ok(Self { saved, list })
    }

    /// What is left of `saved` of a restoring that was interrupted: maps that have gone since need nothing.
    fn find_left(host: &Host, source: &Source) -> Result<Self> {
        let reader = source.reader()?;
        let saved = reader.contents().maps.clone();
        let mut list = Vec::with_capacity(saved.len());
        for map in &saved {
            list.push(match Into::find(host, &reader, map) {
                Ok(into) => Some(into),
                Err(Error::Host(inner)) if matches!(*inner, xdpchain_host::Error::NoMap { .. }) => None,
                Err(error @ Error::CannotRestore { .. }) => {
                    tracing::warn!("map `{}` stays as an interrupted restoring left it: {error}", map.name());
                    None
                }
                Err(error) => return Err(error),
            });
        }
        Ok(Self { saved, list })
    }

    /// Fields whose values nobody gave up.
    fn refuse_losses(&self, how: &Restore) -> Result<()> {
        let mut fields = Vec::new();
        for into in self.list.iter().flatten() {
            for path in into.refit.losses() {
                let full = format!("{}/{path}", into.open.name);
                if !how.allow_loss.iter().any(|given| given == path || *given == full) {
                    fields.push(full);
                }
            }
        }
        match fields.is_empty() {
            true => Ok(()),
            false => Err(Error::RestoreLoses { fields: fields.join(", ") }),
        }
    }

    /// Reads the file to its end, and refuses it before anything is changed.
    fn check(&mut self, source: &Source, merge: bool) -> Result<()> {
        self.each(source, |into, entries| into.check(entries), |into| into.checked(merge))
    }

    /// Puts the entries into the maps.
    fn write(&mut self, source: &Source, merge: bool) -> Result<()> {
        let mut writing: Option<Writing> = None;
        let begun = std::cell::RefCell::new(&mut writing);
        self.each(
            source,
            |into, entries| {
                let mut at = begun.borrow_mut();
                if at.is_none() {
                    **at = Some(into.begin()?);
                }
                match at.as_mut() {
                    Some(writing) => into.write(writing, std::mem::take(entries)),
                    None => Ok(()),
                }
            },
            |into| {
                let now = begun.borrow_mut().take();
                let now = match now {
                    Some(now) => now,
                    // A map without entries in the file.
                    None => into.begin()?,
                };
                into.end(now, merge)
            },
        )
    }

    /// Calls `rows` for the entries of each map, as they are to be here, and `end` at its end.
    fn each(
        &mut self,
        source: &Source,
        mut rows: impl FnMut(&mut Into, &mut Entries) -> Result<()>,
        mut end: impl FnMut(&mut Into) -> Result<()>,
    ) -> Result<()> {
        let mut reader = source.reader()?;
        if reader.contents().maps != self.saved {
            return Err(source.bad(xdpchain_state::StateError::Damaged {
                problem: "it was changed while it was read".to_owned(),
            }));
        }
        let mut entries = Entries::default();
        while let Some(record) = reader.next().map_err(|error| source.bad(error))? {
            match record {
                Record::Rows { map, keys, values } => {
                    let Some(into) = &mut self.list[map] else { continue };
                    entries.keys.clear();
                    entries.values.clear();
                    let refit = &into.refit;
                    if let Err((key, refused)) =
                        refit.entries((keys, values), &mut entries.keys, &mut entries.values)
                    {
                        let hexadecimal = || key.iter().map(|octet| format!("{octet:02x}")).collect();
                        let codec = reader.codec(&self.saved[map]).ok();
                        let key = codec.and_then(|codec| codec.key.print(&key).ok());
                        let (map, key) = (into.open.name.clone(), key.unwrap_or_else(hexadecimal));
                        return Err(Error::RestoreMisfit { map, key, problem: refused.to_string() });
                    }
                    rows(into, &mut entries)?;
                }
                Record::End { map, .. } => {
                    if let Some(into) = &mut self.list[map] {
                        end(into)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn named(&self, host: &Host) -> Result<Vec<save::Named>> {
        let both = self.saved.iter().zip(&self.list);
        both.filter_map(|(saved, into)| into.as_ref().map(|into| into.named(host, saved))).collect()
    }
}

/// Where it is kept what maps held before.
fn before(host: &Host) -> PathBuf {
    host.places().of(host.netns()).run.join(BEFORE)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|source| Error::WriteRows { file: path.to_owned(), source })
}

/// Gives maps what they held before a restoring that was interrupted; whether there was one.
pub(in crate::commands) fn put_back(host: &Host) -> Result<bool> {
    if !before(host).exists() {
        return Ok(false);
    }
    let _alone = host.hold()?;
    put_back_held(host)
}

/// The same for who holds the lock.
fn put_back_held(host: &Host) -> Result<bool> {
    let path = before(host);
    let source = match Source::open(&path) {
        Ok(source) => source,
        Err(Error::ReadRows { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut maps = Maps::find_left(host, &source)?;
    maps.check(&source, false)?;
    maps.write(&source, false)?;
    remove(&path)?;
    Ok(true)
}
