//! One fixture through its program alone.

use std::{os::fd::AsFd as _, path::PathBuf};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, Xdp},
    util::nr_cpus,
};
use xdpchain_abi::{AclRule, CONTEXT_MAP, Fate, PacketContext, REASON_MAP, REASONS, Reason};
use xdpchain_golden::{Entry, Fixture, difference, verdict_name};
use xdpchain_host::sys::{self, MapFd};
use xdpchain_tests::{Netns, cli::target_dir};

use crate::{dense, layout, maps};

pub(crate) const CONTEXT: usize = size_of::<PacketContext>();
/// `XDP_PACKET_HEADROOM`, less the `struct xdp_frame` that the kernel keeps at its start.
const HEADROOM: u32 = 256 - 40;
/// Octets of a packet buffer of the kernel's test run.
const BUFFER: usize = 4096;

/// Runs the fixture in the namespace of this thread, `ns`, and compares.
pub(crate) fn run(ns: &Netns, fixture: &Fixture) -> Result<(), String> {
    let name = fixture.program.as_deref().ok_or("`program` is missing")?;
    let object = objects().join(format!("{name}.o"));
    let mut ebpf = EbpfLoader::new()
        // A million preallocated entries for each fixture would be most of the time it takes.
        .map_max_entries("sessions", 1024)
        .map_max_entries("sessions_dense", dense::ROOM)
        .map_max_entries("customers_dense", dense::NUMBERS)
        .map_max_entries("sessions_percpu", dense::NUMBERS)
        .load_file(&object)
        .map_err(|e| format!("`{}`: {}\nhelp: cargo xtask build", object.display(), chain(&e)))?;
    let before = context_before(fixture)?;
    set_context(&mut ebpf, before)?;
    for (of, entries) in &fixture.maps {
        let (key, value) = layout::types(name, of)?;
        for entry in entries {
            let map = ebpf.map_mut(of).ok_or_else(|| format!("the object has no map `{of}`"))?;
            maps::put(map, &layout::encode(key, &entry.key)?, &layout::encode(value, &entry.value)?)
                .map_err(|error| format!("map `{of}`: {error}"))?;
        }
    }
    if let Some(rules) = fixture.maps.get("rules").filter(|_| name == "acl") {
        compile(&ebpf, rules)?;
    }

    let (verdict, output) = send(ns, fixture, name, &mut ebpf)?;

    let mut wrong = Vec::new();
    if verdict != fixture.expect.verdict {
        wrong.push(format!("verdict: expected {}, found {verdict}", fixture.expect.verdict));
    }
    let expected = fixture.output().map_err(|error| error.to_string())?;
    wrong.extend(difference(&expected, &output).map(|difference| format!("packet: {difference}")));
    let reason = fixture.reason().map_err(|error| error.to_string())?;
    let expected: Vec<_> = reason.map(|reason| (reason.name(), 1)).into_iter().collect();
    let counted = counted(&ebpf)?;
    if counted != expected {
        wrong.push(format!("reasons: expected {expected:?}, found {counted:?}"));
    }
    compare_context(&ebpf, fixture, before, reason, &mut wrong)?;
    for (of, entries) in &fixture.expect.maps {
        compare_map(&ebpf, name, of, entries, &mut wrong)?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// The rules of a fixture of `acl`.
pub(crate) fn rules(entries: &[Entry]) -> Result<Vec<(u32, AclRule)>, String> {
    let (key, value) = layout::types("acl", "rules")?;
    let mut rules = Vec::new();
    for entry in entries {
        let key = layout::encode(key, &entry.key)?.try_into().map_err(|_| "a rule's key is a number")?;
        let rule = xdpchain_acl::rule(&layout::encode(value, &entry.value)?);
        rules.push((u32::from_ne_bytes(key), rule.ok_or("the layout of AclRule is out of date")?));
    }
    Ok(rules)
}

/// Compiles the rules of a fixture of `acl`, as the binary does when they are written.
fn compile(ebpf: &Ebpf, entries: &[Entry]) -> Result<(), String> {
    let rules = rules(entries)?;
    let Some(Map::ArrayOfMaps(map)) = ebpf.map("rules_compiled") else {
        return Err("the object has no map `rules_compiled`".to_owned());
    };
    let map = map.fd().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    xdpchain_tests::acl::install(map, &rules)
}

/// Where the objects are.
pub(crate) fn objects() -> PathBuf {
    std::env::var_os("XDPCHAIN_EBPF_DIR").map_or_else(|| target_dir().join("ebpf"), PathBuf::from)
}

/// Runs the program once; its verdict and the packet as it left it.
fn send(ns: &Netns, fixture: &Fixture, name: &str, ebpf: &mut Ebpf) -> Result<(String, Vec<u8>), String> {
    let entry = name.replace('-', "_");
    let program = ebpf.program_mut(&entry).ok_or_else(|| format!("the object has no program `{entry}`"))?;
    let program: &mut Xdp = program.try_into().map_err(|e| format!("`{entry}`: {e}"))?;
    program.load().map_err(|e| format!("`{entry}`: {}", chain(&e)))?;
    let packet = fixture.input().map_err(|error| error.to_string())?;
    let metadata = metadata(fixture)?;
    let mut input = vec![0; metadata];
    input.extend(&packet);
    let mut ctx_in = Vec::new();
    if fixture.needs_context() {
        let ifindex = ns.ifindex(fixture.ingress.as_deref().unwrap_or("lo"));
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        for field in [metadata as u32, input.len() as u32, 0, ifindex, 0, 0] {
            ctx_in.extend(field.to_ne_bytes());
        }
    }
    let mut output = vec![0; BUFFER];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut output),
            ctx_in: (!ctx_in.is_empty()).then_some(&ctx_in),
            ..TestRunOptions::new()
        })
        .map_err(|e| format!("BPF_PROG_TEST_RUN: {}", chain(&e)))?;
    output.truncate(result.data_size_out as usize);
    Ok((verdict_name(result.return_value), output.split_off(metadata.min(output.len()))))
}

