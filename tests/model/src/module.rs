//! Modules of a known [`Behaviour`], as a compiler would have made them.

use xdpchain_compose::asm::Assembler;
use xdpchain_compose::insn::{FP, Insn, call, code, helper};
use xdpchain_compose::object::{Externs, Function, Object, Program, ProgramKind, Reference, Referent};

use crate::maps::{CONSTANT_AT, Maps};

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
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Octet of the packet that it returns.
    pub returns: u8,
    /// Added to what it returns: 0, FINAL, or rubbish above the 32 bits that the kernel reads.
    pub plus: u64,
    /// Octet of the packet that it changes, and the mask that it xors in.
    pub changes: (u8, u8),
    /// Octets of stack that it fills and checks.
    pub stack: i16,
    /// It fills words of it in halves, some of them only when it knows that it has work.
    pub halves: bool,
    /// What it does first with the answer of its look-up.
    pub answer: Answer,
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
    /// Global variables and constants that it uses.
    pub globals: Option<Globals>,
    /// Programs of its own that it tail calls in the end.
    pub jumps: Option<Jumps>,
}

/// What a module does first with the answer of a look-up.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Asks whether it is null, to go on elsewhere.
    Asked,
    /// Asks whether it is not, to go on elsewhere.
    AskedOtherwise,
    /// Copies it, and asks the copy.
    Copied,
}

/// A variable that counts, and a constant.
#[derive(Clone, Copy, Debug)]
pub struct Globals {
    /// What the variable holds first.
    pub first: u8,
    /// The constant.
    pub constant: u8,
    /// Octet of the packet that both are xored into.
    pub octet: u8,
}

/// Tail calls by the low two bits of an octet: on 0 the module's program `target`; on 2 its program `onward`, which tail
/// calls `target`; and on others there is nothing, so that the module goes on itself.
#[derive(Clone, Copy, Debug)]
pub struct Jumps {
    /// The octet, as it is after all changes but those of the packet's length.
    pub by: u8,
    /// What `target` returns, after it has xored [`TARGET_MASK`] into the packet's first octet.
    pub returns: u16,
}

/// What a program that was tail called xors into the packet's first octet.
pub const TARGET_MASK: u8 = 0x5a;

impl Behaviour {
    /// A module that passes on what the packet's first octet says, and does nothing out of the ordinary.
    pub const PLAIN: Self = Self {
        returns: 0,
        plus: 0,
        changes: (0, 0),
        stack: 0,
        halves: false,
        answer: Answer::Asked,
        subprogram: false,
        exit_inside: false,
        back_edge: false,
        loops: false,
        cut_head: 0,
        cut_tail: 0,
        globals: None,
        jumps: None,
    };

    /// Does it; the number is what the module returns, all 64 bits of it. `counted` is what its variable has counted.
    pub fn apply(&self, packet: &mut Vec<u8>, counted: &mut u64) -> u64 {
        if packet.len() < LEAST {
            return XDP_PASS as u64;
        }
        let returned = u64::from(packet[usize::from(self.returns)]);
        let (at, mask) = self.changes;
        packet[usize::from(at)] ^= mask;
        if let Some(globals) = self.globals {
            let variable = u64::from(globals.first) + *counted;
            packet[usize::from(globals.octet)] ^= variable as u8 ^ globals.constant;
            *counted += 1;
        }
        let jump = self.jumps.filter(|jumps| packet[usize::from(jumps.by)] & 1 == 0);
        let (head, tail) = (usize::from(self.cut_head), usize::from(self.cut_tail));
        if packet.len() >= head + ETHERNET_HEADER {
            packet.drain(..head);
        }
        if packet.len() >= tail + ETHERNET_HEADER {
            packet.truncate(packet.len() - tail);
        }
        if let Some(jumps) = jump {
            packet[0] ^= TARGET_MASK;
            return u64::from(jumps.returns);
        }
        returned.wrapping_add(self.plus)
    }
}

