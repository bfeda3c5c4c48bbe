//! How full maps are, and how soon they will be at the rate at which they fill.
//!
//! Kernels since 6.6 count the entries of hash maps and tell a program that asks; of other maps and on other kernels the
//! entries are walked. A rate needs an earlier look, so each look leaves its numbers in `/run` for the next.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aya_obj::generated::{BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_MAP_FD, bpf_map_type};
use serde::{Deserialize, Serialize};
use xdpchain_compose::Insn;
use xdpchain_compose::btf::find_function;

use crate::error::Result;
use crate::host::Host;
use crate::maps::Map;
use crate::store::UNFINISHED;
use crate::sys::{self, ProgLoad, TestRun};

/// What tells a program how many entries a map has.
const COUNTING: &str = "bpf_map_sum_elem_count";
/// The file with the numbers of the last look, beside an interface's manifests.
const LAST: &str = "fill.json";
/// Seconds over which a rate means something.
const LEAST: f64 = 1.0;
/// Seconds after which a look takes the place of the one before it.
const LOOK: f64 = 5.0;

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// Entries that it has.
    pub entries: u64,
    /// Entries that it may have.
    pub max_entries: u32,
    /// By how many entries it grew each second since an earlier look; none at the first.
    pub per_second: Option<f64>,
    /// Whether a new entry is refused when it is full; else the least used one makes room.
    pub refuses: bool,
}

impl Fill {
    /// The part of its room that is taken, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        self.entries as f64 / f64::from(self.max_entries.max(1))
    }

    /// Seconds until it is full if it goes on like that; none when it does not grow, or makes room by itself.
    pub fn full_in(&self) -> Option<f64> {
        let rate = self.per_second.filter(|rate| *rate > 0.0 && self.refuses)?;
        Some(u64::from(self.max_entries).saturating_sub(self.entries) as f64 / rate)
    }
}

/// What a look found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Look {
    /// Seconds since 1970.
    at: f64,
    entries: u64,
}

impl Host {
    /// How full the maps of the generation on an interface are, by the kernel's numbers of the maps. Maps whose entries are
    /// always there, and those that hold no entries, are left out.
    ///
    /// # Errors
    /// [`crate::Error::NoChain`], [`crate::Error::Map`], [`crate::Error::Permission`].
    pub fn fill_levels(&self, ifname: &str) -> Result<BTreeMap<u32, Fill>> {
        let manifest = self.manifest(ifname)?;
        let path = self.at.manifests(ifname).join(LAST);
        let before = read(&path);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let mut looks = BTreeMap::new();
        let mut levels = BTreeMap::new();
        for record in &manifest.maps {
            let Ok(map) = self.open_record(ifname, record) else { continue };
            let Some(entries) = map.count()? else { continue };
            let id = map.info().id;
            let last = before.get(&id).filter(|last| last.at <= now);
            let kept = last.filter(|last| now - last.at < LOOK).copied();
            looks.insert(id, kept.unwrap_or(Look { at: now, entries }));
            let per_second = last
                .filter(|last| now - last.at >= LEAST)
                .map(|last| (entries as f64 - last.entries as f64) / (now - last.at));
            let refuses = !evicts(map.info().map_type);
            levels.insert(id, Fill { entries, max_entries: map.info().max_entries, per_second, refuses });
        }
        // Who may not write there looks all the same.
        if let Err(error) = write(&path, &looks) {
            tracing::debug!("no rate for the next look: {error}");
        }
        Ok(levels)
    }
}

fn read(path: &Path) -> BTreeMap<u32, Look> {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Leaves the numbers for the next look, unless the folder went with its chain.
fn write(path: &Path, looks: &BTreeMap<u32, Look>) -> io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(&serde_json::to_vec(looks)?)?;
    fs::rename(&unfinished, path)
}

fn evicts(map_type: u32) -> bool {
    use bpf_map_type::{BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH};
    [BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH].iter().any(|ty| *ty as u32 == map_type)
}

impl Map {
    /// How many entries it has; none for maps whose entries are always there, and for those without entries.
    ///
    /// # Errors
    /// [`crate::Error::Map`].
    pub fn count(&self) -> Result<Option<u64>> {
        use bpf_map_type::{BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_PERCPU_HASH};
        let kind = self.info().map_type;
        let hash =
            [BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_PERCPU_HASH].iter().any(|ty| *ty as u32 == kind) || evicts(kind);
        if !hash && kind != BPF_MAP_TYPE_LPM_TRIE as u32 {
            return Ok(None);
        }
        if hash && let Some(count) = self.counted() {
            return Ok(Some(count));
        }
        let mut count = 0;
        for batch in self.entries() {
            count += (batch?.keys.len() / self.info().key_size.max(1) as usize) as u64;
        }
        Ok(Some(count))
    }

    /// What the kernel counts; none where it does not, or does not tell.
    fn counted(&self) -> Option<u64> {
        let function = counting_function()?;
        let insn = |code: u8, src: u8, dst: u8, imm: i32| Insn { code, regs: dst | src << 4, off: 0, imm };
        let insns = [
            insn(0x18, BPF_PSEUDO_MAP_FD as u8, 1, self.raw_fd()),
            insn(0, 0, 0, 0),
            insn(0x85, BPF_PSEUDO_KFUNC_CALL as u8, 0, function as i32),
            insn(0x95, 0, 0, 0),
        ];
        let load = ProgLoad {
            name: "xdpchain_count",
            insns: &insns,
            license: "Dual MIT/GPL",
            flags: 0,
            attach_type: 0,
            btf: None,
            replaces: None,
            modules: &[],
        };
        let program = sys::prog_load_classifier(&load)
            .map_err(|(error, log)| tracing::debug!("entries are counted one by one: {error}: {log}"))
            .ok()?;
        let run = TestRun { packet: &[0; 64], ..TestRun::default() };
        let count = u64::from(sys::prog_test_run(program.as_fd(), &run).ok()?.verdict);
        // A map that the kernel does not count has none by its account.
        (count > 0 || self.is_empty()).then_some(count)
    }
}

/// Number of the kernel's function that counts; none where it has none.
fn counting_function() -> Option<u32> {
    static FUNCTION: OnceLock<Option<u32>> = OnceLock::new();
    *FUNCTION.get_or_init(|| find_function(&fs::read("/sys/kernel/btf/vmlinux").ok()?, COUNTING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_grows_is_full_some_time_and_one_that_makes_room_never() {
        let fill = Fill { entries: 600, max_entries: 1000, per_second: Some(2.0), refuses: true };
        assert_eq!((fill.ratio(), fill.full_in()), (0.6, Some(200.0)));
        assert_eq!(Fill { refuses: false, ..fill }.full_in(), None);
        assert_eq!(Fill { per_second: Some(-1.0), ..fill }.full_in(), None);
        assert_eq!(Fill { per_second: None, ..fill }.full_in(), None);
        assert_eq!(Fill { entries: 1001, ..fill }.full_in(), Some(0.0));
    }
}
