//! `status`: what runs on an interface, and what became of its packets.
//!
//! Packets are counted once, where their chain ended; what came to a slot's place is everything that
//! ended there or after it since the slot was added.

use std::collections::BTreeMap;

use serde::Serialize;
use xdpchain_abi::{REASON_MAP, Reason};
use xdpchain_compose::object::Object;
use xdpchain_compose::{MapOwner, proceed_on};
use xdpchain_host::{
    self as host, Adopted, ChainStatus, Count, Fill, Host, Manifest, ModuleState, SlotExits,
};
use xdpchain_reference::{explain, fate_name};
use xdpchain_spec::{Engine, Place, SlotSpec, Verdict, VerdictSet};

use super::components::{self, Component};
use crate::assemble::ADOPTED;
use crate::error::{Result, exit};
use crate::output::{Output, Page, grouped, octets};

#[derive(Serialize)]
pub(crate) struct Statuses {
    interfaces: Vec<Status>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    interface: String,
    ifindex: u32,
    chain: String,
    generation: u64,
    /// When the generation was committed, seconds since 1970.
    since: u64,
    engine: &'static str,
    engine_reason: Option<String>,
    mode: &'static str,
    mode_reason: Option<String>,
    program: ProgramStatus,
    /// Programs that the chain is made of.
    programs: usize,
    /// The program of somebody else that the chain has taken in.
    adopted: Option<Adopted>,
    default: &'static str,
    /// Whether packets are counted; libxdp's dispatcher has no counters.
    counted: bool,
    /// Everything that went through the chain since it was attached.
    total: Counted,
    slots: Vec<SlotStatus>,
    /// Every program that libxdp's dispatcher calls, whosever it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Component>,
    maps: Vec<MapStatus>,
    reasons: Vec<ReasonCount>,
    /// What is not as it should be.
    problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgramStatus {
    id: u32,
    name: String,
    tag: String,
    /// Octets of native code; none when the program is gone.
    native_octets: Option<u32>,
    verified_instructions: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counted {
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SlotStatus {
    slot: String,
    module: String,
    object: String,
    /// First digits of the object's SHA-256.
    digest: String,
    at: Place,
    observer: bool,
    /// None for an observer, and when the object is not there to be asked.
    proceed_on: Option<VerdictSet>,
    on_unknown: Verdict,
    /// The kernel's number of the slot's own program, when each slot has one.
    program: Option<u32>,
    /// Packets that came to its place in the chain.
    reached: u64,
    /// Packets whose chain ended here, by verdict.
    ended: BTreeMap<Verdict, Counted>,
    /// Return values that were no verdict.
    unknown: u64,
    /// Octets of the packets whose chain ended here.
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MapStatus {
    map: String,
    #[serde(rename = "type")]
    map_type: String,
    max_entries: u32,
    /// Entries that it has; none for maps whose entries are always there, and for those without entries.
    entries: Option<u64>,
    /// The part of its room that is taken, from 0 to 1.
    fill: Option<f64>,
    /// By how many entries it grew each second since an earlier look.
    entries_per_second: Option<f64>,
    /// Seconds until it is full at that rate; none when it does not grow, or makes room by itself.
    full_in_seconds: Option<f64>,
    memory: u64,
    /// The interfaces whose chains use it.
    used_by: Vec<String>,
}

#[derive(Serialize)]
struct ReasonCount {
    /// The slots of this chain that the module stands in; of none when only another interface's chain has it.
    slots: Vec<String>,
    module: String,
    reason: &'static str,
    fate: &'static str,
    /// Counted by the module on all interfaces whose chains have it.
    packets: u64,
    /// What the reason says about a packet; `xdpchain reasons` also tells what to do.
    meaning: Option<&'static str>,
}

pub(crate) fn run(out: Output, iface: Option<&str>) -> Result<u8> {
    let host = Host::open()?;
    let statuses = match iface {
        Some(iface) => Statuses { interfaces: vec![status(&host, &host.status(iface)?, !out.narrow())?] },
        None => every(&host, !out.narrow())?,
    };
    if statuses.interfaces.is_empty() {
        eprintln!("no interface of this network namespace has a chain");
    }
    out.print("Status", &statuses, |page| {
        for (i, status) in statuses.interfaces.iter().enumerate() {
            if i > 0 {
                page.line("");
            }
            show(page, status, out.wide());
        }
    })?;
    let mut healthy = true;
    for status in &statuses.interfaces {
        for problem in &status.problems {
            healthy = false;
            eprintln!("warning: {}: {problem}", status.interface);
        }
    }
    if !healthy {
        eprintln!("help: `xdpchain recover` clears away what is gone");
    }
    Ok(if healthy { exit::DONE } else { exit::NOT_READY })
}

/// What is told of every interface with a chain.
pub(crate) fn collect(host: &Host) -> Result<Statuses> {
    every(host, true)
}

fn every(here: &Host, levels: bool) -> Result<Statuses> {
    let mut interfaces = Vec::new();
    for name in here.interfaces()? {
        match here.status(&name) {
            Ok(chain) => interfaces.push(status(here, &chain, levels)?),
            // It was detached since.
            Err(host::Error::NoChain { .. } | host::Error::NoInterface { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Statuses { interfaces })
}

/// What is told of a chain; with `levels` also how full its maps are.
fn status(host: &Host, chain: &ChainStatus, levels: bool) -> Result<Status> {
    let manifest = &chain.manifest;
    let state = &manifest.state;
    let counts: BTreeMap<&str, &SlotExits> =
        chain.exits.slots.iter().map(|exits| (exits.slot.as_str(), exits)).collect();
    let none = SlotExits::default();
    let slots = state.chain.slots.iter().filter_map(|slot| {
        let exits = counts.get(slot.name.as_str()).copied().unwrap_or(&none);
        let module = state.modules.get(&slot.module)?;
        Some(SlotStatus {
            slot: slot.name.clone(),
            module: slot.module.clone(),
            object: match &manifest.adopted {
                Some(adopted) if slot.name == ADOPTED => format!("program {} ({})", adopted.id, adopted.name),
                _ => module.spec.object.to_string(),
            },
            digest: module.object.short(),
            at: slot.at,
            observer: slot.observer,
            proceed_on: if slot.observer { None } else { effective(host, slot, module) },
            on_unknown: slot.on_unknown,
            program: program_of(manifest, &slot.name),
            reached: exits.reached,
            ended: Verdict::ALL
                .into_iter()
                .map(|verdict| (verdict, counted(exits.verdicts[verdict as usize])))
                .collect(),
            unknown: exits.unknown.packets,
            bytes: exits.total().bytes,
        })
    });
    let shared = host.maps()?;
    let used_by = |map: &xdpchain_host::MapStatus| match &map.owner {
        MapOwner::Chain => vec![manifest.ifname.clone()],
        owner => {
            let found = shared.iter().find(|shared| shared.owner == *owner && shared.name == map.name);
            found.map(|shared| shared.interfaces.clone()).unwrap_or_default()
        }
    };
    let levels = if levels { host.fill_levels(&manifest.ifname)? } else { BTreeMap::new() };
    let maps = chain.maps.iter().map(|map| {
        let level = levels.get(&map.info.id);
        MapStatus {
            used_by: used_by(map),
            map: map_name(&map.owner, &map.name),
            map_type: xdpchain_host::load::map_type_name(map.info.map_type),
            max_entries: map.info.max_entries,
            entries: level.map(|level| level.entries),
            fill: level.map(Fill::ratio),
            entries_per_second: level.and_then(|level| level.per_second),
            full_in_seconds: level.and_then(Fill::full_in),
            memory: map.memory,
        }
    });
    // Another tool may have put the programs into a dispatcher of its own since.
    let dispatcher = chain.program.as_ref().filter(|_| manifest.engine == Engine::Libxdp);
    Ok(Status {
        interface: manifest.ifname.clone(),
        ifindex: manifest.ifindex,
        chain: state.chain.name.clone(),
        generation: manifest.generation,
        since: manifest.time,
        engine: manifest.engine.name(),
        engine_reason: manifest.engine_reason.clone(),
        mode: manifest.mode.name(),
        mode_reason: manifest.mode_reason.clone(),
        program: ProgramStatus {
            id: dispatcher.map_or(manifest.program.id, |program| program.id),
            name: manifest.program.name.clone(),
            tag: manifest.program.tag.clone(),
            native_octets: chain.program.as_ref().map(|program| program.jited_len),
            verified_instructions: chain.program.as_ref().map(|program| program.verified_insns),
        },
        programs: 1 + manifest.others.len(),
        adopted: manifest.adopted.clone(),
        default: state.chain.default.name(),
        counted: manifest.engine != Engine::Libxdp,
        total: counted(chain.exits.total),
        slots: slots.collect(),
        components: chain.components.iter().map(Component::of).collect(),
        maps: maps.collect(),
        reasons: reasons(host, chain)?,
        problems: chain.problems.clone(),
    })
}

/// The program of a slot, when each has one: they stand in the program array in the order in which they run.
fn program_of(manifest: &Manifest, slot: &str) -> Option<u32> {
    match manifest.engine {
        Engine::Tail => {}
        Engine::Libxdp => {
            return manifest.components.iter().find(|record| record.slot == slot).map(|record| record.id);
        }
        Engine::Auto | Engine::Fused => return None,
    }
    let chain = &manifest.state.chain;
    match chain.in_order().chain(chain.at_exit()).position(|other| other.name == slot)? {
        0 => Some(manifest.program.id),
        index => manifest.others.iter().find(|p| p.entry == Some(index as u32)).map(|program| program.id),
    }
}

/// What the slot proceeds on: what was said of it, else what the object that runs says.
fn effective(host: &Host, slot: &SlotSpec, module: &ModuleState) -> Option<VerdictSet> {
    if slot.proceed_on.is_some() {
        return slot.proceed_on;
    }
    let object = Object::parse(&host.object(module.object).ok()??).ok()?;
    let program = object.xdp_program(module.spec.program.as_deref()).ok()?;
    Some(proceed_on(slot, program))
}

fn counted(count: Count) -> Counted {
    Counted { packets: count.packets, bytes: count.bytes }
}

/// A map's name on the command line.
pub(crate) fn map_name(owner: &MapOwner, name: &str) -> String {
    match owner {
        MapOwner::Chain => format!("chain/{name}"),
        MapOwner::Module(module) => format!("{module}/{name}"),
    }
}

/// What the modules counted of packets that they did not forward, as far as they count by the common reasons.
fn reasons(host: &Host, chain: &ChainStatus) -> Result<Vec<ReasonCount>> {
    let mut found = Vec::new();
    for map in &chain.maps {
        let MapOwner::Module(module) = &map.owner else { continue };
        // Another's map may have the name by chance; counters are an array of u64.
        if map.name != REASON_MAP || (map.info.key_size, map.info.value_size) != (4, 8) {
            continue;
        }
        let counters = host.module_map(module, &map.name)?;
        for &reason in Reason::ALL {
            let value = counters.lookup(&(reason as u32).to_ne_bytes())?.unwrap_or_default();
            let packets = value.as_chunks().0.iter().map(|cpu| u64::from_ne_bytes(*cpu)).sum();
            if packets > 0 {
                let fate = fate_name(reason.fate());
                let slots = chain.manifest.state.chain.slots.iter().filter(|slot| slot.module == *module);
                found.push(ReasonCount {
                    slots: slots.map(|slot| slot.name.clone()).collect(),
                    module: module.clone(),
                    reason: reason.name(),
                    fate,
                    packets,
                    meaning: explain(reason).map(|explained| explained.meaning),
                });
            }
        }
    }
    Ok(found)
}

fn show(page: &mut Page, status: &Status, wide: bool) {
    page.line(format!(
        "{}: chain {}, generation {}, {}, {}, program {} ({}){}",
        status.interface,
        status.chain,
        status.generation,
        status.engine,
        status.mode,
        status.program.id,
        status.program.name,
        if status.programs > 1 { format!(" and {} more", status.programs - 1) } else { String::new() },
    ));
    let notes = [("not in native mode", &status.mode_reason), ("not in one program", &status.engine_reason)];
    for (what, reason) in notes {
        if let Some(reason) = reason {
            page.line(format!("  {what}: {reason}"));
        }
    }
    if let Some(Adopted { id, name, place, link, .. }) = &status.adopted {
        let by = link.map_or_else(|| "netlink".to_owned(), |link| format!("link {link}"));
        let place = place.name();
        page.line(format!(
            "  adopted: program {id} ({name}), which was attached by {by}, {place}; `detach` puts it back"
        ));
    }
    page.line("");
    let mut headings = vec!["SLOT", "MODULE", "OBJECT"];
    if wide {
        headings.extend(["DIGEST", "PROGRAM", "ON UNKNOWN"]);
    }
    headings.push("PROCEED ON");
    if status.counted {
        headings.extend([">REACHED", ">ABORTED", ">DROP", ">PASS", ">TX", ">REDIRECT", ">UNKNOWN", ">BYTES"]);
    }
    page.table(&headings, status.slots.iter().map(|slot| slot_row(slot, wide, status.counted)));
    page.line("");
    if status.counted {
        page.line(format!("{} packets, {}", grouped(status.total.packets), octets(status.total.bytes)));
    } else {
        page.line("packets are not counted: libxdp's dispatcher has no counters");
        page.line("");
        components::show(page, &status.components);
    }
    if !wide {
        return;
    }
    page.line("");
    page.table(
        &["MAP", "TYPE", ">ENTRIES", ">MAX", ">FILL", ">FULL IN", ">MEMORY", ">OCTETS", "USED BY"],
        status.maps.iter().map(|map| {
            vec![
                map.map.clone(),
                map.map_type.clone(),
                map.entries.map_or_else(|| "-".to_owned(), grouped),
                grouped(map.max_entries.into()),
                map.fill.map_or_else(|| "-".to_owned(), |fill| format!("{:.1} %", fill * 100.0)),
                map.full_in_seconds.map_or_else(|| "-".to_owned(), time_to),
                octets(map.memory),
                grouped(map.memory),
                map.used_by.join(", "),
            ]
        }),
    );
    let memory: u64 = status.maps.iter().map(|map| map.memory).sum();
    page.line(format!("{} in {} maps", octets(memory), status.maps.len()));
    if !status.reasons.is_empty() {
        page.line("");
        page.table(
            &["SLOT", "MODULE", "REASON", "FATE", ">PACKETS", "MEANING"],
            status.reasons.iter().map(|reason| {
                vec![
                    reason.slots.join(", "),
                    reason.module.clone(),
                    reason.reason.to_owned(),
                    reason.fate.to_owned(),
                    grouped(reason.packets),
                    reason.meaning.unwrap_or_default().to_owned(),
                ]
            }),
        );
    }
}

/// Seconds in the two largest units that there are.
fn time_to(seconds: f64) -> String {
    let seconds = seconds.min(1e9) as u64;
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let Some(at) = units.iter().position(|(_, unit)| seconds >= *unit) else { return "0 s".to_owned() };
    let (name, unit) = units[at];
    let first = format!("{} {name}", seconds / unit);
    match units.get(at + 1).map(|(name, next)| (name, seconds % unit / next)) {
        Some((name, rest)) if rest > 0 => format!("{first} {rest} {name}"),
        _ => first,
    }
}

fn slot_row(slot: &SlotStatus, wide: bool, counted: bool) -> Vec<String> {
    // The file's name tells enough in a narrow table.
    let object = match slot.object.rsplit_once('/') {
        Some((_, name)) if !wide => name.to_owned(),
        _ => slot.object.clone(),
    };
    let mut row = vec![slot.slot.clone(), slot.module.clone(), object];
    if wide {
        let program = slot.program.map_or_else(|| "-".to_owned(), |id| id.to_string());
        row.extend([slot.digest.clone(), program, slot.on_unknown.to_string()]);
    }
    row.push(match (slot.at, slot.observer, slot.proceed_on) {
        (Place::Exit, _, _) => "at exit".to_owned(),
        (_, true, _) => "observer".to_owned(),
        (_, _, Some(set)) => set.to_string(),
        (_, _, None) => "?".to_owned(),
    });
    if !counted {
        return row;
    }
    row.push(grouped(slot.reached));
    row.extend(slot.ended.values().map(|count| grouped(count.packets)));
    row.extend([grouped(slot.unknown), grouped(slot.bytes)]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units() {
        for (seconds, text) in
            [(0.0, "0 s"), (59.9, "59 s"), (61.0, "1 min 1 s"), (7200.0, "2 h"), (90_061.0, "1 d 1 h")]
        {
            assert_eq!(time_to(seconds), text);
        }
    }

    #[test]
    fn a_status_is_the_same_document_for_programs_whatever_people_see() {
        let slot = SlotStatus {
            slot: "acl".into(),
            module: "acl".into(),
            object: "/opt/acl.o".into(),
            digest: "0123456789ab".into(),
            at: Place::Order,
            observer: false,
            proceed_on: Some(VerdictSet::only(Verdict::Pass)),
            on_unknown: Verdict::Aborted,
            program: None,
            reached: 1000,
            ended: Verdict::ALL.into_iter().map(|verdict| (verdict, Counted::default())).collect(),
            unknown: 0,
            bytes: 0,
        };
        assert_eq!(
            serde_json::to_string(&slot).unwrap(),
            r#"{"slot":"acl","module":"acl","object":"/opt/acl.o","digest":"0123456789ab","at":"order","observer":false,"#
                .to_owned()
                + r#""proceedOn":["pass"],"onUnknown":"aborted","program":null,"reached":1000,"ended":{"aborted":{"packets":0,"bytes":0},"#
                + r#""drop":{"packets":0,"bytes":0},"pass":{"packets":0,"bytes":0},"tx":{"packets":0,"bytes":0},"#
                + r#""redirect":{"packets":0,"bytes":0}},"unknown":0,"bytes":0}"#
        );
        assert_eq!(slot_row(&slot, false, true)[2..5], ["acl.o", "[pass]", "1'000"]);
        assert_eq!(slot_row(&slot, true, true)[2..4], ["/opt/acl.o", "0123456789ab"]);
    }
}
