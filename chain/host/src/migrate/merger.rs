//! Changes of parts of values, made in a map that a running program writes at the same time, each of them once.
//!
//! A small program, run on packets that say what to do, does each of them, so that a counter is added to as programs do it, and not read, changed and written
//! back over what was counted in between. For a per-CPU map it runs on the CPU whose value it changes. The changes are
//! numbered, and the same run of the program that makes one notes its number in a pinned map, so that a command that goes
//! on where another was killed makes none twice.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya_obj::generated::{BPF_NOEXIST, BPF_PSEUDO_MAP_FD, bpf_map_type};
use xdpchain_compose::Insn;
use xdpchain_state::Merge;

use crate::maps::Map;
use crate::sys::{self, MapCreate, ProgLoad, TestRun};

/// Octets behind the key: what to do, where, two numbers, the change's own number, and the last one that an insertion
/// stands for.
const OPERATION: usize = 40;
/// Where `struct __sk_buff` has the packet's start and its end.
const DATA: i16 = 76;
const DATA_END: i16 = 80;
/// A packet has at least a link-layer header.
const LEAST: usize = 64;
/// Octets of values that a packet has room for behind all that.
const MOST: usize = 2048;
/// What to do with a new entry; changes of a part have the part's width in it.
const INSERT: u32 = 64;

/// What the program returns when there is no such entry.
const MISSING: u32 = 1;
/// What it returns when it has made the change, now or before.
const DONE: u32 = 2;
/// What it adds to the error of an insertion.
const FAILED: u32 = 32;

/// A new map for the number of the last change.
pub(crate) fn progress() -> io::Result<OwnedFd> {
    sys::map_create(&MapCreate {
        name: "xdpchain_done",
        map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: 0,
        extra: 0,
        numa_node: 0,
        inner: None,
        btf: None,
    })
}

/// What became of an entry that was to be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is there, and no change of it is left to make.
    Done,
    /// Another one is there.
    Exists,
    /// The map is full.
    Full,
}

/// Makes changes in one map.
pub(crate) struct Merger<'a> {
    map: &'a Map,
    /// None where the kernel lets no program change such values.
    program: Option<OwnedFd>,
    /// The last change that was made before.
    done: u64,
}

/// How many changes a merge is.
pub(crate) fn changes(merge: &Merge) -> u64 {
    match merge {
        Merge::Add { .. } => 1,
        Merge::Set { offset, before, .. } => chunks(*offset, before.len()).count() as u64,
    }
}

impl<'a> Merger<'a> {
    /// For `map`, with the number of the last change in `progress`.
    pub(crate) fn new(map: &'a Map, progress: &OwnedFd) -> io::Result<Self> {
        let noted = sys::MapFd::new(progress.try_clone()?)?;
        let done = sys::map_lookup(&noted, &[0; 4])?.unwrap_or_default();
        let insns = program(map, progress.as_raw_fd());
        let load = ProgLoad {
            name: "xdpchain_merge",
            insns: &insns,
            license: "Dual MIT/GPL",
            flags: 0,
            attach_type: 0,
            btf: None,
            replaces: None,
            modules: &[],
        };
        let program = sys::prog_load_classifier(&load)
            .map_err(|(error, log)| tracing::debug!("entries are merged from user space: {error}: {log}"))
            .ok();
        Ok(Self { map, program, done: done.try_into().map_or(0, u64::from_ne_bytes) })
    }

    /// Inserts an entry, as change `number`, which stands for all up to `last`, unless there is one with its key.
    pub(crate) fn insert(
        &self,
        key: &[u8],
        value: &[u8],
        (number, last): (u64, u64),
    ) -> io::Result<Inserted> {
        if let Some(program) = self.program.as_ref().filter(|_| self.inserts()) {
            match self.run(program, key, (INSERT, 0), (0, 0), (number, last), value)?.checked_sub(FAILED) {
                None => return Ok(Inserted::Done),
                Some(error) => match error as i32 {
                    libc::EEXIST => return Ok(Inserted::Exists),
                    libc::E2BIG => return Ok(Inserted::Full),
                    // Memory that a program may not wait for.
                    _ => {}
                },
            }
        }
        match self.map.insert_raw(key, value) {
            Ok(true) => Ok(Inserted::Done),
            Ok(false) => Ok(Inserted::Exists),
            Err(e) if e.raw_os_error() == Some(libc::E2BIG) => Ok(Inserted::Full),
            Err(e) => Err(e),
        }
    }

    /// Whether the program can insert values.
    fn inserts(&self) -> bool {
        room(self.map) != 0
    }

