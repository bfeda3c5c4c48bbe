//! The operations on chains: change and detach.
//!
//! A change is prepared where it can fail without anybody noticing: objects stored, composed, maps made, programs verified,
//! manifest written as `staged`. One compare-and-swap of the pinned link, or one entry of a program array, commits it.
//! Whether a crash came before or after that is told by the ids of the programs that run, so that [`Host::recover`] and the
//! next operation finish it or clear it away.

use std::io;
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use xdpchain_compose::{ADOPTED_MAP, EXIT_MAP, Image, MapOwner, MapUse};
use xdpchain_spec::{Engine, Mode};

use crate::adopt::{self, Foreign, Takeover};
use crate::attach::{self, PinnedLink};
use crate::error::{BoxError, Error, Result};
use crate::exits;
use crate::interface::{AttachedProgram, Interface};
use crate::load::{self, Loaded, Programs};
use crate::lock::NetnsLock;
use crate::manifest::{self, AttachMode, ChainState, Manifest, MapRecord, ObjectId, Objects, ProgramRecord};
use crate::netns::Netns;
use crate::places::{NetnsPlaces, Places};
use crate::recover::Recovered;
use crate::store::{Store, make_directory, remove_file};
use crate::swap::{self, Swap};
use crate::sys;
use crate::undo::Undo;
use crate::verifier::Refusal;

/// The network namespace that a command works in, with its chains.
#[derive(Debug)]
pub struct Host {
    pub(crate) places: Places,
    pub(crate) at: NetnsPlaces,
    netns: Netns,
}

/// What a chain is to become.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The chain. Its rows are not looked at.
    pub state: ChainState,
    /// The objects that it refers to; those of earlier generations may be left out.
    pub objects: Objects,
    /// What to do about a program of somebody else on the interface, when no chain is there yet.
    pub foreign: Foreign,
    /// Do everything up to the commit, the verifier's work included, then take it back.
    pub dry_run: bool,
}

/// What composition gives.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The program and its maps.
    pub image: Image,
    /// How it was made.
    pub engine: Engine,
    /// Why not by the engine before it.
    pub engine_reason: Option<String>,
    /// Whether another engine may do where the verifier finds this one's program too large; then it is asked for.
    pub fallback: bool,
}

/// Makes a chain's image. The objects are all that the chain refers to. With a refusal, which is that of the image that
/// it made before, it is to make another one.
pub type Compose<'a> =
    dyn Fn(&ChainState, &Objects, Option<&Refusal>) -> std::result::Result<Composed, BoxError> + 'a;

/// Says what the chain of an interface is to become; it is given the generation that runs.
pub type Edit<'a> = dyn FnMut(Option<&Manifest>) -> std::result::Result<Desired, BoxError> + 'a;

/// A committed change, or with a dry run one that would have been.
#[derive(Clone, Debug)]
pub struct Change {
    /// The generation before.
    pub before: Option<Manifest>,
    /// The generation that runs now; with a dry run the one that would.
    pub after: Manifest,
    /// Instructions that the verifier looked at, 0 before kernel 5.16.
    pub verified_insns: u32,
    /// Whether nothing was committed because of [`Desired::dry_run`].
    pub dry_run: bool,
}

/// What [`Host::detach`] did.
#[derive(Clone, Debug, Default)]
pub struct Detached {
    /// The generation that ran, when its manifest could be read.
    pub manifest: Option<Manifest>,
    /// Why the program that the chain had adopted could not be put back.
    pub not_restored: Option<String>,
}

impl Host {
    /// The calling thread's network namespace, with everything in its usual place.
    ///
    /// # Errors
    /// [`Error::Bpffs`], [`Error::Permission`].
    pub fn open() -> Result<Self> {
        Self::at(Places::discover()?)
    }

    /// The calling thread's network namespace, with pins and files in `places`.
    ///
    /// # Errors
    /// [`Error::Io`] without `/proc`.
    pub fn at(places: Places) -> Result<Self> {
        let netns = Netns::current()?;
        Ok(Self { at: places.of(netns), places, netns })
    }

    /// The network namespace.
    pub fn netns(&self) -> Netns {
        self.netns
    }

