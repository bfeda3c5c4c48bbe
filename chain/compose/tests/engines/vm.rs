//! An interpreter of the instructions that the tests use, with memory that traps when it is touched out of place.
//!
//! It knows the helpers that composed code and the model's modules call, and array maps; a map's per-CPU value is its only one.

use xdpchain_compose::insn::{call, class, code, helper};
use xdpchain_compose::{Image, Target};

const XDP_ADJUST_HEAD: i32 = 44;
const XDP_ADJUST_TAIL: i32 = 65;

const CTX: u64 = 0x1000_0000;
const PACKET: u64 = 0x2000_0000;
const STACK: u64 = 0x3000_0000;
const STACK_STEP: u64 = 0x1_0000;
const MAPS: u64 = 0x4000_0000;
const MAP_STEP: u64 = 0x10_0000;

pub(super) struct Vm {
    pub(super) packet: Vec<u8>,
    /// For each map of the image, its entries one after the other.
    pub(super) maps: Vec<Vec<u8>>,
    ctx: Vec<u8>,
    stacks: Vec<Vec<u8>>,
}

impl Vm {
    pub(super) fn new(image: &Image, packet: &[u8]) -> Self {
        let maps = image.maps.iter().map(|m| {
            let mut octets = m.def.initial.as_ref().map(|initial| initial.bytes.clone()).unwrap_or_default();
            octets.resize((m.def.value_size * m.def.max_entries) as usize, 0);
            octets
        });
        let maps = maps.collect();
        let mut ctx = vec![0; 24];
        ctx[..4].copy_from_slice(&(PACKET as u32).to_le_bytes());
        ctx[4..8].copy_from_slice(&(PACKET as u32 + packet.len() as u32).to_le_bytes());
        Self { packet: packet.to_vec(), maps, ctx, stacks: Vec::new() }
    }

    /// Runs the image's first program and returns what the kernel would take as the verdict.
    pub(super) fn run(&mut self, image: &Image) -> u32 {
        self.run_program(image, 0)
    }

    /// Runs one of the image's programs on the packet as it is now.
    pub(super) fn run_program(&mut self, image: &Image, program: usize) -> u32 {
        self.call(image, program, 0, [CTX, 0, 0, 0, 0]) as u32
    }

    /// A map of the image by name, as numbers of 8 octets.
    pub(super) fn words(&self, image: &Image, name: &str) -> Vec<u64> {
        let map = image.maps.iter().position(|m| m.def.name == name).expect("the map is there");
        self.maps[map].chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
    }

