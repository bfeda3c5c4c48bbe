//! The libxdp engine: each module a program as its author built it, for libxdp's dispatcher to call.
//!
//! None of the chain's own code is in these programs. What the dispatcher cannot do by itself is refused here, before
//! anything is loaded. What it does, for each of its programs in turn: goes on to the next one when the bit of the low five
//! bits of the return value is set in the program's chain call actions, or when they are 31; else ends with the return
//! value. After the last program it ends with PASS. A program that is the only one takes the place of all of it.

use xdpchain_abi::{CONTEXT_MAP, XDPCHAIN_FINAL};
use xdpchain_spec::{ChainDefault, Verdict, VerdictSet};

use crate::asm::Assembler;
use crate::btf::{Btf, Composite, Linkage, Param, Type, TypeId, encoding};
use crate::chain::Chain;
use crate::fused::debug::ProgramParts;
use crate::fused::glue::{Count, Glue, Keep};
use crate::fused::plan::Planned;
use crate::insn::code;
use crate::link::Linker;
use crate::object::Object;
use crate::{ComposeError, Image, Insn};

/// Programs that a dispatcher can call, those of others on the interface included.
pub const SLOTS: usize = 10;

/// Octets of `struct xdp_md`.
const XDP_MD: u32 = 24;

/// Makes a program of each slot, to replace a function of the dispatcher.
///
/// # Errors
/// [`ComposeError::Dispatcher`] for what libxdp cannot say; other [`ComposeError`]s when a module cannot be part of a chain
/// or the modules do not fit together.
pub fn compose(chain: &Chain<'_>) -> Result<Image, ComposeError> {
    let linker = Linker::uncounted(chain)?;
    let mut slots = Planned::all(chain, &linker)?;
    if slots.len() > SLOTS {
        return Err(ComposeError::Dispatcher {
            place: format!("a chain of {} slots", slots.len()),
            what: format!("it calls at most {SLOTS} programs"),
            help: "remove slots, or use `engine: fused`",
        });
    }
    slots.iter().try_for_each(check)?;
    let chain_calls = chain_calls(chain.default, &slots)?;
    let glue = Glue::new(chain, &linker, Keep::Stack, Count::Nothing);
    let mut programs = Vec::with_capacity(slots.len());
    for slot in &mut slots {
        // The main body is a function of its own, the first one, where the program starts.
        slot.called = true;
        let mut asm = Assembler::default();
        let functions = slot.functions(&mut asm);
        let starts = glue.functions(&mut asm, slot, &functions)?.split_off(1);
        let name = slot.program.name.clone();
        let parts = ProgramParts { name, text: asm.finish()?, functions: starts, frags: slot.program.frags };
        programs.push((parts, slot.module, linker.function_type(slot.module, slot.main())));
    }
    let licenses: Vec<String> = slots.iter().map(|slot| linker.license_of(slot.module)).collect();
    let (maps, mut btf) = linker.finish();
    let programs = programs.into_iter().zip(licenses).map(|((parts, _, given), license)| {
        let main = replacement_type(&mut btf, given, &parts.name);
        parts.encode_as(&mut btf, license, main)
    });
    let programs = programs.collect();
    Ok(Image { programs, maps, fills: Vec::new(), btf, chain_calls })
}

/// Refuses what the dispatcher cannot do in one slot.
fn check(slot: &Planned<'_>) -> Result<(), ComposeError> {
    let refuse = |what: &str, help| {
        Err(ComposeError::Dispatcher { place: format!("slot `{}`", slot.name), what: what.into(), help })
    };
    if slot.at_exit {
        return refuse(
            "it calls nothing at the chain's end: `at: exit` cannot be said",
            "remove the slot, or use `engine: fused`",
        );
    }
    if slot.observer {
        return refuse(
            "it has no observers: a program's verdict always counts",
            "make it a slot that proceeds on all its verdicts, or use `engine: fused`",
        );
    }
    if slot.on_unknown != Verdict::Aborted {
        return refuse(
            "it hands a return value that is no verdict to the kernel, which aborts: `on_unknown` cannot be another verdict",
            "leave `on_unknown` out, or use `engine: fused`",
        );
    }
    if slot.object.maps.iter().any(|map| map.name == CONTEXT_MAP) {
        return refuse(
            "the module uses the packet context, which nobody would clear for each packet, and such modules end the chain \
             with XDPCHAIN_FINAL, which the dispatcher takes for another verdict",
            "use `engine: fused`, or `engine: tail`",
        );
    }
    if returns_final(slot.object, slot.program.function) {
        return refuse(
            "the module returns XDPCHAIN_FINAL with its verdict, which the dispatcher does not know",
            "use `engine: fused`, or `engine: tail`",
        );
    }
    if slot.called {
        return refuse(
            "the module tail calls, which kernels lose count of, or refuse, in a program that replaces a function",
            "use `engine: fused`, or `engine: tail`",
        );
    }
    Ok(())
}

