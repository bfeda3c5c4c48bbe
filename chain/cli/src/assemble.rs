//! From names to a chain that can be composed: objects read, modules gathered.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use xdpchain_compose::object::Object;
use xdpchain_compose::{Chain, ComposeError, Image, Module, Slot, fused, libxdp, tail};
use xdpchain_host::{ChainState, Composed, ModuleState, Objects, Refusal, RunningKernel};
use xdpchain_spec::{ChainSpec, Config, Engine, ModuleSpec, ObjectRef, Position, SlotSpec};

use crate::config::{absolute, absolute_path, object_bytes};
use crate::error::{Error, Result};

/// What `chain` of `config` is to be, with the objects that it is made of.
pub(crate) fn chain_state(config: &Config, chain: &ChainSpec) -> Result<(ChainState, Objects)> {
    let mut objects = Objects::default();
    let mut modules = BTreeMap::new();
    for name in needed(chain, &config.modules) {
        let spec = &config.modules[name];
        let object = objects.insert(object_bytes(&spec.object)?);
        modules.insert(name.to_owned(), ModuleState { spec: spec.clone(), object });
    }
    Ok((ChainState { chain: chain.clone(), modules, rows: BTreeMap::new() }, objects))
}

/// Names files from the root: a chain that runs outlives the folder that it was made from, and one file has one name
/// wherever it is seen from. Until then messages name them as chains.yaml does.
pub(crate) fn make_absolute(state: &mut ChainState) -> Result<()> {
    for module in state.modules.values_mut() {
        module.spec.object = absolute(&module.spec.object)?;
    }
    let gate = state.chain.gate.iter_mut();
    for path in gate.flat_map(|gate| gate.fixtures.iter_mut().chain(&mut gate.pcap)) {
        *path = absolute_path(path).map_err(|source| Error::ReadPackets { path: path.clone(), source })?;
    }
    Ok(())
}

/// Module and slot of a program that somebody else attached.
pub(crate) const ADOPTED: &str = "adopted";

/// Puts the slot for a program of somebody else behind all others in order.
pub(crate) fn add_adopted(state: &mut ChainState, objects: &mut Objects) -> Result<()> {
    let object = ObjectRef::Builtin(ADOPTED.to_owned());
    let id = objects.insert(object_bytes(&object)?);
    state.chain.insert(SlotSpec::new(ADOPTED), &Position::Last)?;
    state.modules.insert(ADOPTED.to_owned(), ModuleState { spec: ModuleSpec::new(object), object: id });
    Ok(())
}

/// The modules that the slots name, and those that their imports lead to.
fn needed<'a>(chain: &'a ChainSpec, modules: &'a IndexMap<String, ModuleSpec>) -> Vec<&'a str> {
    let mut found: Vec<&str> = chain.slots.iter().map(|slot| slot.module.as_str()).collect();
    let mut next = 0;
    while let Some(spec) = found.get(next).map(|name| &modules[*name]) {
        for import in spec.imports.values() {
            if !found.contains(&import.module.as_str()) {
                found.push(&import.module);
            }
        }
        next += 1;
    }
    found
}

/// Forgets the modules that no slot needs any more.
pub(crate) fn drop_unneeded(state: &mut ChainState) {
    let modules: IndexMap<String, ModuleSpec> =
        state.modules.iter().map(|(name, module)| (name.clone(), module.spec.clone())).collect();
    let needed: Vec<String> = needed(&state.chain, &modules).into_iter().map(str::to_owned).collect();
    state.modules.retain(|name, _| needed.contains(name));
}

/// Reads the objects of a chain, by module, and links them for this kernel.
pub(crate) fn parse_objects(state: &ChainState, objects: &Objects) -> Result<BTreeMap<String, Object>> {
    let mut parsed = BTreeMap::new();
    let kernel = RunningKernel::new();
    for (name, module) in &state.modules {
        let Some(bytes) = objects.bytes(module.object) else {
            return Err(Error::ObjectGone { module: name.clone(), object: module.object.short() });
        };
        let failed = |source| Error::Object { object: module.spec.object.to_string(), source };
        let mut object = Object::parse(bytes).map_err(failed)?;
        object.link(&kernel);
        if let Ok(program) = object.xdp_program(module.spec.program.as_deref()) {
            let functions = object.reachable(program.function).into_iter();
            for remark in functions.filter_map(|at| object.functions[at].remark.as_ref()) {
                tracing::warn!("module `{name}`: {remark}");
            }
        }
        parsed.insert(name.clone(), object);
    }
    Ok(parsed)
}

