//! The gate of a change: the chain's golden packets through what is about to run, before packets meet it.
//!
//! Fixtures run on a copy with maps of its own. The packets of captures run on copies of the chain that runs and of the new
//! one, both with the modules' maps as they are, and must come to the same verdict and the same octets. The copies count in
//! exit counters of their own, so the chain's counters do not see them; what modules count in their own maps, they count.

use std::io;

use xdpchain_compose::MapOwner;
use xdpchain_golden::difference;
use xdpchain_host::{self as host, BoxError, Candidate, ChainState, Host, Manifest, MapRecord, Objects, sys};

use crate::error::{Error, Result};
use crate::golden::{self, Arrival, Rig, Subject};

/// Differences that are told at most; how many more there are is told as well.
const TOLD: usize = 10;

/// Refuses a generation that treats a golden packet in another way than it is to be.
pub(crate) fn gate(candidate: &Candidate<'_>) -> std::result::Result<(), BoxError> {
    pass(candidate).map_err(BoxError::from)
}

fn pass(candidate: &Candidate<'_>) -> Result<()> {
    let after = candidate.after;
    let Some(gate) = &after.state.chain.gate else { return Ok(()) };
    let mut differences = Vec::new();
    let mut packets = 0;
    let new = subject(after, candidate.objects.clone());
    for path in &gate.fixtures {
        for file in golden::files(path)?.into_iter().filter(|file| golden::is_fixture(file)) {
            let fixture = golden::fixture(&file)?;
            packets += 1;
            let alone = match &fixture.program {
                None => None,
                Some(name) => match after.state.modules.get(name) {
                    Some(module) => Some(Subject::module_of(name, module.clone(), candidate.objects.clone())),
                    None => {
                        differences.push(format!(
                            "{}: is about module `{name}`, which the chain has not",
                            file.display()
                        ));
                        continue;
                    }
                },
            };
            let report = golden::run_fixture(&file, &fixture, alone.as_ref().unwrap_or(&new), false)?;
            let named = |text: &String| format!("{}: {text}", file.display());
            differences.extend(report.differences.iter().map(named));
        }
    }
    if let Some(before) = candidate.before.filter(|_| !gate.pcap.is_empty()) {
        let old = subject(before, stored(&before.state)?);
        let old =
            old.rig_with(&mut |image| Rig::with(image, &mut |map| live(before, &map.owner, &map.def.name)))?;
        let new =
            new.rig_with(&mut |image| Rig::with(image, &mut |map| live(after, &map.owner, &map.def.name)))?;
        for path in &gate.pcap {
            for (i, packet) in golden::capture(path)?.iter().enumerate() {
                packets += 1;
                let found = compare(&old, &new, packet);
                differences.extend(found.map(|text| format!("{} packet {}: {text}", path.display(), i + 1)));
            }
        }
    }
    tracing::info!(packets, differences = differences.len(), "golden packets were run");
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(TOLD);
    differences.truncate(TOLD);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(Error::Gate { chain: after.state.chain.name.clone(), differences: differences.join("\n") })
}

/// A generation by the engine that it was composed with.
fn subject(manifest: &Manifest, objects: Objects) -> Subject {
    let mut state = manifest.state.clone();
    state.chain.engine = manifest.engine;
    Subject::chain(state, objects)
}

/// The objects of the generation that runs.
fn stored(state: &ChainState) -> Result<Objects> {
    let host = Host::open()?;
    let mut objects = Objects::default();
    for (name, module) in &state.modules {
        let bytes = host
            .object(module.object)?
            .ok_or_else(|| Error::ObjectGone { module: name.clone(), object: module.object.short() })?;
        objects.insert(bytes);
    }
    Ok(objects)
}

/// A module's map as a generation uses it; the chain's own are copied, not shared.
fn live(manifest: &Manifest, owner: &MapOwner, name: &str) -> host::Result<Option<std::os::fd::OwnedFd>> {
    let MapOwner::Module(module) = owner else { return Ok(None) };
    let same = |record: &&MapRecord| record.module.as_ref() == Some(module) && record.name == name;
    let Some(record) = manifest.maps.iter().find(same) else { return Ok(None) };
    match sys::map_by_id(record.id) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(host::Error::Map { action: "open", name: name.to_owned(), source }),
    }
}

/// What the two do with a packet, when it is not the same.
fn compare(old: &Rig, new: &Rig, packet: &[u8]) -> Option<String> {
    match (old.run(packet, Arrival::default()), new.run(packet, Arrival::default())) {
        (Ok(old), Ok(new)) if old.verdict != new.verdict => {
            Some(format!("verdict: {} before, {} after", old.verdict, new.verdict))
        }
        (Ok(old), Ok(new)) => difference(&old.packet, &new.packet),
        (Err(problem), _) | (_, Err(problem)) => Some(problem),
    }
}
