//! Changes of chains, one or several interfaces at a time.
//!
//! Everything that can fail without anybody noticing comes first, for every interface: objects read, composed, maps made,
//! programs verified, the caller's gate asked. Then each interface is committed by one step: a compare-and-swap of its
//! pinned link, one entry of a program array, or an exchange of libxdp's dispatcher. When one of these fails, those before
//! it are taken back, last one first.
//!
//! Whether a crash came before or after an interface's step is told by the ids of the programs that run, so that
//! [`Host::recover`] and the next operation finish it or clear it away.

use std::os::fd::AsFd;
use std::time::Duration;

use xdpchain_compose::{ADOPTED_MAP, Image};
use xdpchain_spec::{Engine, Mode};

use crate::adopt::{self, Adopted, Foreign, Takeover};
use crate::attach::{self, PinnedLink};
use crate::detach::Detached;
use crate::error::{BoxError, Error, Result};
use crate::exits;
use crate::host::{Host, by_dispatcher};
use crate::interface::Interface;
use crate::load::{self, Loaded, Programs};
use crate::manifest::{AttachMode, ChainState, Manifest, MapRecord, Objects};
use crate::migrate::{Migrated, Migrations};
use crate::swap::Swap;
use crate::trial::TrialTerms;
use crate::undo::Undo;
use crate::verifier::Refusal;

/// What a chain is to become.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The chain. Its rows are not looked at.
    pub state: ChainState,
    /// The objects that it refers to; those of earlier generations may be left out.
    pub objects: Objects,
    /// What to do about a program of somebody else on the interface, when no chain is there yet.
    pub foreign: Foreign,
    /// What was asked for, in the words of the history.
    pub cause: String,
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

/// Looks at what is about to run, all of it loaded, and may refuse it.
pub type Gate<'a> = dyn Fn(&Candidate<'_>) -> std::result::Result<(), BoxError> + 'a;

/// A generation that is loaded and not committed.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The generation that runs; none when the interface has no chain.
    pub before: Option<&'a Manifest>,
    /// The one that is to run.
    pub after: &'a Manifest,
    /// The objects that it refers to.
    pub objects: &'a Objects,
    /// What it was composed to.
    pub image: &'a Image,
    /// Its programs and maps; the maps of modules are those that run.
    pub loaded: &'a Loaded,
}

/// How a transaction is done.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Makes images.
    pub compose: &'a Compose<'a>,
    /// Has the last word before packets notice anything.
    pub gate: Option<&'a Gate<'a>>,
    /// Puts the change on trial.
    pub trial: Option<TrialTerms>,
    /// Do everything up to the first commit, the verifier's work included, then take it back.
    pub dry_run: bool,
}

/// The change of one interface.
pub struct Want<'a> {
    /// The interface.
    pub ifname: String,
    /// The generation that the caller has seen there, none for no chain; whatever there is when it does not matter.
    pub seen: Option<Option<u64>>,
    /// What it is to become.
    pub to: To<'a>,
}

/// What an interface is to run.
pub enum To<'a> {
    /// The chain that an edit makes.
    Chain(&'a mut Edit<'a>),
    /// No chain.
    Nothing,
    /// What it runs, which nobody may have changed since the caller looked: what the others become was decided with it.
    Same,
}

/// What became of one interface.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its chain was changed.
    Changed(Box<Change>),
    /// Its chain was taken off.
    Detached(Box<Detached>),
}

/// A committed change, or with a dry run one that would have been.
#[derive(Clone, Debug)]
pub struct Change {
    /// The generation before.
    pub before: Option<Manifest>,
    /// The generation that runs now; with a dry run the one that would.
    pub after: Manifest,
    /// Instructions that the verifier looked at, 0 before kernel 5.16.
    pub verified_insns: u32,
    /// The maps whose entries were carried over to another layout or size, also those of other interfaces of the
    /// transaction.
    pub migrated: Vec<Migrated>,
    /// How long the one step took that packets notice; zero when none was taken.
    pub swap_time: Duration,
    /// Whether nothing was committed because of [`Terms::dry_run`].
    pub dry_run: bool,
}

/// An interface as it was found under the lock, and what is wanted there.
struct Found {
    interface: Interface,
    link: Option<PinnedLink>,
    before: Option<Manifest>,
    takeover: Option<Takeover>,
    desired: Desired,
}

impl Found {
    fn by_dispatcher(&self) -> bool {
        self.desired.state.chain.engine == Engine::Libxdp
    }
}

