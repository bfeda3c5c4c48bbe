//! One step of a plan, and its inverse.
//!
//! A step holds what it takes away as well as what it puts there, so it can be turned round, and is refused where it
//! does not fit.

use std::fmt::{self, Debug};

use indexmap::IndexMap;
use serde::Serialize;

use super::state::{Build, ModuleBuild, State};
use crate::{
    ChainDefault, Engine, GateSpec, MapOverride, MapRef, MigrateSpec, Mode, Place, SlotSpec, Verdict,
    VerdictSet, WatchSpec,
};

/// A value before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// The value before.
    pub from: T,
    /// The value after.
    pub to: T,
}

impl<T: Clone + PartialEq> Change<T> {
    /// The change, when there is one.
    pub(super) fn of(from: &T, to: &T) -> Option<Self> {
        (from != to).then(|| Self { from: from.clone(), to: to.clone() })
    }

    fn inverse(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone() }
    }
}

/// One step. Places of slots count from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A chain comes to an interface without one.
    Attach {
        /// The chain.
        state: Box<State>,
    },
    /// The chain of an interface goes.
    Detach {
        /// The chain.
        state: Box<State>,
    },
    /// A field of the chain changes.
    ChangeChain(ChainField),
    /// A module comes that slots or imports will name.
    AddModule {
        /// Its name.
        module: String,
        /// The module.
        build: ModuleBuild,
    },
    /// A module goes that nothing names any more.
    RemoveModule {
        /// Its name.
        module: String,
        /// The module.
        build: ModuleBuild,
    },
    /// Another object, or the same from another place.
    ReplaceObject {
        /// The module.
        module: String,
        /// The object.
        #[serde(flatten)]
        build: Change<Build>,
    },
    /// A field of a module changes.
    ChangeModule {
        /// The module.
        module: String,
        /// The field.
        #[serde(flatten)]
        field: ModuleField,
    },
    /// A slot comes.
    AddSlot {
        /// Its place among the slots that there are then.
        index: usize,
        /// The slot.
        slot: SlotSpec,
    },
    /// A slot goes.
    RemoveSlot {
        /// Its place among the slots that there are before.
        index: usize,
        /// The slot.
        slot: SlotSpec,
    },
    /// A slot gets another place.
    MoveSlot {
        /// The slot's name.
        slot: String,
        /// Its place before.
        from: usize,
        /// Its place after, among all slots.
        to: usize,
    },
    /// A field of a slot changes.
    ChangeSlot {
        /// The slot's name.
        slot: String,
        /// The field.
        #[serde(flatten)]
        field: SlotField,
    },
}

/// A field of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "field", rename_all = "snake_case")]
pub enum ChainField {
    /// Its name.
    Name(Change<String>),
    /// How it becomes what the kernel runs.
    Engine(Change<Engine>),
    /// Where in the receive path it is attached.
    Mode(Change<Mode>),
    /// Its verdict when every slot proceeded.
    Default(Change<ChainDefault>),
    /// The packets that a new generation must treat as told.
    Gate(Change<Option<GateSpec>>),
    /// What the counters of a new generation must not show.
    Watch(Change<Option<WatchSpec>>),
}

/// A field of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "field", rename_all = "snake_case")]
pub enum ModuleField {
    /// The XDP program of the object.
    Program(Change<Option<String>>),
    /// What is changed of a map's definition.
    Map {
        /// The map.
        map: String,
        /// What is changed of it.
        #[serde(flatten)]
        change: Change<Option<MapOverride>>,
    },
    /// Whose a map is.
    Import {
        /// The map.
        map: String,
        /// The map of another module that it is.
        #[serde(flatten)]
        change: Change<Option<MapRef>>,
    },
    /// What a program array holds.
    Programs {
        /// The array.
        map: String,
        /// Names of programs by entry.
        #[serde(flatten)]
        change: Change<Option<IndexMap<u32, String>>>,
    },
    /// The maps that other modules may import.
    Exports(Change<Option<Vec<String>>>),
    /// How entries of a map are carried over to another layout.
    Migrate {
        /// The map.
        map: String,
        /// What is said of it.
        #[serde(flatten)]
        change: Change<Option<MigrateSpec>>,
    },
}

/// A field of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "field", rename_all = "snake_case")]
pub enum SlotField {
    /// The module that runs in it.
    Module(Change<String>),
    /// The verdicts after which the next slot runs.
    ProceedOn(Change<Option<VerdictSet>>),
    /// The chain's verdict after a number that is none.
    OnUnknown(Change<Verdict>),
    /// Whether the module's verdict is ignored.
    Observer(Change<bool>),
    /// When it runs.
    At(Change<Place>),
}