/// The packet context before the program.
pub(crate) fn context_before(fixture: &Fixture) -> Result<[u8; CONTEXT], String> {
    let mut octets = Vec::new();
    layout::overlay("PacketContext", &mut octets, &fixture.context)?;
    octets.try_into().map_err(|_| "the layout of PacketContext is out of date".to_owned())
}

/// The packet context that is to be left.
pub(crate) fn context_after(
    fixture: &Fixture,
    before: [u8; CONTEXT],
    reason: Option<Reason>,
) -> Result<Vec<u8>, String> {
    let mut expected = before.to_vec();
    if let Some(reason) = reason.filter(|reason| reason.fate() != Fate::Noted) {
        let mut fields = serde_json::Map::new();
        fields.insert("reason".to_owned(), reason.name().into());
        layout::overlay("PacketContext", &mut expected, &fields)?;
    }
    layout::overlay("PacketContext", &mut expected, &fixture.expect.context)?;
    Ok(expected)
}

/// The octets of metadata that leave a packet of the fixture no more headroom than it asks for.
pub(crate) fn metadata(fixture: &Fixture) -> Result<usize, String> {
    match fixture.headroom {
        Some(room) if room <= HEADROOM && room % 4 == 0 => Ok((HEADROOM - room) as usize),
        Some(room) => Err(format!("`headroom` must be a multiple of 4 up to {HEADROOM}, not {room}")),
        None => Ok(0),
    }
}

/// Gives every CPU's context the same value.
fn set_context(ebpf: &mut Ebpf, context: [u8; CONTEXT]) -> Result<(), String> {
    let cpus = nr_cpus().map_err(|(file, e)| format!("{file}: {e}"))?;
    let map = ebpf.map_mut(CONTEXT_MAP).ok_or("the object has no packet context")?;
    let mut map: PerCpuArray<_, [u8; CONTEXT]> = map.try_into().map_err(|e| chain(&e))?;
    let values = PerCpuValues::try_from(vec![context; cpus]).map_err(|e| e.to_string())?;
    map.set(0, values, 0).map_err(|e| chain(&e))
}

/// Only the CPU that ran the program may have another context, and only the one expected.
fn compare_context(
    ebpf: &Ebpf,
    fixture: &Fixture,
    before: [u8; CONTEXT],
    reason: Option<Reason>,
    wrong: &mut Vec<String>,
) -> Result<(), String> {
    let expected = context_after(fixture, before, reason)?;
    let map = ebpf.map(CONTEXT_MAP).ok_or("the object has no packet context")?;
    let map: PerCpuArray<_, [u8; CONTEXT]> = map.try_into().map_err(|e| chain(&e))?;
    let values = map.get(&0, 0).map_err(|e| chain(&e))?;
    let changed: Vec<_> = values.iter().filter(|value| **value != before).collect();
    let found = changed.first().map_or(&before, |value| *value);
    if changed.len() > 1 {
        wrong.push(format!("context: changed on {} CPUs", changed.len()));
    }
    wrong.extend(difference(&expected, found).map(|difference| format!("context: {difference}")));
    Ok(())
}

/// Every reason that was counted, and how often.
fn counted(ebpf: &Ebpf) -> Result<Vec<(&'static str, u64)>, String> {
    let map = ebpf.map(REASON_MAP).ok_or("the object counts no reasons")?;
    let Map::PerCpuArray(map) = map else { return Err(format!("`{REASON_MAP}` is no per-CPU array")) };
    let map = map.fd().as_fd().try_clone_to_owned().and_then(MapFd::new).map_err(|e| e.to_string())?;
    let mut counted = Vec::new();
    for number in 0..REASONS {
        let values = sys::map_lookup(&map, &number.to_ne_bytes()).map_err(|e| e.to_string())?;
        let values = values.ok_or("an array has every entry")?;
        let sum: u64 = values.as_chunks().0.iter().map(|value| u64::from_ne_bytes(*value)).sum();
        if sum != 0 {
            let reason = Reason::ALL.iter().find(|reason| **reason as u32 == number);
            counted.push((reason.map_or("no reason at all", |reason| reason.name()), sum));
        }
    }
    Ok(counted)
}

/// Compares the entries that are named.
fn compare_map(
    ebpf: &Ebpf,
    program: &str,
    name: &str,
    entries: &[Entry],
    wrong: &mut Vec<String>,
) -> Result<(), String> {
    let (key, value) = layout::types(program, name)?;
    let map = ebpf.map(name).ok_or_else(|| format!("the object has no map `{name}`"))?;
    for Entry { key: k, value: v } in entries {
        let expected = layout::encode(value, v)?;
        let octets = layout::encode(key, k)?;
        let found = maps::take(map, &octets, expected.len());
        match found {
            Ok(found) => {
                let difference = difference(&expected, &found);
                wrong.extend(difference.map(|difference| format!("map `{name}` at {k}: {difference}")));
            }
            Err(error) => wrong.push(format!("map `{name}` at {k}: {error}")),
        }
    }
    Ok(())
}

/// An error with all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
