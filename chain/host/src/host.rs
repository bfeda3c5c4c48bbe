//! The network namespace that a command works in, and what the operations on its chains share.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya_obj::generated::bpf_map_type;
use xdpchain_compose::{EXIT_MAP, Image, MapOwner, MapUse};
use xdpchain_spec::Engine;

use crate::attach::{self, PinnedLink};
use crate::error::{Error, Result};
use crate::exits;
use crate::interface::{AttachedProgram, Interface};
use crate::load::{self, Loaded, Programs};
use crate::lock::NetnsLock;
use crate::manifest::{self, AttachMode, ChainState, Manifest, MapRecord, ObjectId, Objects, ProgramRecord};
use crate::migrate::Migrations;
use crate::netns::Netns;
use crate::places::{NetnsPlaces, Places};
use crate::store::{Store, make_directory, remove_file};
use crate::swap::{self, Swap};
use crate::sys;
use crate::transaction::Composed;
use crate::undo::Undo;

/// The network namespace that a command works in, with its chains.
#[derive(Debug)]
pub struct Host {
    pub(crate) places: Places,
    pub(crate) at: NetnsPlaces,
    netns: Netns,
    wait: Duration,
    trial: Option<u64>,
}

/// How long an operation waits for another one to end, when nothing else is asked for.
const WAIT: Duration = Duration::from_secs(60);

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
        Ok(Self { at: places.of(netns), places, netns, wait: WAIT, trial: None })
    }

    /// The same, waiting as long for another operation to end.
    pub fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// The same, acting for the trial with this number: what is on trial may be changed.
    pub fn for_trial(self, id: u64) -> Self {
        Self { trial: Some(id), ..self }
    }

    pub(crate) fn trial_id(&self) -> Option<u64> {
        self.trial
    }

    /// The lock of the network namespace.
    pub(crate) fn lock(&self) -> Result<NetnsLock<'_>> {
        NetnsLock::acquire(&self.at, self.wait)
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

    /// Records a generation that is committed.
    pub(crate) fn publish<'a>(
        &'a self,
        before: Option<&Manifest>,
        after: &mut Manifest,
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        if let Some(before) = before {
            if self.leaves_work(before, after) {
                sys::wait_for_programs();
            }
            self.carry(before, after)?;
        }
        let (ifname, generation) = (after.ifname.clone(), after.generation);
        let back_to = before.map(|before| before.generation);
        undo.push("publish the generation before", move || {
            self.store().withdraw(&ifname, generation, back_to)
        });
        self.store().publish(after)
    }

    /// Stores the objects that a generation refers to.
    pub(crate) fn store_objects(&self, manifest: &Manifest, objects: &Objects) -> Result<()> {
        for module in manifest.state.modules.values() {
            if let Some(bytes) = objects.bytes(module.object) {
                self.store().put_object(module.object, bytes)?;
            }
        }
        Ok(())
    }

    /// Whether it matters when the last packet leaves the programs of `before`: it counts in rows that are about to be
    /// read for the last time, or may be about to look into a program array that is about to go, which the kernel empties.
    fn leaves_work(&self, before: &Manifest, after: &Manifest) -> bool {
        let goes = |map: &&MapRecord| !after.maps.iter().any(|other| other.id == map.id);
        let array = |map: &MapRecord| {
            let info = self.open_record(&before.ifname, map).map(|map| map.info().map_type);
            // A map that cannot be asked may be one.
            info.map_or(true, |kind| kind == bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32)
        };
        before.engine != Engine::Fused
            || recounts(before, after)
            || before.maps.iter().filter(goes).any(array)
    }

    /// Carries on what was counted in rows that are not counted in any more.
    fn carry(&self, before: &Manifest, after: &mut Manifest) -> Result<()> {
        after.carried = match recounts(before, after) {
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
        moves: &mut Migrations,
        undo: &mut Undo<'a>,
    ) -> Result<(Loaded, Vec<MapRecord>)> {
        self.migrate(ifname, image, moves, undo)?;
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
            if let Some(new) = moves.new_map(map)? {
                return Ok(Some(new));
            }
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
            cause: String::new(),
        })
    }

    /// Refuses when the interface is not the one that the chain was put on, or runs somebody else's program beside it.
    /// The program of somebody else, when there is no chain.
    pub(crate) fn check_identity(
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
}

/// Whether libxdp's dispatcher calls the chain's programs.
pub(crate) fn by_dispatcher(manifest: &Manifest) -> bool {
    manifest.engine == Engine::Libxdp
}

/// Whether what counted in the rows of `before` does not count in them any more.
fn recounts(before: &Manifest, after: &Manifest) -> bool {
    let counted = before.maps.iter().any(|map| map.module.is_none() && map.name == EXIT_MAP);
    counted && before.state.rows != after.state.rows
}
