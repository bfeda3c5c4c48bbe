//! The tail engine: each module a program of its own, from which a tail call leads to the next.
//!
//! The first slot's program is what the interface runs. The others are in the program array [`SLOTS_MAP`], those in
//! order before those at exit; one element is all that changes when a module is replaced. A verdict that observers
//! have to leave alone waits in [`STATE_MAP`], since a tail call takes the stack away.

use crate::asm::Assembler;
use crate::chain::Chain;
use crate::fused::debug::ProgramParts;
use crate::fused::forget::Forgotten;
use crate::fused::glue::{Count, Glue, Keep, ended_in};
use crate::fused::plan::{Course, Planned};
use crate::fused::program_name;
use crate::insn::code;
use crate::link::Linker;
use crate::targets::Targets;
use crate::{ComposeError, Fill, Image, ProgramImage};

/// Name of the program array with the slots' programs.
pub const SLOTS_MAP: &str = "xdpchain_slots";
/// Name of the per-CPU array of one entry with the verdict that observers leave alone.
pub const STATE_MAP: &str = "xdpchain_state";
/// Slots that a chain can have: the first program and as many tail calls as the kernel allows after it.
pub const SLOTS: usize = 33;

/// Makes a program of each slot.
///
/// # Errors
/// [`ComposeError`] when a module cannot be part of a chain, the modules do not fit together, or there are more than
/// [`SLOTS`] slots.
pub fn compose(chain: &Chain<'_>) -> Result<Image, ComposeError> {
    let mut linker = Linker::new(chain)?;
    let array = linker.add_program_array(SLOTS_MAP, SLOTS as u32);
    let state = linker.add_scratch(STATE_MAP, 8);
    let slots = Planned::all(chain, &linker)?;
    if slots.len() > SLOTS {
        return Err(ComposeError::TooManySlots { slots: slots.len(), limit: SLOTS as u32 });
    }
    let glue = Glue::new(chain, &linker, Keep::Map(state), Count::Exits);
    let course = Course::of(chain.default, &slots);
    let mut parts = Vec::with_capacity(slots.len());
    for index in 0..slots.len() {
        parts.push(slot_program(&glue, course, array, &slots, index)?);
    }
    for parts in &mut parts {
        // Programs that tail call each other agree on whether packets may be in several buffers.
        parts.frags = linker.frags();
    }
    let targets = Targets::of(chain, &linker, &glue, &slots, slots.len())?;
    let mut fills: Vec<Fill> =
        (1..slots.len()).map(|i| Fill { map: array, index: i as u32, program: i }).collect();
    fills.extend(&targets.fills);
    let licenses: Vec<String> = slots.iter().map(|s| linker.license_of(s.module)).collect();
    let (maps, mut btf) = linker.finish();
    let mut programs: Vec<ProgramImage> =
        parts.into_iter().zip(licenses).map(|(parts, license)| parts.encode(&mut btf, license)).collect();
    programs.extend(targets.encode(&mut btf));
    Ok(Image { programs, maps, fills, btf, chain_calls: Vec::new() })
}

fn slot_program(
    glue: &Glue<'_>,
    course: Course,
    array: usize,
    slots: &[Planned<'_>],
    index: usize,
) -> Result<ProgramParts, ComposeError> {
    let slot = &slots[index];
    let mut asm = Assembler::default();
    let functions = slot.functions(&mut asm);
    glue.enter(&mut asm, "enter the slot's program");
    glue.reserve_stack(&mut asm, std::slice::from_ref(slot));
    if index == 0 {
        glue.clear_context(&mut asm);
        if course.deciding.is_none() {
            glue.keep_pass(&mut asm);
        }
    }
    glue.body(&mut asm, slot, &functions, &glue.known(slot), &Forgotten::default())?;
    if slot.at_exit {
        if index + 1 < slots.len() {
            glue.tail_call(&mut asm, array, index + 1);
        }
        glue.kept_verdict(&mut asm);
        asm.op(code::EXIT, 0, 0, 0);
    } else {
        in_order(glue, course, array, &mut asm, slots, index);
    }
    let starts = glue.functions(&mut asm, slot, &functions)?;
    Ok(ProgramParts {
        name: program_name(slot.name),
        text: asm.finish()?,
        functions: starts,
        frags: slot.program.frags,
    })
}

/// What follows the body of a slot in order.
fn in_order(
    glue: &Glue<'_>,
    course: Course,
    array: usize,
    asm: &mut Assembler,
    slots: &[Planned<'_>],
    index: usize,
) {
    let slot = &slots[index];
    let last = index + 1 == course.in_order;
    let (next, end) = (asm.label(), asm.label());
    let proceed_on = course.proceed_on(index, slot);
    if !slot.observer {
        glue.decision(asm, slot, proceed_on, next, end);
    }
    if slot.observer || proceed_on.is_some() {
        asm.place(next);
        if last {
            if slot.observer {
                glue.kept_verdict(asm);
            }
            glue.finish(asm, slot);
        } else {
            if course.keeps(index) {
                glue.say(asm, format!("keep the verdict of slot `{}`", slot.name));
                glue.keep_verdict(asm);
            }
            glue.say(asm, format!("go on to slot `{}`", slots[index + 1].name));
            glue.tail_call(asm, array, index + 1);
            // More tail calls than the kernel allows, which only modules with tail calls of their own can make.
            asm.op(code::MOV64_IMM, 0, 0, 0);
            ended_in(asm, slot);
        }
    }
    asm.place(end);
    glue.count(asm);
    if course.in_order < slots.len() {
        glue.tell_verdict(asm);
        asm.op(code::MOV64_REG, 0, 6, 0);
        glue.keep_verdict(asm);
        glue.tail_call(asm, array, course.in_order);
    }
    glue.say(asm, "leave the chain".into());
    asm.op(code::MOV64_REG, 0, 6, 0);
    asm.op(code::EXIT, 0, 0, 0);
}
