//! Modules of a known [`Behaviour`], as a compiler would have made them.

use xdpchain_compose::MapDef;
use xdpchain_compose::asm::Assembler;
use xdpchain_compose::insn::{FP, Insn, call, code, helper};
use xdpchain_compose::object::{Externs, Function, Object, Program, ProgramKind, Reference, Referent};

/// Octets that a packet must have; a module passes a shorter one on as it is.
pub const LEAST: usize = 48;

const XOR64_REG: u8 = 0xaf;
const XOR64_IMM: u8 = 0xa7;
const OR64_REG: u8 = 0x4f;
const LSH64_IMM: u8 = 0x67;
const LDX_B: u8 = 0x71;
const JGT_REG: u8 = 0x2d;
const XDP_ADJUST_HEAD: i32 = 44;
const XDP_ADJUST_TAIL: i32 = 65;
const XDP_PASS: i32 = 2;
/// The shortest frame that the kernel's helpers leave.
const ETHERNET_HEADER: usize = 14;

/// What a module does with a packet of at least [`LEAST`] octets.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Octet of the packet that it returns.
    pub returns: u8,
    /// Added to what it returns: 0, FINAL, or rubbish above the 32 bits that the kernel reads.
    pub plus: u64,
    /// Octet of the packet that it changes, and the mask that it xors in.
    pub changes: (u8, u8),
    /// Octets of stack that it fills and checks.
    pub stack: i16,
    /// The packet's octet is read in a subprogram with a frame of its own.
    pub subprogram: bool,
    /// The last instruction is a jump back to the exit, not the exit.
    pub exit_inside: bool,
    /// A branch, never taken, leads back to the first instruction.
    pub back_edge: bool,
    /// It counts to three.
    pub loops: bool,
    /// Octets that it takes off the front.
    pub cut_head: u8,
    /// Octets that it takes off the end.
    pub cut_tail: u8,
}

impl Behaviour {
    /// Does it; the number is what the module returns, all 64 bits of it.
    pub fn apply(&self, packet: &mut Vec<u8>) -> u64 {
        if packet.len() < LEAST {
            return XDP_PASS as u64;
        }
        let returned = u64::from(packet[usize::from(self.returns)]);
        let (at, mask) = self.changes;
        packet[usize::from(at)] ^= mask;
        let (head, tail) = (usize::from(self.cut_head), usize::from(self.cut_tail));
        if packet.len() >= head + ETHERNET_HEADER {
            packet.drain(..head);
        }
        if packet.len() >= tail + ETHERNET_HEADER {
            packet.truncate(packet.len() - tail);
        }
        returned.wrapping_add(self.plus)
    }
}

/// An object whose program behaves so, and counts its runs in the array `runs`.
pub fn object(behaviour: &Behaviour) -> Object {
    let runs = MapDef {
        name: "runs".into(),
        map_type: 2,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        ..MapDef::default()
    };
    Object {
        functions: vec![main(behaviour), read_octet()],
        programs: vec![Program {
            name: "main".into(),
            section: "xdp".into(),
            function: 0,
            kind: ProgramKind::Xdp,
            frags: false,
            run_config: None,
        }],
        maps: vec![runs],
        license: "GPL".into(),
        btf: None,
        externs: Externs::default(),
    }
}

fn function(name: &str, asm: Assembler, references: Vec<Reference>) -> Function {
    let insns = asm.finish().expect("modules are small").insns;
    Function {
        name: name.into(),
        insns,
        references,
        btf_type: None,
        lines: Vec::new(),
        core: Vec::new(),
        problem: None,
    }
}

/// `fn(octet) -> octet`, by way of its own stack.
fn read_octet() -> Function {
    let mut asm = Assembler::default();
    asm.mem(LDX_B, 1, 1, 0, 0);
    asm.mem(code::STX_DW, FP, 1, -8, 0);
    asm.mem(code::LDX_DW, 0, FP, -8, 0);
    asm.op(code::EXIT, 0, 0, 0);
    function("read_octet", asm, Vec::new())
}

