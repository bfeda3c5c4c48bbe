//! A finished program with its function types and source lines, put together.

use super::asm::{Label, Text};
use crate::ProgramImage;
use crate::btf::{Btf, Linkage, Param, Type, TypeId, encoding};

/// What is known of a function's type.
#[derive(Clone, Copy)]
pub(crate) enum FunctionType {
    /// What its object says.
    Given(Option<TypeId>),
    /// As its object says, but static.
    Static(Option<TypeId>),
}

/// A program but for what depends on the BTF of the whole image.
pub(crate) struct ProgramParts {
    pub(crate) name: String,
    pub(crate) text: Text,
    /// Functions after the main one, in order of their places.
    pub(crate) functions: Vec<(Label, FunctionType)>,
    pub(crate) frags: bool,
}

impl ProgramParts {
    /// Adds to `btf` the types that the functions still need.
    pub(crate) fn encode(self, btf: &mut Btf, license: String) -> ProgramImage {
        let main = main_function(btf, &self.name);
        self.encode_as(btf, license, main)
    }

    /// As [`encode`](Self::encode), with the type of the main function given.
    pub(crate) fn encode_as(self, btf: &mut Btf, license: String, main: TypeId) -> ProgramImage {
        let mut untyped = None;
        let mut functions = vec![(0, main)];
        for (label, function) in &self.functions {
            let id = match function {
                FunctionType::Given(Some(id)) => *id,
                FunctionType::Static(Some(id)) => static_copy(btf, *id),
                // The kernel wants a type for every function or for none.
                FunctionType::Given(None) | FunctionType::Static(None) => {
                    *untyped.get_or_insert_with(|| function_type(btf, "untyped", Vec::new()))
                }
            };
            functions.push((self.text.place(*label) as u32, id));
        }
        let lines = self.text.lines.into_iter().map(|line| (line.insn as u32, line.source)).collect();
        ProgramImage {
            name: self.name,
            insns: self.text.insns,
            relocations: self.text.relocations,
            functions,
            lines,
            license,
            frags: self.frags,
            origins: self.text.origins,
        }
    }
}

/// `int name(struct xdp_md *ctx)`.
fn main_function(btf: &mut Btf, name: &str) -> TypeId {
    let xdp_md = btf.push(Type::Fwd { name: "xdp_md".into(), union: false });
    let ctx = btf.push(Type::Ptr { to: xdp_md });
    function_type(btf, name, vec![Param { name: "ctx".into(), ty: ctx }])
}

/// A static function that returns `int`.
fn function_type(btf: &mut Btf, name: &str, params: Vec<Param>) -> TypeId {
    let int =
        btf.push(Type::Int { name: "int".into(), size: 4, encoding: encoding::SIGNED, offset: 0, bits: 32 });
    let proto = btf.push(Type::FuncProto { ret: int, params });
    btf.push(Type::Func { name: name.into(), proto, linkage: Linkage::Static })
}

fn static_copy(btf: &mut Btf, id: TypeId) -> TypeId {
    match btf.get(id).cloned() {
        Some(Type::Func { name, proto, .. }) => {
            btf.push(Type::Func { name, proto, linkage: Linkage::Static })
        }
        _ => id,
    }
}
