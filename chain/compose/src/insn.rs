//! One eBPF instruction, as the kernel's `struct bpf_insn` has it, and the names of its parts.

/// A `struct bpf_insn`. A 64-bit immediate load takes two, the second with opcode 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insn {
    /// Opcode: class, and size and mode or operation and source.
    pub code: u8,
    /// Destination register (low four bits) and source register (high four bits).
    pub regs: u8,
    /// Signed offset, of a jump in instructions, of a memory access in octets.
    pub off: i16,
    /// Signed immediate.
    pub imm: i32,
}

/// Instruction classes (`code & 7`).
pub(crate) mod class {
    pub(crate) const LDX: u8 = 1;
    pub(crate) const ST: u8 = 2;
    pub(crate) const STX: u8 = 3;
    pub(crate) const ALU: u8 = 4;
    pub(crate) const JMP: u8 = 5;
    pub(crate) const JMP32: u8 = 6;
    pub(crate) const ALU64: u8 = 7;
}

/// Whole opcodes that composition reads or writes.
pub(crate) mod code {
    pub(crate) const LD_IMM64: u8 = 0x18;
    pub(crate) const MOV64_REG: u8 = 0xbf;
    pub(crate) const MOV64_IMM: u8 = 0xb7;
    pub(crate) const MOV32_REG: u8 = 0xbc;
    pub(crate) const ADD64_IMM: u8 = 0x07;
    pub(crate) const ADD64_REG: u8 = 0x0f;
    pub(crate) const SUB64_REG: u8 = 0x1f;
    pub(crate) const AND64_IMM: u8 = 0x57;
    pub(crate) const RSH64_REG: u8 = 0x7f;
    pub(crate) const LDX_W: u8 = 0x61;
    pub(crate) const LDX_DW: u8 = 0x79;
    pub(crate) const ST_W: u8 = 0x62;
    pub(crate) const ST_DW: u8 = 0x7a;
    pub(crate) const STX_B: u8 = 0x73;
    pub(crate) const STX_W: u8 = 0x63;
    pub(crate) const STX_DW: u8 = 0x7b;
    pub(crate) const JA: u8 = 0x05;
    pub(crate) const JA32: u8 = 0x06;
    pub(crate) const JEQ_IMM: u8 = 0x15;
    pub(crate) const JGT_IMM: u8 = 0x25;
    pub(crate) const JNE_IMM: u8 = 0x55;
    pub(crate) const CALL: u8 = 0x85;
    pub(crate) const EXIT: u8 = 0x95;
}

/// Source register of a `CALL`: what the immediate means.
pub(crate) mod call {
    pub(crate) const HELPER: u8 = 0;
    pub(crate) const SUBPROGRAM: u8 = 1;
    pub(crate) const KFUNC: u8 = 2;
}

/// Source register of a 64-bit immediate load: what the immediate means.
pub(crate) mod pseudo {
    pub(crate) const FUNC: u8 = 4;
}

/// Helper numbers that composition has to know.
pub(crate) mod helper {
    pub(crate) const MAP_LOOKUP_ELEM: i32 = 1;
    pub(crate) const TAIL_CALL: i32 = 12;
}

/// The frame pointer.
pub(crate) const FP: u8 = 10;

impl Insn {
    pub(crate) const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
        Self { code, regs: dst | src << 4, off, imm }
    }

    /// The destination register.
    pub const fn dst(self) -> u8 {
        self.regs & 0xf
    }

    /// The source register, or what the immediate means in calls and 64-bit loads.
    pub const fn src(self) -> u8 {
        self.regs >> 4
    }

    /// The class, the low three bits of the opcode.
    pub const fn class(self) -> u8 {
        self.code & 7
    }

    /// Whether this is the first half of a 64-bit immediate load.
    pub const fn is_wide(self) -> bool {
        self.code == code::LD_IMM64
    }

    /// Whether this branches to another instruction of the same function.
    pub(crate) const fn is_branch(self) -> bool {
        matches!(self.class(), class::JMP | class::JMP32) && !matches!(self.code, code::CALL | code::EXIT)
    }

    /// How far this branches, in instructions after the next one.
    pub(crate) const fn distance(self) -> i64 {
        // BPF_JMP32 | BPF_JA keeps its distance in the immediate (`gotol`, instruction set v4).
        if self.code == code::JA32 { self.imm as i64 } else { self.off as i64 }
    }

    /// The eight octets that the kernel reads, little-endian.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut b = [0; 8];
        b[0] = self.code;
        b[1] = self.regs;
        b[2..4].copy_from_slice(&self.off.to_le_bytes());
        b[4..8].copy_from_slice(&self.imm.to_le_bytes());
        b
    }

    /// Reads the eight octets of a little-endian object.
    pub fn from_bytes(b: [u8; 8]) -> Self {
        Self {
            code: b[0],
            regs: b[1],
            off: i16::from_le_bytes([b[2], b[3]]),
            imm: i32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        }
    }
}
