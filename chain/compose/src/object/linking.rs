//! An object made ready for one kernel: its relocations applied, its externs resolved.
//!
//! What one function cannot have is that function's problem alone, for a chain may not need it.

use super::core::{Applied, Relocator, essential, types_compatible};
use super::externs::{ConfigOption, KernelSymbol, KernelSymbolKind};
use super::kernel::Kernel;
use super::{Function, Object, ObjectError, Reference, Referent};
use crate::Insn;
use crate::btf::{Btf, Kind, Type, TypeId};
use crate::insn::{call, code, pseudo};

/// Number of the helper, counted from here, that a call of a missing weak function calls. No kernel has it, so the
/// verifier refuses the call when it can be reached.
const MISSING_FUNCTION: i32 = 2_002_000_000;

/// The kernel function that leaves a program from within any of its functions.
const THROW: &str = "bpf_throw";

/// What the kernel has for a [`KernelSymbol`].
#[derive(Clone, Copy)]
enum Resolved {
    /// A function or variable, by its id in the BTF with number `btf`, 0 for the kernel proper.
    Typed { id: TypeId, btf: u32 },
    /// An address, 0 for what the object does without.
    Address(u64),
}

impl Object {
    /// Applies what depends on the kernel. A function that asks for what `kernel` does not have gets a
    /// [`Function::problem`], which composing a chain with it comes to.
    pub fn link(&mut self, kernel: &dyn Kernel) {
        for function in &mut self.functions {
            if matches!(function.problem, Some(ObjectError::NeedsKernel { .. })) {
                function.problem = None;
            }
        }
        if let Some(btf) = &self.btf {
            relocate(btf, &mut self.functions, kernel);
        }
        self.fill_options(kernel);
        self.resolve_symbols(kernel);
    }

    /// Notes for every function what it waits for until the object is linked.
    pub(super) fn note_needs(&mut self) {
        for i in 0..self.functions.len() {
            let function = &self.functions[i];
            if function.problem.is_some() {
                continue;
            }
            let need = if function.core.is_empty() {
                function.references.iter().find_map(|reference| match reference.to {
                    Referent::Extern(symbol) => {
                        Some(format!("the kernel's `{}`", self.externs.symbols[symbol].name))
                    }
                    Referent::Value { map, .. } if self.externs.options_map == Some(map) => {
                        Some("the kernel's configuration".to_owned())
                    }
                    _ => None,
                })
            } else {
                Some("the kernel's types (CO-RE)".to_owned())
            };
            if let Some(what) = need {
                let function = &mut self.functions[i];
                function.problem = Some(ObjectError::NeedsKernel { function: function.name.clone(), what });
            }
        }
    }

    /// Fills the map of options.
    fn fill_options(&mut self, kernel: &dyn Kernel) {
        let Some(map) = self.externs.options_map else { return };
        for option in &self.externs.options {
            let (from, to) = (option.offset, option.offset + option.size);
            let mut users = self.functions.iter_mut().filter(|function| {
                function.references.iter().any(|r| {
                    matches!(r.to, Referent::Value { map: m, offset } if m == map && from <= offset && offset < to)
                })
            });
            match option_value(option, kernel) {
                Ok(octets) => {
                    if let Some(initial) = &mut self.maps[map].initial {
                        initial.bytes[from as usize..to as usize].copy_from_slice(&octets);
                    }
                }
                Err(reason) => users.by_ref().for_each(|function| {
                    function.problem.get_or_insert_with(|| ObjectError::Option {
                        function: function.name.clone(),
                        option: option.name.clone(),
                        reason: reason.clone(),
                    });
                }),
            }
        }
    }

