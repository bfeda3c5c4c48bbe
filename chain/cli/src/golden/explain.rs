//! Why a packet ended as it did, by the rows of the conformance table: what the reference says about it.
//!
//! The reference does not ask the kernel for the way out. What the kernel answered is told by what the program made of
//! it, so that what is explained is the packet that ran.

use std::cell::Cell;

use xdpchain_abi::Reason;
use xdpchain_golden::{Fixture, difference};
use xdpchain_reference::{
    Arrival, Chain, HEADROOM, Hop, Module, Outcome, Query, Route, Row, Slot, Tables, Verdict, context, run,
    tables,
};
use xdpchain_spec::{ChainDefault, ObjectRef, Place};
use xdpchain_wire::ethernet::Address;

use super::{Ran, Subject};

/// What is known about a packet beside itself.
#[derive(Default)]
pub(crate) struct Known<'a> {
    /// What fills the maps; nothing for a packet of a capture.
    pub(crate) fixture: Option<&'a Fixture>,
    /// Reasons that were counted for it.
    pub(crate) reasons: &'a [String],
}

/// What the reference says, line by line: each slot, row, and finding, then where it ended. One line when it has nothing to
/// say.
pub(crate) fn explain(subject: &Subject, packet: &[u8], known: &Known<'_>, ran: &Ran) -> Vec<String> {
    match outcome(subject, packet, known, ran) {
        Ok((chain, outcome)) => lines(&chain, &outcome, known, ran),
        Err(problem) => vec![format!("cannot be explained: {problem}")],
    }
}

fn outcome(
    subject: &Subject,
    packet: &[u8],
    known: &Known<'_>,
    ran: &Ran,
) -> Result<(Chain, Outcome), String> {
    let (chain, names) = chain_of(subject)?;
    let (tables, headroom, before) = match known.fixture {
        None => (Tables::default(), HEADROOM, Default::default()),
        Some(fixture) => {
            // The reference knows modules by what they are, the fixture by their names in chains.yaml.
            let mut fixture = fixture.clone();
            fixture.maps = std::mem::take(&mut fixture.maps)
                .into_iter()
                .map(|(name, entries)| match name.split_once('/') {
                    Some((module, map)) => {
                        let found = names.iter().find(|(declared, _)| declared == module);
                        let module = found.map_or(module, |(_, module)| module.name());
                        (format!("{module}/{map}"), entries)
                    }
                    None => (name, entries),
                })
                .collect();
            let alone = subject.module().and_then(|_| names.first()).map(|(_, module)| *module);
            let tables = tables(&fixture, alone).map_err(|error| first_line(&error))?;
            let before = context(&fixture.context).map_err(|error| first_line(&error))?;
            (tables, fixture.headroom.map_or(HEADROOM, |room| room as usize), before)
        }
    };
    let has = |reason: Reason| known.reasons.iter().any(|counted| counted == reason.name());
    let asked = Cell::new(0);
    let network = |_: &Query| {
        asked.set(asked.get() + 1);
        let mac = |at: usize| {
            ran.packet
                .get(at..at + 6)
                .and_then(|octets| Some(Address(*octets.first_chunk()?)))
                .unwrap_or_default()
        };
        let hop = Hop {
            addresses: (!has(Reason::NoNeighbour)).then(|| (mac(0), mac(6))),
            back: ran.verdict.starts_with("tx"),
            mtu: None,
        };
        // The answer to a packet that was too big asks for a way of its own.
        match () {
            () if has(Reason::NoRoute) => Route::Unreachable,
            () if has(Reason::NotForwarded) => Route::NotForwarded,
            () if has(Reason::NeedsFragmentation) => Route::TooBig(hop),
            () if has(Reason::TooBig) && asked.get() == 1 => Route::TooBig(hop),
            () => Route::Forward(hop),
        }
    };
    // Nobody is told again when somebody was told just before.
    let told = has(Reason::TooBig) && ran.verdict.starts_with("drop");
    let arrival = Arrival { packet, headroom, context: before, told };
    Ok((chain.clone(), run(&chain, &tables, &network, &arrival)))
}

/// The chain as the reference has it, and the modules by their names in chains.yaml.
fn chain_of(subject: &Subject) -> Result<(Chain, Vec<(String, Module)>), String> {
    let builtin = |name: &str, object: &ObjectRef| match object {
        ObjectRef::Builtin(builtin) => Module::named(builtin)
            .ok_or_else(|| format!("module `{name}` (builtin:{builtin}) is none of the data path's")),
        ObjectRef::File(_) => Err(format!("module `{name}` is not built in, so nothing is known about it")),
    };
    match subject {
        Subject::Module { name, state, .. } => {
            let module = builtin(name, &state.spec.object)?;
            Ok((Chain::alone(module), vec![(name.clone(), module)]))
        }
        Subject::Chain { state, .. } => {
            let mut names = Vec::new();
            let mut slots = Vec::new();
            for slot in &state.chain.slots {
                let object = &state.modules.get(&slot.module).ok_or("a slot has no module")?.spec.object;
                let module = builtin(&slot.module, object)?;
                names.push((slot.module.clone(), module));
                let proceeds = |verdict: Verdict| match slot.proceed_on {
                    Some(set) => set.iter().any(|on| on as u32 == verdict.number()),
                    None => verdict == Verdict::Pass,
                };
                let all = [Verdict::Aborted, Verdict::Drop, Verdict::Pass, Verdict::Tx, Verdict::Redirect];
                slots.push(Slot {
                    name: slot.name.clone(),
                    module,
                    proceed_on: all.into_iter().filter(|verdict| proceeds(*verdict)).collect(),
                    observer: slot.observer,
                    at_exit: slot.at == Place::Exit,
                });
            }
            let default = match state.chain.default {
                ChainDefault::Keep => None,
                ChainDefault::Pass => Some(Verdict::Pass),
                ChainDefault::Drop => Some(Verdict::Drop),
            };
            Ok((Chain { slots, default }, names))
        }
    }
}

fn lines(chain: &Chain, outcome: &Outcome, known: &Known<'_>, ran: &Ran) -> Vec<String> {
    let mut lines: Vec<String> = outcome
        .steps
        .iter()
        .map(|step| {
            let counted = step.reason.map(|reason| format!(" [{}]", reason.name())).unwrap_or_default();
            format!("{}: {}: {}{counted}", chain.slots[step.slot].name, step.row.id(), step.why)
        })
        .collect();
    let slot = &chain.slots[outcome.slot].name;
    let verdict = format!("{}{}", outcome.verdict.name(), if outcome.ended { "+final" } else { "" });
    lines.push(format!("ends in {slot} with {verdict}"));
    let reasons: Vec<&str> = outcome.reasons.iter().map(|(_, reason)| reason.name()).collect();
    // What a way out takes is not known here; it shows in these.
    let by_mtu = [Row::B02, Row::B03, Row::B04].iter().any(|row| outcome.rows().contains(row));
    let same = difference(&outcome.packet, &ran.packet).is_none() || by_mtu;
    let found = sorted(known.reasons.iter().map(String::as_str).collect());
    if ran.verdict.trim_end_matches("+final") != outcome.verdict.name() || sorted(reasons) != found || !same {
        lines.push("but that is not what the program did: one of the two is wrong".to_owned());
    }
    lines
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

fn first_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
