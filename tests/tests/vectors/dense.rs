//! A fixture of `gtp-decap` with its sessions in the array by TEID.

use serde_json::{Map, Value};
use xdpchain_abi::{Be32, DenseSession};
use xdpchain_golden::{Entry, Fixture};

/// Entries of the array: more than the TEIDs of fixtures need.
pub(crate) const ROOM: u32 = 0x200;
/// Entries of `stats`' arrays that count faster: fewer than some of the customers and sessions of fixtures.
pub(crate) const NUMBERS: u32 = 4;

/// `fixture` with its sessions in the array, `None` when it has none. What finds its place taken, by a session with the same
/// TEID at another address, stays where it is.
pub(crate) fn of(fixture: &Fixture) -> Result<Option<Fixture>, String> {
    if fixture.program.as_deref() != Some("gtp-decap") {
        return Ok(None);
    }
    let mut fixture = fixture.clone();
    let Some(sessions) = fixture.maps.shift_remove("sessions") else { return Ok(None) };
    let mut dense: Vec<Entry> = Vec::new();
    let mut others = Vec::new();
    for entry in sessions {
        let teid = entry.key.get("teid").and_then(Value::as_u64).ok_or("a session has a TEID")?;
        let key = Value::from(DenseSession::index(Be32::new(teid as u32)));
        if dense.iter().any(|dense| dense.key == key) {
            others.push(entry);
            continue;
        }
        let fields = |value: &Value| value.as_object().cloned().ok_or("an entry is written as its fields");
        let mut all: Map<String, Value> = fields(&entry.key)?;
        all.extend(fields(&entry.value)?);
        dense.push(Entry { key, value: all.into() });
    }
    fixture.maps.insert("sessions".to_owned(), others);
    fixture.maps.insert("sessions_dense".to_owned(), dense);
    Ok(Some(fixture))
}
