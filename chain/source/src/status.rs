//! How a source is doing, and where that is written down.
//!
//! A record lies in the network namespace's folder, so that `source status` needs nobody to answer it, and also tells what a
//! process last knew that is gone.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use xdpchain_host::Host;

use crate::{Error, Result};

/// What a source is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// It has not begun.
    #[default]
    Waiting,
    /// The whole table is compared with the maps.
    Comparing,
    /// The maps follow the table.
    Following,
    /// The maps were as the table when it was compared, and nobody follows it.
    Compared,
    /// The database does not answer; the maps keep what they have.
    Disconnected,
    /// Something else is wrong; it is tried again.
    Failed,
}

impl Phase {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Comparing => "comparing",
            Self::Following => "following",
            Self::Compared => "compared",
            Self::Disconnected => "disconnected",
            Self::Failed => "failed",
        }
    }
}

/// A row that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Its key.
    pub key: String,
    /// Why it does not fit.
    pub reason: String,
}

/// What a source did to one map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapFill {
    /// The map, as `module/map`.
    pub map: String,
    /// Entries written since the last comparison began, it included.
    pub written: u64,
    /// Entries that were as they are to be at the last comparison.
    pub same: u64,
    /// Entries removed since then.
    pub removed: u64,
    /// Entries that no row has, and that stay since the first filling would leave the map emptier.
    pub kept: u64,
    /// Rows that there is no room for.
    pub no_room: u64,
}

/// How a source is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Its name in chains.yaml.
    pub source: String,
    /// The database, without a password.
    pub from: String,
    /// The table.
    pub table: String,
    /// What it is at.
    pub phase: Phase,
    /// What is wrong.
    pub error: Option<String>,
    /// Rows that have entries.
    pub rows: u64,
    /// Rows that do not fit.
    pub rejected: u64,
    /// Some of them.
    pub rejections: Vec<Rejection>,
    /// The maps.
    pub maps: Vec<MapFill>,
    /// Rows that changed and were looked at since the process began.
    pub changes: u64,
    /// Times that the whole table was compared since then.
    pub comparisons: u64,
    /// Why the last time.
    pub compared_because: Option<String>,
    /// Up to where changes are known.
    pub position: Option<String>,
    /// When the maps were last known to be as the table, in milliseconds since 1970.
    pub in_step_at: Option<u64>,
    /// When this was written, in milliseconds since 1970.
    pub written_at: u64,
    /// The process that wrote it.
    pub pid: u32,
    /// The maps that were filled whole, with the kernel's number of each.
    #[serde(default)]
    pub filled: BTreeMap<String, u32>,
}

impl SourceStatus {
    /// Seconds since the maps were last known to be as the table; none when they never were.
    pub fn lag_seconds(&self) -> Option<f64> {
        Some(now().saturating_sub(self.in_step_at?) as f64 / 1000.0)
    }

    /// Whether the process that wrote it is still there.
    pub fn is_alive(&self) -> bool {
        self.pid != 0 && Path::new("/proc").join(self.pid.to_string()).exists()
    }

    /// What somebody should look at, in words.
    pub fn alarms(&self) -> Vec<String> {
        let mut alarms: Vec<String> = self.error.iter().map(|error| first_line(error).to_owned()).collect();
        for map in &self.maps {
            if map.no_room > 0 {
                alarms.push(format!("map {} is full: {} rows have no room", map.map, map.no_room));
            }
            if map.kept > 0 {
                alarms.push(format!(
                    "map {} keeps {} entries that the table does not have: `xdpchain source sync --once --prune {}` removes \
                     them",
                    map.map, map.kept, self.source
                ));
            }
        }
        if self.rejected > 0 {
            alarms.push(format!("{} rows do not fit", self.rejected));
        }
        alarms
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where the records of a network namespace are.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The records of the host's network namespace.
    pub fn of(host: &Host) -> Self {
        Self { folder: host.places().of(host.netns()).run.join("sources") }
    }

    fn file(&self, source: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{source}.{kind}"))
    }

    /// What was last written of a source; none when nothing was, or nothing that can be read.
    pub fn read(&self, source: &str) -> Option<SourceStatus> {
        let text = fs::read(self.file(source, "json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes a record, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&self, status: &SourceStatus) -> Result<()> {
        let path = self.file(&status.source, "json");
        let new = self.file(&status.source, "json.new");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { path, source }
        };
        fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        let text = serde_json::to_vec(status).map_err(|e| failed(&new)(e.into()))?;
        fs::write(&new, text).map_err(failed(&new))?;
        fs::rename(&new, &path).map_err(failed(&path))
    }

    /// Keeps others from filling a source's maps as long as the file is open.
    ///
    /// # Errors
    /// [`Error::Followed`] when somebody else does already, [`Error::File`].
    pub(crate) fn alone(&self, source: &str) -> Result<File> {
        let path = self.file(source, "lock");
        let failed = |source| Error::File { path: path.clone(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Followed { source_name: source.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}
