//! The operations on chains whose slots libxdp's dispatcher calls: change, detach, recover, status.
//!
//! libxdp's lock is held from when the dispatcher is read until the one before is unpinned. A tool that read it before that
//! finds another dispatcher at its own exchange, and starts over; so do we.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use xdpchain_compose::Image;
use xdpchain_compose::libxdp::SLOTS;
use xdpchain_spec::Mode;

use super::config::{self, Entry};
use super::pins::{self, Pins, Stale};
use super::present::{Component, Found, Present};
use super::swap::{self, Dispatcher, Exchanged, Pinned};
use super::{ComponentRecord, ComponentStatus};
use crate::attach;
use crate::collect;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::interface::{AttachPlace, AttachedProgram, Interface};
use crate::load::{Loaded, Programs};
use crate::manifest::{AttachMode, Manifest, MapRecord, ProgramRecord};
use crate::migrate::Migrations;
use crate::recover::Recovered;
use crate::swap::Swap;
use crate::sys::{self, ProgInfo};
use crate::transaction::{Candidate, Change, Composed, Desired, Terms};
use crate::undo::Undo;

/// How often an exchange is tried while other tools exchange the dispatcher.
const TRIES: usize = 10;

/// A program of the dispatcher to be.
enum Source {
    /// The slot with this index.
    Slot(usize),
    /// Somebody else's, with this index in the dispatcher before.
    Theirs(usize),
}

/// The programs of the dispatcher to be, in the order in which they run.
struct Order {
    entries: Vec<Entry>,
    sources: Vec<Source>,
}

impl Order {
    /// Puts the slots between the programs of others, which keep their priorities and their order.
    fn of(slots: &[Entry], theirs: &[(usize, Entry)]) -> Self {
        let mut all: Vec<(Entry, Source)> =
            theirs.iter().map(|(index, entry)| (*entry, Source::Theirs(*index))).collect();
        all.extend(slots.iter().enumerate().map(|(index, entry)| (*entry, Source::Slot(index))));
        all.sort_by_key(|(entry, _)| entry.priority);
        let (entries, sources) = all.into_iter().unzip();
        Self { entries, sources }
    }

    /// Where the slots are, slot by slot.
    fn places(&self) -> Vec<usize> {
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (place, source) in self.sources.iter().enumerate() {
            if let Source::Slot(slot) = source {
                places.push((*slot, place));
            }
        }
        places.sort_unstable();
        places.into_iter().map(|(_, place)| place).collect()
    }
}

/// What a change works with.
struct Work<'b> {
    interface: &'b Interface,
    before: Option<&'b Manifest>,
    composed: &'b Composed,
}

/// The programs of a chain, loaded, with the records of their maps.
type Made = (Loaded, Vec<MapRecord>);

