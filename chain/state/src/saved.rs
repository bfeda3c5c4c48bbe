//! State files: the entries of maps with the types that say what they mean, for another time or another host.
//!
//! A file is a stream of zstd frames, so that `zstd -dc` shows what is in it: a skippable frame with the format's name and
//! version, one frame of records, and a skippable frame with the SHA-256 of everything before. `docs/state.md` describes it
//! for other tools. Both ends hold one record at a time; what a file says of its sizes is believed only as far as octets
//! follow.

mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use read::{Record, StateReader};
pub use write::StateWriter;

use xdpchain_compose::btf::Btf;

use crate::map::{PER_CPU_ALIGN, is_per_cpu};
use crate::{Half, StateError};

/// The version of the format that is written, and the only one that is read.
pub const STATE_VERSION: u32 = 1;

/// Magic number of a zstd frame that decoders skip.
const SKIPPABLE: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();
/// What the first frame holds, before the version.
const NAME: &[u8; 16] = b"xdpchain-state\0\0";
/// Octets of a SHA-256.
const DIGEST: usize = 32;

/// What a record is about.
const CONTENTS: [u8; 4] = *b"HEAD";
const TYPES: [u8; 4] = *b"BTF ";
const ROWS: [u8; 4] = *b"ROWS";
const END: [u8; 4] = *b"END ";
const DONE: [u8; 4] = *b"DONE";

/// Octets of a record at most. A value of a per-CPU map may be as large as 32 KiB for each CPU.
const MOST: u32 = 1 << 25;
/// Octets of the contents at most.
const MOST_CONTENTS: u32 = 1 << 22;
/// log2 of the memory that a frame may want for looking back.
const WINDOW: u32 = 23;

/// What a state file holds, in the order in which it holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Name and version of the program that wrote it.
    pub program: String,
    /// Release of the kernel that the maps were in.
    pub kernel: String,
    /// When it was begun, seconds since 1970.
    pub time: u64,
    /// The maps.
    pub maps: Vec<SavedMap>,
    /// Maps that were there and are not in the file.
    pub left_out: Vec<LeftOut>,
}

/// A map of a state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedMap {
    /// The module that it belongs to.
    pub module: String,
    /// Its name in the object.
    pub map: String,
    /// `enum bpf_map_type`.
    #[serde(rename = "type")]
    pub map_type: u32,
    /// Octets.
    pub key_size: u32,
    /// Octets, of one CPU's value.
    pub value_size: u32,
    /// Entries that it may have.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Which of the file's BTF objects has its types; none without.
    pub btf: Option<u32>,
    /// Type of the key, 0 when it has none.
    pub key_type: u32,
    /// Type of the value, 0 when it has none.
    pub value_type: u32,
    /// Values of each entry, for a per-CPU map: one for each CPU that the host can have.
    pub cpus: Option<u32>,
}

/// A map that is not in a state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// `MODULE/MAP`.
    pub map: String,
    /// Why not.
    pub reason: String,
}

impl SavedMap {
    /// `MODULE/MAP`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.module, self.map)
    }

    /// Octets of all values of an entry, as they stand in the file: for a per-CPU map each is rounded up to 8.
    pub fn value_len(&self) -> usize {
        let size = self.value_size as usize;
        self.cpus.map_or(size, |cpus| size.next_multiple_of(PER_CPU_ALIGN).saturating_mul(cpus as usize))
    }

    /// Its keys and values, by the types that the file has of it.
    pub fn halves<'a>(&self, types: Option<&'a Btf>) -> (Half<'a>, Half<'a>) {
        let half = |id: u32, size| Half { ty: types.filter(|_| id != 0).map(|btf| (btf, id)), size };
        (half(self.key_type, self.key_size), half(self.value_type, self.value_size))
    }

    /// What keeps it from being in a file, in words that its name goes before.
    pub fn problem(&self) -> Option<&'static str> {
        let entry = (self.key_size as usize).saturating_add(self.value_len()).saturating_add(8);
        if not_saved(self.map_type).is_some() {
            Some("is of a type that is not saved")
        } else if self.key_size == 0 || self.value_size == 0 {
            Some("has an empty key or value")
        } else if self.cpus.is_some() != is_per_cpu(self.map_type) || self.cpus == Some(0) {
            Some("does not say for how many CPUs it has values")
        } else if entry > MOST as usize {
            Some("has entries that are too large")
        } else if self.module.is_empty() || self.map.is_empty() {
            Some("has no name")
        } else {
            None
        }
    }
}

/// Whether a map holds, by its name, what a program found out a moment ago and asks for again: nothing to save, nor to carry over.
pub fn is_kept(name: &str) -> bool {
    name.starts_with("kept_")
}

/// Why maps of a type (`enum bpf_map_type`) are not saved; none for those that are.
pub fn not_saved(map_type: u32) -> Option<&'static str> {
    match map_type {
        // Hash, array, their per-CPU and LRU kinds, LPM trie.
        1 | 2 | 5 | 6 | 9 | 10 | 11 => None,
        3 => Some("it holds programs, which chains.yaml names"),
        12 | 13 => Some("it holds other maps, which have no names of their own"),
        14 | 25 => Some("it names interfaces by numbers of this host"),
        16 => Some("it names CPUs of this host, with programs"),
        15 | 17 | 18 | 20 => Some("it holds sockets of processes"),
        4 => Some("it holds events that are open in processes"),
        22 | 23 => Some("looking at its entries takes them out"),
        27 | 31 => Some("it holds messages on their way"),
        30 => Some("what was put into it cannot be told any more"),
        _ => Some("it belongs to objects of this kernel"),
    }
}

fn damaged(problem: impl Into<String>) -> StateError {
    StateError::Damaged { problem: problem.into() }
}