    /// Puts ids and addresses of kernel symbols into the instructions.
    fn resolve_symbols(&mut self, kernel: &dyn Kernel) {
        let mut resolved: Vec<Option<Result<Resolved, String>>> = vec![None; self.externs.symbols.len()];
        for function in &mut self.functions {
            let mut references = Vec::with_capacity(function.references.len());
            for mut reference in std::mem::take(&mut function.references) {
                let Referent::Extern(index) = reference.to else {
                    references.push(reference);
                    continue;
                };
                let symbol = &self.externs.symbols[index];
                let answer =
                    resolved[index].get_or_insert_with(|| resolve(symbol, self.btf.as_ref(), kernel)).clone();
                match answer {
                    Ok(found) => {
                        if essential(&symbol.name) == THROW && matches!(found, Resolved::Typed { .. }) {
                            let throws = || ObjectError::Throws { function: function.name.clone() };
                            function.problem.get_or_insert_with(throws);
                        }
                        let btf = put(&mut function.insns, reference.insn, found, index);
                        if btf != 0 {
                            reference.to = Referent::ModuleBtf(btf);
                            references.push(reference);
                        }
                    }
                    Err(reason) => {
                        references.push(reference);
                        function.problem.get_or_insert_with(|| ObjectError::KernelSymbol {
                            function: function.name.clone(),
                            symbol: symbol.name.clone(),
                            reason,
                        });
                    }
                }
            }
            function.references = references;
        }
    }
}

/// Applies every function's CO-RE relocations.
fn relocate(btf: &Btf, functions: &mut [Function], kernel: &dyn Kernel) {
    let mut relocator = Relocator::new(btf, kernel);
    for function in functions.iter_mut().filter(|function| !function.core.is_empty()) {
        if kernel.btf().is_none() {
            function
                .problem
                .get_or_insert_with(|| ObjectError::NoKernelTypes { function: function.name.clone() });
            continue;
        }
        for relocation in std::mem::take(&mut function.core) {
            match relocator.apply(&relocation.record, &mut function.insns, relocation.insn) {
                Ok(Applied::Done) => {}
                Ok(Applied::LocalType(id)) => {
                    function.references.push(Reference { insn: relocation.insn, to: Referent::Type(id) });
                }
                Err(failure) => {
                    function.problem.get_or_insert_with(|| ObjectError::Core {
                        function: function.name.clone(),
                        what: failure.what,
                        reason: failure.reason,
                    });
                }
            }
        }
        function.references.sort_by_key(|reference| reference.insn);
    }
}

/// Puts what was found for extern number `index` into the instruction, and returns the number of the BTF whose
/// descriptor has to go there too, 0 for none.
fn put(insns: &mut [Insn], at: usize, found: Resolved, index: usize) -> u32 {
    let insn = insns[at];
    if insn.code == code::CALL {
        return match found {
            Resolved::Typed { id, btf } => {
                insns[at] = Insn::new(code::CALL, 0, call::KFUNC, 0, id as i32);
                btf
            }
            Resolved::Address(_) => {
                let missing = MISSING_FUNCTION.saturating_add(index as i32);
                insns[at] = Insn::new(code::CALL, 0, call::HELPER, 0, missing);
                0
            }
        };
    }
    let (source, low, high, btf) = match found {
        Resolved::Typed { id, btf } => (pseudo::BTF_ID, id as i32, 0, btf),
        Resolved::Address(address) => (0, address as i32, (address >> 32) as i32, 0),
    };
    insns[at] = Insn::new(code::LD_IMM64, insn.dst(), source, 0, low);
    insns[at + 1].imm = high;
    btf
}