impl Host {
    /// As [`Host::change`], when the chain is, or is to be, one of libxdp's. The lock is held.
    pub(crate) fn change_by_dispatcher<'a>(
        &'a self,
        interface: &Interface,
        before: Option<Manifest>,
        desired: Desired,
        terms: &Terms<'_>,
        moves: &mut Migrations,
        undo: &mut Undo<'a>,
    ) -> Result<Change> {
        let Desired { mut state, objects, cause, .. } = desired;
        let dry_run = terms.dry_run;
        check_interface(interface, before.as_ref())?;
        before.iter().for_each(|before| moves.hear(&before.state));
        moves.hear(&state);
        let objects = self.complete(&state, objects)?;
        state.rows.clear();
        let composed = (terms.compose)(&state, &objects, None).map_err(Error::Compose)?;
        let pins = Pins::lock(&self.places)?;
        let work = Work { interface, before: before.as_ref(), composed: &composed };
        let mut made = None;
        for _ in 0..TRIES {
            let found = Found::on(&Interface::by_name(&interface.name)?, &pins)?;
            if let Found::Other(program) = found {
                return Err(not_ours_to_extend(interface, program));
            }
            let place = place(interface, found.dispatcher(), state.chain.mode)?;
            let (dispatcher, order, components) =
                self.prepare_dispatcher(&work, &state.chain.slots, &found, &mut made, moves, undo)?;
            let (loaded, maps) = made.as_ref().expect("made by what comes before");
            let mut after =
                self.manifest_of(interface, work.before, state.clone(), &composed, (loaded, maps.clone()))?;
            record(&mut after, &dispatcher, components);
            after.cause.clone_from(&cause);
            if let Some(gate) = terms.gate {
                let (before, image) = (work.before, &composed.image);
                gate(&Candidate { before, after: &after, objects: &objects, image, loaded })
                    .map_err(Error::Gate)?;
            }
            let verified_insns = loaded.verified_insns();
            let programs = programs(&order, loaded, found.components());
            if dry_run {
                for (index, program) in programs.iter().enumerate() {
                    dispatcher.put(index, *program)?;
                }
                return Ok(Change {
                    before,
                    after,
                    verified_insns,
                    swap_time: Duration::ZERO,
                    migrated: Vec::new(),
                    dry_run,
                });
            }
            self.store_objects(&after, &objects)?;
            self.stage(&after, undo)?;
            let pinned = swap::pin(&pins, interface.index, dispatcher, &programs)?;
            let directory = pinned.directory.clone();
            undo.push("remove the dispatcher's pins", move || pins::remove(&directory));
            let start = Instant::now();
            let exchanged = self.exchange(interface, place, &mut after, &pinned, found.dispatcher())?;
            let swap_time = start.elapsed();
            match exchanged {
                Exchanged::Raced => {
                    pins::remove(&pinned.directory)?;
                    continue;
                }
                Exchanged::Done => undo.visible(),
            }
            let placed = place_of(after.mode);
            put_back_on_failure(undo, interface.index, placed, pinned, found)?;
            self.publish(before.as_ref(), &mut after, undo)?;
            // A packet may be on its way between two programs of the dispatcher before.
            sys::wait_for_programs();
            self.forget_dispatchers(&pins, &after, before.as_ref());
            return Ok(Change { before, after, verified_insns, swap_time, migrated: Vec::new(), dry_run });
        }
        Err(Error::Contended { ifname: interface.name.clone(), tries: TRIES })
    }

    /// Makes the dispatcher that is to take the place of what was found, and at the first time the chain's programs.
    fn prepare_dispatcher<'a>(
        &'a self,
        work: &Work<'_>,
        slots: &[xdpchain_spec::SlotSpec],
        found: &Found,
        made: &mut Option<Made>,
        moves: &mut Migrations,
        undo: &mut Undo<'a>,
    ) -> Result<(Dispatcher, Order, Vec<ComponentRecord>)> {
        let image = &work.composed.image;
        let had = work.before.map(|before| before.components.as_slice()).unwrap_or_default();
        let theirs: Vec<(usize, Entry)> = found
            .components()
            .iter()
            .enumerate()
            .filter(|(_, component)| !is_ours(had, component))
            .map(|(index, component)| (index, component.entry))
            .collect();
        if theirs.len() + slots.len() > SLOTS {
            return Err(Error::DispatcherFull {
                ifname: work.interface.name.clone(),
                ours: slots.len(),
                theirs: theirs.len(),
                most: SLOTS,
            });
        }
        let names: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
        let had: BTreeMap<String, u32> =
            had.iter().map(|record| (record.slot.clone(), record.priority)).collect();
        let others: Vec<u32> = theirs.iter().map(|(_, entry)| entry.priority).collect();
        let priorities = config::priorities(&names, &had, &others);
        let ours = entries(image, &priorities);
        let order = Order::of(&ours, &theirs);
        let dispatcher = Dispatcher::load(&order.entries)?;
        if made.is_none() {
            let targets = dispatcher.targets(&order.places())?;
            let swap = Swap::all(image);
            let generation = work.before.map_or(0, |before| before.generation) + 1;
            let wanted = Programs { replaces: &targets, ..Programs::default() };
            *made =
                Some(self.load(&work.interface.name, generation, (image, &swap), &wanted, moves, undo)?);
        }
        let loaded = &made.as_ref().expect("made just now").0;
        let mut components = Vec::with_capacity(names.len());
        for (index, (slot, entry)) in names.iter().zip(&ours).enumerate() {
            let info =
                sys::prog_info(loaded.program(index)).map_err(Error::query("a program just loaded"))?;
            components.push(ComponentRecord {
                slot: (*slot).to_owned(),
                id: info.id,
                priority: entry.priority,
                calls: entry.verdicts(),
            });
        }
        Ok((dispatcher, order, components))
    }

    /// Puts the new dispatcher on the interface: where the one before is, else in native mode when the driver can.
    fn exchange(
        &self,
        interface: &Interface,
        place: Option<AttachPlace>,
        after: &mut Manifest,
        pinned: &Pinned,
        old: Option<&Present>,
    ) -> Result<Exchanged> {
        let new = pinned.dispatcher.fd.as_fd();
        let native = match place {
            Some(place) => {
                after.mode = mode_of(place);
                let exchanged = swap::exchange(interface.index, place, Some(new), old);
                return exchanged.map_err(|e| attach::failure(interface, after.mode, e));
            }
            None => swap::exchange(interface.index, AttachPlace::Native, Some(new), old),
        };
        let reason = match native {
            Ok(exchanged) => {
                (after.mode, after.mode_reason) = (AttachMode::Native, None);
                return Ok(exchanged);
            }
            Err(e) => match attach::failure(interface, AttachMode::Native, e) {
                Error::Driver { reason, .. } => reason,
                error => return Err(error),
            },
        };
        (after.mode, after.mode_reason) = (AttachMode::Generic, Some(reason));
        swap::exchange(interface.index, AttachPlace::Generic, Some(new), old)
            .map_err(|e| attach::failure(interface, AttachMode::Generic, e))
    }

    /// Unpins the dispatchers that are not on the interface any more: those with programs of `after` or `before`, and those
    /// whose programs are in the dispatcher that is.
    fn forget_dispatchers(&self, pins: &Pins, after: &Manifest, before: Option<&Manifest>) {
        let known = before.iter().flat_map(|before| &before.components).chain(&after.components);
        let mut stale = Stale { ours: known.map(|record| record.id).collect(), ..Stale::default() };
        // Also one that cannot be read, of a later version of the protocol, may have programs of ours in it.
        let attached =
            Interface::by_index(after.ifindex).map(|interface| interface.programs).unwrap_or_default();
        stale.kept = attached.iter().map(|program| pins.of(after.ifindex, program.id)).collect();
        let done = self.dispatcher_of(after, pins).and_then(|found| {
            if let Some((interface, present)) = found {
                stale.ifindex = interface.index;
                stale.running = present.components.iter().map(|component| component.info.id).collect();
            }
            pins.stale(&stale)?.iter().try_for_each(|directory| pins::remove(directory))
        });
        if let Err(error) = done {
            tracing::warn!("pins of the dispatcher before could not be removed: {error}");
        }
    }

    /// Takes the chain's programs out of the dispatcher, and the dispatcher off the interface when nothing else is in it.
    pub(crate) fn detach_by_dispatcher(&self, manifest: &Manifest) -> Result<()> {
        let pins = Pins::lock(&self.places)?;
        for _ in 0..TRIES {
            let Some((interface, present)) = self.dispatcher_of(manifest, &pins)? else {
                self.forget_dispatchers(&pins, manifest, None);
                return Ok(());
            };
            let theirs: Vec<&Component> =
                present.components.iter().filter(|c| !is_ours(&manifest.components, c)).collect();
            if theirs.len() == present.components.len() {
                self.forget_dispatchers(&pins, manifest, None);
                return Ok(());
            }
            let pinned = match theirs.as_slice() {
                [] => None,
                _ => {
                    let entries: Vec<Entry> = theirs.iter().map(|c| c.entry).collect();
                    let programs: Vec<_> = theirs.iter().map(|c| c.program.as_fd()).collect();
                    Some(swap::pin(&pins, interface.index, Dispatcher::load(&entries)?, &programs)?)
                }
            };
            let new = pinned.as_ref().map(|pinned| pinned.dispatcher.fd.as_fd());
            let exchanged = swap::exchange(interface.index, present.place, new, Some(&present));
            match exchanged.map_err(|e| attach::failure(&interface, mode_of(present.place), e)) {
                Ok(Exchanged::Done) => {
                    sys::wait_for_programs();
                    pins::remove(&present.directory)?;
                    self.forget_dispatchers(&pins, manifest, None);
                    return Ok(());
                }
                failed => {
                    if let Some(pinned) = pinned {
                        pins::remove(&pinned.directory)?;
                    }
                    failed?;
                }
            }
        }
        Err(Error::Contended { ifname: manifest.ifname.clone(), tries: TRIES })
    }

    /// The dispatcher on the interface that a chain was put on, under whatever name that is now; none when the interface is
    /// gone or runs none.
    fn dispatcher_of(&self, manifest: &Manifest, pins: &Pins) -> Result<Option<(Interface, Present)>> {
        if manifest.netns_cookie != self.netns().cookie {
            return Ok(None);
        }
        let interface = match Interface::by_index(manifest.ifindex) {
            Ok(interface) => interface,
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Err(e) => return Err(Error::query(format!("interface {}", manifest.ifindex))(e)),
        };
        Ok(match Found::on(&interface, pins)? {
            Found::Dispatcher(present) => Some((interface, *present)),
            Found::Nothing | Found::Other(_) => None,
        })
    }

    /// As [`Host::recover`] on one interface, when the chain there is one of libxdp's. The lock is held.
    pub(crate) fn recover_by_dispatcher(&self, ifname: &str) -> Result<Option<Recovered>> {
        let pins = Pins::lock(&self.places)?;
        let mut recovered = None;
        if let Some(mut staged) = self.store().staged(ifname)? {
            let (ifname, generation) = (ifname.to_owned(), staged.generation);
            let before = self.store().current(&ifname)?;
            if before.as_ref().is_some_and(|before| before.generation == generation) {
                self.store().unstage(&ifname)?;
            } else if self.runs_some(&staged, &pins)? {
                self.finish(before.as_ref(), &mut staged)?;
                recovered = Some(Recovered::Finished { ifname, generation });
            } else {
                self.store().unstage(&ifname)?;
                recovered = Some(Recovered::Cleared { ifname, generation });
            }
            self.forget_dispatchers(&pins, &staged, before.as_ref());
            collect::collect(&self.at)?;
        }
        let Some(current) = self.store().current(ifname)? else { return Ok(recovered) };
        if self.runs_some(&current, &pins)? {
            return Ok(recovered);
        }
        tracing::warn!(
            "the programs of the chain of `{ifname}` were taken out by something else, or its interface is gone; \
             removing its state"
        );
        self.forget_dispatchers(&pins, &current, None);
        self.store().remove(ifname)?;
        collect::collect(&self.at)?;
        Ok(Some(Recovered::Gone { ifname: ifname.to_owned() }))
    }

    /// Whether the interface of a chain runs at least one of its programs.
    fn runs_some(&self, manifest: &Manifest, pins: &Pins) -> Result<bool> {
        let found = self.dispatcher_of(manifest, pins)?;
        Ok(found
            .is_some_and(|(_, present)| present.components.iter().any(|c| is_ours(&manifest.components, c))))
    }

    /// What the dispatcher of a chain's interface runs.
    pub(crate) fn dispatched(&self, manifest: &Manifest) -> Result<Dispatched> {
        let pins = Pins::lock(&self.places)?;
        let Some((_, present)) = self.dispatcher_of(manifest, &pins)? else {
            let problems = vec!["libxdp's dispatcher is gone, and the chain with it".to_owned()];
            return Ok(Dispatched { program: None, components: Vec::new(), problems });
        };
        let status = |component: &Component| ComponentStatus {
            slot: manifest
                .components
                .iter()
                .find(|record| record.id == component.info.id)
                .map(|record| record.slot.clone()),
            id: component.info.id,
            name: component.info.name.clone(),
            tag: component.info.tag.iter().map(|octet| format!("{octet:02x}")).collect(),
            priority: component.entry.priority,
            calls: component.entry.verdicts(),
        };
        let components: Vec<ComponentStatus> = present.components.iter().map(status).collect();
        let problems =
            manifest.components.iter().filter_map(|record| difference(record, &components)).collect();
        Ok(Dispatched { program: Some(present.info), components, problems })
    }
}

