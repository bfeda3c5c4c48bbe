//! A chain or a module in the kernel, attached to nothing, with maps that packets are run on.

use std::os::fd::{AsFd, OwnedFd};

use serde_json::Value;
use xdpchain_abi::acl_tables::{BLOCK, BLOCKS, COMPILED};
use xdpchain_abi::{AclRule, CONTEXT_MAP, REASON_MAP, Reason, direction};
use xdpchain_acl::Compiled;
use xdpchain_compose::{EXIT_COLUMNS, EXIT_MAP, Image, MapOwner, MapUse};
use xdpchain_golden::{Entry, verdict_name};
use xdpchain_host::compiled::shared_array;
use xdpchain_host::load::{Loaded, load};
use xdpchain_host::sys::{self, TestRun};
use xdpchain_host::{Map, Result as HostResult};
use xdpchain_state::MapCodec;

use crate::commands::compiled::ACL_RULE;

/// Entries that a hash table of its own has room for. A million preallocated ones would be most of the time that a
/// packet takes.
const ROOM: u32 = 4096;

/// `XDP_PACKET_HEADROOM`, less the `struct xdp_frame` that the kernel keeps at its start.
const HEADROOM: u32 = 256 - 40;

/// What can go wrong with one packet; the others go on.
pub(crate) type Tried<T> = Result<T, String>;

/// A loaded image.
pub(crate) struct Rig {
    image: Image,
    loaded: Loaded,
}

/// How a packet comes in.
#[derive(Clone, Copy, Default)]
pub(crate) struct Arrival<'a> {
    pub(crate) ingress: Option<&'a str>,
    pub(crate) headroom: Option<u32>,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) verdict: String,
    pub(crate) packet: Vec<u8>,
}

impl Rig {
    /// Loads an image with maps of its own.
    pub(crate) fn new(mut image: Image) -> HostResult<Self> {
        for map in &mut image.maps {
            // `enum bpf_map_type`: hash, per-CPU hash, LRU hash, LRU per-CPU hash, LPM trie.
            if [1, 5, 9, 10, 11].contains(&map.def.map_type) {
                map.def.max_entries = map.def.max_entries.min(ROOM);
            }
        }
        Self::with(image, &mut |_| Ok(None))
    }

    /// Loads an image with the maps that `existing` gives, and its own for the others.
    pub(crate) fn with(
        image: Image,
        existing: &mut dyn FnMut(&MapUse) -> HostResult<Option<OwnedFd>>,
    ) -> HostResult<Self> {
        let loaded = load(&image, existing)?;
        Ok(Self { image, loaded })
    }

    /// Runs a packet.
    pub(crate) fn run(&self, packet: &[u8], arrival: Arrival<'_>) -> Tried<Ran> {
        let ingress_ifindex = match arrival.ingress {
            Some(name) => {
                sys::interface_index(name).map_err(|_| format!("there is no interface `{name}` here"))?
            }
            None => 0,
        };
        let metadata = match arrival.headroom {
            Some(room) if room <= HEADROOM && room.is_multiple_of(4) => HEADROOM - room,
            Some(room) => {
                return Err(format!("`headroom` must be a multiple of 4 up to {HEADROOM}, not {room}"));
            }
            None => 0,
        };
        let octets = [&vec![0; metadata as usize], packet].concat();
        let run = TestRun { packet: &octets, metadata, ingress_ifindex, ..TestRun::default() };
        let result = sys::prog_test_run(self.loaded.program.as_fd(), &run)
            .map_err(|error| format!("the kernel cannot run a packet of {} octets: {error}", packet.len()))?;
        Ok(Ran { verdict: verdict_name(result.verdict), packet: result.packet })
    }

    /// Whether the image has such a map; that of the chain itself without a module.
    pub(crate) fn has(&self, module: Option<&str>, name: &str) -> bool {
        self.index(module, name).is_some()
    }