fn main(behaviour: &Behaviour) -> Function {
    let mut asm = Assembler::default();
    let mut references = Vec::new();
    let (start, short, exit) = (asm.label(), asm.label(), asm.label());
    asm.place(start);
    // r6 the packet, r7 the context, r8 what is returned, r9 what disturbed the frame.
    asm.mem(code::LDX_W, 6, 1, 0, 0);
    asm.op(code::MOV64_REG, 7, 1, 0);
    asm.mem(code::LDX_W, 2, 1, 4, 0);
    asm.op(code::MOV64_IMM, 8, 0, XDP_PASS);
    count_run(&mut asm, &mut references, behaviour.stack);
    asm.mem(code::LDX_W, 2, 7, 4, 0);
    asm.op(code::MOV64_REG, 3, 6, 0);
    asm.op(code::ADD64_IMM, 3, 0, LEAST as i32);
    asm.branch(Insn::new(JGT_REG, 3, 2, 0, 0), short);

    if behaviour.subprogram {
        asm.op(code::MOV64_REG, 1, 6, 0);
        asm.op(code::ADD64_IMM, 1, 0, i32::from(behaviour.returns));
        references.push(Reference { insn: asm.here(), to: Referent::Call(1) });
        asm.op(code::CALL, 0, call::SUBPROGRAM, -1);
        asm.op(code::MOV64_REG, 8, 0, 0);
    } else {
        asm.mem(LDX_B, 8, 6, i16::from(behaviour.returns), 0);
    }
    let (at, mask) = behaviour.changes;
    asm.mem(LDX_B, 2, 6, i16::from(at), 0);
    asm.op(XOR64_IMM, 2, 0, i32::from(mask));
    asm.mem(code::STX_B, 6, 2, i16::from(at), 0);
    if behaviour.loops {
        let again = asm.label();
        asm.op(code::MOV64_IMM, 2, 0, 3);
        asm.place(again);
        asm.op(code::ADD64_IMM, 2, 0, -1);
        asm.jump_if(code::JNE_IMM, 2, 0, again);
    }
    for (helper, delta) in
        [(XDP_ADJUST_HEAD, i32::from(behaviour.cut_head)), (XDP_ADJUST_TAIL, -i32::from(behaviour.cut_tail))]
    {
        if delta != 0 {
            asm.op(code::MOV64_REG, 1, 7, 0);
            asm.op(code::MOV64_IMM, 2, 0, delta);
            asm.op(code::CALL, 0, call::HELPER, helper);
        }
    }
    asm.op(code::MOV64_IMM, 2, 0, (behaviour.plus >> 32) as i32);
    asm.op(LSH64_IMM, 2, 0, 32);
    asm.op(code::ADD64_REG, 8, 2, 0);
    asm.op(code::ADD64_IMM, 8, 0, behaviour.plus as u32 as i32);

    asm.place(short);
    check_frame(&mut asm, behaviour.stack);
    if behaviour.back_edge {
        asm.op(code::MOV64_REG, 1, 7, 0);
        asm.op(code::MOV64_IMM, 2, 0, 5);
        asm.jump_if(code::JEQ_IMM, 2, 7, start);
    }
    asm.op(code::MOV64_REG, 0, 8, 0);
    if behaviour.exit_inside {
        let tail = asm.label();
        asm.jump(tail);
        asm.place(exit);
        asm.op(code::EXIT, 0, 0, 0);
        asm.place(tail);
        asm.jump(exit);
    } else {
        asm.op(code::EXIT, 0, 0, 0);
    }
    function("main", asm, references)
}

/// Fills the frame, and counts the run by a key below what it filled.
fn count_run(asm: &mut Assembler, references: &mut Vec<Reference>, stack: i16) {
    for offset in (8..=stack).step_by(8) {
        asm.mem(code::ST_DW, FP, 0, -offset, i32::from(offset));
    }
    let key = -stack - 8;
    asm.mem(code::ST_W, FP, 0, key, 0);
    asm.op(code::MOV64_REG, 2, FP, 0);
    asm.op(code::ADD64_IMM, 2, 0, i32::from(key));
    references.push(Reference { insn: asm.here(), to: Referent::Map(0) });
    asm.emit(Insn::new(code::LD_IMM64, 1, 0, 0, 0));
    asm.emit(Insn::default());
    asm.op(code::CALL, 0, call::HELPER, helper::MAP_LOOKUP_ELEM);
    let missing = asm.label();
    asm.jump_if(code::JEQ_IMM, 0, 0, missing);
    asm.mem(code::LDX_DW, 1, 0, 0, 0);
    asm.op(code::ADD64_IMM, 1, 0, 1);
    asm.mem(code::STX_DW, 0, 1, 0, 0);
    asm.place(missing);
}

/// Adds to what is returned, far above the verdicts, whatever of the frame is not as it was filled.
fn check_frame(asm: &mut Assembler, stack: i16) {
    asm.op(code::MOV64_IMM, 9, 0, 0);
    for offset in (8..=stack).step_by(8) {
        asm.mem(code::LDX_DW, 2, FP, -offset, 0);
        asm.op(code::MOV64_IMM, 3, 0, i32::from(offset));
        asm.op(XOR64_REG, 2, 3, 0);
        asm.op(OR64_REG, 9, 2, 0);
    }
    asm.op(LSH64_IMM, 9, 0, 16);
    asm.op(code::ADD64_REG, 8, 9, 0);
}
