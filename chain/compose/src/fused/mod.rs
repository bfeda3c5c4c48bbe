//! The fused engine: a chain as one program, each module's main body inlined.
//!
//! Stack of the main program, from the frame pointer down:
//!
//! | octets | what |
//! |---|---|
//! | -8..0 | the `xdp_md` pointer, for every slot to start with |
//! | -16..-12 | the verdict: kept for observers, then final |
//! | -12..-8 | key of the exit counters |
//!
//! and the modules' frames below ([`FRAME`]). Between slots only r0, the verdict, is live.

mod asm;
mod debug;
mod inline;
#[cfg(test)]
mod tests;

use xdpchain_abi::PacketContext;
use xdpchain_spec::{ChainDefault, Place, Verdict, VerdictSet};

use crate::btf::{LineInfo, Name};
use crate::chain::{Chain, EXIT_COLUMNS, EXIT_ROWS, EXIT_UNKNOWN, proceed_on};
use crate::insn::{FP, code, helper};
use crate::link::Linker;
use crate::object::Program;
use crate::{ComposeError, Image, Insn, ProgramImage};
use asm::{Assembler, Label};
use inline::Links;

/// Octets of the main program's stack that are the chain's own.
const FRAME: i16 = 16;
const CTX: i16 = -8;
const VERDICT: i16 = -16;
const KEY: i16 = -12;

/// Bit of a return value that ends the chain whatever `proceed_on` says.
const FINAL: i32 = xdpchain_abi::XDPCHAIN_FINAL as i32;

/// Offsets in `struct xdp_md`.
const XDP_MD_DATA: i16 = 0;
const XDP_MD_DATA_END: i16 = 4;

/// A slot with everything that its code is made from.
struct Planned<'a> {
    name: &'a str,
    module: usize,
    program: &'a Program,
    proceed_on: VerdictSet,
    on_unknown: Verdict,
    observer: bool,
    at_exit: bool,
    row: u32,
    /// For each function of the module's object, its label in this slot.
    functions: Vec<Option<Label>>,
    /// The functions that the main body reaches, without the main body.
    subprograms: Vec<usize>,
}

/// Makes one program of a chain.
///
/// # Errors
/// [`ComposeError`] when a module cannot be inlined, or the modules do not fit together.
pub fn compose(chain: &Chain<'_>) -> Result<Image, ComposeError> {
    let mut linker = Linker::new(chain)?;
    let mut asm = Assembler::default();
    let slots = plan(chain, &linker, &mut asm)?;
    let frags = slots.iter().all(|s| s.program.frags);

    let glue = Glue::new(chain.name);
    emit_main(chain, &mut linker, &mut asm, &slots, &glue)?;
    let mut functions = vec![debug::FunctionType { at: 0, btf: None }];
    let mut starts = Vec::new();
    for slot in &slots {
        for &index in &slot.subprograms {
            let function = &chain.modules[slot.module].object.functions[index];
            let label = slot.functions[index].expect("plan labels every subprogram");
            asm.origin(chain.modules[slot.module].name);
            asm.place(label);
            glue.say(&mut asm, format!("function `{}`", function.name));
            let maps = linker.module_maps(slot.module);
            let links = Links { module: chain.modules[slot.module].name, maps, functions: &slot.functions };
            inline::subprogram(&mut asm, function, &links)?;
            starts.push((label, linker.function_type(slot.module, function)));
        }
    }
    let text = asm.finish()?;
    functions.extend(starts.iter().map(|&(label, btf)| debug::FunctionType { at: text.place(label), btf }));

    let license = linker.license();
    let name = program_name(chain.name);
    let (maps, mut btf) = linker.finish();
    let info = debug::encode(&mut btf, &name, &functions, &text.lines);
    let program = ProgramImage {
        name,
        insns: text.insns,
        relocations: text.relocations,
        func_info: info.functions,
        line_info: info.lines,
        license,
        frags,
        origins: text.origins,
    };
    Ok(Image { programs: vec![program], maps, btf: btf.to_bytes() })
}

