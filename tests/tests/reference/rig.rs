//! The chain in the kernel, attached to nothing, and what it counts.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::AsFd as _;

use serde_json::Value;
use xdpchain_abi::acl_tables::COMPILED;
use xdpchain_abi::{CONTEXT_MAP, REASON_MAP, REASONS, Reason, direction};
use xdpchain_compose::object::Object;
use xdpchain_compose::{
    EXIT_COLUMNS, EXIT_MAP, Image, MapOwner, Module, Relocation, Slot, Target, fused, tail,
};
use xdpchain_golden::Entry;
use xdpchain_host::load::{Loaded, load};
use xdpchain_host::sys::{self, TestRun};
use xdpchain_host::{Map, RunningKernel};
use xdpchain_reference::{Chain, Outcome};
use xdpchain_spec::Config;
use xdpchain_state::MapCodec;
use xdpchain_tests::cli::target_dir;

use crate::world::{CHAINS, Case};

/// Entries that a hash table has room for.
const ROOM: u32 = 1024;

/// How the chain becomes programs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Engine {
    Fused,
    Tail,
}

/// The loaded chain.
pub(crate) struct Rig {
    image: Image,
    loaded: Loaded,
    /// The reason maps by module, and the exit counters.
    reasons: Vec<(String, Map)>,
    exits: Map,
}

impl Rig {
    pub(crate) fn new(engine: Engine) -> Self {
        let config = Config::parse(CHAINS, "chains.yaml".as_ref()).expect("it is valid");
        let spec = &config.chains["edge"];
        let folder =
            std::env::var_os("XDPCHAIN_EBPF_DIR").map_or_else(|| target_dir().join("ebpf"), Into::into);
        let kernel = RunningKernel::new();
        let objects: BTreeMap<&str, Object> = config
            .modules
            .keys()
            .map(|name| {
                let path = folder.join(format!("{name}.o"));
                let octets = std::fs::read(&path)
                    .unwrap_or_else(|e| panic!("`{}`: {e}\nhelp: cargo xtask build", path.display()));
                let mut object = Object::parse(&octets).expect("an object of ours");
                object.link(&kernel);
                (name.as_str(), object)
            })
            .collect();
        let modules = config
            .modules
            .iter()
            .map(|(name, spec)| Module { name, object: &objects[name.as_str()], spec, digest: "0" })
            .collect();
        let slots = spec.slots.iter().zip(0..).map(|(spec, row)| Slot { spec, row }).collect();
        let chain = xdpchain_compose::Chain { name: "edge", default: spec.default, modules, slots };
        let composed = match engine {
            Engine::Fused => fused::compose(&chain),
            Engine::Tail => tail::compose(&chain),
        };
        let mut image = composed.expect("the data path can be composed");
        for map in &mut image.maps {
            // `enum bpf_map_type`: hash, per-CPU hash, LRU hash, LRU per-CPU hash, LPM trie.
            if [1, 5, 9, 10, 11].contains(&map.def.map_type) {
                map.def.max_entries = map.def.max_entries.min(ROOM);
            }
        }
        let loaded = load(&image, &mut |_| Ok(None)).expect("the data path loads");
        let open = |at: usize| open(&image, &loaded, at);
        let reasons = image.maps.iter().enumerate().filter_map(|(at, map)| match &map.owner {
            MapOwner::Module(module) if map.def.name == REASON_MAP => Some((module.clone(), open(at))),
            _ => None,
        });
        let reasons = reasons.collect();
        let at = image.maps.iter().position(|map| map.def.name == EXIT_MAP).expect("the chain counts");
        let exits = open(at);
        Self { image, loaded, reasons, exits }
    }

    /// How often the chain's main function looks up the packet context.
    pub(crate) fn context_look_ups(&self) -> usize {
        let program = &self.image.programs[0];
        let main = program.functions.get(1).map_or(program.insns.len(), |(insn, _)| *insn as usize);
        let looks_up = |relocation: &&Relocation| match relocation.target {
            Target::Map { map } | Target::Value { map, .. } => {
                relocation.insn < main && self.image.maps[map].def.name == CONTEXT_MAP
            }
            _ => false,
        };
        program.relocations.iter().filter(looks_up).count()
    }

    /// Runs a packet that comes in by an interface.
    pub(crate) fn run(&self, packet: &[u8], ifindex: u32) -> std::io::Result<(u32, Vec<u8>)> {
        let run = TestRun { packet, ingress_ifindex: ifindex, ..TestRun::default() };
        let result = sys::prog_test_run(self.loaded.program.as_fd(), &run)?;
        Ok((result.verdict, result.packet))
    }