/// Whether the program returns a verdict with [`XDPCHAIN_FINAL`], as far as constants show it.
fn returns_final(object: &Object, program: usize) -> bool {
    let bit = XDPCHAIN_FINAL as i32;
    let says_so = |insn: &Insn| match insn.code {
        code::MOV64_IMM | code::MOV32_IMM => {
            insn.dst() == 0 && (bit..=bit | Verdict::Redirect as i32).contains(&insn.imm)
        }
        code::OR64_IMM | code::OR32_IMM => insn.dst() == 0 && insn.imm == bit,
        _ => false,
    };
    object.reachable(program).iter().any(|function| object.functions[*function].insns.iter().any(says_so))
}

/// For each slot the verdicts after which the dispatcher is to call the next program.
///
/// `default: keep` is said by the last slot going on after PASS at most: a PASS that goes on becomes the dispatcher's own
/// PASS when no program of others follows, and any other verdict of the last slot ends the chain as it is, which keeps it.
fn chain_calls(default: ChainDefault, slots: &[Planned<'_>]) -> Result<Vec<VerdictSet>, ComposeError> {
    let mut sets: Vec<VerdictSet> = slots.iter().map(|slot| slot.proceed_on).collect();
    let Some(last) = sets.last_mut() else { return Ok(sets) };
    match default {
        ChainDefault::Keep => *last = last.iter().filter(|verdict| *verdict == Verdict::Pass).collect(),
        ChainDefault::Pass if slots.len() == 1 && last.iter().any(|verdict| verdict != Verdict::Pass) => {
            return Err(ComposeError::Dispatcher {
                place: "a chain of one slot with `default: pass`".to_owned(),
                what: "a program that is alone takes the place of the whole dispatcher, so that its verdict stands"
                    .to_owned(),
                help: "let the slot proceed on nothing but `pass`, use `default: keep`, or use `engine: fused`",
            });
        }
        ChainDefault::Pass => {}
        // A drop that goes on to be a drop might as well end there.
        ChainDefault::Drop if last.iter().all(|verdict| verdict == Verdict::Drop) => {
            *last = VerdictSet::EMPTY;
        }
        ChainDefault::Drop => {
            return Err(ComposeError::Dispatcher {
                place: "a chain with `default: drop`".to_owned(),
                what: "it passes a packet after which every program proceeded".to_owned(),
                help: "give the last slot `proceed_on: []`, use `default: keep`, or use `engine: fused`",
            });
        }
    }
    Ok(sets)
}

/// The type of a program that replaces a function of the dispatcher: a global `int name(struct xdp_md *)`, as the kernel
/// compares them.
fn replacement_type(btf: &mut Btf, given: Option<TypeId>, name: &str) -> TypeId {
    if let Some(id) = given.filter(|id| can_replace(btf, *id)) {
        return id;
    }
    let xdp_md =
        btf.push(Type::Struct(Composite { name: "xdp_md".into(), size: XDP_MD, ..Composite::default() }));
    let ctx = btf.push(Type::Ptr { to: xdp_md });
    let int =
        btf.push(Type::Int { name: "int".into(), size: 4, encoding: encoding::SIGNED, offset: 0, bits: 32 });
    let params = vec![Param { name: "ctx".into(), ty: ctx }];
    let proto = btf.push(Type::FuncProto { ret: int, params });
    btf.push(Type::Func { name: name.into(), proto, linkage: Linkage::Global })
}

fn can_replace(btf: &Btf, function: TypeId) -> bool {
    let Some(Type::Func { proto, linkage: Linkage::Global, .. }) = btf.get(function) else { return false };
    let Some(Type::FuncProto { ret, params }) = btf.get(*proto) else { return false };
    let [ctx] = params.as_slice() else { return false };
    let Some(Type::Ptr { to }) = btf.resolved(ctx.ty) else { return false };
    matches!(btf.resolved(*ret), Some(Type::Int { .. }))
        && matches!(btf.resolved(*to), Some(Type::Struct(found)) if &*found.name == "xdp_md")
}