/// The kernel keeps 15 octets of a program's name, of letters, digits, `_` and `.`.
fn program_name(chain: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("xc_{}", chain.chars().map(clean).take(12).collect::<String>())
}

fn plan<'a>(
    chain: &Chain<'a>,
    linker: &Linker<'a>,
    asm: &mut Assembler,
) -> Result<Vec<Planned<'a>>, ComposeError> {
    if chain.slots.len() > EXIT_ROWS as usize {
        return Err(ComposeError::TooManySlots { slots: chain.slots.len(), limit: EXIT_ROWS });
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
        let subprograms = given.object.reachable(program.function).split_off(1);
        let mut functions = vec![None; given.object.functions.len()];
        for &function in &subprograms {
            functions[function] = Some(asm.label());
        }
        planned.push(Planned {
            name: &slot.spec.name,
            module,
            program,
            proceed_on: proceed_on(slot.spec, program),
            on_unknown: slot.spec.on_unknown,
            observer: slot.spec.observer,
            at_exit: slot.spec.at == Place::Exit,
            row: slot.row,
            functions,
            subprograms,
        });
    }
    Ok(planned)
}

/// Source lines of the chain's own code, so that a verifier log or a dump can be read.
struct Glue {
    file: Name,
}

impl Glue {
    fn new(chain: &str) -> Self {
        Self { file: format!("xdpchain/{chain}").into() }
    }

    fn say(&self, asm: &mut Assembler, text: String) {
        asm.line(LineInfo { offset: 0, file: self.file.clone(), text: text.into(), line: 0, column: 0 });
    }
}

