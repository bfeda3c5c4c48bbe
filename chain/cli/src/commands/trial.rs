//! Changes on trial: who watches them, what makes them go back, and `confirm`.
//!
//! The watcher is a process of its own, in a session of its own, so that neither the end of the command nor a terminal that
//! hangs up ends it. It is there before the change is committed. Should it be killed, the next command that changes
//! something takes a trial back whose time is over.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use xdpchain_host::{
    Desired, Foreign, Host, Manifest, OnTrial, Outcome, SlotExits, Terms, To, Trial, Want, sys,
};
use xdpchain_spec::{Verdict, WatchSpec};

use super::change;
use crate::error::{Error, Result, exit};
use crate::output::Output;

/// Time between two looks at the counters.
const PACE: Duration = Duration::from_millis(100);
/// How long after its end a trial is left to its watcher.
const GRACE: Duration = Duration::from_secs(5);
/// Packets from which on a share of them says something before the window is over.
const ENOUGH: u64 = 1000;
/// What the watcher says when it is ready.
const READY: &str = "ready";
/// What the watcher is told when the change is committed.
const COMMITTED: &str = "committed";

/// The process that watches a trial.
pub(crate) struct Watcher(Child);

impl Watcher {
    /// Starts one for the trial with this number, which may begin when this returns.
    pub(crate) fn start(id: u64) -> Result<Self> {
        let failed = |source| Error::Watcher { source };
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(["watch-trial", &id.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = &mut child.stdout {
            // One octet after the other: what comes later is for somebody else to read.
            BufReader::with_capacity(1, stdout).read_line(&mut line).map_err(failed)?;
        }
        if line.trim() != READY {
            let source = std::io::Error::other("it ended before it began");
            return Err(Error::Watcher { source });
        }
        Ok(Self(child))
    }

    /// Tells it that the change is committed.
    pub(crate) fn committed(&mut self) -> Result<()> {
        let failed = |source| Error::Watcher { source };
        match &mut self.0.stdin {
            Some(stdin) => writeln!(stdin, "{COMMITTED}").map_err(failed),
            None => Ok(()),
        }
    }

    /// Waits until the trial is over; why the change went back when it did.
    pub(crate) fn wait(mut self) -> Result<Option<String>> {
        let failed = |source| Error::Watcher { source };
        let mut verdict = String::new();
        if let Some(stdout) = self.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut verdict).map_err(failed)?;
        }
        self.0.wait().map_err(failed)?;
        Ok(Some(verdict.trim().to_owned()).filter(|why| !why.is_empty()))
    }
}

/// The watcher itself: watches the trial with this number, and takes it back when it must.
pub(crate) fn watch(id: u64) -> Result<u8> {
    let failed = |source| Error::Watcher { source };
    sys::leave_session().map_err(failed)?;
    let host = Host::open()?.for_trial(id);
    writeln!(std::io::stdout(), "{READY}").map_err(failed)?;
    // An end of file without a word is a command that failed or was killed; what it got done is told by the record.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(failed)?;
    loop {
        let Some(trial) = host.trial()?.filter(|trial| trial.id == id) else { return Ok(exit::DONE) };
        let on_trial = running(&host, &trial)?;
        if on_trial.is_empty() {
            host.end_trial(id)?;
            return Ok(exit::DONE);
        }
        let mut why = None;
        for interface in on_trial {
            why = why.or(broken(&host, &trial, interface)?);
        }
        let over = trial.left().is_zero();
        if over && trial.confirm {
            why.get_or_insert_with(|| "not confirmed in time".to_owned());
        }
        if let Some(why) = why {
            take_back(&host, &trial, &why)?;
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stdout(), "{why}");
            return Ok(exit::FAILED);
        }
        if over {
            host.end_trial(id)?;
            return Ok(exit::DONE);
        }
        thread::sleep(PACE.min(trial.left()));
    }
}

/// The interfaces that run the generation on trial.
fn running<'a>(host: &Host, trial: &'a Trial) -> Result<Vec<&'a OnTrial>> {
    let mut found = Vec::new();
    for interface in &trial.interfaces {
        if generation(host, &interface.ifname)? == Some(interface.after) {
            found.push(interface);
        }
    }
    Ok(found)
}

