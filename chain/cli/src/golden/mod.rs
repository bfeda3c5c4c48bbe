//! Golden packets through chains and modules, by `BPF_PROG_TEST_RUN`, and what differs from what was expected.
//!
//! Nothing is attached, and nothing pinned. A fixture runs with maps of its own.

mod explain;
mod rig;
mod subject;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use xdpchain_abi::{Fate, Reason, direction};
use xdpchain_golden::{Fixture, GoldenError, difference};

use crate::error::{Error, Result};
pub(crate) use explain::{Known, explain};
pub(crate) use rig::{Arrival, Ran, Rig, Tried};
pub(crate) use subject::Subject;

/// The verdict of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SlotVerdict {
    pub(crate) slot: String,
    /// None for an observer, whose verdict does not count.
    pub(crate) verdict: Option<String>,
}

/// What became of one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// The file, and of captures the number of the packet in it.
    pub(crate) packet: String,
    pub(crate) description: Option<String>,
    /// The chain or the module that it went through.
    pub(crate) through: String,
    /// The slots that it came to, in order.
    pub(crate) slots: Vec<SlotVerdict>,
    /// None when it could not be run.
    pub(crate) verdict: Option<String>,
    /// Reasons that were counted for it.
    pub(crate) reasons: Vec<String>,
    /// What is not as it was expected.
    pub(crate) differences: Vec<String>,
    /// Why it ended as it did, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) explained: Vec<String>,
    /// What the program made of it.
    #[serde(skip)]
    pub(crate) ran: Option<Ran>,
}

/// The files of golden packets that `path` leads to: itself, or of a folder all fixtures and captures in it, sorted.
/// Captures of what is expected are not among them.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::ReadPackets { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let golden = is_fixture(&path) || (is_capture(&path) && !is_expected(&path));
        if golden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|extension| known.iter().any(|known| extension == *known))
}

pub(crate) fn is_fixture(path: &Path) -> bool {
    has_extension(path, &["yaml", "yml"])
}

pub(crate) fn is_capture(path: &Path) -> bool {
    has_extension(path, &["pcap", "pcapng", "cap"])
}

fn is_expected(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some_and(|end| end == "expected"))
}

/// The capture of what is to leave, beside a capture of what comes in: `x.expected.pcap` of `x.pcap`.
pub(crate) fn expected_beside(capture: &Path) -> Option<PathBuf> {
    let extension = capture.extension()?.to_str()?;
    let path = capture.with_extension(format!("expected.{extension}"));
    path.is_file().then_some(path)
}

/// Reads a fixture.
pub(crate) fn fixture(path: &Path) -> Result<Fixture> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::ReadPackets { path: path.to_owned(), source })?;
    Fixture::parse(&text).map_err(|error| golden(path, error))
}

/// Reads a capture.
pub(crate) fn capture(path: &Path) -> Result<Vec<Vec<u8>>> {
    let octets =
        std::fs::read(path).map_err(|source| Error::ReadPackets { path: path.to_owned(), source })?;
    xdpchain_golden::packets(&octets).map_err(|error| golden(path, error))
}

fn golden(path: &Path, error: GoldenError) -> Error {
    Error::Golden { path: path.to_owned(), error: Box::new(error) }
}

/// Runs a fixture; with `trace`, tells each slot's verdict.
pub(crate) fn run_fixture(path: &Path, fixture: &Fixture, subject: &Subject, trace: bool) -> Result<Report> {
    let mut report = Report {
        packet: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        description: Some(fixture.description.trim().to_owned()),
        through: subject.name().to_owned(),
        ..Report::default()
    };
    let rig = subject.rig()?;
    match judge(fixture, subject, &rig, &mut report) {
        Err(problem) => report.differences.push(problem),
        Ok(()) if trace => {
            let input = fixture.input().map_err(|error| golden(path, error))?;
            let ended = rig.exits().ok().and_then(|rows| rows.first().map(|(row, _)| *row));
            for step in subject.steps(ended)? {
                let ran = fill(fixture, subject, &step.rig, true)
                    .and_then(|()| step.rig.run(&input, arrival(fixture)));
                let verdict = ran.map_or_else(|problem| format!("? ({problem})"), |ran| ran.verdict);
                let verdict = (!step.observer).then_some(verdict);
                report.slots.push(SlotVerdict { slot: step.slot, verdict });
            }
        }
        Ok(()) => {}
    }
    Ok(report)
}