/// Everything that a commit needs.
struct Prepared {
    objects: Objects,
    image: Image,
    loaded: Loaded,
    swap: Swap,
    after: Manifest,
}

impl Host {
    /// Changes the chain of an interface, or puts the first one there. Packets see the chain before or the one after, each
    /// whole; after a failure the one before runs.
    ///
    /// # Errors
    /// Whatever [`Error`] has but for [`Error::NoChain`] and [`Error::NoNetns`].
    pub fn change<'a>(&self, ifname: &str, edit: &'a mut Edit<'a>, terms: &Terms<'_>) -> Result<Change> {
        let want = Want { ifname: ifname.to_owned(), seen: None, to: To::Chain(edit) };
        match self.transact(vec![want], terms)?.pop() {
            Some(Outcome::Changed(change)) => Ok(*change),
            other => unreachable!("one change has one outcome, not {other:?}"),
        }
    }

    /// Changes the chains of several interfaces: all of them, or none. Each interface's packets see its chain before or the
    /// one after, each whole, and one interface after the other goes from one to the other. Chains are taken off last. There is
    /// an outcome for each interface that is not to stay the [same](To::Same).
    ///
    /// # Errors
    /// Whatever [`Error`] has but for [`Error::NoNetns`].
    pub fn transact(&self, wants: Vec<Want<'_>>, terms: &Terms<'_>) -> Result<Vec<Outcome>> {
        let lock = self.lock()?;
        let mut found = Vec::new();
        let mut order = Vec::new();
        let mut leaving = Vec::new();
        for want in wants {
            match want.to {
                To::Chain(edit) => {
                    order.push(None);
                    found.push(self.find(&want.ifname, want.seen, edit)?);
                }
                To::Nothing => {
                    order.push(Some(leaving.len()));
                    leaving.push(self.find_chain(&want.ifname, want.seen)?);
                }
                To::Same => {
                    self.recover_interface(&want.ifname)?;
                    check_seen(&want.ifname, want.seen, self.store().current(&want.ifname)?.as_ref())?;
                }
            }
        }
        self.settle_migrations()?;
        let mut undo = Undo::default();
        let result = self.transact_found(&found, &leaving, terms, &mut undo);
        let (changes, detached) = match result {
            Ok(done) if terms.dry_run => {
                drop(undo);
                done
            }
            Ok(done) => {
                undo.keep();
                done
            }
            Err(error) => {
                let error = undo.fail(error);
                found.iter().for_each(|found| self.tidy(&found.interface.name));
                return Err(error);
            }
        };
        for chain in leaving.iter().filter(|_| !terms.dry_run) {
            self.store().remove(&chain.ifname)?;
        }
        let names = found.iter().map(|found| &found.interface.name);
        names.chain(leaving.iter().map(|chain| &chain.ifname)).for_each(|ifname| self.tidy(ifname));
        self.sweep();
        drop(lock);
        let (mut changes, mut detached) = (changes.into_iter(), detached.into_iter());
        let outcome = |leaves: Option<usize>| match leaves {
            None => changes.next().map(|change| Outcome::Changed(Box::new(change))),
            Some(_) => detached.next().map(|detached| Outcome::Detached(Box::new(detached))),
        };
        Ok(order.into_iter().filter_map(outcome).collect())
    }

    fn transact_found<'a>(
        &'a self,
        found: &'a [Found],
        leaving: &'a [Leaving],
        terms: &Terms<'_>,
        undo: &mut Undo<'a>,
    ) -> Result<(Vec<Change>, Vec<Detached>)> {
        let taking_part = found.iter().map(|found| found.interface.name.clone());
        let mut moves = Migrations::new(taking_part.chain(leaving.iter().map(|chain| chain.ifname.clone())));
        let mut prepared = Vec::with_capacity(found.len());
        for found in found {
            prepared.push(match found.by_dispatcher() {
                true => None,
                false => Some(self.prepare(found, terms, &mut moves, undo)?),
            });
        }
        if let Some(trial) = terms.trial.as_ref().filter(|_| !terms.dry_run) {
            self.begin_trial(trial, found, &prepared, leaving, undo)?;
        }
        if !terms.dry_run {
            moves.catch_up()?;
        }
        let mut changes = Vec::with_capacity(found.len());
        for (found, prepared) in found.iter().zip(prepared) {
            changes.push(match prepared {
                Some(prepared) => self.commit(found, prepared, terms.dry_run, undo)?,
                None => {
                    let Found { interface, before, desired, .. } = found;
                    self.change_by_dispatcher(
                        interface,
                        before.clone(),
                        desired.clone(),
                        terms,
                        &mut moves,
                        undo,
                    )?
                }
            });
        }
        let mut detached = Vec::with_capacity(leaving.len());
        for chain in leaving {
            detached.push(match terms.dry_run {
                true => Detached { manifest: Some(chain.manifest.clone()), not_restored: None },
                false => self.leave(chain, undo)?,
            });
        }
        let migrated = if terms.dry_run { moves.planned() } else { moves.finish()? };
        changes.iter_mut().for_each(|change: &mut Change| change.migrated.clone_from(&migrated));
        Ok((changes, detached))
    }

    fn begin_trial<'a>(
        &'a self,
        trial: &TrialTerms,
        found: &[Found],
        prepared: &[Option<Prepared>],
        leaving: &[Leaving],
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        if let Some(chain) = leaving.first() {
            return Err(Error::NoWayBack { ifname: chain.ifname.clone(), engine: None });
        }
        let mut changes = Vec::with_capacity(found.len());
        for (found, prepared) in found.iter().zip(prepared) {
            // A chain of libxdp's counts no packets, and is not made before it is committed.
            let Some(prepared) = prepared else {
                let ifname = found.interface.name.clone();
                return Err(Error::NoWayBack { ifname, engine: Some(Engine::Libxdp.name()) });
            };
            changes.push((found.before.as_ref(), &prepared.after));
        }
        self.put_on_trial(trial, &changes, undo)
    }

    /// What an interface runs, and what it is to run; the lock is held.
    fn find(&self, ifname: &str, seen: Option<Option<u64>>, edit: &mut Edit<'_>) -> Result<Found> {
        let interface = Interface::by_name(ifname)?;
        self.follow_name(&interface)?;
        self.recover_interface(ifname)?;
        self.check_trial(ifname)?;
        let interface = Interface::by_name(ifname)?;
        let link = PinnedLink::open(&self.at.link(ifname))?;
        let before = self.store().current(ifname)?;
        check_seen(ifname, seen, before.as_ref())?;
        let foreign = self.check_identity(&interface, link.as_ref(), before.as_ref())?;
        let desired = edit(before.as_ref()).map_err(Error::Edit)?;
        check_engine(ifname, before.as_ref(), desired.state.chain.engine)?;
        check_mode(ifname, before.as_ref(), desired.state.chain.mode)?;
        let takeover = foreign
            .filter(|_| desired.state.chain.engine != Engine::Libxdp)
            .map(|program| Takeover::of(&interface, program, desired.foreign))
            .transpose()?;
        Ok(Found { interface, link, before, takeover, desired })
    }

    /// Makes everything of a generation that packets do not notice, and asks the gate.
    fn prepare<'a>(
        &'a self,
        found: &'a Found,
        terms: &Terms<'_>,
        moves: &mut Migrations,
        undo: &mut Undo<'a>,
    ) -> Result<Prepared> {
        let Found { interface, before, takeover, desired, .. } = found;
        let Desired { mut state, objects, .. } = desired.clone();
        let adopting = takeover.as_ref().filter(|takeover| takeover.adopt);
        let adopted = match before {
            Some(before) => before.adopted.clone(),
            None => adopting.map(|takeover| takeover.found.clone()),
        };
        before.iter().for_each(|before| moves.hear(&before.state));
        moves.hear(&state);
        let other_rows = state.assign_rows(before.as_ref().map(|m| &m.state));
        let objects = self.complete(&state, objects)?;
        let mut composed = (terms.compose)(&state, &objects, None).map_err(Error::Compose)?;
        let mut made = self.load_generation(found, adopted.as_ref(), &mut composed, moves, undo);
        if let Err(Error::Verifier(refusal)) = &made
            && refusal.too_large
            && composed.fallback
        {
            tracing::info!("another engine is tried: {refusal}");
            composed = (terms.compose)(&state, &objects, Some(refusal)).map_err(Error::Compose)?;
            made = self.load_generation(found, adopted.as_ref(), &mut composed, moves, undo);
        }
        let (loaded, mut maps, swap) = made?;
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
        after.cause.clone_from(&desired.cause);
        let Composed { image, .. } = composed;
        let prepared = Prepared { objects, image, loaded, swap, after };
        if let Some(gate) = terms.gate {
            gate(&Candidate {
                before: before.as_ref(),
                after: &prepared.after,
                objects: &prepared.objects,
                image: &prepared.image,
                loaded: &prepared.loaded,
            })
            .map_err(Error::Gate)?;
        }
        Ok(prepared)
    }

    /// Loads what of an image is new to the interface.
    fn load_generation<'a>(
        &'a self,
        found: &Found,
        adopted: Option<&Adopted>,
        composed: &mut Composed,
        moves: &mut Migrations,
        undo: &mut Undo<'a>,
    ) -> Result<(Loaded, Vec<MapRecord>, Swap)> {
        let Found { interface, before, .. } = found;
        let image = &mut composed.image;
        match adopted {
            Some(adopted) => adopted.agree(&interface.name, image)?,
            None if adopt::adopted_map(image).is_some() => {
                return Err(Error::NothingToAdopt { ifname: interface.name.clone() });
            }
            None => {}
        }
        let mut swap = Swap::between(before.as_ref(), image);
        let attach_type = adopted.map_or(load::ATTACH_TYPE, |adopted| adopted.attach_type);
        let generation = before.as_ref().map_or(0, |m| m.generation) + 1;
        let mut load = |swap: &Swap| {
            let wanted = Programs { kept: &swap.kept, attach_type, replaces: &[] };
            self.load(&interface.name, generation, (image, swap), &wanted, moves, undo)
        };
        let (mut loaded, mut maps) = load(&swap)?;
        if before.as_ref().is_some_and(|before| swap.is_stale(before, &maps)) {
            swap = Swap::all(image);
            (loaded, maps) = load(&swap)?;
        }
        Ok((loaded, maps, swap))
    }

    /// The step that packets notice, and what records it.
    fn commit<'a>(
        &'a self,
        found: &'a Found,
        prepared: Prepared,
        dry_run: bool,
        undo: &mut Undo<'a>,
    ) -> Result<Change> {
        let Found { interface, link, before, takeover, .. } = found;
        let Prepared { objects, image, loaded, swap, mut after } = prepared;
        let verified_insns = loaded.verified_insns();
        let before = before.clone();
        let mut swap_time = Duration::ZERO;
        if dry_run {
            return Ok(Change { before, after, verified_insns, swap_time, migrated: Vec::new(), dry_run });
        }
        // What is attached keeps its mode, so that generic mode is no way out.
        let native = match (&before, takeover) {
            (Some(before), _) => before.mode == AttachMode::Native,
            (None, Some(takeover)) => takeover.mode(after.state.chain.mode) == Mode::Native,
            (None, None) => false,
        };
        attach::require_headroom(interface, native && attach::grows(&image))?;
        self.store_objects(&after, &objects)?;
        match (link, &before) {
            (Some(link), Some(before)) => {
                swap_time = self.swap(interface, link, before, &after, (&image, &loaded, &swap), undo)?;
            }
            _ => self.attach(interface, &mut after, (&image, &loaded), takeover.as_ref(), undo)?,
        }
        self.publish(before.as_ref(), &mut after, undo)?;
        Ok(Change { before, after, verified_insns, swap_time, migrated: Vec::new(), dry_run })
    }
}

/// A chain that is to go.
pub(crate) struct Leaving {
    pub(crate) ifname: String,
    pub(crate) link: Option<PinnedLink>,
    pub(crate) manifest: Manifest,
}

impl Host {
    /// The chain of an interface that is to go; the lock is held.
    fn find_chain(&self, ifname: &str, seen: Option<Option<u64>>) -> Result<Leaving> {
        self.recover_interface(ifname)?;
        self.check_trial(ifname)?;
        let before = self.store().current(ifname)?;
        check_seen(ifname, seen, before.as_ref())?;
        let manifest = before.ok_or_else(|| Error::NoChain { ifname: ifname.to_owned() })?;
        let link = PinnedLink::open(&self.at.link(ifname))?;
        Ok(Leaving { ifname: ifname.to_owned(), link, manifest })
    }
}

/// Refuses when another command has changed the chain since the caller looked.
fn check_seen(ifname: &str, seen: Option<Option<u64>>, before: Option<&Manifest>) -> Result<()> {
    let found = before.map(|before| before.generation);
    match seen {
        Some(seen) if seen != found => Err(Error::Raced { ifname: ifname.to_owned(), seen, found }),
        _ => Ok(()),
    }
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
