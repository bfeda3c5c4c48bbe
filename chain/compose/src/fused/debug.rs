//! Function types and source lines of a fused program, as `BPF_PROG_LOAD` takes them.

use super::asm::SourceLine;
use crate::btf::{Btf, FuncInfo, Linkage, Param, Type, TypeId};

/// A function of the program.
pub(super) struct FunctionType {
    /// Index of its first instruction.
    pub(super) at: usize,
    /// Its type in the image's BTF; one is made when there is none.
    pub(super) btf: Option<TypeId>,
}

/// Records for the kernel.
pub(super) struct DebugInfo {
    pub(super) functions: Vec<u8>,
    pub(super) lines: Vec<u8>,
}

/// Encodes the records, adding to `btf` the strings and types that they need.
pub(super) fn encode(
    btf: &mut Btf,
    main: &str,
    functions: &[FunctionType],
    lines: &[SourceLine],
) -> DebugInfo {
    let main_type = main_function(btf, main);
    let mut made = None;
    let mut records = Vec::with_capacity(functions.len() * 8);
    for function in functions {
        let id = match function.btf {
            _ if function.at == 0 => main_type,
            Some(id) => id,
            // The kernel wants a type for every function or for none.
            None => *made.get_or_insert_with(|| function_type(btf, "untyped", Vec::new())),
        };
        records.extend(FuncInfo::record(function.at as u32, id));
    }
    let lines = lines.iter().flat_map(|line| line.source.record(line.insn as u32, btf)).collect();
    DebugInfo { functions: records, lines }
}

/// `int name(struct xdp_md *ctx)`.
fn main_function(btf: &mut Btf, name: &str) -> TypeId {
    let xdp_md = btf.push(Type::Fwd { name: "xdp_md".into(), union: false });
    let ctx = btf.push(Type::Ptr { to: xdp_md });
    function_type(btf, name, vec![Param { name: "ctx".into(), ty: ctx }])
}

/// A static function that returns `int`.
fn function_type(btf: &mut Btf, name: &str, params: Vec<Param>) -> TypeId {
    let int = btf.push(Type::Int {
        name: "int".into(),
        size: 4,
        encoding: crate::btf::encoding::SIGNED,
        offset: 0,
        bits: 32,
    });
    let proto = btf.push(Type::FuncProto { ret: int, params });
    btf.push(Type::Func { name: name.into(), proto, linkage: Linkage::Static })
}
