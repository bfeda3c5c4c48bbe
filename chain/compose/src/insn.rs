//! eBPF instructions, as the kernel's `struct bpf_insn` has them, and the names of their parts.

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
#[allow(missing_docs, reason = "the kernel's names")]
pub mod class {
    pub const LDX: u8 = 1;
    pub const ST: u8 = 2;
    pub const STX: u8 = 3;
    pub const ALU: u8 = 4;
    pub const JMP: u8 = 5;
    pub const JMP32: u8 = 6;
    pub const ALU64: u8 = 7;
}

/// Whole opcodes that composition reads or writes.
#[allow(missing_docs, reason = "the kernel's names")]
pub mod code {
    pub const LD_IMM64: u8 = 0x18;
    pub const MOV64_REG: u8 = 0xbf;
    pub const MOV64_IMM: u8 = 0xb7;
    pub const MOV32_REG: u8 = 0xbc;
    pub const MOV32_IMM: u8 = 0xb4;
    pub const OR64_IMM: u8 = 0x47;
    pub const OR32_IMM: u8 = 0x44;
    pub const ADD64_IMM: u8 = 0x07;
    pub const ADD64_REG: u8 = 0x0f;
    pub const SUB64_REG: u8 = 0x1f;
    pub const AND64_IMM: u8 = 0x57;
    pub const RSH64_REG: u8 = 0x7f;
    pub const XOR64_REG: u8 = 0xaf;
    pub const LDX_W: u8 = 0x61;
    pub const LDX_B: u8 = 0x71;
    pub const LDX_DW: u8 = 0x79;
    pub const ST_W: u8 = 0x62;
    pub const ST_DW: u8 = 0x7a;
    pub const ST_B: u8 = 0x72;
    pub const STX_B: u8 = 0x73;
    pub const STX_W: u8 = 0x63;
    pub const STX_DW: u8 = 0x7b;
    pub const JA: u8 = 0x05;
    pub const JA32: u8 = 0x06;
    pub const JA_REG: u8 = 0x0d;
    pub const JEQ_IMM: u8 = 0x15;
    pub const JEQ32_IMM: u8 = 0x16;
    pub const JGT_IMM: u8 = 0x25;
    pub const JNE_IMM: u8 = 0x55;
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
}

/// What of an opcode says how memory is accessed: plainly, with the sign extended, at once.
pub const MODE: u8 = 0xe0;
/// A plain access.
pub const MODE_MEM: u8 = 0x60;
/// What of an opcode says how much memory is accessed.
pub const SIZE: u8 = 0x18;
/// Eight octets.
pub const SIZE_DW: u8 = 0x18;

/// Source register of a `CALL`: what the immediate means.
#[allow(missing_docs, reason = "the kernel's names")]
pub mod call {
    pub const HELPER: u8 = 0;
    pub const SUBPROGRAM: u8 = 1;
    pub const KFUNC: u8 = 2;
}

/// Source register of a 64-bit immediate load: what the immediate means.
#[allow(missing_docs, reason = "the kernel's names")]
pub mod pseudo {
    pub const BTF_ID: u8 = 3;
    pub const FUNC: u8 = 4;
}

/// Helper numbers that composition has to know.
#[allow(missing_docs, reason = "the kernel's names")]
pub mod helper {
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    pub const TAIL_CALL: i32 = 12;
    pub const XDP_ADJUST_HEAD: i32 = 44;
}

/// The frame pointer.
pub const FP: u8 = 10;

impl Insn {
    /// An instruction of these parts.
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
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

    /// Octets that this accesses, of a load or store.
    pub const fn octets(self) -> i16 {
        match self.code & SIZE {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }

    /// Whether this is the first half of a 64-bit immediate load.
    pub const fn is_wide(self) -> bool {
        self.code == code::LD_IMM64
    }

    /// Whether this branches to another instruction of the same function.
    pub const fn is_branch(self) -> bool {
        matches!(self.class(), class::JMP | class::JMP32) && !matches!(self.code, code::CALL | code::EXIT)
    }

    /// How far this branches, in instructions after the next one.
    pub const fn distance(self) -> i64 {
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
