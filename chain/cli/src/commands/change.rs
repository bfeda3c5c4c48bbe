//! `attach`, `detach`, `recover`: what puts a chain on an interface, and takes it off.

use serde::Serialize;
use xdpchain_compose::object::Object;
use xdpchain_host::{
    self as host, BoxError, ChainState, Change, Composed, Desired, Foreign, Host, Interface, Manifest,
    Objects, Recovered, Refusal, Terms,
};
use xdpchain_spec::Mode;

use super::{gate, outcome, state, trial};
use crate::args::Common;
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

pub(crate) fn recover(out: Output) -> Result<u8> {
    let host = trial::settle(Host::open()?)?;
    let found = host.recover()?;
    if state::put_back(&host)? {
        eprintln!("the maps have again what they had before `state restore` was interrupted");
    }
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

/// Makes one interface's chain what `desired` says.
pub(crate) fn change(
    iface: &str,
    dry_run: bool,
    desired: &mut dyn FnMut(Option<&Manifest>) -> Result<Desired>,
) -> Result<Change> {
    let terms = Terms { compose: &compose, gate: Some(&gate::gate), trial: None, dry_run };
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