/// A step that does not fit the state that it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not as the plan has it: expected {expected}, found {found}\nhelp: make the plan again")]
pub struct StepError {
    what: String,
    expected: String,
    found: String,
}

impl StepError {
    fn new(what: impl fmt::Display, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { what: what.to_string(), expected: expected.to_string(), found: found.to_string() }
    }
}

impl Step {
    /// Applies the step.
    ///
    /// # Errors
    /// When the state is not one that the step can follow on; it is as before then.
    pub fn apply(&self, state: &mut Option<State>) -> Result<(), StepError> {
        match (self, &mut *state) {
            (Self::Attach { state: wanted }, None) => *state = Some(State::clone(wanted)),
            (Self::Attach { .. }, Some(found)) => {
                return Err(StepError::new("the chain", "none", &found.chain.name));
            }
            (Self::Detach { state: expected }, Some(found)) if **expected == *found => *state = None,
            (Self::Detach { state: expected }, found) => {
                let found = found.as_ref().map_or("none", |found| &found.chain.name);
                return Err(StepError::new("the chain", &expected.chain.name, found));
            }
            (_, None) => return Err(StepError::new("the chain", "one", "none")),
            (step, Some(state)) => step.apply_to(state)?,
        }
        Ok(())
    }

    fn apply_to(&self, state: &mut State) -> Result<(), StepError> {
        let State { chain, modules } = state;
        let position = |name: &str| chain.slots.iter().position(|slot| slot.name == name);
        let no_module = |name: &str| StepError::new(format_args!("module `{name}`"), "there", "gone");
        match self {
            // These two are about whether there is a chain, and have been answered.
            Self::Attach { .. } | Self::Detach { .. } => Ok(()),
            Self::ChangeChain(field) => match field {
                ChainField::Name(change) => put("the chain's name", &mut chain.name, change),
                ChainField::Engine(change) => put("the engine", &mut chain.engine, change),
                ChainField::Mode(change) => put("the mode", &mut chain.mode, change),
                ChainField::Default(change) => put("the default", &mut chain.default, change),
                ChainField::Gate(change) => put("the gate", &mut chain.gate, change),
                ChainField::Watch(change) => put("the watch", &mut chain.watch, change),
            },
            Self::AddModule { module, build } => {
                if modules.contains_key(module) {
                    return Err(StepError::new(format_args!("module `{module}`"), "none", "one"));
                }
                modules.insert(module.clone(), build.clone());
                Ok(())
            }
            Self::RemoveModule { module, build } => match modules.get(module) {
                Some(found) if found == build => {
                    modules.remove(module);
                    Ok(())
                }
                Some(_) => Err(StepError::new(format_args!("module `{module}`"), "as it was", "changed")),
                None => Err(no_module(module)),
            },
            Self::ReplaceObject { module, build } => {
                let found = modules.get_mut(module).ok_or_else(|| no_module(module))?;
                let mut object = found.build();
                put("the object", &mut object, build)?;
                found.spec.object = object.object;
                found.sha256 = object.sha256;
                Ok(())
            }
            Self::ChangeModule { module, field } => {
                let spec = &mut modules.get_mut(module).ok_or_else(|| no_module(module))?.spec;
                match field {
                    ModuleField::Program(change) => put("the program", &mut spec.program, change),
                    ModuleField::Map { map, change } => put_entry(&mut spec.maps, map, change),
                    ModuleField::Import { map, change } => put_entry(&mut spec.imports, map, change),
                    ModuleField::Programs { map, change } => put_entry(&mut spec.programs, map, change),
                    ModuleField::Exports(change) => put("`exports`", &mut spec.exports, change),
                    ModuleField::Migrate { map, change } => put_entry(&mut spec.migrate, map, change),
                }
            }
            Self::AddSlot { index, slot } => {
                if position(&slot.name).is_some() {
                    return Err(StepError::new(format_args!("slot `{}`", slot.name), "none", "one"));
                }
                if *index > chain.slots.len() {
                    return Err(StepError::new("the number of slots", index, chain.slots.len()));
                }
                chain.slots.insert(*index, slot.clone());
                Ok(())
            }
            Self::RemoveSlot { index, slot } => match chain.slots.get(*index) {
                Some(found) if found == slot => {
                    chain.slots.remove(*index);
                    Ok(())
                }
                found => {
                    let found = found.map_or("none", |found| &found.name);
                    Err(StepError::new(format_args!("slot {index}"), &slot.name, found))
                }
            },
            Self::MoveSlot { slot, from, to } => {
                if position(slot) != Some(*from) || *to >= chain.slots.len() {
                    let found = position(slot).map_or("nowhere".to_owned(), |at| at.to_string());
                    return Err(StepError::new(format_args!("the place of slot `{slot}`"), from, found));
                }
                let moved = chain.slots.remove(*from);
                chain.slots.insert(*to, moved);
                Ok(())
            }
            Self::ChangeSlot { slot: name, field } => {
                let Some(at) = position(name) else {
                    return Err(StepError::new(format_args!("slot `{name}`"), "there", "gone"));
                };
                let slot = &mut chain.slots[at];
                match field {
                    SlotField::Module(change) => put("the module", &mut slot.module, change),
                    SlotField::ProceedOn(change) => put("`proceed_on`", &mut slot.proceed_on, change),
                    SlotField::OnUnknown(change) => put("`on_unknown`", &mut slot.on_unknown, change),
                    SlotField::Observer(change) => put("`observer`", &mut slot.observer, change),
                    SlotField::At(change) => put("`at`", &mut slot.at, change),
                }
            }
        }
    }

