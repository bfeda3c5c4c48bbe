//! The chain's own code between modules, the same for every engine.
//!
//! Stack of a program that modules are inlined into, from the frame pointer down:
//!
//! | octets | what |
//! |---|---|
//! | -8..0 | the `xdp_md` pointer, for the slots to start with |
//! | -16..-12 | the verdict: kept for observers, then final |
//! | -12..-8 | key of the exit counters |
//! | -24..-16 | the address of the packet context, where it is kept |
//!
//! and the modules' frames below that. Between slots only r0, the verdict, is live.

use xdpchain_abi::PacketContext;
use xdpchain_spec::{ChainDefault, Verdict, VerdictSet};

use super::asm::{Assembler, Label};
use super::debug::FunctionType;
use super::forget::Forgotten;
use super::inline::{self, FirstEntry, Inlined, Links};
use super::known::Known;
use super::plan::{Planned, SlotFunctions};
use super::stack::{self, MAX_STACK, UNIT, frame_len};
use crate::btf::{LineInfo, Name};
use crate::chain::{Chain, EXIT_COLUMNS, EXIT_UNKNOWN};
use crate::insn::{FP, call, code, helper};
use crate::link::{ARRAY, Linker};
use crate::{ComposeError, Insn};

/// Octets of a program's stack that are the chain's own, and with the packet context's address among them.
const FRAME: i16 = 16;
const FRAME_WITH_CONTEXT: i16 = 24;
const CTX: i16 = -8;
const VERDICT: i16 = -16;
const KEY: i16 = -12;
const CONTEXT: i16 = -24;

/// Offsets in the packet context.
const MAY_SKIP: i16 = PacketContext::MAY_SKIP as i16;
const SKIPPED: i16 = PacketContext::SKIPPED as i16;

/// Bit of a return value that ends the chain whatever `proceed_on` says.
const FINAL: i32 = xdpchain_abi::XDPCHAIN_FINAL as i32;

/// Offsets in `struct xdp_md`.
const XDP_MD_DATA: i16 = 0;
const XDP_MD_DATA_END: i16 = 4;
const XDP_MD_RX_QUEUE_INDEX: i16 = 16;

/// Octets of stack that the body of one of these slots, which are inlined into one program, may have beside all else.
pub(crate) fn room(slots: &[Planned<'_>]) -> i32 {
    // What has called a function that tail calls has fewer octets than this together.
    const BEFORE_TAIL_CALLS: i32 = 256;
    let called = |slot: &Planned<'_>| -> i32 {
        let main = slot.program.function;
        // An inlined main function has no frame of its own.
        let own = if slot.called { stack::counted_frame(&slot.object.functions[main]) } else { 0 };
        own + stack::deepest_call(slot.object, main)
    };
    let left = |slot: &Planned<'_>| {
        let all = if slot.called { BEFORE_TAIL_CALLS - UNIT } else { MAX_STACK };
        all - called(slot)
    };
    slots.iter().map(left).min().unwrap_or(MAX_STACK) / UNIT * UNIT - i32::from(FRAME_WITH_CONTEXT)
}

/// Where a verdict waits while observers run.
#[derive(Clone, Copy)]
pub(crate) enum Keep {
    /// On the stack: they run in the same program.
    Stack,
    /// In the first four octets of this per-CPU array's entry: each runs in a program of its own.
    Map(usize),
}

/// What is counted at a chain's end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// Every packet, at the slot where its chain ended.
    Exits,
    /// Nothing.
    Nothing,
}

/// Writes the chain's own code.
pub(crate) struct Glue<'a> {
    linker: &'a Linker<'a>,
    chain: &'a Chain<'a>,
    /// What stands for a source file in a verifier log or a dump.
    file: Name,
    keep: Keep,
    count: Count,
    /// Octets of stack that are the chain's own.
    frame: i16,
    /// Modules may skip octets at the frame's front, which the chain takes off for who does not heed them.
    skips: bool,
}

impl<'a> Glue<'a> {
    pub(crate) fn new(chain: &'a Chain<'a>, linker: &'a Linker<'a>, keep: Keep, count: Count) -> Self {
        Self {
            linker,
            chain,
            file: format!("xdpchain/{}", chain.name).into(),
            keep,
            count,
            frame: FRAME,
            skips: false,
        }
    }

