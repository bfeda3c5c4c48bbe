//! The sources that are followed, each by a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use indexmap::IndexMap;
use xdpchain_source::{Follower, SourceStatus};
use xdpchain_spec::SourceSpec;

use super::lock;

/// The sources that are followed.
#[derive(Default)]
pub(crate) struct Followers {
    running: IndexMap<String, Running>,
}

struct Running {
    spec: SourceSpec,
    status: Arc<Mutex<SourceStatus>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(name: &str, spec: &SourceSpec) -> Result<Self, String> {
        let follower = Follower::new(name, spec).map_err(|error| error.to_string())?;
        let (status, stop) = (follower.status(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(format!("source-{name}"))
            .spawn(move || follower.follow(&told))
            .map_err(|error| error.to_string())?;
        Ok(Self { spec: spec.clone(), status, stop, thread: Some(thread) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a source ended by a panic");
        }
    }
}

impl Followers {
    /// Follows these sources, and no others; those that are the same go on as they are.
    pub(super) fn follow(&mut self, sources: &IndexMap<String, SourceSpec>) {
        self.running.retain(|name, running| sources.get(name) == Some(&running.spec));
        for (name, spec) in sources {
            if self.running.contains_key(name) {
                continue;
            }
            match Running::start(name, spec) {
                Ok(running) => drop(self.running.insert(name.clone(), running)),
                Err(error) => tracing::error!("source `{name}` is not followed: {error}"),
            }
        }
    }

    /// Ends all of them; the maps keep what they have.
    pub(super) fn stop(&mut self) {
        for running in self.running.values() {
            running.stop.store(true, Ordering::Relaxed);
        }
        self.running.clear();
    }

    /// How each is doing.
    pub(super) fn statuses(&self) -> Vec<SourceStatus> {
        self.running.values().map(|running| lock(&running.status).clone()).collect()
    }
}