fn arrival(fixture: &Fixture) -> Arrival<'_> {
    Arrival { ingress: fixture.ingress.as_deref(), headroom: fixture.headroom }
}

/// The module and the name of a map that a fixture names.
fn map_of<'a>(subject: &'a Subject, name: &'a str) -> Tried<(&'a str, &'a str)> {
    match (name.split_once('/'), subject.module()) {
        (Some((module, map)), _) => Ok((module, map)),
        (None, Some(module)) => Ok((module, name)),
        (None, None) => Err(format!("map `{name}` is of no module: write `module/{name}`")),
    }
}

/// Puts the fixture's entries into the maps. With `partly`, those of maps that nothing uses are left out.
fn fill(fixture: &Fixture, subject: &Subject, rig: &Rig, partly: bool) -> Tried<()> {
    for (name, entries) in &fixture.maps {
        let (module, map) = map_of(subject, name)?;
        if !partly || rig.has(Some(module), map) {
            rig.fill(Some(module), map, entries)?;
        }
    }
    Ok(())
}

fn judge(fixture: &Fixture, subject: &Subject, rig: &Rig, report: &mut Report) -> Tried<()> {
    let alone = subject.module().is_some();
    if !alone && !fixture.context.is_empty() {
        return Err(
            "a chain begins with an empty packet context; give `context` only with `program`".to_owned()
        );
    }
    fill(fixture, subject, rig, false)?;
    let before = rig.set_context(&context(&fixture.context)?)?;
    let input = fixture.input().map_err(|error| error.to_string())?;
    let ran = rig.run(&input, arrival(fixture))?;
    report.verdict = Some(ran.verdict.clone());
    report.ran = Some(ran.clone());
    let mut wrong = Vec::new();
    if ran.verdict != fixture.expect.verdict {
        wrong.push(format!("verdict: expected {}, found {}", fixture.expect.verdict, ran.verdict));
    }
    let output = fixture.output().map_err(|error| error.to_string())?;
    wrong.extend(difference(&output, &ran.packet).map(|difference| format!("packet: {difference}")));
    let reason = fixture.reason().map_err(|error| error.to_string())?;
    let counted = rig.reasons()?;
    report.reasons = counted.iter().map(|(name, _)| (*name).to_owned()).collect();
    let expected: Vec<_> = reason.map(|reason| (reason.name(), 1)).into_iter().collect();
    if counted != expected {
        wrong.push(format!("reason: expected {}, found {}", reasons(&expected), reasons(&counted)));
    }
    let mut fields = fixture.expect.context.clone();
    if let Some(reason) = reason.filter(|reason| alone && reason.fate() != Fate::Noted) {
        fields.entry("reason").or_insert_with(|| reason.name().into());
    }
    match before {
        Some(before) => wrong.extend(rig.compare_context(&before, &context(&fields)?, alone)?),
        None if fixture.expect.context.is_empty() => {}
        None => wrong.push("context: no module takes part in it".to_owned()),
    }
    for (name, entries) in &fixture.expect.maps {
        let (module, map) = map_of(subject, name)?;
        wrong.extend(rig.compare(Some(module), map, entries)?);
    }
    report.differences = wrong;
    Ok(())
}