    /// Keeps the address of the packet context on the stack for these slots, which are inlined into one program, if one of
    /// them asks for it and no body is longer than `room`.
    pub(crate) fn keeping_context(mut self, slots: &[Planned<'_>], room: i32) -> Self {
        let asks = slots.iter().any(|slot| {
            let context = self.object_maps(slot, |map| Some(map) == self.linker.context_map());
            !slot.called && !Known::of(slot.main(), &context.collect()).calls.is_empty()
        });
        let inlined = slots.iter().filter(|slot| !slot.called);
        let deepest = inlined.map(|slot| frame_len(slot.main())).max().unwrap_or(0);
        if asks && deepest <= room {
            self.frame = FRAME_WITH_CONTEXT;
            // Without the address at hand it would cost each packet more than it spares some.
            self.skips = slots.iter().any(Planned::may_skip);
        }
        self
    }

    fn keeps_context(&self) -> bool {
        self.frame == FRAME_WITH_CONTEXT
    }

    /// Maps of a slot's object that are such ones of the image, by their index in the object.
    fn object_maps(&self, slot: &Planned<'_>, are: impl Fn(usize) -> bool) -> impl Iterator<Item = usize> {
        let maps = self.linker.module_maps(slot.module).iter().enumerate();
        maps.filter(move |(_, map)| are(**map)).map(|(of_object, _)| of_object)
    }

    /// Where the first entry of a map of the image is, if that is known.
    fn first_entry(&self, map: usize) -> Option<FirstEntry> {
        if Some(map) == self.linker.context_map() {
            return self.keeps_context().then_some(FirstEntry::OnStack(CONTEXT));
        }
        let def = &self.linker.map(map).def;
        ((def.map_type, def.max_entries) == (ARRAY, 1)).then_some(FirstEntry::OfMap(map))
    }

    /// Says in a verifier log or a dump what the next instructions are for.
    pub(crate) fn say(&self, asm: &mut Assembler, text: String) {
        asm.line(LineInfo { offset: 0, file: self.file.clone(), text: text.into(), line: 0, column: 0 });
    }

    /// The first instructions of a program.
    pub(crate) fn enter(&self, asm: &mut Assembler, text: &str) {
        asm.origin("");
        self.say(asm, text.to_owned());
        asm.mem(code::STX_DW, FP, 1, CTX, 0);
    }

    /// Writes to the deepest octets of the stack that an inlined module loads from.
    ///
    /// Kernels before 6.8 let a program load what it may not have stored, as compilers do with what they will not look at,
    /// only above the deepest store so far. Whether the verifier comes to see such a load depends on what it has seen
    /// before, so that a module that loads alone could be refused behind others; and its own deepest store may be left out.
    pub(crate) fn reserve_stack(&self, asm: &mut Assembler, slots: &[Planned<'_>]) {
        let inlined = slots.iter().filter(|slot| !slot.called);
        let deepest = inlined.filter_map(|slot| inline::deepest_load(slot.main())).min();
        if let Some(at) = deepest.and_then(|at| at.checked_sub(self.frame)) {
            asm.mem(code::ST_DW, FP, 0, at & !7, 0);
        }
    }

    /// What is known of the look-ups of a slot's main body, if that is inlined.
    pub(crate) fn known(&self, slot: &Planned<'_>) -> Known {
        if slot.called {
            return Known::default();
        }
        let maps = self.object_maps(slot, |map| self.first_entry(map).is_some()).collect();
        Known::of(slot.main(), &maps).without_keys(slot.main()).answered(slot.main())
    }

    /// Makes what slots before this one left on the stack the same on every way here; returns what the slot's body is to do of
    /// that, of whose look-ups this is `known`.
    pub(crate) fn forget_stack(&self, asm: &mut Assembler, slot: &Planned<'_>, known: &Known) -> Forgotten {
        if slot.called {
            // It has a frame of its own.
            return Forgotten::default();
        }
        let forgotten = Forgotten::of(&slot.body, known);
        inline::zero(asm, &forgotten.before, self.frame);
        forgotten
    }

    /// The packet context as it is before the first slot.
    pub(crate) fn clear_context(&self, asm: &mut Assembler) {
        let Some(context) = self.linker.context_map() else { return };
        let ready = asm.label();
        self.say(asm, "clear the packet context".into());
        look_up_first(asm, context);
        if self.keeps_context() {
            // An array has its first entry, which the verifier does not know.
            let found = asm.label();
            asm.jump_if(code::JNE_IMM, 0, 0, found);
            asm.op(code::MOV64_IMM, 0, 0, Verdict::Aborted as i32);
            asm.op(code::EXIT, 0, 0, 0);
            asm.place(found);
            asm.mem(code::STX_DW, FP, 0, CONTEXT, 0);
        } else {
            asm.jump_if(code::JEQ_IMM, 0, 0, ready);
        }
        for offset in (0..size_of::<PacketContext>() as i16).step_by(8) {
            let may_skip = self.skips && offset == MAY_SKIP;
            asm.mem(code::ST_DW, 0, 0, offset, may_skip.into());
        }
        asm.place(ready);
    }

    /// Takes octets off that modules before `slot` have skipped, unless it heeds them itself.
    pub(crate) fn unskip_before(&self, asm: &mut Assembler, slot: &Planned<'_>) {
        if !slot.heeds_skipped() {
            self.unskip(asm);
        }
    }

    /// Takes skipped octets off the frame's front.
    fn unskip(&self, asm: &mut Assembler) {
        if !self.skips {
            return;
        }
        let none = asm.label();
        self.say(asm, "take off what modules have skipped".into());
        asm.mem(code::LDX_DW, 2, FP, CONTEXT, 0);
        asm.mem(code::LDX_B, 2, 2, SKIPPED, 0);
        asm.jump_if(code::JEQ_IMM, 2, 0, none);
        asm.mem(code::LDX_DW, 1, FP, CTX, 0);
        // Who skipped them left more than an Ethernet header, which is all that the kernel asks.
        asm.emit(Insn::new(code::CALL, 0, call::HELPER, 0, helper::XDP_ADJUST_HEAD));
        asm.mem(code::LDX_DW, 1, FP, CONTEXT, 0);
        asm.mem(code::ST_B, 1, 0, SKIPPED, 0);
        asm.place(none);
    }

    /// The slot's main body, with what it is to zero of the stack; afterwards r0 is what it returned.
    pub(crate) fn body(
        &self,
        asm: &mut Assembler,
        slot: &Planned<'_>,
        functions: &SlotFunctions,
        known: &Known,
        forgotten: &Forgotten,
    ) -> Result<(), ComposeError> {
        self.say(asm, format!("enter slot `{}`", slot.name));
        // Where a program has just been entered the context is in r1.
        if !asm.only_stores() {
            asm.mem(code::LDX_DW, 1, FP, CTX, 0);
        }
        if slot.called {
            let main = functions.labels[slot.program.function].expect("a called main body is a function");
            asm.function(Insn::new(code::CALL, 0, call::SUBPROGRAM, 0, 0), main);
            forget_value(asm);
        } else {
            asm.origin(self.chain.modules[slot.module].name);
            let exit = asm.label();
            let first_entry = |map: usize| self.first_entry(self.linker.module_maps(slot.module)[map]);
            let (frame, narrowed) = (self.frame, &slot.body.narrowed);
            let inlined = Inlined { frame, exit, forgotten, narrowed, known, first_entry: &first_entry };
            inline::main(asm, slot.main(), &self.links(slot, functions), inlined)?;
            asm.place(exit);
            asm.origin("");
        }
        Ok(())
    }

    /// The functions of a slot, after the code that calls them; returns where each starts and what it is.
    pub(crate) fn functions(
        &self,
        asm: &mut Assembler,
        slot: &Planned<'_>,
        functions: &SlotFunctions,
    ) -> Result<Vec<(Label, FunctionType)>, ComposeError> {
        let mut starts = Vec::new();
        for &index in &functions.functions {
            let function = &slot.object.functions[index];
            let label = functions.labels[index].expect("what is listed has a label");
            asm.origin(self.chain.modules[slot.module].name);
            asm.place(label);
            self.say(asm, format!("function `{}`", function.name));
            inline::subprogram(asm, function, &self.links(slot, functions))?;
            let btf = self.linker.function_type(slot.module, function);
            // A program is global in BTF, but called from the chain it is a function like any other.
            let own = slot.called && index == slot.program.function;
            starts.push((label, if own { FunctionType::Static(btf) } else { FunctionType::Given(btf) }));
        }
        Ok(starts)
    }

    fn links<'b>(&'b self, slot: &Planned<'_>, functions: &'b SlotFunctions) -> Links<'b> {
        Links {
            module: self.chain.modules[slot.module].name,
            maps: self.linker.module_maps(slot.module),
            functions: &functions.labels,
            type_shift: self.linker.type_shift(slot.module),
        }
    }