fn generation(host: &Host, ifname: &str) -> Result<Option<u64>> {
    match host.manifest(ifname) {
        Ok(manifest) => Ok(Some(manifest.generation)),
        Err(xdpchain_host::Error::NoChain { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What of a watch's limits an interface breaks, in words.
fn broken(host: &Host, trial: &Trial, interface: &OnTrial) -> Result<Option<String>> {
    let Some(watch) = &interface.watch else { return Ok(None) };
    if trial.age() > watch.window.duration() + 2 * PACE {
        return Ok(None);
    }
    let now = host.exits(&interface.ifname)?.slots;
    let ended = trial.age() >= watch.window.duration();
    Ok(judge(watch, &interface.counted, &now, ended).map(|what| format!("{}: {what}", interface.ifname)))
}

/// Packets by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    packets: u64,
    dropped: u64,
    aborted: u64,
}

impl Tally {
    /// What was counted in `now` and not in `before`.
    fn between(before: &[SlotExits], now: &[SlotExits]) -> Self {
        let mut tally = Self::default();
        for slot in now {
            let old = before.iter().find(|old| old.slot == slot.slot);
            let rise = |verdict: Verdict| {
                let count = |slot: &SlotExits| slot.verdicts[verdict as usize].packets;
                count(slot).saturating_sub(old.map_or(0, count))
            };
            tally.packets += Verdict::ALL.into_iter().map(rise).sum::<u64>();
            tally.dropped += rise(Verdict::Drop) + rise(Verdict::Aborted);
            tally.aborted += rise(Verdict::Aborted);
        }
        tally
    }

    /// The share of dropped packets, in hundredths of a percent.
    fn share(self) -> u64 {
        self.dropped.saturating_mul(10_000).checked_div(self.packets).unwrap_or(0)
    }
}

fn judge(watch: &WatchSpec, before: &[SlotExits], now: &[SlotExits], ended: bool) -> Option<String> {
    let since = Tally::between(before, now);
    if let Some(most) = watch.max_aborted.filter(|most| since.aborted > *most) {
        return Some(format!("{} packets aborted, and `max_aborted` is {most}", since.aborted));
    }
    let most = watch.max_drop_increase?;
    let usual = Tally::between(&[], before).share();
    let limit = usual + u64::from(most.hundredths());
    if since.share() > limit && (ended || since.packets >= ENOUGH) {
        let percent = |share: u64| format!("{}.{:02} %", share / 100, share % 100);
        return Some(format!(
            "{} of packets dropped, {} before, and `max_drop_increase` is {most}",
            percent(since.share()),
            percent(usual)
        ));
    }
    None
}

/// Lets every interface of a trial that still runs the generation on trial go back to the one before.
pub(crate) fn take_back(host: &Host, trial: &Trial, why: &str) -> Result<Vec<Outcome>> {
    let mut edits = Vec::new();
    for interface in running(host, trial)? {
        let target = interface.before.map(|before| kept(host, &interface.ifname, before)).transpose()?;
        edits.push((interface, target));
    }
    let mut desired: Vec<_> = edits
        .iter()
        .map(|(interface, target)| {
            let edit = move |_: Option<&Manifest>| {
                let target = target.as_ref().ok_or("there is nothing to go back to")?;
                Ok(back_to(target, why))
            };
            (*interface, target.is_some(), edit)
        })
        .collect();
    let wants = desired
        .iter_mut()
        .map(|(interface, stays, edit)| Want {
            ifname: interface.ifname.clone(),
            seen: Some(Some(interface.after)),
            to: if *stays { To::Chain(edit) } else { To::Nothing },
        })
        .collect();
    let terms = Terms { compose: &change::compose, gate: None, trial: None, dry_run: false };
    let outcomes = host.transact(wants, &terms)?;
    host.end_trial(trial.id)?;
    Ok(outcomes)
}

/// A kept generation of an interface.
pub(crate) fn kept(host: &Host, ifname: &str, generation: u64) -> Result<Manifest> {
    let history = host.history(ifname)?;
    let known: Vec<_> = history.iter().map(|manifest| manifest.generation.to_string()).collect();
    history
        .into_iter()
        .find(|manifest| manifest.generation == generation)
        .ok_or_else(|| Error::NoGeneration { iface: ifname.to_owned(), generation, known: known.join(", ") })
}

/// What an interface is to become to run again what it ran as `target`.
pub(crate) fn back_to(target: &Manifest, why: &str) -> Desired {
    Desired {
        state: target.state.clone(),
        objects: xdpchain_host::Objects::default(),
        foreign: Foreign::Refuse,
        cause: match why {
            "" => format!("rollback to {}", target.generation),
            why => format!("rollback to {} ({why})", target.generation),
        },
    }
}

/// Takes a trial back whose time is over and whose watcher does not do that any more.
pub(crate) fn settle(host: Host) -> Result<Host> {
    let Some(trial) = host.trial()? else { return Ok(host) };
    let late =
        trial.left().is_zero() && trial.age() > Duration::from_millis(trial.ends - trial.began) + GRACE;
    if !late {
        return Ok(host);
    }
    let id = trial.id;
    let own = host.for_trial(id);
    if trial.confirm {
        eprintln!("note: a change was not confirmed in time and its watcher is gone; it is taken back");
        take_back(&own, &trial, "not confirmed in time")?;
    } else {
        own.end_trial(id)?;
    }
    Ok(Host::open()?)
}

/// `xdpchain confirm`: what is on trial stays.
pub(crate) fn confirm(out: Output) -> Result<u8> {
    #[derive(Serialize)]
    struct Confirmed {
        interfaces: Vec<Stays>,
    }
    #[derive(Serialize)]
    struct Stays {
        interface: String,
        generation: u64,
    }
    let host = settle(Host::open()?)?;
    let Some(trial) = host.trial()? else { return Err(Error::NothingOnTrial) };
    if !host.end_trial(trial.id)? {
        return Err(Error::NothingOnTrial);
    }
    let stays = |interface: OnTrial| Stays { interface: interface.ifname, generation: interface.after };
    let confirmed = Confirmed { interfaces: trial.interfaces.into_iter().map(stays).collect() };
    for Stays { interface, generation } in &confirmed.interfaces {
        eprintln!("confirmed generation {generation} of {interface}");
    }
    out.print("Confirmed", &confirmed, |_| ())?;
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exits(slot: &str, aborted: u64, dropped: u64, passed: u64) -> SlotExits {
        let mut exits = SlotExits { slot: slot.to_owned(), ..SlotExits::default() };
        for (verdict, packets) in
            [(Verdict::Aborted, aborted), (Verdict::Drop, dropped), (Verdict::Pass, passed)]
        {
            exits.verdicts[verdict as usize].packets = packets;
        }
        exits
    }

    fn watch(text: &str) -> WatchSpec {
        serde_json::from_str(text).expect("a watch")
    }

    #[test]
    fn aborted_packets_count_from_the_change_on() {
        let watch = watch(r#"{"max_aborted": 1}"#);
        let before = [exits("a", 7, 0, 100)];
        assert_eq!(judge(&watch, &before, &[exits("a", 8, 0, 200)], true), None);
        let told = judge(&watch, &before, &[exits("a", 8, 0, 200), exits("new", 1, 0, 0)], false);
        assert!(told.is_some_and(|told| told.starts_with("2 packets aborted")));
    }

    #[test]
    fn a_share_is_judged_when_there_are_enough_packets_or_the_window_is_over() {
        let watch = watch(r#"{"max_drop_increase": "20%"}"#);
        let before = [exits("a", 0, 5, 95)];
        let few = [exits("a", 0, 5 + 30, 95 + 70)];
        assert_eq!(judge(&watch, &before, &few, false), None);
        assert!(
            judge(&watch, &before, &few, true).is_some_and(|told| told.starts_with("30.00 % of packets"))
        );
        let many = |dropped: u64| [exits("a", 0, 5 + dropped, 95 + 1000 - dropped)];
        assert!(judge(&watch, &before, &many(251), false).is_some());
        assert_eq!(judge(&watch, &before, &many(250), true), None);
    }

    #[test]
    fn a_chain_without_packets_breaks_nothing() {
        let watch = watch(r#"{"max_drop_increase": "0%", "max_aborted": 0}"#);
        assert_eq!(judge(&watch, &[], &[exits("a", 0, 0, 0)], true), None);
    }
}
