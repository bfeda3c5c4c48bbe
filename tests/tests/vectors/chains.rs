//! One fixture through chains: a slot that begins the packet context, and the program, by each engine that composes.
//!
//! The packet goes through by `BPF_PROG_TEST_RUN` and, with the fused engine, across a veth pair; once more by that engine as it is
//! where modules leave what they take off to the next move: decapsulators may, and what has left a tunnel comes behind such octets.
//! A chain is loaded once. Before each packet its maps are as new, also those in which a program keeps its variables.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    mem::offset_of,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use xdpchain_abi::{
    CONTEXT_MAP, PacketContext, REASON_MAP, REASONS, Reason, acl_tables::COMPILED, direction,
};
use xdpchain_compose::{
    Chain, ComposeError, EXIT_COLUMNS, EXIT_MAP, Image, MapOwner, Module, Slot, fused, object::Object, tail,
};
use xdpchain_golden::{Entry, Fixture, difference, verdict_name};
use xdpchain_host::{
    RunningKernel,
    load::{Loaded, load},
    sys::{self, MapFd, TestRun},
};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, SlotSpec};
use xdpchain_tests::{Netns, cli::object};

use crate::{dense, layout, run, wire::Wire};

type Compose = fn(&Chain<'_>) -> Result<Image, ComposeError>;

/// With what engines, and whether octets are skipped.
const ENGINES: [(&str, Compose, bool); 3] = [
    ("fused", fused::compose, false),
    ("fused, skipping", fused::compose, true),
    ("tail", tail::compose, false),
];
/// Octets in front of a packet that has left its tunnel: as many as GTP-U has with the shortest of headers.
const SKIPPED: u8 = 36;
/// The module in front.
const PRESET: &str = "preset";
/// Room for sessions.
const SESSIONS: u32 = 1024;
/// Arrays of more entries are emptied only where the packet may have changed them, or where somebody looks.
const SMALL: u32 = 16;
/// `BPF_MAP_TYPE_ARRAY`, `BPF_MAP_TYPE_PERCPU_HASH`, `BPF_MAP_TYPE_PERCPU_ARRAY`, `BPF_MAP_TYPE_HASH`.
const ARRAY: u32 = 2;
const PERCPU_HASH: u32 = 5;
const PERCPU_ARRAY: u32 = 6;
const HASH: u32 = 1;

/// The chains that were loaded so far, by program and engine.
#[derive(Default)]
pub(crate) struct Chains {
    running: Mutex<Running>,
    wire: Wire,
}

type Running = HashMap<(String, usize), Arc<Mutex<Composed>>>;

/// A loaded chain.
struct Composed {
    loaded: Loaded,
    /// Every map with its module's name, `None` for the chain's own, and its own name.
    maps: Vec<(Option<String>, String, MapFd)>,
    /// Where the fixture before may have left something in large arrays.
    left: RefCell<Vec<u32>>,
    /// Whether octets are skipped.
    skips: bool,
}

impl Chains {
    /// Runs the fixture in the namespace of this thread, `ns`, by each engine, and compares.
    pub(crate) fn run(&self, ns: &Netns, fixture: &Fixture) -> Result<(), String> {
        let program = fixture.program.as_deref().ok_or("`program` is missing")?;
        for (at, (engine, compose, skips)) in ENGINES.into_iter().enumerate() {
            let composed = {
                let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                match all.get(&(program.to_owned(), at)) {
                    Some(composed) => composed.clone(),
                    None => {
                        let composed = Composed::new(program, compose, skips)
                            .map_err(|error| format!("engine {engine}: {error}"))?;
                        all.entry((program.to_owned(), at)).or_insert(Arc::new(Mutex::new(composed))).clone()
                    }
                }
            };
            let composed = composed.lock().unwrap_or_else(PoisonError::into_inner);
            composed.run(ns, program, fixture).map_err(|error| format!("engine {engine}: {error}"))?;
            if at == 0 && Wire::takes(fixture)? {
                let sent = self.wire.send(
                    ns,
                    fixture,
                    composed.loaded.program.as_fd(),
                    || composed.prepare(program, fixture),
                    || composed.ended(),
                    || composed.judge(program, fixture, 1),
                );
                sent.map_err(|error| format!("across veth: {error}"))?;
            }
        }
        Ok(())
    }
}

impl Composed {
    fn new(program: &str, compose: Compose, skips: bool) -> Result<Self, String> {
        let path = run::objects().join(format!("{program}.o"));
        let octets =
            fs::read(&path).map_err(|e| format!("`{}`: {e}\nhelp: cargo xtask build", path.display()))?;
        let kernel = RunningKernel::new();
        let parse = |octets: &[u8]| {
            let mut object = Object::parse(octets).map_err(|error| error.to_string())?;
            object.link(&kernel);
            Ok::<_, String>(object)
        };
        let objects = [parse(object::PRESET)?, parse(&octets)?];
        let spec = ModuleSpec::new(ObjectRef::File("vector.o".into()));
        let names = [PRESET, program];
        let modules = names.iter().zip(&objects);
        let modules =
            modules.map(|(name, object)| Module { name, object, spec: &spec, digest: "0" }).collect();
        let slots = names.map(SlotSpec::new);
        let slots = slots.iter().zip(0..).map(|(spec, row)| Slot { spec, row }).collect();
        let chain = Chain { name: "vector", default: ChainDefault::Keep, modules, slots };
        let mut image = compose(&chain).map_err(|error| error.to_string())?;
        for map in &mut image.maps {
            match map.def.name.as_str() {
                "sessions" => map.def.max_entries = SESSIONS,
                "sessions_dense" => map.def.max_entries = dense::ROOM,
                "customers_dense" | "sessions_percpu" => map.def.max_entries = dense::NUMBERS,
                _ => {}
            }
        }
        let loaded = load(&image, &mut |_| Ok(None)).map_err(|error| error.to_string())?;
        let mut maps = Vec::new();
        for (map, open) in image.maps.iter().zip(&loaded.maps) {
            let fd = open.fd.try_clone().and_then(MapFd::new).map_err(|error| error.to_string())?;
            let owner = match &map.owner {
                MapOwner::Module(module) => Some(module.clone()),
                _ => None,
            };
            maps.push((owner, map.def.name.clone(), fd));
        }
        Ok(Self { loaded, maps, left: RefCell::default(), skips })
    }

    /// The map `name` of a module, or the chain's own.
    fn map(&self, module: Option<&str>, name: &str) -> Result<&MapFd, String> {
        let found = self.maps.iter().find(|(owner, map, _)| owner.as_deref() == module && map == name);
        found.map(|(_, _, map)| map).ok_or_else(|| format!("the chain has no map `{name}`"))
    }

    /// Runs the packet by `BPF_PROG_TEST_RUN`, and compares.
    fn run(&self, ns: &Netns, program: &str, fixture: &Fixture) -> Result<(), String> {
        self.prepare(program, fixture)?;
        let metadata = run::metadata(fixture)?;
        let mut packet = vec![0; metadata];
        packet.extend(fixture.input().map_err(|error| error.to_string())?);
        let mut test = TestRun { packet: &packet, metadata: metadata as u32, ..TestRun::default() };
        if fixture.needs_context() {
            test.ingress_ifindex = ns.ifindex(fixture.ingress.as_deref().unwrap_or("lo"));
        }
        let expected = fixture.output().map_err(|error| error.to_string())?;
        let send = || -> Result<u32, String> {
            let result = sys::prog_test_run(self.loaded.program.as_fd(), &test)
                .map_err(|error| format!("BPF_PROG_TEST_RUN: {error}"))?;
            match difference(&expected, &result.packet) {
                Some(difference) => Err(format!("packet: {difference}")),
                None => Ok(result.verdict),
            }
        };
        let verdict = send()?;
        self.judge(program, fixture, 1)?;
        // Once more, now that the program has found out what it keeps for a while; but who was told of one that is too big is not told again.
        if fixture.reason().map_err(|error| error.to_string())? == Some(Reason::TooBig) {
            return Ok(());
        }
        // It may be another CPU's turn.
        let context = self.map(None, CONTEXT_MAP)?;
        update(context, &[0; 4], &vec![0; context.value_len()])?;
        self.set_context(fixture)?;
        match send().map_err(|error| format!("again: {error}"))? {
            again if again == verdict => {}
            again => return Err(format!("again: verdict {again} and not {verdict}")),
        }
        self.judge(program, fixture, 2).map_err(|error| format!("again: {error}"))?;
        match self.maps.iter().find(|(_, name, _)| name == "kept_headers") {
            Some((_, _, kept)) => self.leaves_as_kept(fixture, kept, &test, &expected),
            None => Ok(()),
        }
    }

    /// Sends the packet by headers that were changed where they are kept, if they are: it has to leave with them.
    fn leaves_as_kept(
        &self,
        fixture: &Fixture,
        kept: &MapFd,
        test: &TestRun<'_>,
        expected: &[u8],
    ) -> Result<(), String> {
        /// Octets of what is kept for each tunnel; where the headers begin in it, and the TTL in these.
        const KEPT: usize = 88;
        const HEADERS: usize = 52;
        const TTL: usize = 14 + 8;
        if !is_plain(&fixture.input().map_err(|error| error.to_string())?) {
            return Ok(());
        }
        let mut altered = expected.to_vec();
        let Some(octet) = altered.get_mut(TTL) else { return Ok(()) };
        *octet ^= 1;
        let ttl = *octet;
        for _ in 0..10 {
            let mut is_kept = false;
            let send = || {
                self.set_context(fixture)?;
                let result = sys::prog_test_run(self.loaded.program.as_fd(), test);
                result.map(|result| result.packet).map_err(|error| format!("BPF_PROG_TEST_RUN: {error}"))
            };
            send()?;
            for customer in touched(fixture, "gre-steer")? {
                let key = customer.to_ne_bytes();
                let Ok(mut each) = take(kept, &key) else { continue };
                for one in each.chunks_exact_mut(KEPT).filter(|one| one[..8] != [0; 8]) {
                    is_kept = true;
                    one[HEADERS + TTL] = ttl;
                }
                update(kept, &key, &each)?;
            }
            if !is_kept || send()? == altered {
                return Ok(());
            }
            // It was kept for too short a time, or somewhere else than where the packet ran: once more.
            self.empty(fixture, "gre-steer")?;
            self.prepare("gre-steer", fixture)?;
        }
        Err("a packet like the one before does not leave by the headers that are kept".to_owned())
    }

    /// Makes the maps what the fixture wants them to be.
    fn prepare(&self, program: &str, fixture: &Fixture) -> Result<(), String> {
        self.empty(fixture, program)?;
        for (name, entries) in &fixture.maps {
            let (key, value) = layout::types(program, name)?;
            let map = self.map(Some(program), name)?;
            for entry in entries {
                update(map, &layout::encode(key, &entry.key)?, &layout::encode(value, &entry.value)?)?;
            }
        }
        if program == "acl" {
            let rules = run::rules(fixture.maps.get("rules").map_or(&[], Vec::as_slice))?;
            let compiled = self.map(Some(program), &format!("rules{COMPILED}"))?;
            let compiled = compiled.fd().try_clone_to_owned().map_err(|error| error.to_string())?;
            xdpchain_tests::acl::install(compiled, &rules)?;
        }
        self.set_context(fixture)
    }

    /// Has the packet context be what the fixture says before the program.
    fn set_context(&self, fixture: &Fixture) -> Result<(), String> {
        let mut context = self.context_before(fixture)?;
        if self.skips && context[offset_of!(PacketContext, direction)] != direction::NONE {
            context[PacketContext::SKIPPED] = SKIPPED;
        }
        update(self.map(Some(PRESET), "wanted")?, &[0; 4], &context)
    }

    /// The packet context before the program, but for octets that are skipped, which nobody is to find afterwards.
    fn context_before(&self, fixture: &Fixture) -> Result<[u8; run::CONTEXT], String> {
        let mut context = run::context_before(fixture)?;
        context[PacketContext::MAY_SKIP] = self.skips.into();
        Ok(context)
    }

    /// Compares all that the chain left but the packet, which it has been given so many times; maps only after the first.
    fn judge(&self, program: &str, fixture: &Fixture, times: u64) -> Result<(), String> {
        let mut wrong = Vec::new();
        // That the chain ends there is the chain's to know.
        let expected = vec![fixture.expect.verdict.trim_end_matches("+final"); times as usize];
        let verdicts = self.verdicts()?;
        if verdicts != expected {
            wrong.push(format!("verdict: expected {expected:?}, found {verdicts:?}"));
        }
        let reason = fixture.reason().map_err(|error| error.to_string())?;
        let expected: Vec<_> = reason.map(|reason| (reason as u32, times)).into_iter().collect();
        let counted = self.counted(program)?;
        if counted != expected {
            wrong.push(format!("reasons: expected {expected:?}, found {counted:?}"));
        }
        let before = self.context_before(fixture)?;
        self.compare_context(&run::context_after(fixture, before, reason)?, &mut wrong)?;
        for (name, entries) in fixture.expect.maps.iter().filter(|_| times == 1) {
            self.compare_map(program, name, entries, &mut wrong)?;
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// The verdicts with which the chain ended, by name, as its exit counters have them.
    fn verdicts(&self) -> Result<Vec<String>, String> {
        let map = self.map(None, EXIT_MAP)?;
        let mut verdicts = Vec::new();
        for cell in 0..2 * EXIT_COLUMNS {
            let packets = sum(map, &take(map, &cell.to_ne_bytes())?);
            for _ in 0..packets.first_chunk().map_or(0, |packets| u64::from_ne_bytes(*packets)) {
                verdicts.push(verdict_name(cell % EXIT_COLUMNS));
            }
        }
        Ok(verdicts)
    }

    /// How often the chain ended.
    fn ended(&self) -> Result<u64, String> {
        Ok(self.verdicts()?.len() as u64)
    }

    /// Makes every map as it was when the chain was loaded.
    fn empty(&self, fixture: &Fixture, program: &str) -> Result<(), String> {
        let touched = touched(fixture, program)?;
        let left = self.left.replace(touched.clone());
        for (_, name, map) in &self.maps {
            let zero = vec![0; map.value_len()];
            match map.info().map_type {
                HASH | PERCPU_HASH => {
                    while let Some(key) = sys::map_next_key(map, None).map_err(|error| error.to_string())? {
                        sys::map_delete(map, &key).map_err(|error| error.to_string())?;
                    }
                }
                // Constants stay what they are.
                ARRAY if name.contains(".rodata") => {}
                ARRAY | PERCPU_ARRAY => {
                    let len = map.info().max_entries;
                    let keys: Vec<u32> = match name.as_str() {
                        EXIT_MAP => (0..2 * EXIT_COLUMNS).collect(),
                        REASON_MAP => (0..REASONS).collect(),
                        // Of packets before, by whatever they are kept.
                        _ if len <= SMALL || name.starts_with("kept_") => (0..len).collect(),
                        _ => touched.iter().chain(&left).copied().filter(|key| *key < len).collect(),
                    };
                    for key in keys {
                        update(map, &key.to_ne_bytes(), &zero)?;
                    }
                }
                // Program arrays, and the access list's tables, which are compiled anew.
                _ => {}
            }
        }
        Ok(())
    }

    /// Every reason that was counted, and how often.
    fn counted(&self, program: &str) -> Result<Vec<(u32, u64)>, String> {
        let map = self.map(Some(program), REASON_MAP)?;
        let mut counted = Vec::new();
        for number in 0..REASONS {
            let count = sum(map, &take(map, &number.to_ne_bytes())?);
            let count = u64::from_ne_bytes(count.try_into().map_err(|_| "a counter has eight octets")?);
            if count != 0 {
                counted.push((number, count));
            }
        }
        Ok(counted)
    }

    /// Only the CPU that ran the chain may have a context that is not empty, and only the one expected.
    fn compare_context(&self, expected: &[u8], wrong: &mut Vec<String>) -> Result<(), String> {
        let values = take(self.map(None, CONTEXT_MAP)?, &[0; 4])?;
        let used: Vec<_> =
            values.chunks_exact(run::CONTEXT).filter(|value| value.iter().any(|octet| *octet != 0)).collect();
        if used.len() > 1 {
            wrong.push(format!("context: changed on {} CPUs", used.len()));
        }
        let found = used.first().copied().unwrap_or(&[0; run::CONTEXT]);
        wrong.extend(difference(expected, found).map(|difference| format!("context: {difference}")));
        Ok(())
    }

    /// Compares the entries that are named.
    fn compare_map(
        &self,
        program: &str,
        name: &str,
        entries: &[Entry],
        wrong: &mut Vec<String>,
    ) -> Result<(), String> {
        let (key, value) = layout::types(program, name)?;
        let map = self.map(Some(program), name)?;
        for entry in entries {
            let expected = layout::encode(value, &entry.value)?;
            let found = sum(map, &take(map, &layout::encode(key, &entry.key)?)?);
            let difference = difference(&expected, &found);
            wrong.extend(difference.map(|difference| format!("map `{name}` at {}: {difference}", entry.key)));
        }
        Ok(())
    }
}

/// Every number that the fixture has for a key, and the session of its context: where the packet may have changed arrays.
fn touched(fixture: &Fixture, program: &str) -> Result<Vec<u32>, String> {
    let mut numbers = Vec::new();
    for (name, entries) in fixture.maps.iter().chain(&fixture.expect.maps) {
        let (key, _) = layout::types(program, name)?;
        for entry in entries {
            if let Ok(number) = layout::encode(key, &entry.key)?.try_into() {
                numbers.push(u32::from_ne_bytes(number));
            }
        }
    }
    numbers.extend(fixture.context.get("session").and_then(Value::as_u64).map(|number| number as u32));
    Ok(numbers)
}

/// Whether a packet is one that `gre-steer` finds nothing special about: alone in its frame, without tags, IPv4 options and SYN, and
/// long enough to ask that.
fn is_plain(frame: &[u8]) -> bool {
    let is_syn = |protocol: usize, flags: usize| frame[protocol] == 6 && frame[flags] & 2 != 0;
    let length = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match frame.get(12..15) {
        Some([0x08, 0x00, 0x45]) if frame.len() >= 48 => length(16) + 14 == frame.len() && !is_syn(23, 47),
        Some([0x86, 0xdd, first]) if first >> 4 == 6 && frame.len() >= 68 => {
            length(18) + 54 == frame.len() && !is_syn(20, 67)
        }
        _ => false,
    }
}

fn update(map: &MapFd, key: &[u8], value: &[u8]) -> Result<(), String> {
    sys::map_update(map, key, value, 0).map_err(|error| error.to_string())
}

fn take(map: &MapFd, key: &[u8]) -> Result<Vec<u8>, String> {
    let found = sys::map_lookup(map, key).map_err(|error| error.to_string())?;
    found.ok_or_else(|| "the entry is missing".to_owned())
}

/// A value; of a per-CPU map, whose values consist of 64-bit counters, the sum of all CPUs'.
fn sum(map: &MapFd, value: &[u8]) -> Vec<u8> {
    if !sys::is_per_cpu(map.info().map_type) {
        return value.to_vec();
    }
    let mut sums = vec![0u64; map.info().value_size as usize / 8];
    for value in value.chunks_exact(sums.len() * 8) {
        for (sum, counter) in sums.iter_mut().zip(value.as_chunks::<8>().0) {
            *sum += u64::from_ne_bytes(*counter);
        }
    }
    sums.iter().flat_map(|sum| sum.to_ne_bytes()).collect()
}