    /// From the return value in r0 to `next` with a verdict in `proceed_on`, or to `end` with one that is not.
    ///
    /// Without `proceed_on` every verdict leads to `end`.
    pub(crate) fn decision(
        &self,
        asm: &mut Assembler,
        slot: &Planned<'_>,
        proceed_on: Option<VerdictSet>,
        next: Label,
        end: Label,
    ) {
        let (unknown, decide, stop) = (asm.label(), asm.label(), asm.label());
        self.say(asm, format!("after slot `{}`", slot.name));
        // The kernel reads 32 bits of r0, so 32 bits are what the module said.
        if let Some(one) = proceed_on.and_then(|set| only(&set)) {
            // What most slots do with most packets is to go on with this one: that is asked first.
            asm.place(decide);
            asm.jump_if(code::JEQ32_IMM, 0, one as i32, next);
            asm.op(code::MOV32_REG, 0, 0, 0);
            asm.jump_if(code::JGT_IMM, 0, Verdict::Redirect as i32, unknown);
        } else {
            asm.op(code::MOV32_REG, 0, 0, 0);
            asm.jump_if(code::JGT_IMM, 0, Verdict::Redirect as i32, unknown);
            asm.place(decide);
            if let Some(set) = proceed_on {
                test(asm, set, next);
            }
        }
        asm.place(stop);
        ended_in(asm, slot);
        asm.jump(end);

        asm.place(unknown);
        self.say(asm, format!("slot `{}` returned no verdict", slot.name));
        asm.op(code::MOV64_REG, 1, 0, 0);
        asm.op(code::AND64_IMM, 1, 0, !FINAL);
        let no_verdict = asm.label();
        asm.jump_if(code::JGT_IMM, 1, Verdict::Redirect as i32, no_verdict);
        asm.op(code::MOV64_REG, 0, 1, 0);
        asm.jump(stop);
        asm.place(no_verdict);
        let counted = asm.label();
        asm.mem(code::ST_W, FP, 0, KEY, key(slot, EXIT_UNKNOWN));
        look_up(asm, self.linker.exit_map());
        asm.jump_if(code::JEQ_IMM, 0, 0, counted);
        add_packet(asm);
        asm.place(counted);
        asm.op(code::MOV64_IMM, 0, 0, slot.on_unknown as i32);
        asm.jump(decide);
    }

