//! CO-RE relocations: operands that depend on the layout of the kernel's types, and how they are found.
//!
//! What a relocation means is libbpf's documentation ("BPF CO-RE") and LLVM's (`__builtin_preserve_*`): a path through
//! a local type is followed, by names, through every type of the kernel that has the local one's name. All of those
//! have to agree. An instruction whose operand the kernel has nothing for becomes one that the verifier refuses when
//! it can be reached, so that a program may ask first (`bpf_core_field_exists`) and go another way.

mod compat;
mod patch;
mod path;
mod value;

use std::collections::HashMap;

use super::kernel::Kernel;
use crate::Insn;
use crate::btf::{Btf, CoreRelo, Type, TypeId};
use path::Path;
use value::Decision;

pub(super) use compat::{essential, types_compatible};

/// `enum bpf_core_relo_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    FieldOffset,
    FieldSize,
    FieldExists,
    FieldSigned,
    FieldLeftShift,
    FieldRightShift,
    LocalTypeId,
    KernelTypeId,
    TypeExists,
    TypeSize,
    EnumeratorExists,
    EnumeratorValue,
    TypeMatches,
}

impl Wanted {
    fn from_raw(raw: u32) -> Option<Self> {
        const ALL: [Wanted; 13] = [
            Wanted::FieldOffset,
            Wanted::FieldSize,
            Wanted::FieldExists,
            Wanted::FieldSigned,
            Wanted::FieldLeftShift,
            Wanted::FieldRightShift,
            Wanted::LocalTypeId,
            Wanted::KernelTypeId,
            Wanted::TypeExists,
            Wanted::TypeSize,
            Wanted::EnumeratorExists,
            Wanted::EnumeratorValue,
            Wanted::TypeMatches,
        ];
        ALL.get(raw as usize).copied()
    }

    /// Whether it is about a type as a whole.
    fn of_type(self) -> bool {
        matches!(
            self,
            Self::LocalTypeId | Self::KernelTypeId | Self::TypeExists | Self::TypeSize | Self::TypeMatches
        )
    }

    fn of_enumerator(self) -> bool {
        matches!(self, Self::EnumeratorExists | Self::EnumeratorValue)
    }

    fn name(self) -> &'static str {
        match self {
            Self::FieldOffset => "the offset",
            Self::FieldSize => "the size",
            Self::FieldExists => "the existence",
            Self::FieldSigned => "the signedness",
            Self::FieldLeftShift | Self::FieldRightShift => "the bit position",
            Self::LocalTypeId | Self::KernelTypeId => "the id",
            Self::TypeExists => "the existence",
            Self::TypeSize => "the size",
            Self::EnumeratorExists => "the existence",
            Self::EnumeratorValue => "the value",
            Self::TypeMatches => "the likeness",
        }
    }
}

/// A type of the kernel with the name of a local one.
#[derive(Clone, Copy)]
struct Candidate<'k> {
    btf: &'k Btf,
    id: TypeId,
}

/// What applying a relocation comes to, beside the changed instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// Nothing more.
    Done,
    /// The immediate is the id of a type of the object, wherever that moves.
    LocalType(TypeId),
}

/// Why a relocation cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What it asks for, e.g. the offset of `struct sk_buff`'s `len`.
    pub(super) what: String,
    /// Why there is no answer.
    pub(super) reason: String,
}

/// Applies the relocations of one object.
pub(super) struct Relocator<'a, 'k> {
    local: &'a Btf,
    kernel: &'k dyn Kernel,
    /// By local type: what the relocations so far have left of the candidates.
    candidates: HashMap<TypeId, Vec<Candidate<'k>>>,
}

impl<'a, 'k> Relocator<'a, 'k> {
    pub(super) fn new(local: &'a Btf, kernel: &'k dyn Kernel) -> Self {
        Self { local, kernel, candidates: HashMap::new() }
    }

    /// Applies `relocation` to the instruction with index `at`.
    pub(super) fn apply(
        &mut self,
        relocation: &CoreRelo,
        insns: &mut [Insn],
        at: usize,
    ) -> Result<Applied, Failure> {
        let plain = |reason: String| Failure {
            what: format!(
                "relocation `{}` of {}",
                relocation.access,
                self.local.type_name(relocation.type_id)
            ),
            reason,
        };
        let wanted = Wanted::from_raw(relocation.kind)
            .ok_or_else(|| plain(format!("relocation kind {} is not known", relocation.kind)))?;
        let path = Path::parse(self.local, wanted, relocation.type_id, &relocation.access).map_err(plain)?;
        let failure = |reason: String| Failure { what: path.describe(wanted), reason };
        let decision = if wanted == Wanted::LocalTypeId {
            Decision::unchecked(u64::from(path.root))
        } else {
            self.decide(wanted, &path).map_err(failure)?
        };
        patch::patch(insns, at, &decision).map_err(failure)?;
        Ok(if wanted == Wanted::LocalTypeId { Applied::LocalType(path.root) } else { Applied::Done })
    }

    /// What every type of the kernel that fits agrees on.
    fn decide(&mut self, wanted: Wanted, local: &Path<'_>) -> Result<Decision, String> {
        let candidates = match self.candidates.get(&local.root) {
            Some(known) => known.clone(),
            None => self.find(local.root)?,
        };
        let mut agreed: Option<(Path<'_>, Decision)> = None;
        let mut fitting = Vec::new();
        for candidate in &candidates {
            let Some(path) = local.follow(wanted, candidate.btf, candidate.id)? else { continue };
            let decision = Decision::make(wanted, local, Some(&path))?;
            match &agreed {
                None => agreed = Some((path, decision)),
                Some((first, known)) => {
                    let same = first.bit_offset == path.bit_offset
                        && known.poison == decision.poison
                        && known.new == decision.new;
                    if !same {
                        return Err(format!(
                            "types {} and {} of the kernel have that name, and differ in it",
                            first.root, path.root
                        ));
                    }
                }
            }
            fitting.push(*candidate);
        }
        // A type that lacks what the program only asks about must stay one for what it asks next.
        let left = if fitting.is_empty() { candidates } else { fitting };
        self.candidates.insert(local.root, left);
        match agreed {
            Some((_, decision)) => Ok(decision),
            None => Decision::make(wanted, local, None),
        }
    }

    /// The kernel's types with the local type's name; those of modules when the kernel proper has none.
    fn find(&self, root: TypeId) -> Result<Vec<Candidate<'k>>, String> {
        let local = self.local.get(root).ok_or("the local type is void")?;
        let name = essential(local.name());
        if name.is_empty() {
            return Err("the local type has no name".to_owned());
        }
        let of = |btf: &'k Btf| {
            let fits = |ty: &Type| compat::same_kind(local, ty) && essential(ty.name()) == name;
            btf.iter().filter(move |(_, ty)| fits(ty)).map(move |(id, _)| Candidate { btf, id })
        };
        let vmlinux: Vec<_> = self.kernel.btf().into_iter().flat_map(of).collect();
        if !vmlinux.is_empty() {
            return Ok(vmlinux);
        }
        Ok(self.kernel.modules().iter().flat_map(|module| of(&module.btf)).collect())
    }
}
