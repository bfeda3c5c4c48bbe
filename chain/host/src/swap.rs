//! The step from the programs of one generation to those of the next.
//!
//! Usually the link runs another program from then on. Where each slot has a program of its own and one of them alone
//! differs, only that one is loaded, and one entry of the program array changes, or the link. Either is a single step for
//! the packets.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use xdpchain_compose::{Image, MapOwner, ProgramImage, Target};

use crate::adopt::Takeover;
use crate::attach::{self, PinnedLink};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::interface::Interface;
use crate::load::{self, Loaded};
use crate::manifest::{Manifest, MapRecord, ProgramRecord};
use crate::store::{make_directory, remove_file};
use crate::sys;
use crate::undo::Undo;

/// What changes when an image takes the place of a generation.
#[derive(Debug)]
pub(crate) struct Swap {
    /// The program array of the generation before, when it stays.
    pub(crate) array: Option<MapRecord>,
    /// For each program of the image, the number of the one that stays.
    pub(crate) kept: Vec<Option<u32>>,
    /// What makes the change.
    pub(crate) commit: Commit,
}

/// The one step that packets notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The link runs another program.
    Link,
    /// An entry of the program array holds another program.
    Entry {
        /// The array, an index into [`Image::maps`].
        map: usize,
        /// The entry.
        index: u32,
        /// The program, an index into [`Image::programs`].
        program: usize,
    },
    /// None: every program stays.
    Nothing,
}

impl Swap {
    /// Finds out what of `before` can stay when `image` takes its place.
    pub(crate) fn between(before: Option<&Manifest>, image: &Image) -> Self {
        let other = Self::all(image);
        let Some(before) = before else { return other };
        let Some(map) = image.maps.iter().position(|map| map.renewed()) else { return other };
        let Some(array) = before.maps.iter().find(|record| record.generation.is_some()) else { return other };
        let ran: Vec<&ProgramRecord> = std::iter::once(&before.program)
            .chain(before.others.iter().filter(|record| record.entry.is_some()))
            .collect();
        let runs: Vec<usize> = (0..image.programs.len())
            .filter(|program| *program == 0 || entry_of(image, *program).is_some())
            .collect();
        let fits = ran.len() == runs.len()
            && ran.iter().zip(&runs).all(|(record, program)| record.entry == entry_of(image, *program));
        if !fits {
            return other;
        }
        let mut kept = other.kept.clone();
        let mut differing = Vec::new();
        for (record, program) in ran.iter().zip(&runs) {
            if record.code == code(image, &image.programs[*program]) {
                kept[*program] = Some(record.id);
            } else {
                differing.push(*program);
            }
        }
        let commit = match differing.as_slice() {
            [] => Commit::Nothing,
            [0] => Commit::Link,
            [program] => match entry_of(image, *program) {
                Some(index) => Commit::Entry { map, index, program: *program },
                None => return other,
            },
            _ => return other,
        };
        Self { array: Some(array.clone()), kept, commit }
    }

    /// Everything is new.
    pub(crate) fn all(image: &Image) -> Self {
        Self { array: None, kept: vec![None; image.programs.len()], commit: Commit::Link }
    }

    /// Whether a program that stays refers to a map of `before` in whose place another is now, among `maps`: somebody has
    /// removed its pin.
    pub(crate) fn is_stale(&self, before: &Manifest, maps: &[MapRecord]) -> bool {
        let other = |map: &MapRecord| {
            let same = |old: &&MapRecord| old.module == map.module && old.pin() == map.pin();
            before.maps.iter().find(same).is_some_and(|old| old.id != map.id)
        };
        self.kept.iter().any(Option::is_some) && maps.iter().any(other)
    }

    /// The array that must not be filled before the change is committed.
    pub(crate) fn filled_later(&self) -> Option<usize> {
        match self.commit {
            Commit::Entry { map, .. } => Some(map),
            Commit::Link | Commit::Nothing => None,
        }
    }
}

/// The entry of the chain's program array that holds a program of the image.
pub(crate) fn entry_of(image: &Image, program: usize) -> Option<u32> {
    let fill = image.fills.iter().find(|fill| fill.program == program && image.maps[fill.map].renewed())?;
    Some(fill.index)
}