/// What the dispatcher of a chain's interface runs.
#[derive(Debug)]
pub(crate) struct Dispatched {
    /// The dispatcher; none when the interface has none.
    pub(crate) program: Option<ProgInfo>,
    /// The programs that it calls, in the order in which they run.
    pub(crate) components: Vec<ComponentStatus>,
    /// What is not as the manifest says, in words.
    pub(crate) problems: Vec<String>,
}

/// How a slot's program differs from what the manifest says, in words.
fn difference(record: &ComponentRecord, running: &[ComponentStatus]) -> Option<String> {
    let ComponentRecord { slot, id, priority, calls } = record;
    match running.iter().find(|component| component.id == *id) {
        None => Some(format!(
            "program {id} of slot `{slot}` was unloaded by something else; attaching again puts it back"
        )),
        Some(now) if (now.priority, now.calls) != (*priority, *calls) => Some(format!(
            "slot `{slot}` has priority {} and goes on after {}, and the manifest says {priority} and {calls}",
            now.priority, now.calls
        )),
        Some(_) => None,
    }
}

/// The error for a program that is no dispatcher, or none that can be read.
fn not_ours_to_extend(interface: &Interface, program: AttachedProgram) -> Error {
    let mut error = attach::foreign(interface, program.id, program.place);
    if let Error::Foreign { help, owner: Some(owner), .. } = &mut error
        && owner.contains("dispatcher")
    {
        *help = format!(
            "it is of another version of libxdp's protocol, or not pinned as libxdp pins its own; take it off with the tool that put it there, or by `ip link set dev {} xdp off`",
            interface.name
        );
    }
    error
}