fn resolve(symbol: &KernelSymbol, local: Option<&Btf>, kernel: &dyn Kernel) -> Result<Resolved, String> {
    let (kind, wanted) = match symbol.kind {
        KernelSymbolKind::Function(proto) => (Kind::Func, proto),
        KernelSymbolKind::Variable(ty) => (Kind::Var, ty),
        KernelSymbolKind::Address => return address(symbol, kernel),
    };
    let name = if kind == Kind::Func { essential(&symbol.name) } else { &symbol.name };
    let Some((btf, id, number)) = find(kernel, name, kind) else {
        return match (symbol.weak, kernel.btf()) {
            (true, _) => Ok(Resolved::Address(0)),
            (false, None) => Err("this kernel has no types (CONFIG_DEBUG_INFO_BTF)".to_owned()),
            (false, Some(_)) => Err("this kernel does not have it".to_owned()),
        };
    };
    let (Some(Type::Func { proto: ty, .. } | Type::Var { ty, .. }), Some(local)) = (btf.get(id), local)
    else {
        return Err("its type is not known".to_owned());
    };
    if types_compatible(local, wanted, btf, *ty) == Some(true) {
        return Ok(Resolved::Typed { id, btf: number });
    }
    if symbol.weak && kind == Kind::Func {
        return Ok(Resolved::Address(0));
    }
    Err(format!(
        "this kernel's is of another type: {}, where the object has {}",
        btf.describe(*ty),
        local.describe(wanted)
    ))
}

/// The kernel's function or variable: its types, its id and the number of the BTF, 0 for that of the kernel proper.
fn find<'k>(kernel: &'k dyn Kernel, name: &str, kind: Kind) -> Option<(&'k Btf, TypeId, u32)> {
    if let Some(btf) = kernel.btf()
        && let Some(id) = btf.by_name(name, kind)
    {
        return Some((btf, id, 0));
    }
    kernel.modules().iter().find_map(|m| m.btf.by_name(name, kind).map(|id| (&m.btf, id, m.id)))
}

fn address(symbol: &KernelSymbol, kernel: &dyn Kernel) -> Result<Resolved, String> {
    match kernel.symbol(&symbol.name).as_slice() {
        [address] => Ok(Resolved::Address(*address)),
        [] if symbol.weak => Ok(Resolved::Address(0)),
        [] => Err("this kernel does not have it".to_owned()),
        several => Err(format!("this kernel has {} of that name", several.len())),
    }
}

/// What the option's variable holds on `kernel`.
fn option_value(option: &ConfigOption, kernel: &dyn Kernel) -> Result<Vec<u8>, String> {
    let value = match option.name.as_str() {
        "LINUX_KERNEL_VERSION" => match kernel.version() {
            0 => return Err("the kernel does not say its version".to_owned()),
            version => Some(version.to_string()),
        },
        "LINUX_HAS_BPF_COOKIE" => Some(u32::from(has_bpf_cookie(kernel)).to_string()),
        "LINUX_HAS_SYSCALL_WRAPPER" => Some(u32::from(has_syscall_wrapper(kernel)).to_string()),
        name if name.starts_with("CONFIG_") => kernel.config(name),
        name if name.starts_with("LINUX_") => None,
        _ => return Err("only names with `CONFIG_` or `LINUX_` in front are known".to_owned()),
    };
    match value {
        Some(value) => option.encode(&value),
        None if option.weak => Ok(vec![0; option.size as usize]),
        None => Err("this kernel's configuration does not set it".to_owned()),
    }
}

/// Whether the kernel knows the helper `bpf_get_attach_cookie`.
fn has_bpf_cookie(kernel: &dyn Kernel) -> bool {
    let enumerator = "BPF_FUNC_get_attach_cookie";
    kernel.btf().is_some_and(|btf| {
        btf.iter().any(|(_, ty)| match ty {
            Type::Enum(e) => &*e.name == "bpf_func_id" && e.values.iter().any(|v| &*v.name == enumerator),
            _ => false,
        })
    })
}

/// Whether the kernel's system calls take their arguments in a `struct pt_regs`.
fn has_syscall_wrapper(kernel: &dyn Kernel) -> bool {
    ["x64", "arm64", "s390x", "riscv", "powerpc"]
        .iter()
        .any(|arch| !kernel.symbol(&format!("__{arch}_sys_bpf")).is_empty())
}