/// A digest of everything that makes a program but for its debug information.
pub(crate) fn code(image: &Image, program: &ProgramImage) -> String {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text(&program.license);
    text(if program.frags { "frags" } else { "" });
    for relocation in &program.relocations {
        let (map, offset) = match relocation.target {
            Target::Map { map } => (Some(map), None),
            Target::Value { map, offset } => (Some(map), Some(offset)),
            Target::ModuleBtf { id } => (None, Some(id)),
        };
        text(&format!("{} {offset:?}", relocation.insn));
        if let Some(map) = map.map(|map| &image.maps[map]) {
            match &map.owner {
                MapOwner::Chain => text(""),
                MapOwner::Module(module) => text(module),
            }
            text(&map.def.name);
        }
    }
    for insn in &program.insns {
        hash.update([insn.code, insn.regs]);
        hash.update(insn.off.to_le_bytes());
        hash.update(insn.imm.to_le_bytes());
    }
    hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect()
}

impl Host {
    /// Commits a change of a chain that runs; how long the step took that packets notice.
    pub(crate) fn swap<'a>(
        &'a self,
        interface: &Interface,
        link: &PinnedLink,
        before: &Manifest,
        after: &Manifest,
        (image, loaded, swap): (&Image, &Loaded, &Swap),
        undo: &mut Undo<'a>,
    ) -> Result<Duration> {
        let swapped = |expected, found| Error::Swapped {
            ifname: interface.name.clone(),
            generation: before.generation,
            expected,
            found,
        };
        if link.info.prog_id != before.program.id {
            return Err(swapped(before.program.id, link.info.prog_id));
        }
        match swap.commit {
            Commit::Nothing => self.stage(after, undo).map(|()| Duration::ZERO),
            Commit::Link => {
                let failed = |e| Error::query(format!("the link of `{}`", interface.name))(e);
                let old = sys::prog_by_id(before.program.id).map_err(failed)?;
                self.stage(after, undo)?;
                let start = Instant::now();
                sys::link_update(link.fd.as_fd(), loaded.program.as_fd(), old.as_fd()).map_err(|e| {
                    // The kernel answers EPERM when the link runs another program than the one that it was told.
                    match sys::link_info(link.fd.as_fd()) {
                        Ok(now) if now.prog_id != before.program.id => {
                            swapped(before.program.id, now.prog_id)
                        }
                        _ => failed(e),
                    }
                })?;
                let took = start.elapsed();
                undo.visible();
                let (link, new) = (clone(&link.fd)?, clone(&loaded.program)?);
                let ifname = interface.name.clone();
                undo.push("put the program before back", move || {
                    let done = sys::link_update(link.as_fd(), old.as_fd(), new.as_fd());
                    // What is taken back next may be a program array that a packet is about to look into.
                    sys::wait_for_programs();
                    done.map_err(Error::query(format!("the link of `{ifname}`")))
                });
                Ok(took)
            }
            Commit::Entry { map, index, program } => {
                let name = &image.maps[map].def.name;
                let failed = |source| Error::Map { action: "change an entry of", name: name.clone(), source };
                let array = load::program_array(&loaded.maps[map]).map_err(failed)?;
                let expected = before.others.iter().find(|record| record.entry == Some(index));
                let expected = expected.map_or(0, |record| record.id);
                // No other command of ours gets between: the lock is held.
                let found = load::entry(&array, index).map_err(failed)?;
                if found != expected {
                    return Err(swapped(expected, found));
                }
                let old = sys::prog_by_id(expected).map_err(failed)?;
                self.stage(after, undo)?;
                let start = Instant::now();
                put(&array, index, loaded.program(program)).map_err(failed)?;
                let took = start.elapsed();
                undo.visible();
                let name = name.clone();
                undo.push("put the slot's program before back", move || {
                    put(&array, index, old.as_fd()).map_err(|source| Error::Map {
                        action: "change an entry of",
                        name,
                        source,
                    })
                });
                Ok(took)
            }
        }
    }

    /// Commits a first generation: a new link, pinned, or that of the program whose place it takes.
    pub(crate) fn attach<'a>(
        &'a self,
        interface: &Interface,
        after: &mut Manifest,
        (image, loaded): (&Image, &Loaded),
        takeover: Option<&'a Takeover>,
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        let path = self.at.link(&interface.name);
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        if let Some((takeover, link)) = takeover.and_then(|t| Some((t, t.found.link?))) {
            return self.take_link(interface, after, loaded, (takeover, link), undo);
        }
        let mut mode = after.state.chain.mode;
        if let Some(takeover) = takeover {
            mode = takeover.mode(mode);
            self.stage(after, undo)?;
            takeover.take_off(interface)?;
            undo.visible();
            let back = interface.clone();
            undo.push("put the program before back", move || {
                Takeover::put_back(takeover.program.as_fd(), takeover.found.place, &back)
            });
        }
        // Until it is pinned, the link ends with this process: a crash leaves nothing on the interface.
        let grows = attach::grows(image);
        let attached = attach::attach(loaded.program.as_fd(), interface, mode, grows)?;
        undo.visible();
        (after.mode, after.mode_reason) = (attached.mode, attached.reason);
        self.stage(after, undo)?;
        sys::pin(attached.link.as_fd(), &path).map_err(Error::io("pin", &path))?;
        undo.push("detach the link", move || {
            sys::link_detach(attached.link.as_fd()).map_err(Error::query("the link"))?;
            remove_file(&path)
        });
        Ok(())
    }

    /// Lets the link that ran somebody else's program run the chain.
    fn take_link<'a>(
        &'a self,
        interface: &Interface,
        after: &mut Manifest,
        loaded: &Loaded,
        (takeover, link): (&'a Takeover, u32),
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        let mode = takeover.found.attach_mode();
        let wanted = after.state.chain.mode;
        if wanted != xdpchain_spec::Mode::Auto && wanted.name() != mode.name() {
            return Err(Error::ModeChange {
                ifname: interface.name.clone(),
                current: mode.name(),
                wanted: wanted.name(),
            });
        }
        (after.mode, after.mode_reason) = (mode, None);
        let path = self.at.link(&interface.name);
        let failed = |e| Error::query(format!("link {link}"))(e);
        let fd = sys::link_by_id(link).map_err(failed)?;
        self.stage(after, undo)?;
        // Pinned, it stays when the process that made it ends.
        sys::pin(fd.as_fd(), &path).map_err(Error::io("pin", &path))?;
        undo.push("remove the link's pin", move || remove_file(&path));
        sys::link_update(fd.as_fd(), loaded.program.as_fd(), takeover.program.as_fd()).map_err(failed)?;
        undo.visible();
        let new = clone(&loaded.program)?;
        undo.push("put the program before back", move || {
            sys::link_update(fd.as_fd(), takeover.program.as_fd(), new.as_fd())
                .map_err(Error::query(format!("link {link}")))
        });
        Ok(())
    }

    pub(crate) fn stage<'a>(&'a self, manifest: &Manifest, undo: &mut Undo<'a>) -> Result<()> {
        self.store().stage(manifest)?;
        let ifname = manifest.ifname.clone();
        undo.push("remove the staged manifest", move || self.store().unstage(&ifname));
        Ok(())
    }

    /// Whether what the kernel runs is the generation `manifest`; else what differs, in words.
    pub(crate) fn differences(&self, manifest: &Manifest, link: &PinnedLink) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if link.info.prog_id != manifest.program.id {
            found.push(format!(
                "the link runs program {}, and the manifest says {}",
                link.info.prog_id, manifest.program.id
            ));
        }
        let Some(record) = manifest.maps.iter().find(|record| record.generation.is_some()) else {
            return Ok(found);
        };
        let array = match self.open_record(&manifest.ifname, record) {
            Ok(array) => array,
            Err(Error::NoMap { .. }) => {
                found.push(format!("the pin of map `{}` is gone", record.name));
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        for program in &manifest.others {
            let Some(index) = program.entry else { continue };
            let id = array.lookup(&index.to_ne_bytes())?.unwrap_or_default();
            let id = id.try_into().map_or(0, u32::from_ne_bytes);
            if id != program.id {
                found.push(format!(
                    "entry {index} of `{}` holds program {id}, and the manifest says {}",
                    record.name, program.id
                ));
            }
        }
        Ok(found)
    }
}

fn put(array: &sys::MapFd, index: u32, program: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    sys::map_update(array, &index.to_ne_bytes(), &program.as_raw_fd().to_ne_bytes(), 0)
}

fn clone(fd: &std::os::fd::OwnedFd) -> Result<std::os::fd::OwnedFd> {
    fd.try_clone().map_err(Error::query("a descriptor"))
}
