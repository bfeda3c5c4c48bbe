//! `attach`, `detach`, `add`, `remove`, `replace`, `recover`: what changes the chain of an interface.

use serde::Serialize;
use xdpchain_compose::object::Object;
use xdpchain_host::{
    self as host, BoxError, ChainState, Change, Composed, Desired, Foreign, Host, Interface, Manifest,
    ModuleState, Objects, Recovered, Refusal, Terms,
};
use xdpchain_spec::{MapRef, Mode, ModuleSpec, ObjectRef, Place, Position, SlotSpec};

use super::{outcome, trial};
use crate::args::{Add, Common};
use crate::assemble;
use crate::config;
use crate::error::{Error, Result, exit};
use crate::forwarding;
use crate::output::Output;

/// How a chain is attached.
#[derive(Clone, Copy)]
pub(crate) struct Attach {
    /// Where in the receive path; what the chain says when not given.
    pub(crate) mode: Option<Mode>,
    pub(crate) foreign: Foreign,
    pub(crate) dry_run: bool,
}

pub(crate) fn attach(
    common: &Common,
    out: Output,
    iface: &str,
    chain: Option<&str>,
    how: Attach,
) -> Result<u8> {
    let Attach { mode, foreign, dry_run } = how;
    Interface::by_name(iface)?;
    let (config, file) = config::read(common.file.as_deref())?;
    let mut chain = config::chain_for(&config, &file, iface, chain)?.clone();
    chain.mode = mode.unwrap_or(chain.mode);
    let (mut state, objects) =
        assemble::chain_state(&config, &chain).map_err(|error| error.in_file(&file))?;
    // What is wrong with the objects is told to everybody, not only to those who may attach.
    assemble::compose(&state, &objects, None).map_err(|error| error.in_file(&file))?;
    assemble::make_absolute(&mut state)?;
    let change = change(iface, dry_run, &mut |before| {
        let (mut state, mut objects) = (state.clone(), objects.clone());
        if foreign == Foreign::Adopt || before.is_some_and(|before| before.adopted.is_some()) {
            assemble::add_adopted(&mut state, &mut objects)?;
        }
        Ok(Desired { state, objects, foreign, cause: "attach".to_owned() })
    });
    let driver = match &change {
        Ok(change) => change.before.is_none() && change.after.mode_reason.is_some(),
        Err(Error::Host(error)) => matches!(**error, host::Error::Driver { .. }),
        Err(_) => false,
    };
    if driver {
        note_frags(iface, &state, &objects);
    }
    let change = change.map_err(|error| error.in_file(&file))?;
    let done = if change.before.is_some() { "updated" } else { "attached" };
    let printed = outcome::print(out, &change, done)?;
    warn_of_forwarding(iface, &state, &objects);
    Ok(printed)
}

/// Says which modules keep the chain from taking packets in several buffers, without which drivers refuse large MTUs.
fn note_frags(iface: &str, state: &ChainState, objects: &Objects) {
    /// An MTU that drivers take in one buffer of a page.
    const ONE_BUFFER: u32 = 3000;
    if Interface::by_name(iface).is_ok_and(|interface| interface.mtu < ONE_BUFFER) {
        return;
    }
    let without = state.modules.iter().filter(|(_, module)| {
        let object = objects.bytes(module.object).and_then(|bytes| Object::parse(bytes).ok());
        object.is_some_and(|object| {
            object.xdp_program(module.spec.program.as_deref()).is_ok_and(|program| !program.frags)
        })
    });
    let names: Vec<_> = without.map(|(name, _)| name).collect();
    if !names.is_empty() {
        eprintln!(
            "note: with an MTU like this a driver may want programs for packets in several buffers, section `xdp.frags`, \
             and these are not: {}",
            config::listed(names)
        );
    }
}

