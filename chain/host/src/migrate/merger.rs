//! Changes of parts of values, made in a map that a running program writes at the same time.
//!
//! A small program does each of them, so that a counter is added to as programs do it, and not read, changed and written
//! back over what was counted in between. For a per-CPU map it runs on the CPU whose value it changes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya_obj::generated::BPF_PSEUDO_MAP_FD;
use xdpchain_compose::Insn;
use xdpchain_state::Merge;

use crate::load::ATTACH_TYPE;
use crate::maps::Map;
use crate::sys::{self, ProgLoad, TestRun};

/// Octets behind the key: what to do, where, and two numbers.
const OPERATION: usize = 24;
/// A packet has at least a link-layer header.
const LEAST: usize = 64;

/// What the program returns when there is no such entry.
const MISSING: u32 = 1;
/// What it returns else.
const DONE: u32 = 2;

/// Makes changes in one map.
pub(crate) struct Merger<'a> {
    map: &'a Map,
    /// None where the kernel lets no program change such values.
    program: Option<OwnedFd>,
}

impl<'a> Merger<'a> {
    pub(crate) fn new(map: &'a Map) -> Self {
        let insns = program(map.info().key_size as usize, map.info().value_size as usize, map.raw_fd());
        let load = ProgLoad {
            name: "xdpchain_merge",
            insns: &insns,
            license: "Dual MIT/GPL",
            flags: 0,
            attach_type: ATTACH_TYPE,
            btf: None,
            replaces: None,
            modules: &[],
        };
        let program = sys::prog_load(&load)
            .map_err(|(error, log)| tracing::debug!("entries are merged from user space: {error}: {log}"))
            .ok();
        Self { map, program }
    }

    /// Changes the value of `key`; whether there is such an entry. For a per-CPU map `cpu` is the CPU, counted among those that
    /// have values, whose value it is, and on which the caller runs.
    pub(crate) fn apply(&self, key: &[u8], cpu: Option<usize>, merges: &[Merge]) -> io::Result<bool> {
        let Some(program) = &self.program else { return self.apply_here(key, cpu, merges) };
        for merge in merges {
            match merge {
                Merge::Add { offset, width, delta } => {
                    if !self.run(program, key, (0, *width, *offset), (*delta, 0))? {
                        return Ok(false);
                    }
                }
                Merge::Set { offset, before, after } => {
                    // A field of several parts changes as a whole or not at all.
                    if before.len() > 8 && !self.is_still(key, cpu, *offset, before)? {
                        continue;
                    }
                    for (at, width) in chunks(*offset, before.len()) {
                        let part = |octets: &[u8]| number(&octets[at - offset..at - offset + width]);
                        if !self.run(program, key, (1, width, at), (part(before), part(after)))? {
                            return Ok(false);
                        }
                    }
                }
            }
        }
        Ok(true)
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
        (kind, width, offset): (u32, usize, usize),
        (a, b): (u64, u64),
    ) -> io::Result<bool> {
        let mut packet = key.to_vec();
        packet.resize(key.len().next_multiple_of(8), 0);
        packet.extend((kind * 16 + width as u32).to_ne_bytes());
        packet.extend((offset as u32).to_ne_bytes());
        packet.extend(a.to_ne_bytes());
        packet.extend(b.to_ne_bytes());
        packet.resize(packet.len().max(LEAST), 0);
        let result = sys::prog_test_run(program.as_fd(), &TestRun { packet: &packet, ..TestRun::default() })?;
        match result.verdict {
            DONE => Ok(true),
            MISSING => Ok(false),
            other => Err(io::Error::other(format!("the merging program returned {other}"))),
        }
    }

    /// As [`apply`](Self::apply), reading the value and writing it back.
    fn apply_here(&self, key: &[u8], cpu: Option<usize>, merges: &[Merge]) -> io::Result<bool> {
        let Some(mut value) = self.map.lookup_raw(key)? else { return Ok(false) };
        let start = self.start(cpu);
        for merge in merges {
            match merge {
                Merge::Add { offset, width, delta } => {
                    let field = &mut value[start + offset..start + offset + width];
                    let sum = number(field).wrapping_add(*delta).to_ne_bytes();
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
        self.map.update_existing(key, &value)
    }
}

/// A number in host order, which is little-endian wherever programs of ours run.
fn number(octets: &[u8]) -> u64 {
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

/// The program: looks the key up at the packet's start, and does what the octets behind it say.
fn program(key_size: usize, value_size: usize, map: i32) -> Vec<Insn> {
    let insn = |code: u8, dst: u8, src: u8, off: i16, imm: i32| Insn { code, regs: dst | src << 4, off, imm };
    let at = key_size.next_multiple_of(8) as i16;
    let end = i32::from(at) + OPERATION as i32;
    let mut insns = vec![
        insn(0x61, 7, 1, 0, 0),
        insn(0x61, 3, 1, 4, 0),
        insn(0xbf, 2, 7, 0, 0),
        insn(0x07, 2, 0, 0, end),
        insn(0xbd, 2, 3, 2, 0),
        insn(0xb7, 0, 0, 0, 0),
        insn(0x95, 0, 0, 0, 0),
        insn(0x18, 1, BPF_PSEUDO_MAP_FD as u8, 0, map),
        insn(0, 0, 0, 0, 0),
        insn(0xbf, 2, 7, 0, 0),
        insn(0x85, 0, 0, 0, 1),
        insn(0x55, 0, 0, 2, 0),
        insn(0xb7, 0, 0, 0, MISSING as i32),
        insn(0x95, 0, 0, 0, 0),
        // What, where, and the two numbers.
        insn(0x61, 8, 7, at, 0),
        insn(0x61, 9, 7, at + 4, 0),
        insn(0x79, 1, 7, at + 8, 0),
        insn(0x79, 2, 7, at + 16, 0),
    ];
    // Load, store and, where there is one, atomic addition, by width.
    let widths: [(i32, u8, u8, Option<u8>); 4] = [
        (8, 0x79, 0x7b, Some(0xdb)),
        (4, 0x61, 0x63, Some(0xc3)),
        (2, 0x69, 0x6b, None),
        (1, 0x71, 0x73, None),
    ];
    for (width, load, store, add) in widths.into_iter().filter(|(width, ..)| *width as usize <= value_size) {
        let place = [
            insn(0x57, 9, 0, 0, -width),
            insn(0x25, 9, 0, 0, value_size as i32 - width),
            insn(0x0f, 0, 9, 0, 0),
        ];
        let done = [insn(0xb7, 0, 0, 0, DONE as i32), insn(0x95, 0, 0, 0, 0)];
        let adds = match add {
            Some(code) => vec![insn(code, 0, 1, 0, 0)],
            None => vec![insn(load, 3, 0, 0, 0), insn(0x0f, 3, 1, 0, 0), insn(store, 0, 3, 0, 0)],
        };
        // The first number is as wide as what was loaded, its upper bits zeros.
        let sets = vec![insn(load, 3, 0, 0, 0), insn(0x5d, 3, 1, 1, 0), insn(store, 0, 2, 0, 0)];
        for (kind, work) in [(0, adds), (1, sets)] {
            let mut body: Vec<Insn> = place.into_iter().chain(work).chain(done).collect();
            // An offset past the end leads behind this body, where nothing else fits.
            body[1].off = body.len() as i16 - 2;
            insns.push(insn(0x55, 8, 0, body.len() as i16, kind * 16 + width));
            insns.extend(body);
        }
    }
    insns.extend([insn(0xb7, 0, 0, 0, 3), insn(0x95, 0, 0, 0, 0)]);
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