fn reasons(counted: &[(&str, u64)]) -> String {
    match counted {
        [] => "none".to_owned(),
        counted => {
            let each = counted.iter().map(|(name, times)| match times {
                1 => (*name).to_owned(),
                times => format!("{name} {times} times"),
            });
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

/// The fields of a packet context as its type has them: numbers where fixtures have names.
fn context(fields: &serde_json::Map<String, Value>) -> Tried<Value> {
    let mut numbers = fields.clone();
    for (field, value) in &mut numbers {
        let Value::String(name) = &*value else { continue };
        *value = match field.as_str() {
            "direction" => match name.as_str() {
                "none" => json!(direction::NONE),
                "uplink" => json!(direction::UPLINK),
                "downlink" => json!(direction::DOWNLINK),
                _ => return Err(format!("no direction is called `{name}`: none, uplink or downlink")),
            },
            "reason" => {
                let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
                json!(*reason.ok_or_else(|| format!("no reason is called `{name}`"))? as u16)
            }
            _ => continue,
        };
    }
    Ok(Value::Object(numbers))
}

/// Runs the packets of a capture one after the other, with maps that keep what they learn from one to the next.
/// `expected` are the packets that are to leave: those that pass, are sent back or redirected, in order.
pub(crate) fn run_capture(
    path: &Path,
    packets: &[Vec<u8>],
    expected: Option<&[Vec<u8>]>,
    subject: &Subject,
) -> Result<Vec<Report>> {
    let rig = subject.rig()?;
    let steps = subject.steps(None)?;
    let file = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut reports = Vec::with_capacity(packets.len());
    let (mut rows, mut counted): (BTreeMap<u32, u64>, BTreeMap<&str, u64>) = Default::default();
    let mut left = 0;
    for (i, packet) in packets.iter().enumerate() {
        let mut report = Report {
            packet: format!("{file} {}", i + 1),
            through: subject.name().to_owned(),
            ..Report::default()
        };
        match rig.run(packet, Arrival::default()) {
            Ok(ran) => {
                report.verdict = Some(ran.verdict.clone());
                report.ran = Some(ran.clone());
                let now: BTreeMap<u32, u64> = rig.exits().unwrap_or_default().into_iter().collect();
                let ended = now.iter().find(|(row, count)| rows.get(*row) != Some(*count));
                let ended = ended.map(|(row, _)| *row);
                rows = now;
                let now: BTreeMap<&str, u64> = rig.reasons().unwrap_or_default().into_iter().collect();
                let new = now.iter().filter(|(name, count)| counted.get(*name) != Some(*count));
                report.reasons = new.map(|(name, _)| (*name).to_owned()).collect();
                counted = now;
                for step in &steps {
                    // Each sees every packet, so that its maps hold what the chain's hold.
                    let Ok(ran) = step.rig.run(packet, Arrival::default()) else { continue };
                    if ended.is_none_or(|ended| step.row <= ended) {
                        let verdict = (!step.observer).then_some(ran.verdict);
                        report.slots.push(SlotVerdict { slot: step.slot.clone(), verdict });
                    }
                }
                if let Some(expected) = expected.filter(|_| leaves(&ran)) {
                    match expected.get(left) {
                        Some(wanted) => report.differences.extend(
                            difference(wanted, &ran.packet)
                                .map(|text| format!("packet: expected {} {text}", left + 1)),
                        ),
                        None => report.differences.push("it leaves, which was not expected".to_owned()),
                    }
                    left += 1;
                }
            }
            Err(problem) => report.differences.push(problem),
        }
        reports.push(report);
    }
    let missing = expected.map_or(0, |expected| expected.len().saturating_sub(left));
    if missing > 0 {
        let difference = format!("{missing} packets that were expected did not leave");
        match reports.last_mut() {
            Some(last) => last.differences.push(difference),
            None => reports.push(Report {
                packet: file.into_owned(),
                through: subject.name().to_owned(),
                differences: vec![difference],
                ..Report::default()
            }),
        }
    }
    Ok(reports)
}

/// Whether a packet with that verdict goes anywhere.
fn leaves(ran: &Ran) -> bool {
    ["pass", "tx", "redirect"].contains(&ran.verdict.trim_end_matches("+final"))
}
