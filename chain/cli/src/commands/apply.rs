//! `xdpchain apply`: what runs becomes what chains.yaml says, on every interface, or on none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indexmap::IndexMap;
use xdpchain_host::{
    BoxError, Desired, Edit, Foreign, Host, Interface, Manifest, Terms, To, TrialTerms, Want,
};
use xdpchain_spec::plan::Action;
use xdpchain_spec::{Timespan, WatchSpec};

use super::trial::Watcher;
use super::{change, gate, outcome, plan, trial};
use crate::args::Common;
use crate::assemble;
use crate::error::{Error, Result, exit};
use crate::output::Output;

/// How to apply.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// Go back after this time unless confirmed.
    pub(crate) confirm: Option<Timespan>,
    /// Do not wait for the end of what `watch` asks for.
    pub(crate) no_wait: bool,
    pub(crate) foreign: Foreign,
    pub(crate) dry_run: bool,
}

pub(crate) fn run(common: &Common, out: Output, ifaces: &[String], how: How) -> Result<u8> {
    let host = trial::settle(Host::open()?)?;
    let (file, plan, wanted) = plan::make(common, &host, ifaces)?;
    if plan.is_empty() {
        eprintln!("nothing to do: everything runs as {} says", file.display());
        outcome::print_all(out, "Applied", &[], ("updated", how.dry_run), None)?;
        return Ok(exit::DONE);
    }
    plan.lines().iter().for_each(|line| eprintln!("{line}"));
    let mut edits = IndexMap::new();
    for interface in plan.interfaces().iter().filter(|interface| !interface.is_empty()) {
        let desired = match wanted.get(interface.interface()) {
            Some((state, objects)) => {
                let (mut state, mut objects) = (state.clone(), objects.clone());
                if how.foreign == Foreign::Adopt
                    && interface.action() == Action::Attach
                    && !Interface::by_name(interface.interface())?.programs.is_empty()
                {
                    assemble::add_adopted(&mut state, &mut objects)?;
                }
                let cause = format!("apply {}", file.display());
                Some(Desired { state, objects, foreign: how.foreign, cause })
            }
            None => None,
        };
        let edit = move |_: Option<&Manifest>| {
            desired.clone().ok_or_else(|| BoxError::from("chains.yaml has no chain for it"))
        };
        edits.insert(interface.interface().to_owned(), (interface, edit));
    }
    let changed = wanted.iter().filter(|(ifname, _)| edits.contains_key(*ifname));
    let trial = trial_terms(changed.filter_map(|(_, (state, _))| state.chain.watch), how);
    let mut watcher = match trial {
        Some(trial) if !how.dry_run => Some(Watcher::start(trial.id)?),
        _ => None,
    };
    let wants = edits.iter_mut().map(|(ifname, (interface, edit))| {
        let edit: &mut Edit<'_> = edit;
        Want {
            ifname: ifname.clone(),
            seen: Some(interface.generation()),
            to: if interface.action() == Action::Detach { To::Nothing } else { To::Chain(edit) },
        }
    });
    let same = plan.interfaces().iter().filter(|interface| interface.is_empty()).map(|interface| Want {
        ifname: interface.interface().to_owned(),
        seen: Some(interface.generation()),
        to: To::Same,
    });
    let terms = Terms { compose: &change::compose, gate: Some(&gate::gate), trial, dry_run: how.dry_run };
    let outcomes = host
        .transact(wants.chain(same).collect(), &terms)
        .map_err(|error| Error::from(error).in_file(&file))?;
    let told = trial
        .filter(|_| !how.dry_run)
        .map(|trial| outcome::Trial { seconds: trial.lasts.as_secs(), confirm: trial.confirm });
    outcome::print_all(out, "Applied", &outcomes, ("updated", how.dry_run), told)?;
    let (Some(mut watcher), Some(trial)) = (watcher.take(), trial) else { return Ok(exit::DONE) };
    watcher.committed()?;
    if trial.confirm {
        let seconds = trial.lasts.as_secs_f64();
        eprintln!("`xdpchain confirm` within {seconds} s keeps this; else it goes back");
        return Ok(exit::DONE);
    }
    if how.no_wait {
        return Ok(exit::DONE);
    }
    eprintln!("watching for {} s", trial.lasts.as_secs_f64());
    match watcher.wait()? {
        None => Ok(exit::DONE),
        Some(why) => Err(Error::WentBack { why }),
    }
}

/// How the change is tried: when it is to be confirmed, or a chain that changes asks to be watched.
fn trial_terms(watches: impl Iterator<Item = WatchSpec>, how: How) -> Option<TrialTerms> {
    let longest = watches.map(|watch| watch.window.duration()).max();
    let (lasts, confirm) = match (how.confirm, longest) {
        (Some(time), _) => (time.duration(), true),
        (None, Some(window)) => (window, false),
        (None, None) => return None,
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Some(TrialTerms { id: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), lasts, confirm })
}