/// What the dispatcher is told of the slots.
fn entries(image: &Image, priorities: &[u32]) -> Vec<Entry> {
    let programs = image.programs.iter().zip(&image.chain_calls).zip(priorities);
    programs
        .map(|((program, calls), priority)| Entry {
            priority: *priority,
            calls: calls.bits(),
            frags: program.frags,
        })
        .collect()
}

fn programs<'p>(order: &Order, loaded: &'p Loaded, theirs: &'p [Component]) -> Vec<BorrowedFd<'p>> {
    let program = |source: &Source| match source {
        Source::Slot(slot) => loaded.program(*slot),
        Source::Theirs(index) => theirs[*index].program.as_fd(),
    };
    order.sources.iter().map(program).collect()
}

/// Makes the dispatcher the generation's program, and the slots' programs its others.
fn record(after: &mut Manifest, dispatcher: &Dispatcher, components: Vec<ComponentRecord>) {
    let program = ProgramRecord {
        id: dispatcher.info.id,
        name: dispatcher.info.name.clone(),
        tag: dispatcher.info.tag.iter().map(|octet| format!("{octet:02x}")).collect(),
        code: String::new(),
        entry: None,
    };
    let first = std::mem::replace(&mut after.program, program);
    after.others.insert(0, first);
    after.components = components;
}

