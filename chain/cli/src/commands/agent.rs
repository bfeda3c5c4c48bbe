//! `agent`: applies chains.yaml at the start and when it changes, follows the sources, and answers questions.
//!
//! The data path does not need it: chains, maps and links outlive it, and whatever it cannot do now it tries again.

mod followers;
mod metrics;
mod serve;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use xdpchain_host::Foreign;
use xdpchain_spec::{AgentSpec, Config};

use super::apply;
use crate::args::Common;
use crate::config;
use crate::error::{Error, Result, exit};
use crate::output::Output;

use followers::Followers;

/// How often it is looked whether chains.yaml has changed.
const LOOK: Duration = Duration::from_secs(1);
/// How long it is waited before a failed change is tried again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// What the agent knows, for whoever asks.
pub(super) struct Shared {
    pub(super) spec: Mutex<AgentSpec>,
    pub(super) followers: Mutex<Followers>,
    pub(super) applied: Mutex<Applied>,
}

/// What became of chains.yaml.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    /// Changes that were applied, also those that had nothing to do.
    pub(super) done: u64,
    /// Changes that failed.
    pub(super) failed: u64,
    /// Why the last one failed.
    pub(super) error: Option<String>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was last read and applied.
struct Keeper {
    common: Common,
    out: Output,
    shared: Arc<Shared>,
    text: Option<String>,
    /// When a failed change is tried again, and how long it was waited.
    again: Option<(Instant, Duration)>,
}

pub(crate) fn run(common: &Common, out: Output) -> Result<u8> {
    let failed = |source| Error::Agent { what: "start its threads".to_owned(), source };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(failed)?;
    let shared =
        Arc::new(Shared { spec: Mutex::default(), followers: Mutex::default(), applied: Mutex::default() });
    let keeper = Keeper { common: common.clone(), out, shared: Arc::clone(&shared), text: None, again: None };
    let ended = runtime.block_on(live(keeper, &shared));
    tell(&[NotifyState::Stopping]);
    lock(&shared.followers).stop();
    // Nobody waits for those who are still being answered.
    runtime.shutdown_background();
    ended.map(|()| exit::DONE)
}

async fn live(mut keeper: Keeper, shared: &Arc<Shared>) -> Result<()> {
    let failed = |source| Error::Agent { what: "wait for signals".to_owned(), source };
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    keeper = look(keeper, true).await?;
    let mut server = serve::Server::default();
    let spec = lock(&shared.spec).clone();
    server.follow(&spec, shared).await?;
    tell(&[NotifyState::Ready]);
    let mut tick = tokio::time::interval(LOOK);
    loop {
        let asked = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => true,
            _ = tick.tick() => false,
        };
        if asked {
            tell(&[NotifyState::Reloading]);
        }
        keeper = look(keeper, asked).await?;
        let spec = lock(&shared.spec).clone();
        if let Err(error) = server.follow(&spec, shared).await {
            tracing::warn!("{error}");
            lock(&shared.applied).error = Some(error.to_string());
        }
        if asked {
            tell(&[NotifyState::Ready]);
        }
        tell(&[NotifyState::Watchdog]);
    }
}

/// Tells systemd, when it listens.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!("systemd is not told: {error}");
    }
}

/// Looks at chains.yaml on a thread that may wait for the kernel.
async fn look(mut keeper: Keeper, asked: bool) -> Result<Keeper> {
    let looked = tokio::task::spawn_blocking(move || {
        keeper.look(asked);
        keeper
    });
    looked.await.map_err(|error| Error::Agent { what: "apply chains.yaml".to_owned(), source: error.into() })
}

impl Keeper {
    /// Applies chains.yaml when it has changed, when somebody asks, and when that failed and it is time.
    fn look(&mut self, asked: bool) {
        let due = self.again.is_some_and(|(at, _)| Instant::now() >= at);
        let read = config::read_text(self.common.file.as_deref());
        let (text, path) = match read {
            Ok(read) => read,
            Err(error) => {
                if asked || due || self.again.is_none() {
                    self.failed(&error);
                }
                return;
            }
        };
        let changed = self.text.as_ref() != Some(&text);
        if !(changed || asked || due) {
            return;
        }
        if changed {
            self.again = None;
        }
        self.text = Some(text.clone());
        match self.apply(&text, path) {
            Ok(()) => {
                self.again = None;
                let mut applied = lock(&self.shared.applied);
                applied.done += 1;
                applied.error = None;
            }
            Err(error) => self.failed(&error),
        }
    }

    fn apply(&self, text: &str, path: PathBuf) -> Result<()> {
        let config = Config::parse(text, &path)?;
        *lock(&self.shared.spec) = config.agent.clone();
        let common = Common { file: Some(path), ..self.common.clone() };
        let how = apply::How { confirm: None, no_wait: true, foreign: Foreign::Refuse, dry_run: false };
        let applied = match config.chains.values().any(|chain| !chain.interfaces.is_empty()) {
            true => apply::run(&common, self.out, &[], how).map(drop),
            // Without an interface in it, the file is not about the chains that run.
            false => Ok(()),
        };
        // Maps that are there are filled, whether or not the chains could be changed.
        lock(&self.shared.followers).follow(&config.sources);
        applied
    }

    fn failed(&mut self, error: &Error) {
        let wait = self.again.map_or(AGAIN.0, |(_, before)| (before * 2).min(AGAIN.1));
        self.again = Some((Instant::now() + wait, wait));
        tracing::error!("chains.yaml is not applied, and what ran runs on: {error}");
        let mut applied = lock(&self.shared.applied);
        applied.failed += 1;
        applied.error = Some(error.to_string());
    }
}
