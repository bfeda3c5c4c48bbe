//! Slots with everything that code is made from, the same for every engine.

use xdpchain_spec::{ChainDefault, Place, Verdict, VerdictSet};

use super::asm::{Assembler, Label};
use super::widen::Body;
use crate::ComposeError;
use crate::chain::{Chain, MAX_SLOTS, proceed_on};
use crate::insn::{call, code, helper};
use crate::link::Linker;
use crate::object::{Function, Object, Program};

/// A slot, its module found and its program chosen.
pub(crate) struct Planned<'a> {
    pub(crate) name: &'a str,
    /// Index in [`Chain::modules`].
    pub(crate) module: usize,
    pub(crate) object: &'a Object,
    pub(crate) program: &'a Program,
    pub(crate) proceed_on: VerdictSet,
    pub(crate) on_unknown: Verdict,
    pub(crate) observer: bool,
    pub(crate) at_exit: bool,
    pub(crate) row: u32,
    /// The main body is called, not inlined: a program that it tail calls then returns to the chain.
    pub(crate) called: bool,
    /// The main body.
    pub(crate) body: Body<'a>,
}

/// The functions of a slot that stay functions, in one program.
pub(crate) struct SlotFunctions {
    /// For each function of the object, its label when it is part of the program.
    pub(crate) labels: Vec<Option<Label>>,
    /// Those that have one.
    pub(crate) functions: Vec<usize>,
}

impl<'a> Planned<'a> {
    /// Every slot of the chain, those in order before those at exit.
    pub(crate) fn all(chain: &Chain<'a>, linker: &Linker<'a>) -> Result<Vec<Self>, ComposeError> {
        if chain.slots.len() > MAX_SLOTS as usize {
            return Err(ComposeError::TooManySlots { slots: chain.slots.len(), limit: MAX_SLOTS });
        }
        if !chain.slots.iter().any(|s| s.spec.at == Place::Order) {
            return Err(ComposeError::NoSlots);
        }
        let mut planned = Vec::new();
        for slot in &chain.slots {
            let module = linker.module_index(&slot.spec.module).ok_or_else(|| ComposeError::NoModule {
                place: format!("slot `{}`", slot.spec.name),
                module: slot.spec.module.clone(),
            })?;
            let given = &chain.modules[module];
            let program = given
                .object
                .xdp_program(given.spec.program.as_deref())
                .map_err(|error| ComposeError::Object { module: given.name.to_owned(), error })?;
            let reached = given.object.reachable(program.function);
            planned.push(Planned {
                name: &slot.spec.name,
                module,
                object: given.object,
                program,
                proceed_on: proceed_on(slot.spec, program),
                on_unknown: slot.spec.on_unknown,
                observer: slot.spec.observer,
                at_exit: slot.spec.at == Place::Exit,
                row: slot.row,
                called: reached.iter().any(|&f| tail_calls(&given.object.functions[f])),
                body: Body::of(&given.object.functions[program.function]),
            });
        }
        planned.sort_by_key(|slot| slot.at_exit);
        Ok(planned)
    }

    /// A program that runs without any code of the chain's.
    pub(crate) fn alone(chain: &Chain<'a>, module: usize, program: &'a Program) -> Self {
        let object = chain.modules[module].object;
        Planned {
            name: &program.name,
            module,
            object,
            program,
            proceed_on: VerdictSet::EMPTY,
            on_unknown: Verdict::Aborted,
            observer: false,
            at_exit: false,
            row: 0,
            called: true,
            body: Body::of(&object.functions[program.function]),
        }
    }

    /// The main body.
    pub(crate) fn main(&self) -> &Function {
        &self.body.function
    }

    /// Whether the slot finds a packet behind octets that were skipped.
    pub(crate) fn heeds_skipped(&self) -> bool {
        self.object.heeds_skipped && !self.called
    }

    /// Whether the slot may skip octets: as one that moves packets' starts.
    pub(crate) fn may_skip(&self) -> bool {
        let moves = |insn: &crate::Insn| {
            (insn.code, insn.src(), insn.imm) == (code::CALL, call::HELPER, helper::XDP_ADJUST_HEAD)
        };
        let reached = || self.object.reachable(self.program.function);
        self.heeds_skipped() && reached().iter().any(|&f| self.object.functions[f].insns.iter().any(moves))
    }

    /// Widens words of the main body's stack, if it is inlined, in a frame of at most `room` octets.
    pub(crate) fn widen(&mut self, room: i32) {
        if !self.called {
            self.body.widen(room);
        }
    }

    /// Gives labels to the functions that are part of a program with this slot in it.
    pub(crate) fn functions(&self, asm: &mut Assembler) -> SlotFunctions {
        let mut functions = self.object.reachable(self.program.function);
        if !self.called {
            functions.remove(0);
        }
        let mut labels = vec![None; self.object.functions.len()];
        for &function in &functions {
            labels[function] = Some(asm.label());
        }
        SlotFunctions { labels, functions }
    }
}

/// How the verdicts of a chain's slots make the chain's.
#[derive(Clone, Copy)]
pub(crate) struct Course {
    /// What becomes of a chain in which every slot proceeded.
    pub(crate) default: ChainDefault,
    /// Slots in order; those at exit follow.
    pub(crate) in_order: usize,
    /// The last slot that has a verdict of its own.
    pub(crate) deciding: Option<usize>,
}

impl Course {
    pub(crate) fn of(default: ChainDefault, slots: &[Planned<'_>]) -> Self {
        let in_order = slots.iter().take_while(|s| !s.at_exit).count();
        Self { default, in_order, deciding: slots[..in_order].iter().rposition(|s| !s.observer) }
    }

    /// Whether this slot's verdict has to outlive the observers behind it.
    pub(crate) fn keeps(&self, slot: usize) -> bool {
        self.deciding == Some(slot) && slot + 1 < self.in_order
    }

    /// The verdicts that lead on from this slot; `None` when every verdict leads to the same place.
    pub(crate) fn proceed_on(&self, slot: usize, of: &Planned<'_>) -> Option<VerdictSet> {
        let last = slot + 1 == self.in_order;
        // With the last verdict kept it does not matter whether the last slot proceeds.
        if last && self.default == ChainDefault::Keep { None } else { Some(of.proceed_on) }
    }
}

fn tail_calls(function: &Function) -> bool {
    let is_tail_call = |insn: &crate::Insn| {
        insn.code == code::CALL && insn.src() == call::HELPER && insn.imm == helper::TAIL_CALL
    };
    function.insns.iter().any(is_tail_call)
}
