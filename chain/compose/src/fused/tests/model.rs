//! What a chain means, in Rust, and modules whose behaviour it can foretell.

use xdpchain_spec::{ChainDefault, Place, SlotSpec, Verdict, VerdictSet};

/// What a generated module does with a packet.
#[derive(Clone, Debug)]
pub(in crate::fused) struct Behaviour {
    /// Octet of the packet that it returns.
    pub(in crate::fused) returns: u8,
    /// Added to what it returns: 0, FINAL, or rubbish above the 32 bits that the kernel reads.
    pub(in crate::fused) plus: u64,
    /// Octet of the packet that it changes, and the mask that it xors in.
    pub(in crate::fused) changes: (u8, u8),
    /// Octets of stack that it fills and checks.
    pub(in crate::fused) stack: i16,
    /// The packet's octet is read in a subprogram with a frame of its own.
    pub(in crate::fused) subprogram: bool,
    /// The last instruction is a jump back to the exit, not the exit.
    pub(in crate::fused) exit_inside: bool,
    /// A loop leads back to the first instruction.
    pub(in crate::fused) loops: bool,
}

/// What is expected of a chain and a packet.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::fused) struct Expected {
    pub(in crate::fused) verdict: u32,
    pub(in crate::fused) packet: Vec<u8>,
    /// For each slot, whether it ran.
    pub(in crate::fused) ran: Vec<bool>,
    /// Slot where the chain ended.
    pub(in crate::fused) ended: usize,
    /// For each slot, whether it returned what is no verdict.
    pub(in crate::fused) unknown: Vec<bool>,
}

/// Runs the chain.
pub(in crate::fused) fn run(
    slots: &[(SlotSpec, Behaviour)],
    default: ChainDefault,
    packet: &[u8],
) -> Expected {
    let mut packet = packet.to_vec();
    let mut ran = vec![false; slots.len()];
    let mut unknown = vec![false; slots.len()];
    let mut verdict = Verdict::Pass as u32;
    let mut ended = None;
    let mut last = 0;
    for (i, (slot, behaviour)) in slots.iter().enumerate().filter(|(_, (s, _))| s.at == Place::Order) {
        last = i;
        ran[i] = true;
        let returned = behaviour.apply(&mut packet) as u32;
        if slot.observer {
            continue;
        }
        let is_final = returned & 0x100 != 0 && returned & !0x100 <= 4;
        verdict = if is_final { returned & !0x100 } else { returned };
        if verdict > 4 {
            unknown[i] = true;
            verdict = slot.on_unknown as u32;
        }
        let proceed_on = slot.proceed_on.unwrap_or(VerdictSet::only(Verdict::Pass));
        if is_final || proceed_on.bits() & 1 << verdict == 0 {
            ended = Some(i);
            break;
        }
    }
    if ended.is_none() {
        verdict = match default {
            ChainDefault::Keep => verdict,
            ChainDefault::Pass => 2,
            ChainDefault::Drop => 1,
        };
    }
    for (i, (_, behaviour)) in slots.iter().enumerate().filter(|(_, (s, _))| s.at == Place::Exit) {
        ran[i] = true;
        behaviour.apply(&mut packet);
    }
    Expected { verdict, packet, ran, ended: ended.unwrap_or(last), unknown }
}

impl Behaviour {
    fn apply(&self, packet: &mut [u8]) -> u64 {
        let returned = u64::from(packet[usize::from(self.returns)]);
        let (at, mask) = self.changes;
        packet[usize::from(at)] ^= mask;
        returned.wrapping_add(self.plus)
    }
}