    fn call(&mut self, image: &Image, program: usize, mut pc: usize, args: [u64; 5]) -> u64 {
        let (index, program) = (program, &image.programs[program]);
        let mut r = [0u64; 11];
        r[1..6].copy_from_slice(&args);
        self.stacks.push(vec![0xcc; 512]);
        r[10] = STACK + self.stacks.len() as u64 * STACK_STEP + 512;
        for _ in 0..1_000_000 {
            let insn = program.insns[pc];
            let (dst, src) = (insn.dst() as usize, insn.src() as usize);
            pc += 1;
            match insn.class() {
                _ if insn.code == code::EXIT => {
                    self.stacks.pop();
                    return r[0];
                }
                _ if insn.code == code::CALL => {
                    let args = [r[1], r[2], r[3], r[4], r[5]];
                    r[0] = match insn.src() {
                        call::SUBPROGRAM => {
                            self.call(image, index, (pc as i64 + i64::from(insn.imm)) as usize, args)
                        }
                        _ if insn.imm == helper::MAP_LOOKUP_ELEM => self.look_up(image, args[0], args[1]),
                        _ if insn.imm == helper::TAIL_CALL => {
                            let map = ((args[1] - MAPS) / MAP_STEP) as usize;
                            let held =
                                image.fills.iter().find(|f| f.map == map && u64::from(f.index) == args[2]);
                            if let Some(held) = held {
                                // The program that is called takes the place, and the stack, of the one that calls.
                                self.stacks.pop();
                                return self.call(image, held.program, 0, [args[0], 0, 0, 0, 0]);
                            }
                            u64::MAX
                        }
                        _ if insn.imm == XDP_ADJUST_HEAD => self.resize(args[1] as i32, 0),
                        _ if insn.imm == XDP_ADJUST_TAIL => self.resize(0, -(args[1] as i32)),
                        _ => panic!("helper {}", insn.imm),
                    };
                    // What a call leaves in the argument registers is nobody's business.
                    r[1..6].fill(0xdead_beef_dead_beef);
                }
                _ if insn.is_wide() => {
                    let relocation =
                        program.relocations.iter().find(|r| r.insn == pc - 1).expect("a reference");
                    r[dst] = match relocation.target {
                        Target::Map { map } => MAPS + map as u64 * MAP_STEP,
                        Target::Value { map, offset } => MAPS + map as u64 * MAP_STEP + u64::from(offset),
                        Target::ModuleBtf { id } => panic!("BTF {id}"),
                    };
                    pc += 1;
                }
                class::ALU | class::ALU64 => {
                    let b = if insn.code & 8 != 0 { r[src] } else { i64::from(insn.imm) as u64 };
                    let a = r[dst];
                    let long = insn.class() == class::ALU64;
                    let bits = if long { 63 } else { 31 };
                    let (a, b) = if long { (a, b) } else { (a & 0xffff_ffff, b & 0xffff_ffff) };
                    let result = match insn.code & 0xf0 {
                        0x00 => a.wrapping_add(b),
                        0x10 => a.wrapping_sub(b),
                        0x40 => a | b,
                        0x50 => a & b,
                        0x60 => a << (b & bits),
                        0x70 => a >> (b & bits),
                        0xa0 => a ^ b,
                        0xb0 => b,
                        other => panic!("operation {other:#x}"),
                    };
                    r[dst] = if long { result } else { result & 0xffff_ffff };
                }
                class::LDX => r[dst] = self.load(r[src].wrapping_add(insn.off as u64), size(insn.code)),
                class::ST => {
                    self.store(r[dst].wrapping_add(insn.off as u64), size(insn.code), insn.imm as u64)
                }
                class::STX => self.store(r[dst].wrapping_add(insn.off as u64), size(insn.code), r[src]),
                class::JMP | class::JMP32 => {
                    let b = if insn.code & 8 != 0 { r[src] } else { i64::from(insn.imm) as u64 };
                    let mask = if insn.class() == class::JMP { u64::MAX } else { u64::from(u32::MAX) };
                    let (a, b) = (r[dst] & mask, b & mask);
                    let taken = match insn.code & 0xf0 {
                        0x00 => true,
                        0x10 => a == b,
                        0x20 => a > b,
                        0x50 => a != b,
                        other => panic!("jump {other:#x}"),
                    };
                    if taken {
                        pc = (pc as i64 + insn.distance()) as usize;
                    }
                }
                other => panic!("class {other}"),
            }
        }
        panic!("the program does not end");
    }

    /// Takes octets off the packet, as long as an Ethernet header stays.
    fn resize(&mut self, head: i32, tail: i32) -> u64 {
        let (head, tail) = (head as usize, tail as usize);
        if self.packet.len() < head + tail + 14 {
            return -22i64 as u64;
        }
        self.packet.drain(..head);
        self.packet.truncate(self.packet.len() - tail);
        self.ctx[4..8].copy_from_slice(&(PACKET as u32 + self.packet.len() as u32).to_le_bytes());
        0
    }

    fn look_up(&mut self, image: &Image, map: u64, key: u64) -> u64 {
        let index = ((map - MAPS) / MAP_STEP) as usize;
        let def = &image.maps[index].def;
        let key = self.load(key, def.key_size as usize);
        if key < u64::from(def.max_entries) { map + key * u64::from(def.value_size) } else { 0 }
    }

    fn memory(&mut self, at: u64, size: usize) -> &mut [u8] {
        let (region, start): (&mut [u8], u64) = match at {
            MAPS.. => {
                let map = (at - MAPS) / MAP_STEP;
                (&mut self.maps[map as usize], MAPS + map * MAP_STEP)
            }
            STACK.. => {
                let depth = (at - STACK) / STACK_STEP;
                (&mut self.stacks[depth as usize - 1], STACK + depth * STACK_STEP)
            }
            PACKET.. => (&mut self.packet, PACKET),
            _ => (&mut self.ctx, CTX),
        };
        let offset = (at - start) as usize;
        &mut region[offset..offset + size]
    }

    fn load(&mut self, at: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(self.memory(at, size));
        u64::from_le_bytes(bytes)
    }

    fn store(&mut self, at: u64, size: usize, value: u64) {
        self.memory(at, size).copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

/// Octets of a load or store.
fn size(code: u8) -> usize {
    [4, 2, 1, 8][usize::from(code >> 3 & 3)]
}