/// Says when modules will not find routes on the interface.
fn warn_of_forwarding(iface: &str, state: &ChainState, objects: &Objects) {
    let asks = state.chain.slots.iter().filter_map(|slot| state.modules.get(&slot.module)).any(|module| {
        let object = objects.bytes(module.object).and_then(|bytes| Object::parse(bytes).ok());
        object.is_some_and(|object| forwarding::looks_up_routes(&object, module.spec.program.as_deref()))
    });
    if asks {
        for (what, command) in forwarding::advice(iface) {
            eprintln!("warning: {what}\nhelp: {command}");
        }
    }
}

pub(crate) fn detach(out: Output, iface: &str, dry_run: bool) -> Result<u8> {
    let host = trial::settle(Host::open()?)?;
    let done = match dry_run {
        true => host::Detached { manifest: Some(host.manifest(iface)?), not_restored: None },
        false => host.detach(iface)?,
    };
    let detached = outcome::Detached::of(iface, &done, dry_run);
    detached.tell();
    out.print("Detached", &detached, |_| ())?;
    Ok(exit::DONE)
}

pub(crate) fn add(common: &Common, out: Output, args: &Add) -> Result<u8> {
    let object = config::absolute(&args.object)?;
    let name = match &args.name {
        Some(name) if xdpchain_spec::is_name(name) => name.clone(),
        Some(name) => return Err(Error::BadName { name: name.clone() }),
        None => config::module_name(&object).ok_or_else(|| Error::NoName { object: object.to_string() })?,
    };
    let mut spec = declared(common, &name, &object)?;
    spec.program = args.program.clone().or(spec.program);
    let bytes = config::object_bytes(&object)?;
    let in_object = |source| Error::Object { object: object.to_string(), source };
    Object::parse(&bytes)
        .and_then(|o| o.xdp_program(spec.program.as_deref()).map(drop))
        .map_err(in_object)?;
    let mut objects = Objects::default();
    let id = objects.insert(bytes);
    let slot = SlotSpec {
        proceed_on: args.proceed_on.as_ref().map(|verdicts| verdicts.iter().copied().collect()),
        on_unknown: args.on_unknown,
        observer: args.observer || args.at_exit,
        at: if args.at_exit { Place::Exit } else { Place::Order },
        ..SlotSpec::new(&name)
    };
    let position = args.place.position();
    let cause = format!("add {name}");
    let change = edit(&args.iface, args.dry_run.set, (&cause, &objects), &mut |state| {
        // What was adopted stays last.
        let adopted = state.chain.slot(assemble::ADOPTED).is_some();
        let position = match position {
            Position::Last if adopted && slot.at == Place::Order => {
                Position::Before(assemble::ADOPTED.into())
            }
            ref other => other.clone(),
        };
        state.chain.insert(slot.clone(), &position)?;
        for import in spec.imports.values() {
            known_import(state, &name, import)?;
        }
        state.modules.insert(name.clone(), ModuleState { spec: spec.clone(), object: id });
        Ok(())
    })?;
    outcome::print(out, &change, &format!("added slot `{name}` to"))
}

/// What the file given with `-f` says of the module, when it says anything.
fn declared(common: &Common, name: &str, object: &ObjectRef) -> Result<ModuleSpec> {
    let from_file = match &common.file {
        Some(file) => config::read(Some(file))?.0.modules.swap_remove(name),
        None => None,
    };
    Ok(match from_file {
        Some(spec) => ModuleSpec { object: object.clone(), ..spec },
        None => ModuleSpec::new(object.clone()),
    })
}

fn known_import(state: &ChainState, module: &str, import: &MapRef) -> Result<()> {
    if state.modules.contains_key(&import.module) {
        return Ok(());
    }
    Err(Error::ImportNotRunning {
        module: module.to_owned(),
        import: import.to_string(),
        running: config::listed(state.modules.keys()),
    })
}

pub(crate) fn remove(out: Output, iface: &str, slot: &str, dry_run: bool) -> Result<u8> {
    let cause = format!("remove {slot}");
    let change = edit(iface, dry_run, (&cause, &Objects::default()), &mut |state| {
        state.chain.remove(slot)?;
        assemble::drop_unneeded(state);
        Ok(())
    })?;
    outcome::print(out, &change, &format!("removed slot `{slot}` from"))
}

