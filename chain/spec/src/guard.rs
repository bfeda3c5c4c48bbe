//! What keeps a change of a chain from doing harm: golden packets before the swap, counters after it.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Percentage, Timespan};

/// Packets that a new generation must treat as told before it may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateSpec {
    /// Fixture files, and folders of them: packets with what is to become of them. They run with maps of their own,
    /// filled by the fixture. Relative paths are relative to the file's folder.
    #[serde(default)]
    pub fixtures: Vec<PathBuf>,
    /// Captures, pcap or pcapng: their packets run, with the maps as they are, through the chain that runs and through
    /// the new one, and must come to the same verdict and the same octets. Relative paths are relative to the file's
    /// folder.
    #[serde(default)]
    pub pcap: Vec<PathBuf>,
}

/// How long the counters of a new generation are watched, and what they must not show. When they do, the generation
/// before comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchSpec {
    /// How long, from the swap on: `10s` when not given.
    #[serde(default = "WatchSpec::default_window")]
    pub window: Timespan,
    /// How much larger the share of dropped packets may be than it was before the swap, in parts of all packets: with
    /// `20%`, a chain that dropped 5 % may drop up to 25 %.
    pub max_drop_increase: Option<Percentage>,
    /// How many packets may end as aborted within the window.
    pub max_aborted: Option<u64>,
}

impl WatchSpec {
    const fn default_window() -> Timespan {
        Timespan::seconds(10)
    }
}

/// As chains.yaml writes it, on one line.
impl fmt::Display for GateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |name: &str, paths: &[PathBuf]| {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            (!paths.is_empty()).then(|| format!("{name}: [{}]", paths.join(", ")))
        };
        let parts: Vec<_> =
            [list("fixtures", &self.fixtures), list("pcap", &self.pcap)].into_iter().flatten().collect();
        write!(f, "{{ {} }}", parts.join(", "))
    }
}

/// As chains.yaml writes it, on one line.
impl fmt::Display for WatchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ window: {}", self.window)?;
        if let Some(increase) = self.max_drop_increase {
            write!(f, ", max_drop_increase: {increase}")?;
        }
        if let Some(aborted) = self.max_aborted {
            write!(f, ", max_aborted: {aborted}")?;
        }
        f.write_str(" }")
    }
}
