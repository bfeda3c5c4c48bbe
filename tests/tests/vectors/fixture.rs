//! A fixture file as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};
use xdpchain_abi::Reason;

/// One packet and what becomes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fixture {
    description: String,
    row: String,
    pub(crate) program: String,
    #[serde(default)]
    pub(crate) maps: BTreeMap<String, Vec<Entry>>,
    #[serde(default)]
    pub(crate) context: Mapping,
    pub(crate) ingress: Option<String>,
    pub(crate) headroom: Option<u32>,
    input: String,
    pub(crate) expect: Expect,
}

/// An entry of a map.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) key: Value,
    pub(crate) value: Value,
}

/// What becomes of the packet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) verdict: String,
    output: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    pub(crate) context: Mapping,
    #[serde(default)]
    pub(crate) maps: BTreeMap<String, Vec<Entry>>,
}

impl Fixture {
    /// Reads a file's text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fixture: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        if fixture.description.trim().is_empty() || fixture.row.trim().is_empty() {
            return Err("`description` or `row` is empty".to_owned());
        }
        Ok(fixture)
    }

    /// The packet as it comes in.
    pub(crate) fn input(&self) -> Result<Vec<u8>, String> {
        hexadecimal(&self.input)
    }

    /// The packet as it must be afterwards.
    pub(crate) fn output(&self) -> Result<Vec<u8>, String> {
        match self.expect.output.as_deref() {
            None | Some("unchanged") => self.input(),
            Some(text) => hexadecimal(text),
        }
    }

    /// Whether the test run has to say more than the packet.
    pub(crate) fn needs_context(&self) -> bool {
        self.ingress.is_some() || self.headroom.is_some()
    }

    /// The reason that must be counted.
    pub(crate) fn reason(&self) -> Result<Option<Reason>, String> {
        let Some(name) = self.expect.reason.as_deref() else { return Ok(None) };
        let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
        reason.copied().map(Some).ok_or_else(|| format!("no reason is called `{name}`"))
    }
}

/// The octets that `text` spells.
fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let digits: String = text
        .lines()
        .flat_map(|line| line.split('#').next())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err("hexadecimal text must have two digits for each octet".to_owned());
    }
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("hexadecimal text: {error}"))
}
