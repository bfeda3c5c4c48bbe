//! One eBPF instruction, as the kernel's `struct bpf_insn` has it.

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
