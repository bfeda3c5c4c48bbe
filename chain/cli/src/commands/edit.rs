//! `add`, `remove`, `replace`, `move`: one step on the chain that runs, and with `--save` in chains.yaml.

use xdpchain_compose::object::Object;
use xdpchain_host::{ChainState, Change, Desired, Foreign, ModuleState, Objects};
use xdpchain_spec::save::FileEdit;
use xdpchain_spec::{ChainSpec, MapRef, ModuleSpec, ObjectRef, Place, Position, SlotSpec};

use super::save::Saving;
use super::{change, outcome};
use crate::args::{Add, Common, Editing};
use crate::assemble;
use crate::config;
use crate::error::{Error, Result};
use crate::output::Output;

pub(crate) fn add(common: &Common, out: Output, args: &Add) -> Result<u8> {
    let object = config::absolute(&args.object)?;
    let name = match &args.name {
        Some(name) if xdpchain_spec::is_name(name) => name.clone(),
        Some(name) => return Err(Error::BadName { name: name.clone() }),
        None => config::module_name(&object).ok_or_else(|| Error::NoName { object: object.to_string() })?,
    };
    let mut spec = declared(common, args.how.save, &name, &object)?;
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
    let program = spec.program.as_deref();
    let in_file = FileEdit::Add { slot: &slot, position: &position, object: &object, program };
    let saving = Saving::open(common, &args.iface, args.how)?.prepare(&in_file)?;
    let cause = format!("add {name}");
    let change = edit(&args.iface, args.how, (&cause, &objects), &mut |state| {
        state.chain.insert(slot.clone(), &before_adopted(&state.chain, &slot, &position))?;
        for import in spec.imports.values() {
            known_import(state, &name, import)?;
        }
        state.modules.insert(name.clone(), ModuleState { spec: spec.clone(), object: id });
        Ok(())
    })?;
    let status = outcome::print(out, &change, &format!("added slot `{name}` to"))?;
    saving.finish()?;
    Ok(status)
}

/// What was adopted stays last.
fn before_adopted(chain: &ChainSpec, slot: &SlotSpec, position: &Position) -> Position {
    match position {
        Position::Last if slot.at == Place::Order && chain.slot(assemble::ADOPTED).is_some() => {
            Position::Before(assemble::ADOPTED.into())
        }
        other => other.clone(),
    }
}

/// What the file given with `-f`, or the one that is saved to, says of the module, when it says anything.
fn declared(common: &Common, save: bool, name: &str, object: &ObjectRef) -> Result<ModuleSpec> {
    let from_file = match common.file.is_some() || save {
        true => config::read(common.file.as_deref())?.0.modules.swap_remove(name),
        false => None,
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

pub(crate) fn remove(common: &Common, out: Output, iface: &str, slot: &str, how: Editing) -> Result<u8> {
    let saving = Saving::open(common, iface, how)?.prepare(&FileEdit::Remove { slot })?;
    let cause = format!("remove {slot}");
    let change = edit(iface, how, (&cause, &Objects::default()), &mut |state| {
        state.chain.remove(slot)?;
        assemble::drop_unneeded(state);
        Ok(())
    })?;
    let status = outcome::print(out, &change, &format!("removed slot `{slot}` from"))?;
    saving.finish()?;
    Ok(status)
}

pub(crate) fn replace(
    common: &Common,
    out: Output,
    (iface, slot): (&str, &str),
    (object, program): (&ObjectRef, Option<&str>),
    how: Editing,
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
    let has = |program: &str| parsed.xdp_program(Some(program)).is_ok();
    let saving = Saving::open(common, iface, how)?;
    let declared = saving.program_of(slot).filter(|program| has(program));
    let in_file = program.map(str::to_owned).or(declared);
    let saving = saving.prepare(&FileEdit::Replace { slot, object: &object, program: in_file.as_deref() })?;
    let cause = format!("replace {slot}");
    let change = edit(iface, how, (&cause, &objects), &mut |state| {
        let module = state.chain.module_of(slot)?.to_owned();
        let Some(module) = state.modules.get_mut(&module) else {
            return Err(Error::NoModule { slot: slot.to_owned(), module });
        };
        // The program's name stays as long as the new build still has it.
        let kept = module.spec.program.take().filter(|program| has(program));
        module.spec.program = program.map(str::to_owned).or(kept);
        module.spec.object = object.clone();
        module.object = id;
        Ok(())
    })?;
    let status = outcome::print(out, &change, &format!("replaced slot `{slot}` of"))?;
    saving.finish()?;
    Ok(status)
}

pub(crate) fn reposition(
    common: &Common,
    out: Output,
    (iface, slot): (&str, &str),
    position: &Position,
    how: Editing,
) -> Result<u8> {
    let saving = Saving::open(common, iface, how)?.prepare(&FileEdit::Move { slot, position })?;
    let cause = format!("move {slot}");
    let change = edit(iface, how, (&cause, &Objects::default()), &mut |state| {
        let position = match state.chain.slot(slot) {
            Some(moved) if moved.name != assemble::ADOPTED => before_adopted(&state.chain, moved, position),
            _ => position.clone(),
        };
        state.chain.reposition(slot, &position)?;
        Ok(())
    })?;
    let status = outcome::print(out, &change, &format!("moved slot `{slot}` of"))?;
    saving.finish()?;
    Ok(status)
}

/// Changes the chain that runs on an interface; `cause` is what the history calls it.
fn edit(
    iface: &str,
    how: Editing,
    (cause, objects): (&str, &Objects),
    edit: &mut dyn FnMut(&mut ChainState) -> Result<()>,
) -> Result<Change> {
    change::change(iface, how.dry_run.set, &mut |before| {
        let before = before.ok_or_else(|| xdpchain_host::Error::NoChain { ifname: iface.to_owned() })?;
        let mut state = before.state.clone();
        edit(&mut state)?;
        Ok(Desired { state, objects: objects.clone(), foreign: Foreign::Refuse, cause: cause.to_owned() })
    })
}
