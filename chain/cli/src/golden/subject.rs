//! What golden packets go through: a module alone, or a chain and each beginning of it.

use std::collections::BTreeMap;

use xdpchain_compose::{Image, Module, fused, tail};
use xdpchain_host::{self as host, ChainState, ModuleState, Objects};
use xdpchain_spec::{ChainDefault, ChainSpec, Config, Engine, ModuleSpec, ObjectRef, Place, SlotSpec};

use super::Rig;
use crate::assemble;
use crate::builtin;
use crate::config;
use crate::error::{Error, Result};

/// A chain or a module.
pub(crate) enum Subject {
    Chain { state: ChainState, objects: Objects },
    Module { name: String, state: Box<ModuleState>, objects: Objects },
}

/// A chain up to one of its slots.
pub(crate) struct Step {
    pub(crate) slot: String,
    pub(crate) observer: bool,
    /// Its row of the exit counters in the whole chain.
    pub(crate) row: u32,
    pub(crate) rig: Rig,
}

impl Subject {
    /// A chain. A program of somebody else's that it took in is left out: it has no copy with maps of its own.
    pub(crate) fn chain(mut state: ChainState, objects: Objects) -> Self {
        state.chain.slots.retain(|slot| slot.name != assemble::ADOPTED);
        // Rows are those of the slots' places then.
        state.rows.clear();
        Self::Chain { state, objects }
    }

    /// A module by its name: that of chains.yaml, else a built-in one.
    pub(crate) fn named(name: &str, config: Option<&Config>) -> Result<Self> {
        let declared = config.and_then(|config| config.modules.get(name)).cloned();
        let spec = match declared {
            Some(spec) => spec,
            None if builtin::find(name).is_some() => ModuleSpec::new(ObjectRef::Builtin(name.to_owned())),
            None => {
                let known = config.map(|config| config.modules.keys().cloned().collect::<Vec<_>>());
                return Err(Error::NoSuchModule {
                    module: name.to_owned(),
                    known: config::listed(known.unwrap_or_default()),
                });
            }
        };
        let mut objects = Objects::default();
        let object = objects.insert(config::object_bytes(&spec.object)?);
        Ok(Self::module_of(name, ModuleState { spec, object }, objects))
    }

    /// A module alone, so with every map of its own.
    pub(crate) fn module_of(name: &str, mut state: ModuleState, objects: Objects) -> Self {
        state.spec.imports.clear();
        Self::Module { name: name.to_owned(), state: Box::new(state), objects }
    }

    /// The name of the chain or of the module.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Chain { state, .. } => &state.chain.name,
            Self::Module { name, .. } => name,
        }
    }

    /// The module's name; none for a chain.
    pub(crate) fn module(&self) -> Option<&str> {
        match self {
            Self::Chain { .. } => None,
            Self::Module { name, .. } => Some(name),
        }
    }

    /// The whole of it, with maps of its own.
    pub(crate) fn rig(&self) -> Result<Rig> {
        self.rig_with(&mut Rig::new)
    }

    /// The whole of it, as `load` loads it.
    pub(crate) fn rig_with(&self, load: &mut Load<'_>) -> Result<Rig> {
        match self {
            Self::Chain { state, objects } => chain(state, objects, load),
            Self::Module { name, state, objects } => {
                let alone = ChainState {
                    chain: ChainSpec::new(name, vec![SlotSpec::new(name)]),
                    modules: [(name.clone(), ModuleState::clone(state))].into(),
                    rows: BTreeMap::new(),
                };
                let parsed = assemble::parse_objects(&alone, objects)?;
                let digest = state.object.short();
                let module = Module { name, object: &parsed[name], spec: &state.spec, digest: &digest };
                Ok(load(fused::compose_bare(&module)?)?)
            }
        }
    }

    /// The chain up to its first slot in order, up to its second, and so on to the one in row `last` or the end: the last
    /// slot's verdict is the whole's. A module has none.
    pub(crate) fn steps(&self, last: Option<u32>) -> Result<Vec<Step>> {
        let Self::Chain { state, objects } = self else { return Ok(Vec::new()) };
        let mut steps = Vec::new();
        for (row, slot) in (0..).zip(&state.chain.slots) {
            if last.is_some_and(|last| row > last) {
                break;
            }
            if slot.at == Place::Exit {
                continue;
            }
            let mut prefix = state.clone();
            prefix.chain.default = ChainDefault::Keep;
            prefix.chain.slots.truncate(row as usize + 1);
            prefix.chain.slots.retain(|slot| slot.at == Place::Order);
            assemble::drop_unneeded(&mut prefix);
            let rig = chain(&prefix, objects, &mut Rig::new)?;
            steps.push(Step { slot: slot.name.clone(), observer: slot.observer, row, rig });
        }
        Ok(steps)
    }
}

type Load<'a> = dyn FnMut(Image) -> host::Result<Rig> + 'a;

/// By the engine that the chain asks for; libxdp's dispatcher, which only an interface can run, means the same as the
/// others.
fn chain(state: &ChainState, objects: &Objects, load: &mut Load<'_>) -> Result<Rig> {
    let mut by = |engine| -> Result<Rig> { Ok(load(assemble::image(state, objects, engine)?)?) };
    match state.chain.engine {
        Engine::Tail => by(tail::compose),
        Engine::Fused => by(fused::compose),
        Engine::Auto | Engine::Libxdp => match by(fused::compose) {
            Err(error) => by(tail::compose).map_err(|_| error),
            done => done,
        },
    }
}
