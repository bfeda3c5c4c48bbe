//! The meaning of a chain.

use xdpchain_spec::{ChainDefault, Place, SlotSpec, Verdict, VerdictSet};

use crate::Behaviour;

/// What is expected of a chain and a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    /// What the kernel is told.
    pub verdict: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Octets of the packet when the chain ended, before the slots at exit.
    pub counted: usize,
    /// For each slot, whether it ran.
    pub ran: Vec<bool>,
    /// Slot where the chain ended.
    pub ended: usize,
    /// For each slot, whether it returned what is no verdict.
    pub unknown: Vec<bool>,
}

/// Runs the chain. `counts` is what the slots' variables have counted of earlier packets.
pub fn run(
    slots: &[(SlotSpec, Behaviour)],
    default: ChainDefault,
    packet: &[u8],
    counts: &mut [u64],
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
        let returned = behaviour.apply(&mut packet, &mut counts[i]) as u32;
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
            ChainDefault::Pass => Verdict::Pass as u32,
            ChainDefault::Drop => Verdict::Drop as u32,
        };
    }
    let counted = packet.len();
    for (i, (_, behaviour)) in slots.iter().enumerate().filter(|(_, (s, _))| s.at == Place::Exit) {
        ran[i] = true;
        behaviour.apply(&mut packet, &mut counts[i]);
    }
    Expected { verdict, packet, counted, ran, ended: ended.unwrap_or(last), unknown }
}
