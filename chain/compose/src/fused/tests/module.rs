//! Objects made of a [`Behaviour`], as a compiler would have made them.

use super::super::asm::Assembler;
use super::model::Behaviour;
use crate::insn::{FP, call, code, helper};
use crate::object::{Function, Object, Program, ProgramKind, Reference, Referent};
use crate::{Insn, MapDef};

const XOR64_REG: u8 = 0xaf;
const XOR64_IMM: u8 = 0xa7;
const OR64_REG: u8 = 0x4f;
const LSH64_IMM: u8 = 0x67;
const LDX_B: u8 = 0x71;
const STX_B: u8 = 0x73;

/// An object whose program behaves so, and counts its runs in map `runs`.
pub(super) fn object(behaviour: &Behaviour) -> Object {
    let runs = MapDef {
        name: "runs".into(),
        map_type: 2,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: 0,
        btf_key: 0,
        btf_value: 0,
        inner: None,
        initial: None,
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
    }
}

fn function(name: &str, asm: Assembler, references: Vec<Reference>) -> Function {
    let insns = asm.finish().expect("test modules are small").insns;
    Function { name: name.into(), insns, references, btf_type: None, lines: Vec::new(), core: Vec::new() }
}

/// `fn(packet, offset) -> octet`, by way of its own stack.
fn read_octet() -> Function {
    let mut asm = Assembler::default();
    asm.op(code::ADD64_REG, 1, 2, 0);
    asm.mem(LDX_B, 1, 1, 0, 0);
    asm.mem(code::STX_DW, FP, 1, -8, 0);
    asm.mem(code::LDX_DW, 0, FP, -8, 0);
    asm.op(code::EXIT, 0, 0, 0);
    function("read_octet", asm, Vec::new())
}

fn main(behaviour: &Behaviour) -> Function {
    let mut asm = Assembler::default();
    let mut references = Vec::new();
    let (start, body, end, exit) = (asm.label(), asm.label(), asm.label(), asm.label());
    asm.place(start);
    // r1 is the context only at first; afterwards it counts down to nothing.
    if behaviour.loops {
        asm.jump_if(code::JGT_IMM, 1, 3, body);
        asm.jump_if(code::JEQ_IMM, 1, 0, end);
        asm.op(code::ADD64_IMM, 1, 0, -1);
        asm.jump(start);
        asm.place(body);
    }
    asm.mem(code::LDX_W, 6, 1, 0, 0);
    // Fill the frame, count the run (the key is on the stack below it), and see that the frame is as it was.
    for offset in (8..=behaviour.stack).step_by(8) {
        asm.mem(code::ST_DW, FP, 0, -offset, i32::from(offset));
    }
    let key = -behaviour.stack - 8;
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

    asm.op(code::MOV64_REG, 1, 6, 0);
    if behaviour.subprogram {
        asm.op(code::MOV64_IMM, 2, 0, i32::from(behaviour.returns));
        references.push(Reference { insn: asm.here(), to: Referent::Call(1) });
        asm.op(code::CALL, 0, call::SUBPROGRAM, -1);
        asm.op(code::MOV64_REG, 7, 0, 0);
    } else {
        asm.mem(LDX_B, 7, 1, i16::from(behaviour.returns), 0);
    }
    let (at, mask) = behaviour.changes;
    asm.mem(LDX_B, 2, 6, i16::from(at), 0);
    asm.op(XOR64_IMM, 2, 0, i32::from(mask));
    asm.mem(STX_B, 6, 2, i16::from(at), 0);

    // r8 stays 0 unless the frame was disturbed, and would change the return value.
    asm.op(code::MOV64_IMM, 8, 0, 0);
    for offset in (8..=behaviour.stack).step_by(8) {
        asm.mem(code::LDX_DW, 2, FP, -offset, 0);
        asm.op(code::MOV64_IMM, 3, 0, i32::from(offset));
        asm.op(XOR64_REG, 2, 3, 0);
        asm.op(OR64_REG, 8, 2, 0);
    }
    asm.op(LSH64_IMM, 8, 0, 16);
    asm.op(code::ADD64_REG, 7, 8, 0);
    asm.op(code::MOV64_IMM, 2, 0, (behaviour.plus >> 32) as i32);
    asm.op(LSH64_IMM, 2, 0, 32);
    asm.op(code::ADD64_REG, 7, 2, 0);
    asm.op(code::ADD64_IMM, 7, 0, behaviour.plus as u32 as i32);
    if behaviour.loops {
        asm.op(code::MOV64_IMM, 1, 0, 3);
        asm.jump(start);
    }
    asm.place(end);
    asm.op(code::MOV64_REG, 0, 7, 0);
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
