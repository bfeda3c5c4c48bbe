//! A fixture: one packet, what is there before it, and what is to become of it.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value};
use xdpchain_abi::Reason;

use crate::GoldenError;

/// One packet and what becomes of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// One sentence.
    pub description: String,
    /// The row of a table that it is about, e.g. of a standard; for whoever keeps the fixtures.
    pub row: Option<String>,
    /// The module that the packet goes through, alone. When not given, it goes through a whole chain.
    pub program: Option<String>,
    /// The chain that the packet goes through, where that is not clear.
    pub chain: Option<String>,
    /// Entries that are put into maps before, by the map's name, in a chain `module/map`. Fields that are not named
    /// are zero.
    #[serde(default)]
    pub maps: IndexMap<String, Vec<Entry>>,
    /// Fields of the packet context before a module; the others are zero. A chain begins with all of it zero.
    #[serde(default)]
    pub context: Map<String, Value>,
    /// The interface that the packet comes in on.
    pub ingress: Option<String>,
    /// Octets in front of the packet that programs may use; as many as the kernel gives when not given.
    pub headroom: Option<u32>,
    input: String,
    /// What becomes of it.
    pub expect: Expect,
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The key.
    pub key: Value,
    /// The value.
    pub value: Value,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The verdict, with `+final` behind it when a module ends the chain there.
    pub verdict: String,
    output: Option<String>,
    reason: Option<String>,
    /// Fields of the packet context that are different afterwards.
    #[serde(default)]
    pub context: Map<String, Value>,
    /// Entries of maps afterwards, per-CPU ones summed up; others are not looked at.
    #[serde(default)]
    pub maps: IndexMap<String, Vec<Entry>>,
}

impl Fixture {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`GoldenError`] when it is no fixture, or spells no packet or no reason.
    pub fn parse(text: &str) -> Result<Self, GoldenError> {
        let fixture: Self = serde_yaml::from_str(text)
            .map_err(|error| GoldenError::Fixture { message: error.to_string() })?;
        if fixture.description.trim().is_empty() {
            return Err(GoldenError::Empty { key: "description" });
        }
        fixture.input()?;
        fixture.output()?;
        fixture.reason()?;
        Ok(fixture)
    }

    /// The packet as it comes in.
    ///
    /// # Errors
    /// None for a fixture that was read.
    pub fn input(&self) -> Result<Vec<u8>, GoldenError> {
        hexadecimal("input", &self.input)
    }

    /// The packet as it must be afterwards.
    ///
    /// # Errors
    /// None for a fixture that was read.
    pub fn output(&self) -> Result<Vec<u8>, GoldenError> {
        match self.expect.output.as_deref() {
            None | Some("unchanged") => self.input(),
            Some(text) => hexadecimal("output", text),
        }
    }

    /// Whether a test run has to say more than the packet.
    pub fn needs_context(&self) -> bool {
        self.ingress.is_some() || self.headroom.is_some()
    }

    /// The reason that must be counted, once; no other may be.
    ///
    /// # Errors
    /// None for a fixture that was read.
    pub fn reason(&self) -> Result<Option<Reason>, GoldenError> {
        let Some(name) = self.expect.reason.as_deref() else { return Ok(None) };
        let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
        reason.copied().map(Some).ok_or_else(|| GoldenError::Reason {
            name: name.to_owned(),
            known: Reason::ALL.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(", "),
        })
    }
}

/// The octets that `text` spells: two hexadecimal digits for each; white space, and what follows `#` on a line, does not
/// count. `what` is what messages call it.
///
/// # Errors
/// [`GoldenError::Hexadecimal`].
pub fn hexadecimal(what: &'static str, text: &str) -> Result<Vec<u8>, GoldenError> {
    let bad = |problem: &str| GoldenError::Hexadecimal { what, problem: problem.to_owned() };
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut octets = Vec::new();
    let mut high = None;
    for c in lines.flat_map(str::chars).filter(|c| !c.is_whitespace()) {
        let digit = c.to_digit(16).ok_or_else(|| bad(&format!("`{c}` is no digit")))? as u8;
        match high.take() {
            None => high = Some(digit),
            Some(high) => octets.push(high << 4 | digit),
        }
    }
    if high.is_some() { Err(bad("its last octet has one digit")) } else { Ok(octets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str = "description: A packet.
program: acl
maps: { rules: [ { key: 0x10, value: { action: 1 } } ] }
input: |
  0200 # Ethernet
  00
expect: { verdict: pass+final, reason: filtered, output: \"02\" }
";

    #[test]
    fn a_fixture_is_read() {
        let fixture = Fixture::parse(FIXTURE).unwrap();
        assert_eq!(fixture.input().unwrap(), [2, 0, 0]);
        assert_eq!(fixture.output().unwrap(), [2]);
        assert_eq!(fixture.reason().unwrap().map(Reason::name), Some("filtered"));
        assert_eq!(fixture.maps["rules"][0].key, 16);
        let unchanged = Fixture::parse(&FIXTURE.replace(", output: \"02\"", "")).unwrap();
        assert_eq!(unchanged.output().unwrap(), [2, 0, 0]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (from, to, said) in [
            ("A packet.", "''", "`description` is empty"),
            ("program", "progam", "unknown field `progam`"),
            ("0200 #", "020 #", "input is no hexadecimal text: its last octet has one digit"),
            ("0200 #", "0g00 #", "input is no hexadecimal text: `g` is no digit"),
            ("\"02\"", "\"é\"", "output is no hexadecimal text: `é` is no digit"),
            ("filtered", "filterd", "no reason is called `filterd`"),
        ] {
            let error = Fixture::parse(&FIXTURE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("\nhelp: "), "{error}");
        }
    }
}