    /// Changes the value of `key`, from change `number` on. For a per-CPU map `cpu` is the CPU, counted among those that have
    /// values, whose value it is, and on which the caller runs.
    pub(crate) fn apply(
        &self,
        key: &[u8],
        cpu: Option<usize>,
        merges: &[Merge],
        mut number: u64,
    ) -> io::Result<()> {
        let Some(program) = &self.program else { return self.apply_here(key, cpu, merges) };
        for merge in merges {
            let first = number;
            number += changes(merge);
            match merge {
                Merge::Add { offset, width, delta } => {
                    self.run(program, key, (*width as u32, *offset), (*delta, 0), (first, first), &[])?;
                }
                Merge::Set { offset, before, after } => {
                    // A field of several parts changes as a whole or not at all.
                    let begun = self.done >= first;
                    if before.len() > 8 && !begun && !self.is_still(key, cpu, *offset, before)? {
                        continue;
                    }
                    for (number, (at, width)) in (first..).zip(chunks(*offset, before.len())) {
                        let part = |octets: &[u8]| number_of(&octets[at - offset..at - offset + width]);
                        let parts = (part(before), part(after));
                        self.run(program, key, (16 + width as u32, at), parts, (number, number), &[])?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether octets of a value are what they were.
    fn is_still(&self, key: &[u8], cpu: Option<usize>, offset: usize, before: &[u8]) -> io::Result<bool> {
        let Some(value) = self.map.lookup_raw(key)? else { return Ok(false) };
        let start = self.start(cpu) + offset;
        Ok(value[start..start + before.len()] == *before)
    }

    /// Where the value of a CPU begins in what system calls carry.
    fn start(&self, cpu: Option<usize>) -> usize {
        cpu.unwrap_or(0) * (self.map.info().value_size as usize).next_multiple_of(8)
    }

    fn run(
        &self,
        program: &OwnedFd,
        key: &[u8],
        (what, offset): (u32, usize),
        (a, b): (u64, u64),
        (number, last): (u64, u64),
        value: &[u8],
    ) -> io::Result<u32> {
        let mut packet = key.to_vec();
        packet.resize(key.len().next_multiple_of(8), 0);
        packet.extend(what.to_ne_bytes());
        packet.extend((offset as u32).to_ne_bytes());
        for number in [a, b, number, last] {
            packet.extend(number.to_ne_bytes());
        }
        let end = packet.len() + room(self.map);
        packet.extend_from_slice(value);
        packet.resize(end.max(LEAST), 0);
        let result = sys::prog_test_run(program.as_fd(), &TestRun { packet: &packet, ..TestRun::default() })?;
        match result.verdict {
            DONE | MISSING => Ok(result.verdict),
            failed if failed > FAILED => Ok(failed),
            other => Err(io::Error::other(format!("the merging program returned {other}"))),
        }
    }

    /// As [`apply`](Self::apply), reading the value and writing it back.
    fn apply_here(&self, key: &[u8], cpu: Option<usize>, merges: &[Merge]) -> io::Result<()> {
        let Some(mut value) = self.map.lookup_raw(key)? else { return Ok(()) };
        let start = self.start(cpu);
        for merge in merges {
            match merge {
                Merge::Add { offset, width, delta } => {
                    let field = &mut value[start + offset..start + offset + width];
                    let sum = number_of(field).wrapping_add(*delta).to_ne_bytes();
                    field.copy_from_slice(&sum[..*width]);
                }
                Merge::Set { offset, before, after } => {
                    let field = &mut value[start + offset..start + offset + before.len()];
                    if field == &before[..] {
                        field.copy_from_slice(after);
                    }
                }
            }
        }
        self.map.update_existing(key, &value).map(drop)
    }
}

/// A number in host order, which is little-endian wherever programs of ours run.
fn number_of(octets: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..octets.len()].copy_from_slice(octets);
    u64::from_le_bytes(all)
}

/// Octets from `offset` on as numbers at multiples of their width: (first octet, octets).
fn chunks(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let (mut at, end) = (offset, offset + len);
    std::iter::from_fn(move || {
        let width = [8, 4, 2, 1].into_iter().find(|width| at.is_multiple_of(*width) && at + width <= end)?;
        at += width;
        Some((at - width, width))
    })
}

/// Octets of a value that the program inserts; none where it does not.
fn room(map: &Map) -> usize {
    let size = map.info().value_size as usize;
    // A program writes the value of its own CPU alone.
    if map.per_cpu().is_some() || size > MOST { 0 } else { size }
}

/// The program: does what the packet says behind the key, unless that has been done.
fn program(map: &Map, progress: i32) -> Vec<Insn> {
    let insn = |code: u8, dst: u8, src: u8, off: i16, imm: i32| Insn { code, regs: dst | src << 4, off, imm };
    let fd = |dst: u8, fd: i32| [insn(0x18, dst, BPF_PSEUDO_MAP_FD as u8, 0, fd), insn(0, 0, 0, 0, 0)];
    let exit = |code: u32| [insn(0xb7, 0, 0, 0, code as i32), insn(0x95, 0, 0, 0, 0)];
    let value_size = map.info().value_size as i32;
    let at = (map.info().key_size as usize).next_multiple_of(8) as i16;
    let end = i32::from(at) + (OPERATION + room(map)) as i32;
    // The packet, as long as it has to be.
    let mut insns = vec![
        insn(0x61, 7, 1, DATA, 0),
        insn(0x61, 3, 1, DATA_END, 0),
        insn(0xbf, 2, 7, 0, 0),
        insn(0x07, 2, 0, 0, end),
        insn(0xbd, 2, 3, 2, 0),
    ];
    insns.extend(exit(0));
    // The number of the last change, in r6; this one's has to be higher.
    insns.push(insn(0x62, 10, 0, -4, 0));
    insns.extend(fd(1, progress));
    insns.extend([
        insn(0xbf, 2, 10, 0, 0),
        insn(0x07, 2, 0, 0, -4),
        insn(0x85, 0, 0, 0, 1),
        insn(0x55, 0, 0, 2, 0),
    ]);
    insns.extend(exit(0));
    insns.extend([
        insn(0xbf, 6, 0, 0, 0),
        insn(0x79, 1, 7, at + 24, 0),
        insn(0x79, 2, 6, 0, 0),
        insn(0xad, 2, 1, 2, 0),
    ]);
    insns.extend(exit(DONE));
    insns.push(insn(0x61, 8, 7, at, 0));
    if room(map) != 0 {
        let trie = map.info().map_type == bpf_map_type::BPF_MAP_TYPE_LPM_TRIE as u32;
        // Older kernels' tries know no such flag, and the caller has looked.
        let flags = if trie { 0 } else { BPF_NOEXIST as i32 };
        let mut body = fd(1, map.raw_fd()).to_vec();
        body.extend([
            insn(0xbf, 2, 7, 0, 0),
            insn(0xbf, 3, 7, 0, 0),
            insn(0x07, 3, 0, 0, i32::from(at) + OPERATION as i32),
            insn(0xb7, 4, 0, 0, flags),
            insn(0x85, 0, 0, 0, 2),
            insn(0x15, 0, 0, 3, 0),
            insn(0x87, 0, 0, 0, 0),
            insn(0x07, 0, 0, 0, FAILED as i32),
            insn(0x95, 0, 0, 0, 0),
            insn(0x79, 1, 7, at + 32, 0),
            insn(0x7b, 6, 1, 0, 0),
        ]);
        body.extend(exit(DONE));
        insns.push(insn(0x55, 8, 0, body.len() as i16, INSERT as i32));
        insns.extend(body);
    }
    insns.extend(fd(1, map.raw_fd()));
    insns.extend([insn(0xbf, 2, 7, 0, 0), insn(0x85, 0, 0, 0, 1), insn(0x55, 0, 0, 2, 0)]);
    insns.extend(exit(MISSING));
    // Where, and the two numbers.
    insns.extend([insn(0x61, 9, 7, at + 4, 0), insn(0x79, 1, 7, at + 8, 0), insn(0x79, 2, 7, at + 16, 0)]);
    // Load, store and, where there is one, atomic addition, by width.
    let widths: [(i32, u8, u8, Option<u8>); 4] = [
        (8, 0x79, 0x7b, Some(0xdb)),
        (4, 0x61, 0x63, Some(0xc3)),
        (2, 0x69, 0x6b, None),
        (1, 0x71, 0x73, None),
    ];
    for (width, load, store, add) in widths.into_iter().filter(|(width, ..)| *width <= value_size) {
        let place =
            [insn(0x57, 9, 0, 0, -width), insn(0x25, 9, 0, 0, value_size - width), insn(0x0f, 0, 9, 0, 0)];
        let mut done = vec![insn(0x79, 1, 7, at + 24, 0), insn(0x7b, 6, 1, 0, 0)];
        done.extend(exit(DONE));
        let adds = match add {
            Some(code) => vec![insn(code, 0, 1, 0, 0)],
            None => vec![insn(load, 3, 0, 0, 0), insn(0x0f, 3, 1, 0, 0), insn(store, 0, 3, 0, 0)],
        };
        // The first number is as wide as what was loaded, its upper bits zeros.
        let sets = vec![insn(load, 3, 0, 0, 0), insn(0x5d, 3, 1, 1, 0), insn(store, 0, 2, 0, 0)];
        for (kind, work) in [(0, adds), (1, sets)] {
            let mut body: Vec<Insn> = place.into_iter().chain(work).chain(done.clone()).collect();
            // An offset past the end leads behind this body, where nothing else fits.
            body[1].off = body.len() as i16 - 2;
            insns.push(insn(0x55, 8, 0, body.len() as i16, kind * 16 + width));
            insns.extend(body);
        }
    }
    insns.extend(exit(3));
    insns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_cut_at_multiples_of_their_width() {
        let cut = |offset, len| chunks(offset, len).collect::<Vec<_>>();
        assert_eq!(cut(0, 16), [(0, 8), (8, 8)]);
        assert_eq!(cut(4, 16), [(4, 4), (8, 8), (16, 4)]);
        assert_eq!(cut(3, 6), [(3, 1), (4, 4), (8, 1)]);
        assert_eq!(cut(0, 0), []);
    }
}
