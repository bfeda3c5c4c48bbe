//! What holds at each instruction of a function, whichever way led there.

use std::collections::{BTreeMap, BTreeSet};

use crate::Insn;
use crate::insn::code;

/// How often ways that come together are followed anew, at most.
const ROUNDS: usize = 64;

/// Follows every way through `insns` with what holds at the `start`. `meet` makes one of what holds on two ways that come together;
/// `step` tells what holds behind an instruction, and may say, by `None`, that it does not understand it.
///
/// Ways that come together may be followed several times, the last time with what holds at the end. `None` when something was not
/// understood.
pub(crate) fn follow<S: Clone + PartialEq>(
    insns: &[Insn],
    start: S,
    meet: impl Fn(&S, &S) -> S,
    mut step: impl FnMut(&mut S, usize, Insn) -> Option<()>,
) -> Option<()> {
    let targets = targets(insns);
    let mut known: BTreeMap<usize, S> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut changed = false;
        let mut arrive = |known: &mut BTreeMap<usize, S>, at: usize, state: &S| {
            let met = known.get(&at).map_or_else(|| state.clone(), |before| meet(before, state));
            if known.get(&at) != Some(&met) {
                known.insert(at, met);
                changed = true;
            }
        };
        let mut state = Some(start.clone());
        for (at, insn) in firsts(insns) {
            if targets.contains(&at) {
                if let Some(state) = &state {
                    arrive(&mut known, at, state);
                }
                state = known.get(&at).cloned();
            }
            let Some(now) = state.as_mut() else { continue };
            // A jump to where a register says leads nobody knows where.
            if insn.code == code::JA_REG {
                return None;
            }
            step(now, at, insn)?;
            if insn.is_branch() {
                arrive(&mut known, target(at, insn)?, now);
            }
            if matches!(insn.code, code::EXIT | code::JA | code::JA32) {
                state = None;
            }
        }
        if !changed {
            return Some(());
        }
    }
    None
}

/// The instructions with their indices, without the second halves of 64-bit loads.
pub(crate) fn firsts(insns: &[Insn]) -> impl Iterator<Item = (usize, Insn)> {
    let mut wide = false;
    insns.iter().copied().enumerate().filter(move |(_, insn)| {
        let second = std::mem::take(&mut wide);
        wide = !second && insn.is_wide();
        !second
    })
}

/// Where the branch `insn` at `at` leads to.
pub(crate) fn target(at: usize, insn: Insn) -> Option<usize> {
    usize::try_from(at as i64 + 1 + insn.distance()).ok()
}

/// Every instruction that a branch leads to.
pub(crate) fn targets(insns: &[Insn]) -> BTreeSet<usize> {
    firsts(insns).filter(|(_, insn)| insn.is_branch()).filter_map(|(at, insn)| target(at, insn)).collect()
}
