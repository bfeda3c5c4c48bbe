//! Instructions with their operands changed.

use super::value::Decision;
use crate::Insn;
use crate::insn::{class, code};

/// The helper that a poisoned instruction calls. No kernel has it, so the verifier refuses the instruction when, and
/// only when, it can be reached.
const POISON: i32 = 0x0bad_2310;

/// Changes the instruction with index `at`.
pub(super) fn patch(insns: &mut [Insn], at: usize, decision: &Decision) -> Result<(), String> {
    let damaged =
        |what: &str| Err(format!("instruction {at} {what}; was the object damaged after it was compiled?"));
    let Some(insn) = insns.get(at).copied() else { return damaged("is not there") };
    if decision.poison {
        poison(insns, at);
        return Ok(());
    }
    let differs = |found: i64| {
        (decision.checked && found as u64 != decision.old)
            .then(|| format!("has {found} where its own types say {}", decision.old as i64))
    };
    match insn.class() {
        class::ALU | class::ALU64 if insn.code & 0x08 == 0 => {
            if let Some(what) = differs(i64::from(insn.imm)) {
                return damaged(&what);
            }
            insns[at].imm = decision.new as i32;
        }
        class::LDX | class::ST | class::STX => {
            if let Some(what) = differs(i64::from(insn.off)) {
                return damaged(&what);
            }
            let Ok(offset) = i16::try_from(decision.new) else {
                return Err(format!("the field is {} octets into the kernel's type, too far", decision.new));
            };
            if decision.fixed_size {
                poison(insns, at);
                return Ok(());
            }
            insns[at].off = offset;
            if let Some((old, new)) = decision.sizes.filter(|(old, new)| old != new) {
                if size_of_access(insn.code) != old {
                    return damaged("reads another size than that of its field");
                }
                let Some(bits) = access_bits(new) else {
                    return Err(format!("the field has {new} octets in the kernel, which no load reads"));
                };
                insns[at].code = insn.code & !0x18 | bits;
            }
        }
        _ if insn.is_wide() => {
            let second = insns.get(at + 1).copied();
            let plain = insn.src() == 0
                && insn.off == 0
                && second.is_some_and(|second| Insn { imm: 0, ..second } == Insn::default());
            let (Some(second), true) = (second, plain) else { return damaged("is no plain 64-bit load") };
            let value = i64::from(second.imm) << 32 | i64::from(insn.imm as u32);
            if let Some(what) = differs(value) {
                return damaged(&what);
            }
            insns[at].imm = decision.new as i32;
            insns[at + 1].imm = (decision.new >> 32) as i32;
        }
        _ => return damaged(&format!("has opcode {:#04x}, in which nothing can be relocated", insn.code)),
    }
    Ok(())
}

/// Both halves of a 64-bit load, for the second alone would be an unknown instruction.
fn poison(insns: &mut [Insn], at: usize) {
    let len = if insns[at].is_wide() { 2 } else { 1 };
    for insn in insns.iter_mut().skip(at).take(len) {
        *insn = Insn::new(code::CALL, 0, 0, 0, POISON);
    }
}

/// Octets that a load or store moves.
fn size_of_access(code: u8) -> u32 {
    [4, 2, 1, 8][usize::from(code >> 3 & 3)]
}

fn access_bits(octets: u32) -> Option<u8> {
    [4, 2, 1, 8].iter().position(|size| *size == octets).map(|bits| (bits as u8) << 3)
}