/// Puts the dispatcher before back when what follows fails.
fn put_back_on_failure(
    undo: &mut Undo<'_>,
    ifindex: u32,
    place: AttachPlace,
    new: Pinned,
    old: Found,
) -> Result<()> {
    let failed = move |e| Error::query(format!("interface {ifindex}"))(e);
    let new = Present {
        dispatcher: new.dispatcher.fd.try_clone().map_err(failed)?,
        info: new.dispatcher.info.clone(),
        place,
        directory: new.directory,
        components: Vec::new(),
    };
    undo.push("put the dispatcher before back", move || {
        let back = old.dispatcher().map(|old| old.dispatcher.as_fd());
        let exchanged = swap::exchange(ifindex, place, back, Some(&new));
        // What is taken back next are the places of programs that a packet is about to come to.
        sys::wait_for_programs();
        match exchanged.map_err(failed)? {
            Exchanged::Done => Ok(()),
            Exchanged::Raced => Err(failed(std::io::ErrorKind::ResourceBusy.into())),
        }
    });
    Ok(())
}

fn is_ours(records: &[ComponentRecord], component: &Component) -> bool {
    records.iter().any(|record| record.id == component.info.id)
}

/// Where the dispatcher is to be; none when the driver decides.
fn place(interface: &Interface, there: Option<&Present>, wanted: Mode) -> Result<Option<AttachPlace>> {
    let wanted = match wanted {
        Mode::Auto => None,
        Mode::Native => Some(AttachPlace::Native),
        Mode::Generic => Some(AttachPlace::Generic),
    };
    match (there, wanted) {
        (Some(there), Some(wanted)) if there.place != wanted => Err(Error::ModeChange {
            ifname: interface.name.clone(),
            current: mode_of(there.place).name(),
            wanted: mode_of(wanted).name(),
        }),
        (Some(there), _) => Ok(Some(there.place)),
        (None, wanted) => Ok(wanted),
    }
}

fn mode_of(place: AttachPlace) -> AttachMode {
    match place {
        AttachPlace::Generic => AttachMode::Generic,
        AttachPlace::Native | AttachPlace::Offload => AttachMode::Native,
    }
}

fn place_of(mode: AttachMode) -> AttachPlace {
    match mode {
        AttachMode::Native => AttachPlace::Native,
        AttachMode::Generic => AttachPlace::Generic,
    }
}

/// Refuses when the interface of that name is not the one that the chain was put on.
fn check_interface(interface: &Interface, before: Option<&Manifest>) -> Result<()> {
    match before {
        Some(before) if before.ifindex != interface.index => Err(Error::Identity {
            ifname: interface.name.clone(),
            expected: before.ifindex,
            now: sys::interface_name(before.ifindex)
                .map_or_else(|_| "gone".to_owned(), |name| format!("named `{name}`")),
            found: interface.index,
        }),
        _ => Ok(()),
    }
}
