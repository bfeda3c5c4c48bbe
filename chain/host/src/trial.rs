//! Changes on trial: which generations go back to which, and until when, unless somebody confirms.
//!
//! The record is written before the change that it is about and names the generation that will be, so that there is no
//! instant at which a change on trial runs and nobody knows. Who watches it is a process of its own; should that be gone,
//! the time that the record has tells the next command that it is to go back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use xdpchain_spec::WatchSpec;

use crate::error::{Error, Result};
use crate::exits::SlotExits;
use crate::host::Host;
use crate::manifest::Manifest;
use crate::store::{read_json, remove_file, write_json};
use crate::undo::Undo;

/// How a change is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialTerms {
    /// Tells it from those before it.
    pub id: u64,
    /// How long it is on trial.
    pub lasts: Duration,
    /// Whether it goes back at its end unless it is confirmed; else it stays unless a watch finds something.
    pub confirm: bool,
}

/// A change on trial. There is at most one in a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Tells it from those before it.
    pub id: u64,
    /// When it began, milliseconds since 1970.
    pub began: u64,
    /// When it ends.
    pub ends: u64,
    /// Whether it goes back at its end unless it is confirmed.
    pub confirm: bool,
    /// The interfaces.
    pub interfaces: Vec<OnTrial>,
}

/// One interface of a change on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnTrial {
    /// The interface.
    pub ifname: String,
    /// The generation that it goes back to; none for no chain.
    pub before: Option<u64>,
    /// The generation on trial.
    pub after: u64,
    /// What its counters must not show.
    pub watch: Option<WatchSpec>,
    /// What they showed right before the change.
    pub counted: Vec<SlotExits>,
}

impl Trial {
    /// How long it lasts from now on; zero when it is over.
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.ends.saturating_sub(now()))
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.began))
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Host {
    /// The change on trial in the network namespace.
    ///
    /// # Errors
    /// [`Error::Permission`], [`Error::Manifest`].
    pub fn trial(&self) -> Result<Option<Trial>> {
        read_json(&self.at.trial())
    }

    /// Ends a trial; whether it was under way.
    ///
    /// # Errors
    /// [`Error::Permission`], [`Error::Manifest`].
    pub fn end_trial(&self, id: u64) -> Result<bool> {
        let _lock = self.lock()?;
        if self.trial()?.is_none_or(|trial| trial.id != id) {
            return Ok(false);
        }
        remove_file(&self.at.trial())?;
        Ok(true)
    }

    /// Puts a change that is about to be committed on trial: each interface with the generation before and the one after.
    /// The lock is held.
    pub(crate) fn put_on_trial<'a>(
        &'a self,
        terms: &TrialTerms,
        changes: &[(Option<&Manifest>, &Manifest)],
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        if let Some(other) = self.trial()? {
            return Err(on_trial(&other));
        }
        let mut interfaces = Vec::with_capacity(changes.len());
        for (before, after) in changes {
            interfaces.push(OnTrial {
                ifname: after.ifname.clone(),
                before: before.map(|before| before.generation),
                after: after.generation,
                watch: after.state.chain.watch,
                counted: before.map(|before| self.exits_of(before)).transpose()?.unwrap_or_default().slots,
            });
        }
        let began = now();
        let ends = began.saturating_add(millis(terms.lasts));
        let trial = Trial { id: terms.id, began, ends, confirm: terms.confirm, interfaces };
        undo.push("forget the trial", || remove_file(&self.at.trial()));
        write_json(&self.at.trial(), &trial)
    }

    /// Refuses to change an interface that is on trial, unless it is that trial's own doing. The lock is held.
    pub(crate) fn check_trial(&self, ifname: &str) -> Result<()> {
        match self.trial()? {
            Some(trial)
                if self.trial_id() != Some(trial.id)
                    && trial.interfaces.iter().any(|interface| interface.ifname == ifname) =>
            {
                Err(on_trial(&trial))
            }
            _ => Ok(()),
        }
    }
}

fn on_trial(trial: &Trial) -> Error {
    let names: Vec<_> = trial.interfaces.iter().map(|interface| interface.ifname.as_str()).collect();
    Error::OnTrial { interfaces: names.join(", "), seconds: trial.left().as_secs() }
}