/// Makes the programs of a chain, by the engine that it asks for. With `auto` that is one program for all modules,
/// unless they cannot be joined, or the verifier has refused it; then it is a program for each.
pub(crate) fn compose(state: &ChainState, objects: &Objects, refused: Option<&Refusal>) -> Result<Composed> {
    let composed = |image, engine, reason: Option<String>| Composed {
        image,
        engine,
        fallback: state.chain.engine == Engine::Auto && reason.is_none(),
        engine_reason: reason,
    };
    let (first, reason) = match (state.chain.engine, refused) {
        (Engine::Libxdp, _) => {
            return Ok(composed(image(state, objects, libxdp::compose)?, Engine::Libxdp, None));
        }
        (Engine::Tail, _) => return Ok(composed(image(state, objects, tail::compose)?, Engine::Tail, None)),
        (Engine::Auto, Some(refusal)) => {
            let said = refusal.message.clone().unwrap_or_else(|| refusal.error.to_string());
            (None, format!("the verifier refused one program of all modules: {said}"))
        }
        (engine, _) => match image(state, objects, fused::compose) {
            Ok(image) => return Ok(composed(image, Engine::Fused, None)),
            Err(error) if engine == Engine::Fused => return Err(error),
            Err(error) => {
                let said = error.to_string();
                let said = said.lines().next().unwrap_or_default().to_owned();
                (Some(error), format!("the modules cannot be joined into one program: {said}"))
            }
        },
    };
    match (image(state, objects, tail::compose), first) {
        (Ok(image), _) => Ok(composed(image, Engine::Tail, Some(reason))),
        // Of two failures the one of the engine that was wanted tells more.
        (Err(_), Some(first)) => Err(first),
        (Err(error), None) => Err(error),
    }
}

pub(crate) type EngineFn = fn(&Chain<'_>) -> Result<Image, ComposeError>;

/// Makes the programs of a chain by one engine.
pub(crate) fn image(state: &ChainState, objects: &Objects, engine: EngineFn) -> Result<Image> {
    let parsed = parse_objects(state, objects)?;
    let digests: BTreeMap<&str, String> =
        state.modules.iter().map(|(name, module)| (name.as_str(), module.object.short())).collect();
    let modules = state
        .modules
        .iter()
        .map(|(name, module)| Module {
            name,
            object: &parsed[name],
            spec: &module.spec,
            digest: &digests[name.as_str()],
        })
        .collect();
    // Rows are given out when the chain is attached; until then any will do.
    let row = |index: usize, name: &str| state.rows.get(name).copied().unwrap_or(index as u32);
    let slots = state.chain.slots.iter().enumerate();
    let slots = slots.map(|(index, spec)| Slot { spec, row: row(index, &spec.name) }).collect();
    let chain = Chain { name: &state.chain.name, default: state.chain.default, modules, slots };
    let image = engine(&chain).map_err(|error| named(error, state))?;
    tracing::info!(
        chain = state.chain.name,
        slots = state.chain.slots.len(),
        programs = image.programs.len(),
        instructions = image.programs.iter().map(|program| program.insns.len()).sum::<usize>(),
        maps = image.maps.len(),
        "composed"
    );
    Ok(image)
}

/// People know an object by its file; composition knows it by its module.
fn named(error: ComposeError, state: &ChainState) -> Error {
    match error {
        ComposeError::Object { module, error } => match state.modules.get(&module) {
            Some(known) => Error::Object { object: known.spec.object.to_string(), source: error },
            None => ComposeError::Object { module, error }.into(),
        },
        other => other.into(),
    }
}