    /// Puts entries into a map.
    pub(crate) fn fill(&self, module: Option<&str>, name: &str, entries: &[Entry]) -> Tried<()> {
        let (map, codec) = self.map(module, name)?;
        let mut rules = Vec::new();
        for entry in entries {
            let failed = |what: &dyn std::fmt::Display| format!("map `{name}` at {}: {what}", entry.key);
            let mut key = vec![0; codec.key.size()];
            codec.key.overlay_json(&entry.key, &mut key).map_err(|error| failed(&error))?;
            let mut value = vec![0; codec.value.size()];
            codec.value.overlay_json(&numbered(&entry.value), &mut value).map_err(|error| failed(&error))?;
            if let (Some(key), Some(rule)) = (key.first_chunk(), xdpchain_acl::rule(&value)) {
                rules.push((u32::from_ne_bytes(*key), rule));
            }
            let value = match map.per_cpu() {
                Some(cpus) => codec.join(std::iter::repeat_n(value.as_slice(), cpus)),
                None => value,
            };
            map.update(&key, &value).map_err(|error| failed(&error))?;
        }
        match self.index(module, &format!("{name}{COMPILED}")) {
            Some(at) if codec.value.name() == ACL_RULE => self.compile(at, &rules),
            _ => Ok(()),
        }
    }

    /// Puts what rules are compiled to where the program looks.
    fn compile(&self, at: usize, rules: &[(u32, AclRule)]) -> Tried<()> {
        let tables = Compiled::new(rules).map_err(|error| error.to_string())?;
        let inner = shared_array(BLOCK as u32, BLOCKS as u32);
        let put = self.open(at)?.replace_inner(0, &inner, |octets| tables.write(octets));
        put.map_err(|error| error.to_string())
    }

    /// Compares entries of a map with those that were expected; per-CPU ones are summed up.
    pub(crate) fn compare(&self, module: Option<&str>, name: &str, entries: &[Entry]) -> Tried<Vec<String>> {
        let (map, codec) = self.map(module, name)?;
        let mut differences = Vec::new();
        for entry in entries {
            let failed = |what: &dyn std::fmt::Display| format!("map `{name}` at {}: {what}", entry.key);
            let mut key = vec![0; codec.key.size()];
            codec.key.overlay_json(&entry.key, &mut key).map_err(|error| failed(&error))?;
            let mut expected = vec![0; codec.value.size()];
            codec
                .value
                .overlay_json(&numbered(&entry.value), &mut expected)
                .map_err(|error| failed(&error))?;
            let Some(found) = map.lookup(&key).map_err(|error| failed(&error))? else {
                differences.push(failed(&"no entry"));
                continue;
            };
            let found = match codec.per_cpu {
                true => {
                    let cpus = codec.cpus(&found).map_err(|error| failed(&error))?;
                    codec.value.sum(cpus).ok_or_else(|| failed(&"its values cannot be added up"))?
                }
                false => found,
            };
            if found != expected {
                let print = |octets: &[u8]| codec.value.print(octets).map_err(|error| failed(&error));
                let (expected, found) = (print(&expected)?, print(&found)?);
                differences.push(failed(&format_args!("expected {expected}, found {found}")));
            }
        }
        Ok(differences)
    }