/// An object whose program `main` behaves so, and counts its runs in the array `runs`.
pub fn object(behaviour: &Behaviour) -> Object {
    let maps = Maps::of(behaviour);
    let mut functions = vec![main(behaviour, &maps), read_octet()];
    let program = |name: &str, function| Program {
        name: name.into(),
        section: "xdp".into(),
        function,
        kind: ProgramKind::Xdp,
        frags: false,
        run_config: None,
    };
    let mut programs = vec![program("main", 0)];
    if let (Some(jumps), Some(array)) = (behaviour.jumps, maps.array) {
        functions.extend([target(jumps), onward(array)]);
        programs.extend([program("target", 2), program("onward", 3)]);
    }
    Object {
        functions,
        programs,
        maps: maps.definitions,
        license: "GPL".into(),
        btf: None,
        externs: Externs::default(),
        heeds_skipped: false,
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
        remark: None,
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

/// Marks the packet and returns what it is to return.
fn target(jumps: Jumps) -> Function {
    let mut asm = Assembler::default();
    let short = asm.label();
    asm.mem(code::LDX_W, 6, 1, 0, 0);
    asm.mem(code::LDX_W, 2, 1, 4, 0);
    asm.op(code::MOV64_IMM, 0, 0, 0);
    asm.op(code::MOV64_REG, 3, 6, 0);
    asm.op(code::ADD64_IMM, 3, 0, ETHERNET_HEADER as i32);
    asm.branch(Insn::new(JGT_REG, 3, 2, 0, 0), short);
    asm.mem(LDX_B, 2, 6, 0, 0);
    asm.op(XOR64_IMM, 2, 0, i32::from(TARGET_MASK));
    asm.mem(code::STX_B, 6, 2, 0, 0);
    asm.op(code::MOV64_IMM, 0, 0, i32::from(jumps.returns));
    asm.place(short);
    asm.op(code::EXIT, 0, 0, 0);
    function("target", asm, Vec::new())
}

/// Tail calls `target`, which is always there.
fn onward(array: usize) -> Function {
    let (mut asm, mut references) = (Assembler::default(), Vec::new());
    asm.op(code::MOV64_IMM, 3, 0, 0);
    tail_call(&mut asm, &mut references, array);
    asm.op(code::MOV64_IMM, 0, 0, 0);
    asm.op(code::EXIT, 0, 0, 0);
    function("onward", asm, references)
}

/// With the context in r1 and the index in r3.
fn tail_call(asm: &mut Assembler, references: &mut Vec<Reference>, array: usize) {
    address(asm, references, 2, Referent::Map(array));
    asm.op(code::CALL, 0, call::HELPER, helper::TAIL_CALL);
}

/// Loads an address into a register.
fn address(asm: &mut Assembler, references: &mut Vec<Reference>, register: u8, to: Referent) {
    references.push(Reference { insn: asm.here(), to });
    asm.emit(Insn::new(code::LD_IMM64, register, 0, 0, 0));
    asm.emit(Insn::default());
}

/// Counts in a variable, and xors it and a constant into an octet of the packet, to which r6 points.
fn use_globals(asm: &mut Assembler, references: &mut Vec<Reference>, globals: Globals, maps: &Maps) {
    let (Some(variable), Some(constant)) = (maps.variable, maps.constant) else { return };
    address(asm, references, 1, Referent::Value { map: variable, offset: 0 });
    asm.mem(code::LDX_DW, 2, 1, 0, 0);
    asm.op(code::MOV64_REG, 3, 2, 0);
    asm.op(code::ADD64_IMM, 3, 0, 1);
    asm.mem(code::STX_DW, 1, 3, 0, 0);
    address(asm, references, 1, Referent::Value { map: constant, offset: CONSTANT_AT });
    asm.mem(LDX_B, 3, 1, 0, 0);
    asm.op(XOR64_REG, 2, 3, 0);
    asm.mem(LDX_B, 3, 6, i16::from(globals.octet), 0);
    asm.op(XOR64_REG, 3, 2, 0);
    asm.mem(code::STX_B, 6, 3, i16::from(globals.octet), 0);
}

fn main(behaviour: &Behaviour, maps: &Maps) -> Function {
    let mut asm = Assembler::default();
    let mut references = Vec::new();
    let (start, short, exit) = (asm.label(), asm.label(), asm.label());
    asm.place(start);
    // r6 the packet, r7 the context, r8 what is returned, r9 what disturbed the frame.
    asm.mem(code::LDX_W, 6, 1, 0, 0);
    asm.op(code::MOV64_REG, 7, 1, 0);
    asm.mem(code::LDX_W, 2, 1, 4, 0);
    asm.op(code::MOV64_IMM, 8, 0, XDP_PASS);
    count_run(&mut asm, &mut references, behaviour);
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
    if let Some(globals) = behaviour.globals {
        use_globals(&mut asm, &mut references, globals, maps);
    }
    if behaviour.loops {
        let again = asm.label();
        asm.op(code::MOV64_IMM, 2, 0, 3);
        asm.place(again);
        asm.op(code::ADD64_IMM, 2, 0, -1);
        asm.jump_if(code::JNE_IMM, 2, 0, again);
    }
    if let Some(jumps) = behaviour.jumps {
        asm.mem(LDX_B, 6, 6, i16::from(jumps.by), 0);
        asm.op(code::AND64_IMM, 6, 0, 3);
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
    if let Some(array) = maps.array {
        // A frame that is not as it was must show in what is returned.
        check_frame(&mut asm, behaviour.stack);
        asm.jump_if(code::JNE_IMM, 9, 0, short);
        asm.op(code::MOV64_REG, 1, 7, 0);
        asm.op(code::MOV64_REG, 3, 6, 0);
        tail_call(&mut asm, &mut references, array);
    }

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
fn count_run(asm: &mut Assembler, references: &mut Vec<Reference>, behaviour: &Behaviour) {
    let stack = behaviour.stack;
    let half = |asm: &mut Assembler, octet: i16, value: i16| asm.mem(code::ST_W, FP, 0, octet, value.into());
    for offset in (8..=stack).step_by(8) {
        match offset % 24 {
            _ if !behaviour.halves => asm.mem(code::ST_DW, FP, 0, -offset, i32::from(offset)),
            8 => {
                half(asm, -offset, offset);
                half(asm, 4 - offset, 0);
            }
            16 => half(asm, -offset, offset),
            _ => {}
        }
    }
    let (key, nothing) = (-stack - 8, asm.label());
    if matches!(behaviour.answer, Answer::AskedOtherwise) {
        // A way to where nothing is counted that is no other one's, and never taken.
        asm.op(code::MOV64_IMM, 3, 0, 0);
        asm.jump_if(code::JNE_IMM, 3, 0, nothing);
    }
    asm.mem(code::ST_W, FP, 0, key, 0);
    asm.op(code::MOV64_REG, 2, FP, 0);
    asm.op(code::ADD64_IMM, 2, 0, i32::from(key));
    address(asm, references, 1, Referent::Map(0));
    asm.op(code::CALL, 0, call::HELPER, helper::MAP_LOOKUP_ELEM);
    let missing = asm.label();
    let counter = match behaviour.answer {
        Answer::Asked => {
            asm.jump_if(code::JEQ_IMM, 0, 0, missing);
            0
        }
        Answer::AskedOtherwise => {
            let found = asm.label();
            asm.jump_if(code::JNE_IMM, 0, 0, found);
            asm.place(nothing);
            asm.jump(missing);
            asm.place(found);
            0
        }
        Answer::Copied => {
            asm.op(code::MOV64_REG, 9, 0, 0);
            asm.op(code::MOV64_IMM, 0, 0, 0);
            asm.jump_if(code::JEQ_IMM, 9, 0, missing);
            9
        }
    };
    asm.mem(code::LDX_DW, 1, counter, 0, 0);
    asm.op(code::ADD64_IMM, 1, 0, 1);
    asm.mem(code::STX_DW, counter, 1, 0, 0);
    asm.place(missing);
    for offset in (8..=stack).step_by(8).filter(|offset| behaviour.halves && offset % 24 != 8) {
        half(asm, 4 - offset, 0);
        if offset % 24 == 0 {
            half(asm, -offset, offset);
        }
    }
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