fn emit_main(
    chain: &Chain<'_>,
    linker: &mut Linker<'_>,
    asm: &mut Assembler,
    slots: &[Planned<'_>],
    glue: &Glue,
) -> Result<(), ComposeError> {
    let in_order: Vec<&Planned<'_>> = slots.iter().filter(|s| !s.at_exit).collect();
    let at_exit: Vec<&Planned<'_>> = slots.iter().filter(|s| s.at_exit).collect();
    let exits = linker.exit_map();
    let context = linker.context_map();
    // The verdict is kept in memory only while observers run after the last slot that has one.
    let deciding = in_order.iter().rposition(|s| !s.observer);
    let keeps = deciding.is_none_or(|i| i + 1 < in_order.len());

    asm.origin("");
    glue.say(asm, "enter the chain".into());
    asm.mem(code::STX_DW, FP, 1, CTX, 0);
    if let Some(context) = context {
        let ready = asm.label();
        glue.say(asm, "clear the packet context".into());
        look_up(asm, context, |asm| asm.mem(code::ST_W, FP, 0, KEY, 0));
        asm.jump_if(code::JEQ_IMM, 0, 0, ready);
        for offset in (0..size_of::<PacketContext>() as i16).step_by(8) {
            asm.mem(code::ST_DW, 0, 0, offset, 0);
        }
        asm.place(ready);
    }
    if keeps && deciding.is_none() {
        asm.mem(code::ST_W, FP, 0, VERDICT, Verdict::Pass as i32);
    }

    let end = asm.label();
    for (i, slot) in in_order.iter().enumerate() {
        let last = i + 1 == in_order.len();
        emit_body(chain, linker, asm, slot, glue)?;
        asm.origin("");
        glue.say(asm, format!("after slot `{}`", slot.name));
        if slot.observer {
            if last {
                asm.mem(code::LDX_W, 0, FP, VERDICT, 0);
                finish_by_default(asm, chain.default);
                asm.mem(code::ST_W, FP, 0, KEY, key(slot, 0));
                asm.jump(end);
            }
            continue;
        }
        let next = asm.label();
        // With the last verdict kept it does not matter whether the last slot proceeds.
        let proceed_on =
            if last && chain.default == ChainDefault::Keep { None } else { Some(slot.proceed_on) };
        emit_decision(asm, exits, slot, proceed_on, next, end, glue);
        if proceed_on.is_none() {
            continue;
        }
        asm.place(next);
        glue.say(asm, format!("slot `{}` proceeds", slot.name));
        if last {
            finish_by_default(asm, chain.default);
            asm.mem(code::ST_W, FP, 0, KEY, key(slot, 0));
            asm.jump(end);
        } else if keeps && deciding == Some(i) {
            asm.mem(code::STX_W, FP, 0, VERDICT, 0);
        }
    }

    asm.place(end);
    glue.say(asm, "count the packet where its chain ended".into());
    emit_count(asm, exits, !at_exit.is_empty());
    if let (Some(context), false) = (context, at_exit.is_empty()) {
        let skip = asm.label();
        glue.say(asm, "tell the final verdict to what runs at exit".into());
        look_up(asm, context, |asm| asm.mem(code::ST_W, FP, 0, KEY, 0));
        asm.jump_if(code::JEQ_IMM, 0, 0, skip);
        asm.mem(code::LDX_W, 1, FP, VERDICT, 0);
        asm.mem(code::STX_B, 0, 1, std::mem::offset_of!(PacketContext, verdict) as i16, 0);
        asm.place(skip);
    }
    for slot in &at_exit {
        emit_body(chain, linker, asm, slot, glue)?;
        asm.origin("");
    }
    glue.say(asm, "leave the chain".into());
    if at_exit.is_empty() {
        asm.op(code::MOV64_REG, 0, 6, 0);
    } else {
        asm.mem(code::LDX_W, 0, FP, VERDICT, 0);
    }
    asm.op(code::EXIT, 0, 0, 0);
    Ok(())
}

/// The slot's main body; afterwards r0 is what it returned.
fn emit_body(
    chain: &Chain<'_>,
    linker: &Linker<'_>,
    asm: &mut Assembler,
    slot: &Planned<'_>,
    glue: &Glue,
) -> Result<(), ComposeError> {
    let module = &chain.modules[slot.module];
    glue.say(asm, format!("enter slot `{}`", slot.name));
    asm.mem(code::LDX_DW, 1, FP, CTX, 0);
    asm.origin(module.name);
    let exit = asm.label();
    let links =
        Links { module: module.name, maps: linker.module_maps(slot.module), functions: &slot.functions };
    inline::main(asm, &module.object.functions[slot.program.function], &links, FRAME, exit)?;
    asm.place(exit);
    Ok(())
}

/// From the return value in r0 to `next` with a verdict that proceeds, or to `end` with one that does not.
///
/// Without `proceed_on` every verdict leads to `end`.
fn emit_decision(
    asm: &mut Assembler,
    exits: usize,
    slot: &Planned<'_>,
    proceed_on: Option<VerdictSet>,
    next: Label,
    end: Label,
    glue: &Glue,
) {
    let (unknown, decide, stop) = (asm.label(), asm.label(), asm.label());
    // The kernel reads 32 bits of r0, so 32 bits are what the module said.
    asm.op(code::MOV32_REG, 0, 0, 0);
    asm.jump_if(code::JGT_IMM, 0, Verdict::Redirect as i32, unknown);
    asm.place(decide);
    if let Some(set) = proceed_on {
        emit_test(asm, set, next);
    }
    asm.place(stop);
    asm.mem(code::ST_W, FP, 0, KEY, key(slot, 0));
    asm.jump(end);

    asm.place(unknown);
    glue.say(asm, format!("slot `{}` returned no verdict", slot.name));
    asm.op(code::MOV64_REG, 1, 0, 0);
    asm.op(code::AND64_IMM, 1, 0, !FINAL);
    let no_verdict = asm.label();
    asm.jump_if(code::JGT_IMM, 1, Verdict::Redirect as i32, no_verdict);
    asm.op(code::MOV64_REG, 0, 1, 0);
    asm.jump(stop);
    asm.place(no_verdict);
    let counted = asm.label();
    look_up(asm, exits, |asm| asm.mem(code::ST_W, FP, 0, KEY, key(slot, EXIT_UNKNOWN)));
    asm.jump_if(code::JEQ_IMM, 0, 0, counted);
    emit_add_packet(asm);
    asm.place(counted);
    asm.op(code::MOV64_IMM, 0, 0, slot.on_unknown as i32);
    asm.jump(decide);
}

/// Jumps to `next` when the verdict in r0 is in `set`.
fn emit_test(asm: &mut Assembler, set: VerdictSet, next: Label) {
    let others: VerdictSet = Verdict::ALL.into_iter().filter(|v| !set.contains(*v)).collect();
    match (set.iter().collect::<Vec<_>>().as_slice(), others.iter().collect::<Vec<_>>().as_slice()) {
        // Never true, and known to be so. The verifier wants a way to every instruction before it finds out which
        // ones are dead, and removes those.
        ([], _) => asm.jump_if(code::JGT_IMM, 0, Verdict::Redirect as i32, next),
        (_, []) => asm.jump(next),
        ([one], _) => asm.jump_if(code::JEQ_IMM, 0, *one as i32, next),
        (_, [one]) => asm.jump_if(code::JNE_IMM, 0, *one as i32, next),
        _ => {
            asm.op(code::MOV64_IMM, 1, 0, set.bits() as i32);
            asm.op(code::RSH64_REG, 1, 0, 0);
            asm.op(code::AND64_IMM, 1, 0, 1);
            asm.jump_if(code::JNE_IMM, 1, 0, next);
        }
    }
}

/// Key of the slot's exit counter in `column`.
fn key(slot: &Planned<'_>, column: u32) -> i32 {
    (slot.row * EXIT_COLUMNS + column) as i32
}

/// r0 from the last slot's verdict to the chain's.
fn finish_by_default(asm: &mut Assembler, default: ChainDefault) {
    match default {
        ChainDefault::Keep => {}
        ChainDefault::Pass => asm.op(code::MOV64_IMM, 0, 0, Verdict::Pass as i32),
        ChainDefault::Drop => asm.op(code::MOV64_IMM, 0, 0, Verdict::Drop as i32),
    }
}

/// Adds the packet to the exit counter of the row at `KEY` and the verdict in r0; afterwards r6 is the verdict, and
/// so is the stack's when `keep`.
fn emit_count(asm: &mut Assembler, exits: usize, keep: bool) {
    asm.op(code::MOV64_REG, 6, 0, 0);
    if keep {
        asm.mem(code::STX_W, FP, 6, VERDICT, 0);
    }
    asm.mem(code::LDX_W, 1, FP, KEY, 0);
    asm.op(code::ADD64_REG, 1, 6, 0);
    let out = asm.label();
    look_up(asm, exits, |asm| asm.mem(code::STX_W, FP, 1, KEY, 0));
    asm.jump_if(code::JEQ_IMM, 0, 0, out);
    emit_add_packet(asm);
    asm.place(out);
}

/// Adds one packet and its octets to the counter that r0 points to.
fn emit_add_packet(asm: &mut Assembler) {
    asm.mem(code::LDX_DW, 1, FP, CTX, 0);
    asm.mem(code::LDX_W, 2, 1, XDP_MD_DATA_END, 0);
    asm.mem(code::LDX_W, 3, 1, XDP_MD_DATA, 0);
    asm.op(code::SUB64_REG, 2, 3, 0);
    asm.mem(code::LDX_DW, 3, 0, 0, 0);
    asm.op(code::ADD64_IMM, 3, 0, 1);
    asm.mem(code::STX_DW, 0, 3, 0, 0);
    asm.mem(code::LDX_DW, 3, 0, 8, 0);
    asm.op(code::ADD64_REG, 3, 2, 0);
    asm.mem(code::STX_DW, 0, 3, 8, 0);
}

/// r0 becomes the address of the entry of `map` whose key `store_key` leaves at `KEY`, or 0.
fn look_up(asm: &mut Assembler, map: usize, store_key: impl FnOnce(&mut Assembler)) {
    store_key(asm);
    asm.op(code::MOV64_REG, 2, FP, 0);
    asm.op(code::ADD64_IMM, 2, 0, i32::from(KEY));
    asm.load_map(1, map);
    asm.emit(Insn::new(code::CALL, 0, 0, 0, helper::MAP_LOOKUP_ELEM));
}