    /// Keeps the verdict in r0 while observers run; r0 stays as it is when it is kept on the stack.
    pub(crate) fn keep_verdict(&self, asm: &mut Assembler) {
        match self.keep {
            Keep::Stack => asm.mem(code::STX_W, FP, 0, VERDICT, 0),
            Keep::Map(map) => {
                asm.op(code::MOV64_REG, 6, 0, 0);
                let missing = asm.label();
                look_up_first(asm, map);
                asm.jump_if(code::JEQ_IMM, 0, 0, missing);
                asm.mem(code::STX_W, 0, 6, 0, 0);
                asm.place(missing);
            }
        }
    }

    /// Brings the kept verdict back to r0.
    pub(crate) fn kept_verdict(&self, asm: &mut Assembler) {
        match self.keep {
            Keep::Stack => asm.mem(code::LDX_W, 0, FP, VERDICT, 0),
            Keep::Map(map) => {
                let missing = asm.label();
                look_up_first(asm, map);
                // A per-CPU array has its first entry; the verifier does not know, and 0 is XDP_ABORTED.
                asm.jump_if(code::JEQ_IMM, 0, 0, missing);
                asm.mem(code::LDX_W, 0, 0, 0, 0);
                asm.place(missing);
            }
        }
    }

    /// Keeps PASS, the verdict of a chain in which only observers ran.
    pub(crate) fn keep_pass(&self, asm: &mut Assembler) {
        asm.op(code::MOV64_IMM, 0, 0, Verdict::Pass as i32);
        self.keep_verdict(asm);
    }

    /// From the last verdict in r0 to the chain's, in `slot`, the last one.
    pub(crate) fn finish(&self, asm: &mut Assembler, slot: &Planned<'_>) {
        self.say(asm, format!("slot `{}` was the last", slot.name));
        match self.chain.default {
            ChainDefault::Keep => {}
            ChainDefault::Pass => asm.op(code::MOV64_IMM, 0, 0, Verdict::Pass as i32),
            ChainDefault::Drop => asm.op(code::MOV64_IMM, 0, 0, Verdict::Drop as i32),
        }
        ended_in(asm, slot);
    }