    /// Everything that was counted so far.
    pub(crate) fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for (module, map) in &self.reasons {
            for number in 0..REASONS {
                let packets = sum(map, number, 8);
                if packets > 0 {
                    let reason = Reason::ALL.iter().find(|reason| **reason as u32 == number);
                    let name = reason.map_or("no reason at all", |reason| reason.name());
                    *counted.0.entry(format!("{module} {name}")).or_default() += packets;
                }
            }
        }
        for row in 0..6 {
            for (column, verdict) in
                ["aborted", "drop", "pass", "tx", "redirect", "unknown"].iter().enumerate()
            {
                let packets = sum(&self.exits, row * EXIT_COLUMNS + column as u32, 16);
                if packets > 0 {
                    counted.0.insert(format!("slot {row} {verdict}"), packets);
                }
            }
        }
        counted
    }

    /// Puts a case's entries into the maps.
    pub(crate) fn fill(&self, case: &Case) {
        for (name, entries) in &case.maps {
            let (map, codec) = self.map(name);
            for entry in entries {
                let mut value = vec![0; codec.value.size()];
                let fields = numbered(&entry.value);
                codec.value.overlay_json(&fields, &mut value).unwrap_or_else(|e| panic!("`{name}`: {e}"));
                map.update(&key(&codec, entry), &value).expect("there is room");
            }
            if name == "acl/rules" {
                self.compile(&case.tables().rules.into_iter().collect::<Vec<_>>());
            }
        }
    }

    /// Takes them out again.
    pub(crate) fn empty(&self, case: &Case) {
        for (name, entries) in &case.maps {
            let (map, codec) = self.map(name);
            for entry in entries {
                let key = key(&codec, entry);
                if map.is_array() {
                    map.update(&key, &vec![0; codec.value.size()]).expect("every entry is there");
                } else {
                    map.delete(&key).expect("it was put there");
                }
            }
            if name == "acl/rules" {
                self.compile(&[]);
            }
            if name == "gre-steer/customers" {
                self.forget_customers(entries);
            }
            if name == "gre-decap/tunnels" {
                self.forget_tunnels();
            }
        }
    }

    /// Takes out what `gre-steer` keeps of these customers for a while.
    fn forget_customers(&self, customers: &[Entry]) {
        for name in ["gre-steer/kept_customers", "gre-steer/kept_headers"] {
            let (kept, _) = self.map(name);
            for customer in customers {
                let number = customer.key.as_u64().expect("a customer is a number") as u32;
                let place = number & (kept.info().max_entries - 1);
                kept.update(&place.to_ne_bytes(), &vec![0; kept.value_len()]).expect("every entry is there");
            }
        }
    }

    /// Takes out what `gre-decap` keeps of tunnels for a while.
    fn forget_tunnels(&self) {
        let (kept, _) = self.map("gre-decap/kept_tunnels");
        for place in 0..kept.info().max_entries {
            kept.update(&place.to_ne_bytes(), &vec![0; kept.value_len()]).expect("every entry is there");
        }
    }

    fn compile(&self, rules: &[(u32, xdpchain_abi::AclRule)]) {
        let name = format!("rules{COMPILED}");
        let at =
            self.image.maps.iter().position(|map| map.def.name == name).expect("`acl` has compiled rules");
        let fd = self.loaded.maps[at].fd.try_clone().expect("a descriptor can be doubled");
        xdpchain_tests::acl::install(fd, rules).expect("rules of fixtures can be compiled");
    }

    /// A map by `module/map`.
    fn map(&self, name: &str) -> (Map, MapCodec) {
        let (module, map) = name.split_once('/').expect("module/map");
        let owner = MapOwner::Module(module.to_owned());
        let mut maps = self.image.maps.iter();
        let at = maps.position(|m| m.owner == owner && m.def.name == map);
        let at = at.unwrap_or_else(|| panic!("the chain has no map `{name}`"));
        let def = &self.image.maps[at].def;
        let types = ((Some(def.btf_key), def.key_size), (Some(def.btf_value), def.value_size));
        let codec = MapCodec::new(Some(&self.image.btf), def.map_type, types.0, types.1);
        (open(&self.image, &self.loaded, at), codec.expect("its types are known"))
    }
}

fn open(image: &Image, loaded: &Loaded, at: usize) -> Map {
    let fd = loaded.maps[at].fd.try_clone().expect("a descriptor can be doubled");
    Map::from_fd(fd, &image.maps[at].def.name).expect("a map that was loaded")
}

fn key(codec: &MapCodec, entry: &Entry) -> Vec<u8> {
    let mut key = vec![0; codec.key.size()];
    codec.key.overlay_json(&entry.key, &mut key).unwrap_or_else(|e| panic!("{}: {e}", entry.key));
    key
}

/// A value with the number of a direction where fixtures have its name.
fn numbered(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(field) = value.get_mut("direction") {
        let number = match field.as_str() {
            Some("uplink") => direction::UPLINK,
            Some("downlink") => direction::DOWNLINK,
            _ => return value,
        };
        *field = number.into();
    }
    value
}

/// The first number of an entry, of all CPUs together; `stride` octets are one CPU's.
fn sum(map: &Map, key: u32, stride: usize) -> u64 {
    let value = map.lookup(&key.to_ne_bytes()).expect("counters can be read").unwrap_or_default();
    let first = |cpu: &[u8]| cpu.first_chunk().map_or(0, |octets| u64::from_ne_bytes(*octets));
    value.chunks(stride).map(first).sum()
}

/// Packets by module and reason, and by slot and verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted(BTreeMap<String, u64>);

impl Counted {
    /// Counts what the reference says of a packet.
    pub(crate) fn add(&mut self, chain: &Chain, outcome: &Outcome) {
        for (slot, reason) in &outcome.reasons {
            *self.0.entry(format!("{} {}", chain.slots[*slot].name, reason.name())).or_default() += 1;
        }
        *self.0.entry(format!("slot {} {}", outcome.slot, outcome.verdict.name())).or_default() += 1;
    }

    /// What came to it after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let more =
            self.0.iter().map(|(what, n)| (what.clone(), n - before.0.get(what).copied().unwrap_or(0)));
        Self(more.filter(|(_, n)| *n > 0).collect())
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.0.iter().map(|(what, n)| format!("{what} {n}")).collect();
        f.write_str(&each.join(", "))
    }
}