    /// The step that takes this one back.
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::Attach { state } => Self::Detach { state },
            Self::Detach { state } => Self::Attach { state },
            Self::ChangeChain(field) => Self::ChangeChain(field.inverse()),
            Self::AddModule { module, build } => Self::RemoveModule { module, build },
            Self::RemoveModule { module, build } => Self::AddModule { module, build },
            Self::ReplaceObject { module, build } => Self::ReplaceObject { module, build: build.inverse() },
            Self::ChangeModule { module, field } => Self::ChangeModule { module, field: field.inverse() },
            Self::AddSlot { index, slot } => Self::RemoveSlot { index, slot },
            Self::RemoveSlot { index, slot } => Self::AddSlot { index, slot },
            Self::MoveSlot { slot, from, to } => Self::MoveSlot { slot, from: to, to: from },
            Self::ChangeSlot { slot, field } => Self::ChangeSlot { slot, field: field.inverse() },
        }
    }
}

impl ChainField {
    fn inverse(&self) -> Self {
        match self {
            Self::Name(change) => Self::Name(change.inverse()),
            Self::Engine(change) => Self::Engine(change.inverse()),
            Self::Mode(change) => Self::Mode(change.inverse()),
            Self::Default(change) => Self::Default(change.inverse()),
            Self::Gate(change) => Self::Gate(change.inverse()),
            Self::Watch(change) => Self::Watch(change.inverse()),
        }
    }
}

impl ModuleField {
    fn inverse(&self) -> Self {
        match self {
            Self::Program(change) => Self::Program(change.inverse()),
            Self::Map { map, change } => Self::Map { map: map.clone(), change: change.inverse() },
            Self::Import { map, change } => Self::Import { map: map.clone(), change: change.inverse() },
            Self::Programs { map, change } => Self::Programs { map: map.clone(), change: change.inverse() },
            Self::Exports(change) => Self::Exports(change.inverse()),
            Self::Migrate { map, change } => Self::Migrate { map: map.clone(), change: change.inverse() },
        }
    }
}

impl SlotField {
    fn inverse(&self) -> Self {
        match self {
            Self::Module(change) => Self::Module(change.inverse()),
            Self::ProceedOn(change) => Self::ProceedOn(change.inverse()),
            Self::OnUnknown(change) => Self::OnUnknown(change.inverse()),
            Self::Observer(change) => Self::Observer(change.inverse()),
            Self::At(change) => Self::At(change.inverse()),
        }
    }
}

fn put<T: Clone + PartialEq + Debug>(what: &str, field: &mut T, change: &Change<T>) -> Result<(), StepError> {
    if *field != change.from {
        return Err(StepError::new(what, format_args!("{:?}", change.from), format_args!("{field:?}")));
    }
    field.clone_from(&change.to);
    Ok(())
}

/// [`put`] where none is an entry that is not there.
fn put_entry<T: Clone + PartialEq + Debug>(
    entries: &mut IndexMap<String, T>,
    name: &str,
    change: &Change<Option<T>>,
) -> Result<(), StepError> {
    let mut entry = entries.get(name).cloned();
    put(&format!("map `{name}`"), &mut entry, change)?;
    match entry {
        Some(entry) => drop(entries.insert(name.to_owned(), entry)),
        None => drop(entries.shift_remove(name)),
    }
    Ok(())
}