    /// Counts the packet at the slot where its chain [ended](ended_in), by the verdict in r0, which r6 is afterwards.
    pub(crate) fn count(&self, asm: &mut Assembler) {
        self.say(asm, "the chain has ended".into());
        asm.op(code::MOV64_REG, 6, 0, 0);
        if self.count == Count::Nothing {
            self.unskip(asm);
            return;
        }
        asm.op(code::ADD64_REG, 1, 6, 0);
        asm.mem(code::STX_W, FP, 1, KEY, 0);
        self.unskip(asm);
        self.say(asm, "count the packet where its chain ended".into());
        let out = asm.label();
        look_up(asm, self.linker.exit_map());
        asm.jump_if(code::JEQ_IMM, 0, 0, out);
        add_packet(asm);
        asm.place(out);
    }

    /// Tells the final verdict, in r6, to the slots that run at exit.
    pub(crate) fn tell_verdict(&self, asm: &mut Assembler) {
        let Some(context) = self.linker.context_map() else { return };
        let missing = asm.label();
        self.say(asm, "tell the final verdict to what runs at exit".into());
        if self.keeps_context() {
            asm.mem(code::LDX_DW, 0, FP, CONTEXT, 0);
        } else {
            look_up_first(asm, context);
            asm.jump_if(code::JEQ_IMM, 0, 0, missing);
        }
        asm.mem(code::STX_B, 0, 6, std::mem::offset_of!(PacketContext, verdict) as i16, 0);
        asm.mem(code::ST_B, 0, 0, std::mem::offset_of!(PacketContext, ended) as i16, 1);
        if self.skips {
            // Nobody takes off any more what these leave.
            asm.mem(code::ST_B, 0, 0, MAY_SKIP, 0);
        }
        asm.place(missing);
    }

    /// Goes on in the program at `index` of a program array. What follows runs when there is none.
    pub(crate) fn tail_call(&self, asm: &mut Assembler, map: usize, index: usize) {
        asm.mem(code::LDX_DW, 1, FP, CTX, 0);
        asm.load_map(2, map);
        asm.op(code::MOV64_IMM, 3, 0, index as i32);
        asm.emit(Insn::new(code::CALL, 0, call::HELPER, 0, helper::TAIL_CALL));
    }
}

/// Makes the verifier forget what it takes r0 to be, which stays what it is.
///
/// Older kernels (6.1 is one) follow a tail call only to where it fails. A function that returns the same number wherever
/// its tail calls fail is to them one that returns nothing else, and they remove the way on from other verdicts.
fn forget_value(asm: &mut Assembler) {
    asm.mem(code::LDX_DW, 1, FP, CTX, 0);
    asm.mem(code::LDX_W, 1, 1, XDP_MD_RX_QUEUE_INDEX, 0);
    asm.op(code::XOR64_REG, 0, 1, 0);
    asm.op(code::XOR64_REG, 0, 1, 0);
}

/// Has in r1 where the chain ended, in `slot`: the key of its first exit counter.
pub(crate) fn ended_in(asm: &mut Assembler, slot: &Planned<'_>) {
    asm.op(code::MOV64_IMM, 1, 0, key(slot, 0));
}

/// The verdict of a set that has one.
fn only(set: &VerdictSet) -> Option<Verdict> {
    let mut verdicts = set.iter();
    let first = verdicts.next()?;
    verdicts.next().is_none().then_some(first)
}

/// Jumps to `next` when the verdict in r0 is in `set`, which has none or several.
fn test(asm: &mut Assembler, set: VerdictSet, next: Label) {
    let others: VerdictSet = Verdict::ALL.into_iter().filter(|v| !set.contains(*v)).collect();
    match (set.iter().collect::<Vec<_>>().as_slice(), others.iter().collect::<Vec<_>>().as_slice()) {
        // Never true, and known to be so. The verifier wants a way to every instruction before it finds out which
        // ones are dead, and removes those.
        ([], _) => asm.jump_if(code::JGT_IMM, 0, Verdict::Redirect as i32, next),
        (_, []) => asm.jump(next),
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

/// Adds one packet and its octets to the counter that r0 points to.
fn add_packet(asm: &mut Assembler) {
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

/// r0 becomes the address of the entry of `map` whose key is at `KEY`, or 0.
fn look_up(asm: &mut Assembler, map: usize) {
    asm.op(code::MOV64_REG, 2, FP, 0);
    asm.op(code::ADD64_IMM, 2, 0, i32::from(KEY));
    asm.load_map(1, map);
    asm.emit(Insn::new(code::CALL, 0, call::HELPER, 0, helper::MAP_LOOKUP_ELEM));
}

/// r0 becomes the address of the first entry of `map`, or 0.
fn look_up_first(asm: &mut Assembler, map: usize) {
    asm.mem(code::ST_W, FP, 0, KEY, 0);
    look_up(asm, map);
}