    /// Where pins and files are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The interfaces with a chain.
    ///
    /// # Errors
    /// [`Error::Permission`], [`Error::Io`].
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let mut found = self.store().interfaces()?;
        found.retain(|ifname| self.store().current(ifname).is_ok_and(|m| m.is_some()));
        Ok(found)
    }

    /// The generation that is committed on an interface.
    ///
    /// # Errors
    /// [`Error::NoChain`], [`Error::Manifest`].
    pub fn manifest(&self, ifname: &str) -> Result<Manifest> {
        self.store().current(ifname)?.ok_or_else(|| Error::NoChain { ifname: ifname.to_owned() })
    }

    /// The generations of an interface that are kept, oldest first.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::Io`].
    pub fn history(&self, ifname: &str) -> Result<Vec<Manifest>> {
        self.store().history(ifname)
    }

    /// The object of a generation, as it is stored; none when it is not there, or not whole.
    ///
    /// # Errors
    /// [`Error::Permission`], [`Error::Io`].
    pub fn object(&self, id: ObjectId) -> Result<Option<Vec<u8>>> {
        self.store().object(id)
    }

    pub(crate) fn store(&self) -> Store<'_> {
        Store(&self.at)
    }

    /// Changes the chain of an interface, or puts the first one there. Packets see the chain before or the one after, each
    /// whole; after a failure the one before runs.
    ///
    /// # Errors
    /// Whatever [`Error`] has but for [`Error::NoChain`] and [`Error::NoNetns`].
    pub fn change(&self, ifname: &str, edit: &mut Edit<'_>, compose: &Compose<'_>) -> Result<Change> {
        let lock = NetnsLock::acquire(&self.at)?;
        self.recover_interface(ifname)?;
        let interface = Interface::by_name(ifname)?;
        let link = PinnedLink::open(&self.at.link(ifname))?;
        let before = self.store().current(ifname)?;
        let foreign = self.check_identity(&interface, link.as_ref(), before.as_ref())?;
        let desired = edit(before.as_ref()).map_err(Error::Edit)?;
        check_engine(ifname, before.as_ref(), desired.state.chain.engine)?;
        check_mode(ifname, before.as_ref(), desired.state.chain.mode)?;
        let dispatched = desired.state.chain.engine == Engine::Libxdp;
        let takeover = foreign
            .filter(|_| !dispatched)
            .map(|program| Takeover::of(&interface, program, desired.foreign))
            .transpose()?;

        let mut undo = Undo::default();
        let result = if dispatched {
            self.change_by_dispatcher(&interface, before, desired, compose, &mut undo)
        } else {
            self.prepare_and_commit(
                &interface,
                (link.as_ref(), before),
                desired,
                takeover.as_ref(),
                compose,
                &mut undo,
            )
        };
        let change = match result {
            Ok(change) if !change.dry_run => {
                undo.keep();
                change
            }
            Ok(change) => {
                drop(undo);
                change
            }
            Err(error) => {
                let error = undo.fail(error);
                self.tidy(ifname);
                return Err(error);
            }
        };
        self.tidy(ifname);
        self.sweep();
        drop(lock);
        Ok(change)
    }

    fn prepare_and_commit<'a>(
        &'a self,
        interface: &Interface,
        (link, before): (Option<&PinnedLink>, Option<Manifest>),
        desired: Desired,
        takeover: Option<&'a Takeover>,
        compose: &Compose<'_>,
        undo: &mut Undo<'a>,
    ) -> Result<Change> {
        let Desired { mut state, objects, dry_run, .. } = desired;
        let adopting = takeover.filter(|takeover| takeover.adopt);
        let adopted = match &before {
            Some(before) => before.adopted.clone(),
            None => adopting.map(|takeover| takeover.found.clone()),
        };
        let load = |composed: &mut Composed, undo: &mut Undo<'a>| {
            let image = &mut composed.image;
            match &adopted {
                Some(adopted) => adopted.agree(&interface.name, image)?,
                None if adopt::adopted_map(image).is_some() => {
                    return Err(Error::NothingToAdopt { ifname: interface.name.clone() });
                }
                None => {}
            }
            let mut swap = Swap::between(before.as_ref(), image);
            let attach_type = adopted.as_ref().map_or(load::ATTACH_TYPE, |adopted| adopted.attach_type);
            let generation = before.as_ref().map_or(0, |m| m.generation) + 1;
            let mut load = |swap: &Swap| {
                let wanted = Programs { kept: &swap.kept, attach_type, replaces: &[] };
                self.load(&interface.name, generation, (image, swap), &wanted, undo)
            };
            let (mut loaded, mut maps) = load(&swap)?;
            if before.as_ref().is_some_and(|before| swap.is_stale(before, &maps)) {
                swap = Swap::all(image);
                (loaded, maps) = load(&swap)?;
            }
            Ok((loaded, maps, swap))
        };
        let other_rows = state.assign_rows(before.as_ref().map(|m| &m.state));
        let objects = self.complete(&state, objects)?;
        let mut composed = compose(&state, &objects, None).map_err(Error::Compose)?;
        let mut loaded = load(&mut composed, undo);
        if let Err(Error::Verifier(refusal)) = &loaded
            && refusal.too_large
            && composed.fallback
        {
            tracing::info!("another engine is tried: {refusal}");
            composed = compose(&state, &objects, Some(refusal)).map_err(Error::Compose)?;
            loaded = load(&mut composed, undo);
        }
        let (loaded, mut maps, swap) = loaded?;
        if let Some(Takeover { found, program, .. }) = adopting {
            found.fill(&composed.image, &loaded, program.as_fd())?;
        }
        if adopted.is_some() && adopt::adopted_map(&composed.image).is_none() {
            // The program stays loaded though it does not run: it is to be put back one day.
            let before = before.iter().flat_map(|before| &before.maps);
            maps.extend(before.filter(|map| map.module.is_none() && map.name == ADOPTED_MAP).cloned());
        }
        exits::check_rows(&interface.name, &composed.image, &state)?;
        if other_rows {
            exits::clear_rows(&composed.image, &loaded, &state)?;
        }
        let mut after = self.manifest_of(interface, before.as_ref(), state, &composed, (&loaded, maps))?;
        after.adopted = adopted;
        let verified_insns = loaded.verified_insns();
        if dry_run {
            return Ok(Change { before, after, verified_insns, dry_run });
        }
        for module in after.state.modules.values() {
            if let Some(bytes) = objects.bytes(module.object) {
                self.store().put_object(module.object, bytes)?;
            }
        }
        match (link, &before) {
            (Some(link), Some(before)) => {
                self.swap(interface, link, before, &after, (&composed.image, &loaded, &swap), undo)?
            }
            _ => self.attach(interface, &mut after, &loaded, takeover, undo)?,
        }
        self.publish(before.as_ref(), &mut after)?;
        Ok(Change { before, after, verified_insns, dry_run })
    }

    /// Records a generation that is committed.
    pub(crate) fn publish(&self, before: Option<&Manifest>, after: &mut Manifest) -> Result<()> {
        if let Some(before) = before {
            // A packet that is on its way through the program before still counts there, and may be about to look into
            // its program array.
            sys::wait_for_programs();
            self.carry(before, after)?;
        }
        self.store().publish(after)
    }

    /// Carries on what was counted in rows that are not counted in any more.
    fn carry(&self, before: &Manifest, after: &mut Manifest) -> Result<()> {
        let counted = before.maps.iter().any(|map| map.module.is_none() && map.name == EXIT_MAP);
        after.carried = match counted && before.state.rows != after.state.rows {
            true => exits::carry(&self.chain_map(&after.ifname, EXIT_MAP)?, before, &after.state)?,
            false => before.carried.clone(),
        };
        Ok(())
    }

    /// The objects that `state` refers to, those that were not given from the store.
    pub(crate) fn complete(&self, state: &ChainState, mut objects: Objects) -> Result<Objects> {
        for (name, module) in &state.modules {
            if objects.bytes(module.object).is_none() {
                let bytes = self.store().object(module.object)?.ok_or_else(|| Error::NoObject {
                    module: name.clone(),
                    sha256: module.object.to_string(),
                    store: self.at.objects(),
                })?;
                objects.insert(bytes);
            }
        }
        Ok(objects)
    }

    /// Loads what of an image is new, with the maps that are pinned, and pins those that are new.
    pub(crate) fn load<'a>(
        &'a self,
        ifname: &str,
        generation: u64,
        (image, swap): (&Image, &Swap),
        wanted: &Programs<'_>,
        undo: &mut Undo<'a>,
    ) -> Result<(Loaded, Vec<MapRecord>)> {
        let record = |map: &MapUse| MapRecord {
            module: match &map.owner {
                MapOwner::Chain => None,
                MapOwner::Module(name) => Some(name.clone()),
            },
            name: map.def.name.clone(),
            id: 0,
            generation: match &swap.array {
                _ if !map.renewed() => None,
                Some(array) => array.generation,
                None => Some(generation),
            },
        };
        let pinned = |map: &MapUse| {
            let path = self.at.record(ifname, &record(map));
            match sys::open_pin(&path) {
                // A map of this generation cannot be there yet; one that is was left by a change that failed.
                Ok(_) if map.renewed() && swap.array.is_none() => remove_file(&path).map(|()| None),
                Ok(fd) => Ok(Some(fd)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::io("open", path)(e)),
            }
        };
        let loaded = load::load_new(image, &mut |map| pinned(map), wanted)?;
        load::fill(image, &loaded, swap.filled_later())?;
        let mut records = Vec::with_capacity(image.maps.len());
        for (map, loaded) in image.maps.iter().zip(&loaded.maps) {
            let record = MapRecord { id: loaded.info.id, ..record(map) };
            if loaded.created {
                let path = self.at.record(ifname, &record);
                if let Some(parent) = path.parent() {
                    make_directory(parent)?;
                }
                sys::pin(loaded.fd.as_fd(), &path).map_err(Error::io("pin", &path))?;
                undo.push("remove a map's pin", move || remove_file(&path));
            }
            records.push(record);
        }
        Ok((loaded, records))
    }

    pub(crate) fn manifest_of(
        &self,
        interface: &Interface,
        before: Option<&Manifest>,
        state: ChainState,
        composed: &Composed,
        (loaded, maps): (&Loaded, Vec<MapRecord>),
    ) -> Result<Manifest> {
        let image = &composed.image;
        let mut programs = Vec::with_capacity(image.programs.len());
        for (index, program) in image.programs.iter().enumerate() {
            let info = sys::prog_info(loaded.program(index));
            let info = info.map_err(Error::query(format!("program `{}`", program.name)))?;
            programs.push(ProgramRecord {
                id: info.id,
                name: info.name,
                tag: info.tag.iter().map(|octet| format!("{octet:02x}")).collect(),
                code: swap::code(image, program),
                entry: swap::entry_of(image, index),
            });
        }
        Ok(Manifest {
            version: manifest::VERSION,
            generation: before.map_or(0, |m| m.generation) + 1,
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            ifname: interface.name.clone(),
            ifindex: interface.index,
            netns: self.netns.inode,
            netns_cookie: self.netns.cookie,
            mode: before.map_or(AttachMode::Native, |m| m.mode),
            mode_reason: before.and_then(|m| m.mode_reason.clone()),
            engine: composed.engine,
            engine_reason: composed.engine_reason.clone(),
            program: programs.remove(0),
            others: programs,
            components: Vec::new(),
            maps,
            state,
            carried: before.map(|m| m.carried.clone()).unwrap_or_default(),
            adopted: None,
        })
    }

    /// Refuses when the interface is not the one that the chain was put on, or runs somebody else's program beside it.
    /// The program of somebody else, when there is no chain.
    fn check_identity(
        &self,
        interface: &Interface,
        link: Option<&PinnedLink>,
        before: Option<&Manifest>,
    ) -> Result<Option<AttachedProgram>> {
        if let Some(attached) = link.and_then(PinnedLink::ifindex) {
            let elsewhere = before.is_some_and(|m| m.netns_cookie != self.netns.cookie);
            if elsewhere || attached != interface.index {
                let name = if elsewhere { None } else { sys::interface_name(attached).ok() };
                return Err(Error::Identity {
                    ifname: interface.name.clone(),
                    expected: attached,
                    now: name
                        .map_or("in another network namespace".to_owned(), |name| format!("named `{name}`")),
                    found: interface.index,
                });
            }
        }
        let ours = link.map(|link| link.info.prog_id);
        match interface.programs.iter().find(|program| Some(program.id) != ours) {
            Some(program) if link.is_some() => Err(attach::foreign(interface, program.id, program.place)),
            Some(program) => Ok(Some(*program)),
            None if link.is_some() && before.is_none() => Err(Error::Foreign {
                ifname: interface.name.clone(),
                id: ours.unwrap_or_default(),
                name: interface.name.clone(),
                owner: Some("a chain of ours whose manifest is gone".to_owned()),
                help: format!("`xdpchain detach {}`, then attach again", interface.name),
            }),
            None => Ok(None),
        }
    }

    /// Takes the chain off an interface, which may have been renamed or be gone, and removes everything that only it used.
    /// A program that it had adopted is put back.
    ///
    /// # Errors
    /// [`Error::NoChain`], [`Error::NoInterface`] when there is neither a chain nor an interface, [`Error::Permission`].
    pub fn detach(&self, ifname: &str) -> Result<Detached> {
        let lock = NetnsLock::acquire(&self.at)?;
        // A manifest that cannot be read must not keep the chain on the interface.
        let recovered = match self.recover_interface(ifname) {
            Err(Error::Manifest { .. }) => None,
            other => other?,
        };
        let link = PinnedLink::open(&self.at.link(ifname))?;
        let manifest = self.store().current(ifname);
        let nothing = link.is_none() && matches!(&manifest, Ok(None));
        if nothing && !matches!(recovered, Some(Recovered::Gone { .. })) {
            Interface::by_name(ifname)?;
            return Err(Error::NoChain { ifname: ifname.to_owned() });
        }
        let manifest = manifest.unwrap_or_default();
        let mut not_restored = None;
        let path = self.at.link(ifname);
        if let Some(manifest) = manifest.as_ref().filter(|manifest| by_dispatcher(manifest)) {
            self.detach_by_dispatcher(manifest)?;
        } else if let Some((manifest, adopted)) =
            manifest.as_ref().and_then(|m| Some((m, m.adopted.as_ref()?)))
        {
            not_restored = adopted.restore(link.as_ref(), &path, manifest.ifindex)?;
        } else if let Some(link) = &link {
            link.detach(&path)?;
        }
        if link.is_some() {
            // A packet may be about to look into a program array that goes away.
            sys::wait_for_programs();
        }
        self.store().remove(ifname)?;
        self.tidy(ifname);
        self.sweep();
        drop(lock);
        Ok(Detached { manifest, not_restored })
    }
}

/// Whether libxdp's dispatcher calls the chain's programs.
pub(crate) fn by_dispatcher(manifest: &Manifest) -> bool {
    manifest.engine == Engine::Libxdp
}

/// Refuses to go from a link to the dispatcher or back: there is no way to do that in one step.
fn check_engine(ifname: &str, before: Option<&Manifest>, wanted: Engine) -> Result<()> {
    match before {
        Some(before) if by_dispatcher(before) != (wanted == Engine::Libxdp) => Err(Error::EngineChange {
            ifname: ifname.to_owned(),
            current: before.engine.name(),
            wanted: wanted.name(),
        }),
        _ => Ok(()),
    }
}

/// Refuses a change of mode while attached: there is no way to do that in one step.
fn check_mode(ifname: &str, before: Option<&Manifest>, wanted: Mode) -> Result<()> {
    let Some(before) = before else { return Ok(()) };
    let wanted = match wanted {
        Mode::Auto => return Ok(()),
        Mode::Native => AttachMode::Native,
        Mode::Generic => AttachMode::Generic,
    };
    if wanted == before.mode {
        return Ok(());
    }
    Err(Error::ModeChange { ifname: ifname.to_owned(), current: before.mode.name(), wanted: wanted.name() })
}
