//! The fused engine: a chain as one program, each module's main body inlined.

pub(crate) mod answers;
pub(crate) mod debug;
pub(crate) mod flow;
pub(crate) mod forget;
pub(crate) mod glue;
pub(crate) mod inline;
pub(crate) mod known;
pub(crate) mod plan;
pub(crate) mod stack;
pub(crate) mod unread;
pub(crate) mod widen;

pub(crate) use crate::asm;
use crate::chain::{Chain, Module, Slot};
use crate::insn::code;
use crate::link::Linker;
use crate::targets::{self, Targets};
use crate::{ComposeError, Image};
use asm::{Assembler, Label};
use debug::ProgramParts;
use forget::Forgotten;
use glue::{Count, Glue, Keep};
use plan::{Course, Planned, SlotFunctions};
use xdpchain_spec::{ChainDefault, SlotSpec};

/// Makes one program of a chain.
///
/// # Errors
/// [`ComposeError`] when a module cannot be inlined, or the modules do not fit together.
pub fn compose(chain: &Chain<'_>) -> Result<Image, ComposeError> {
    compose_counting(chain, Count::Exits)
}

/// As [`compose`], but nothing is counted. Only to measure what counting costs.
#[doc(hidden)]
pub fn compose_uncounted(chain: &Chain<'_>) -> Result<Image, ComposeError> {
    compose_counting(chain, Count::Nothing)
}

fn compose_counting(chain: &Chain<'_>, count: Count) -> Result<Image, ComposeError> {
    let linker = Linker::new(chain)?;
    let mut slots = Planned::all(chain, &linker)?;
    let room = glue::room(&slots);
    // Nothing is on the stack before the first one.
    slots.iter_mut().skip(1).for_each(|slot| slot.widen(room));
    let glue = Glue::new(chain, &linker, Keep::Stack, count).keeping_context(&slots, room);
    let mut asm = Assembler::default();
    let functions: Vec<SlotFunctions> = slots.iter().map(|slot| slot.functions(&mut asm)).collect();

    emit_main(chain, &glue, &mut asm, &slots, &functions)?;
    let mut starts = Vec::new();
    for (slot, functions) in slots.iter().zip(&functions) {
        starts.extend(glue.functions(&mut asm, slot, functions)?);
    }
    let parts = ProgramParts {
        name: program_name(chain.name),
        text: asm.finish()?,
        functions: starts,
        frags: linker.frags(),
    };
    let targets = Targets::of(chain, &linker, &glue, &slots, 1)?;
    finish(parts, targets, linker)
}

/// Makes a program of a module alone, without any code of a chain's: what its author's loader would load.
///
/// # Errors
/// [`ComposeError`] when the module has no program to choose, or its maps are not what chains.yaml says.
pub fn compose_bare(module: &Module<'_>) -> Result<Image, ComposeError> {
    let spec = SlotSpec::new(module.name);
    let chain = Chain {
        name: module.name,
        default: ChainDefault::Keep,
        modules: vec![*module],
        slots: vec![Slot { spec: &spec, row: 0 }],
    };
    let linker = Linker::new(&chain)?;
    let slots = Planned::all(&chain, &linker)?;
    let glue = Glue::new(&chain, &linker, Keep::Stack, Count::Nothing);
    let parts = targets::make(&chain, &linker, &glue, slots[0].module, slots[0].program)?;
    let targets = Targets::of(&chain, &linker, &glue, &slots, 1)?;
    finish(parts, targets, linker)
}

/// One program and those that it tail calls.
fn finish(parts: ProgramParts, targets: Targets, linker: Linker<'_>) -> Result<Image, ComposeError> {
    let license = linker.license();
    let (maps, mut btf) = linker.finish();
    let mut programs = vec![parts.encode(&mut btf, license)];
    let fills = targets.fills.clone();
    programs.extend(targets.encode(&mut btf));
    Ok(Image { programs, maps, fills, btf, chain_calls: Vec::new() })
}

/// The kernel keeps 15 octets of a program's name, of letters, digits, `_` and `.`.
pub(crate) fn program_name(name: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("xc_{}", name.chars().map(clean).take(12).collect::<String>())
}

/// A jump reaches 32,767 instructions, and a chain may be longer than that: every so often what leads to the end does so
/// by way of here, which nothing runs into.
fn relay(asm: &mut Assembler, end: Label, last: &mut usize) -> Label {
    const REACH: usize = 8_000;
    if asm.here() - *last < REACH {
        return end;
    }
    let further = asm.label();
    asm.place(end);
    asm.jump(further);
    *last = asm.here();
    further
}

fn emit_main(
    chain: &Chain<'_>,
    glue: &Glue<'_>,
    asm: &mut Assembler,
    slots: &[Planned<'_>],
    functions: &[SlotFunctions],
) -> Result<(), ComposeError> {
    let course = Course::of(chain.default, slots);
    let (in_order, at_exit) = slots.split_at(course.in_order);

    glue.enter(asm, "enter the chain");
    glue.reserve_stack(asm, slots);
    glue.clear_context(asm);
    if course.deciding.is_none() {
        glue.keep_pass(asm);
    }
    let mut end = asm.label();
    let mut last_relay = asm.here();
    for (i, slot) in in_order.iter().enumerate() {
        let last = i + 1 == in_order.len();
        let known = glue.known(slot);
        let forgotten = if i > 0 {
            glue.unskip_before(asm, slot);
            glue.forget_stack(asm, slot, &known)
        } else {
            Forgotten::default()
        };
        glue.body(asm, slot, &functions[i], &known, &forgotten)?;
        if slot.observer {
            if last {
                glue.kept_verdict(asm);
                glue.finish(asm, slot);
                asm.jump(end);
            }
            continue;
        }
        let next = asm.label();
        let proceed_on = course.proceed_on(i, slot);
        glue.decision(asm, slot, proceed_on, next, end);
        end = relay(asm, end, &mut last_relay);
        if proceed_on.is_none() {
            continue;
        }
        asm.place(next);
        if last {
            glue.finish(asm, slot);
            asm.jump(end);
        } else if course.keeps(i) {
            glue.say(asm, format!("keep the verdict of slot `{}`", slot.name));
            glue.keep_verdict(asm);
        }
    }

    asm.place(end);
    glue.count(asm);
    if at_exit.is_empty() {
        asm.op(code::MOV64_REG, 0, 6, 0);
    } else {
        glue.tell_verdict(asm);
        asm.op(code::MOV64_REG, 0, 6, 0);
        glue.keep_verdict(asm);
        for (slot, functions) in at_exit.iter().zip(&functions[course.in_order..]) {
            let known = glue.known(slot);
            let forgotten = glue.forget_stack(asm, slot, &known);
            glue.body(asm, slot, functions, &known, &forgotten)?;
        }
        glue.kept_verdict(asm);
    }
    glue.say(asm, "leave the chain".into());
    asm.op(code::EXIT, 0, 0, 0);
    Ok(())
}
