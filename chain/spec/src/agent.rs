//! What `xdpchain agent` is told: where it answers, whom, and when a map counts as nearly full.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{MapRef, Percentage};

/// The agent: where it answers, whom, and when a map counts as nearly full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// The unix socket on which it answers: `/run/xdpchain/agent.sock` when not given. A relative path is relative to the
    /// file's folder.
    #[serde(default = "AgentSpec::default_socket")]
    pub socket: PathBuf,
    /// Users, by name or number, who are answered on the socket beside root and the agent's own user.
    #[serde(default)]
    pub allow: Vec<String>,
    /// A loopback address and port on which `/metrics` alone is answered, to everybody on this machine.
    #[serde(default)]
    pub metrics: Option<Loopback>,
    /// How full a map may be before that is an alarm: `90%` when not given.
    #[serde(default = "AgentSpec::default_alarm")]
    pub alarm_at: Percentage,
    /// The same for single maps.
    #[serde(default)]
    pub alarms: IndexMap<MapRef, Percentage>,
}

impl AgentSpec {
    fn default_socket() -> PathBuf {
        "/run/xdpchain/agent.sock".into()
    }

    const fn default_alarm() -> Percentage {
        Percentage::from_hundredths(9000)
    }

    /// How full `map`, in the form `module/map`, may be before that is an alarm.
    pub fn alarm_of(&self, map: &str) -> Percentage {
        let own = self.alarms.iter().find(|(name, _)| name.to_string() == map);
        own.map_or(self.alarm_at, |(_, part)| *part)
    }
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            socket: Self::default_socket(),
            allow: Vec::new(),
            metrics: None,
            alarm_at: Self::default_alarm(),
            alarms: IndexMap::new(),
        }
    }
}

/// An address and port that only this machine reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Loopback(SocketAddr);

impl Loopback {
    /// As the standard library has it.
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is no loopback address with a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no loopback address with a port\nhelp: write it as `127.0.0.1:9469` or `[::1]:9469`")]
pub struct BadLoopback {
    /// The text.
    pub text: String,
}

impl FromStr for Loopback {
    type Err = BadLoopback;

    fn from_str(text: &str) -> Result<Self, BadLoopback> {
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
        address.map(Self).ok_or_else(|| BadLoopback { text: text.to_owned() })
    }
}

impl Serialize for Loopback {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Loopback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_be_told() {
        for good in ["127.0.0.1:9469", "127.9.9.9:1", "[::1]:9469"] {
            assert!(good.parse::<Loopback>().is_ok(), "{good}");
        }
        for bad in ["0.0.0.0:9469", "[::]:9469", "192.0.2.1:80", "127.0.0.1", "localhost:9469", ""] {
            assert!(bad.parse::<Loopback>().is_err(), "{bad}");
        }
    }
}