    /// Every reason that was counted, and how often.
    pub(crate) fn reasons(&self) -> Tried<Vec<(&'static str, u64)>> {
        let mut counted: Vec<(&'static str, u64)> = Vec::new();
        for (at, used) in self.image.maps.iter().enumerate() {
            if used.def.name != REASON_MAP || used.def.value_size != 8 {
                continue;
            }
            let map = self.open(at)?;
            for reason in Reason::ALL {
                let key = u32::from(*reason as u16).to_ne_bytes();
                let value = map.lookup(&key).map_err(|error| error.to_string())?.unwrap_or_default();
                let sum: u64 = value.as_chunks::<8>().0.iter().map(|cpu| u64::from_ne_bytes(*cpu)).sum();
                if sum != 0 {
                    counted.push((reason.name(), sum));
                }
            }
        }
        Ok(counted)
    }

    /// The row of the exit counters of each packet that was counted so far, with how many there were.
    pub(crate) fn exits(&self) -> Tried<Vec<(u32, u64)>> {
        let Some(at) = self.index(None, EXIT_MAP) else { return Ok(Vec::new()) };
        let map = self.open(at)?;
        let mut rows = Vec::new();
        for row in 0..map.info().max_entries / EXIT_COLUMNS {
            let mut sum = 0;
            for column in 0..5 {
                let key = (row * EXIT_COLUMNS + column).to_ne_bytes();
                let value = map.lookup(&key).map_err(|error| error.to_string())?.unwrap_or_default();
                // Packets and octets, for each CPU.
                let packets = value.as_chunks::<16>().0.iter();
                sum += packets.filter_map(|cpu| Some(u64::from_ne_bytes(*cpu.first_chunk()?))).sum::<u64>();
            }
            if sum != 0 {
                rows.push((row, sum));
            }
        }
        Ok(rows)
    }

    /// Gives every CPU's packet context the fields that are named, and zero for the others. Nothing is done, and none
    /// returned, when no program looks at it.
    pub(crate) fn set_context(&self, fields: &serde_json::Value) -> Tried<Option<Vec<u8>>> {
        let Some((map, codec)) = self.context()? else { return Ok(None) };
        let mut value = vec![0; codec.value.size()];
        codec.value.overlay_json(fields, &mut value).map_err(|error| format!("context: {error}"))?;
        let all = codec.join(std::iter::repeat_n(value.as_slice(), map.per_cpu().unwrap_or(1)));
        map.update(&[0; 4], &all).map_err(|error| error.to_string())?;
        Ok(Some(value))
    }

    /// Compares the packet context of the CPU that changed it with `before` and the fields that were to change; of
    /// others only when `all`.
    pub(crate) fn compare_context(
        &self,
        before: &[u8],
        fields: &serde_json::Value,
        all: bool,
    ) -> Tried<Option<String>> {
        let Some((map, codec)) = self.context()? else { return Ok(None) };
        let failed = |error: &dyn std::fmt::Display| format!("context: {error}");
        let octets = map.lookup(&[0; 4]).map_err(|error| failed(&error))?.unwrap_or_default();
        let mut cpus = codec.cpus(&octets).map_err(|error| failed(&error))?;
        let found = cpus.find(|cpu| *cpu != before).unwrap_or(before);
        let mut expected = if all { before.to_vec() } else { found.to_vec() };
        codec.value.overlay_json(fields, &mut expected).map_err(|error| failed(&error))?;
        if found == expected {
            return Ok(None);
        }
        let print = |octets: &[u8]| codec.value.print(octets).map_err(|error| failed(&error));
        Ok(Some(format!("context: expected {}\n  found    {}", print(&expected)?, print(found)?)))
    }

    fn context(&self) -> Tried<Option<(Map, MapCodec)>> {
        match self.index(None, CONTEXT_MAP) {
            Some(_) => self.map(None, CONTEXT_MAP).map(Some),
            None => Ok(None),
        }
    }

    fn index(&self, module: Option<&str>, name: &str) -> Option<usize> {
        let owner = module.map_or(MapOwner::Chain, |module| MapOwner::Module(module.to_owned()));
        self.image.maps.iter().position(|map| map.owner == owner && map.def.name == name)
    }

    fn map(&self, module: Option<&str>, name: &str) -> Tried<(Map, MapCodec)> {
        let at = self.index(module, name).ok_or_else(|| match module {
            Some(module) => format!("module `{module}` has no map `{name}`, or nothing that runs uses it"),
            None => format!("the chain has no map `{name}`"),
        })?;
        let def = &self.image.maps[at].def;
        let codec = MapCodec::new(
            Some(&self.image.btf),
            def.map_type,
            (Some(def.btf_key), def.key_size),
            (Some(def.btf_value), def.value_size),
        );
        Ok((self.open(at)?, codec.map_err(|error| format!("map `{name}`: {error}"))?))
    }

    fn open(&self, at: usize) -> Tried<Map> {
        let fd = self.loaded.maps[at].fd.try_clone().map_err(|error| error.to_string())?;
        Map::from_fd(fd, &self.image.maps[at].def.name).map_err(|error| error.to_string())
    }
}

/// A value with the number of a direction where fixtures have its name.
fn numbered(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(field) = value.get_mut("direction") {
        let number = match field.as_str() {
            Some("none") => direction::NONE,
            Some("uplink") => direction::UPLINK,
            Some("downlink") => direction::DOWNLINK,
            _ => return value,
        };
        *field = number.into();
    }
    value
}
