//! `history` and `rollback`: the generations that are kept of an interface.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use xdpchain_host::{Host, Manifest, Terms, To, Want};

use super::{change, outcome, trial};
use crate::error::{Error, Result, exit};
use crate::output::Output;

/// A generation, as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    generation: u64,
    /// RFC 3339, UTC.
    time: String,
    /// Whether it runs.
    current: bool,
    /// Whether it is on trial.
    on_trial: bool,
    cause: String,
    engine: &'static str,
    slots: Vec<String>,
}

pub(crate) fn history(out: Output, iface: &str) -> Result<u8> {
    #[derive(Serialize)]
    struct History<'a> {
        interface: &'a str,
        generations: Vec<Entry>,
    }
    let host = Host::open()?;
    let current = host.manifest(iface)?.generation;
    let trial = host.trial()?;
    let entry = |manifest: Manifest| Entry {
        generation: manifest.generation,
        time: humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(manifest.time)).to_string(),
        current: manifest.generation == current,
        on_trial: trial
            .iter()
            .flat_map(|trial| &trial.interfaces)
            .any(|on_trial| on_trial.ifname == manifest.ifname && on_trial.after == manifest.generation),
        cause: manifest.cause,
        engine: manifest.engine.name(),
        slots: manifest.state.chain.slots.into_iter().map(|slot| slot.name).collect(),
    };
    let history =
        History { interface: iface, generations: host.history(iface)?.into_iter().map(entry).collect() };
    out.print("History", &history, |page| {
        let row = |entry: &Entry| {
            let state = match entry {
                Entry { on_trial: true, .. } => "on trial",
                Entry { current: true, .. } => "runs",
                _ => "",
            };
            vec![
                entry.generation.to_string(),
                entry.time.clone(),
                state.to_owned(),
                entry.engine.to_owned(),
                entry.cause.clone(),
                entry.slots.join(" -> "),
            ]
        };
        let headings = [">GENERATION", "TIME", "STATE", "ENGINE", "CAUSE", "SLOTS"];
        page.table(&headings, history.generations.iter().map(row));
    })?;
    Ok(exit::DONE)
}

/// What `rollback` does to a chain, in words.
const DONE: &str = "rolled back";

/// Goes back to a kept generation; without an interface, takes back what is on trial.
pub(crate) fn rollback(
    out: Output,
    iface: Option<&str>,
    generation: Option<u64>,
    dry_run: bool,
) -> Result<u8> {
    let host = trial::settle(Host::open()?)?;
    let Some(iface) = iface else {
        let Some(trial) = host.trial()? else { return Err(Error::NothingOnTrial) };
        if dry_run {
            return Err(Error::TrialIsNoDryRun);
        }
        let own = host.for_trial(trial.id);
        let outcomes = trial::take_back(&own, &trial, "taken back")?;
        outcome::print_all(out, "RolledBack", &outcomes, (DONE, false), None)?;
        return Ok(exit::DONE);
    };
    let current = host.manifest(iface)?;
    let before = || {
        let mut kept = host.history(iface)?.into_iter();
        kept.rfind(|kept| kept.generation < current.generation)
            .ok_or_else(|| Error::NothingBefore { iface: iface.to_owned() })
    };
    let target = match generation {
        Some(generation) => trial::kept(&host, iface, generation)?,
        None => before()?,
    };
    let terms = Terms { compose: &change::compose, gate: None, trial: None, dry_run };
    let want = Want {
        ifname: iface.to_owned(),
        seen: Some(Some(current.generation)),
        to: To::Chain(&mut |_| Ok(trial::back_to(&target, ""))),
    };
    let outcomes = host.transact(vec![want], &terms)?;
    outcome::print_all(out, "RolledBack", &outcomes, (DONE, dry_run), None)?;
    Ok(exit::DONE)
}