pub(crate) fn replace(
    out: Output,
    iface: &str,
    slot: &str,
    object: &ObjectRef,
    program: Option<&str>,
    dry_run: bool,
) -> Result<u8> {
    let object = config::absolute(object)?;
    let bytes = config::object_bytes(&object)?;
    let in_object = |source| Error::Object { object: object.to_string(), source };
    let parsed = Object::parse(&bytes).map_err(in_object)?;
    if let Some(name) = program {
        parsed.xdp_program(Some(name)).map_err(in_object)?;
    }
    let mut objects = Objects::default();
    let id = objects.insert(bytes);
    let cause = format!("replace {slot}");
    let change = edit(iface, dry_run, (&cause, &objects), &mut |state| {
        let module = state.chain.module_of(slot)?.to_owned();
        let Some(module) = state.modules.get_mut(&module) else {
            return Err(Error::NoModule { slot: slot.to_owned(), module });
        };
        // The program's name stays as long as the new build still has it.
        let kept = module.spec.program.take().filter(|name| parsed.xdp_program(Some(name)).is_ok());
        module.spec.program = program.map(str::to_owned).or(kept);
        module.spec.object = object.clone();
        module.object = id;
        Ok(())
    })?;
    outcome::print(out, &change, &format!("replaced slot `{slot}` of"))
}

pub(crate) fn recover(out: Output) -> Result<u8> {
    let found = trial::settle(Host::open()?)?.recover()?;
    #[derive(Serialize)]
    struct Entry {
        interface: String,
        what: &'static str,
        generation: Option<u64>,
    }
    #[derive(Serialize)]
    struct Entries {
        interfaces: Vec<Entry>,
    }
    let entry = |recovered: Recovered| match recovered {
        Recovered::Finished { ifname, generation } => {
            Entry { interface: ifname, what: "finished", generation: Some(generation) }
        }
        Recovered::Cleared { ifname, generation } => {
            Entry { interface: ifname, what: "cleared", generation: Some(generation) }
        }
        Recovered::Gone { ifname } => Entry { interface: ifname, what: "gone", generation: None },
        other => Entry { interface: format!("{other:?}"), what: "other", generation: None },
    };
    let entries = Entries { interfaces: found.into_iter().map(entry).collect() };
    if entries.interfaces.is_empty() {
        eprintln!("nothing to recover");
    }
    out.print("Recovered", &entries, |page| {
        for Entry { interface, what, generation } in &entries.interfaces {
            let generation = generation.map_or_else(String::new, |number| format!(" generation {number}"));
            page.line(format!("{interface}: {what}{generation}"));
        }
    })?;
    Ok(exit::DONE)
}

/// Changes the chain that runs on an interface; `cause` is what the history calls it.
fn edit(
    iface: &str,
    dry_run: bool,
    (cause, objects): (&str, &Objects),
    edit: &mut dyn FnMut(&mut ChainState) -> Result<()>,
) -> Result<Change> {
    change(iface, dry_run, &mut |before| {
        let before = before.ok_or_else(|| xdpchain_host::Error::NoChain { ifname: iface.to_owned() })?;
        let mut state = before.state.clone();
        edit(&mut state)?;
        Ok(Desired { state, objects: objects.clone(), foreign: Foreign::Refuse, cause: cause.to_owned() })
    })
}

fn change(
    iface: &str,
    dry_run: bool,
    desired: &mut dyn FnMut(Option<&Manifest>) -> Result<Desired>,
) -> Result<Change> {
    let terms = Terms { compose: &compose, gate: None, trial: None, dry_run };
    Ok(trial::settle(Host::open()?)?.change(
        iface,
        &mut |before| desired(before).map_err(BoxError::from),
        &terms,
    )?)
}

/// Makes images as chains ask for.
pub(crate) fn compose(
    state: &ChainState,
    objects: &Objects,
    refused: Option<&Refusal>,
) -> std::result::Result<Composed, BoxError> {
    assemble::compose(state, objects, refused).map_err(BoxError::from)
}
