//! What an object leaves to the kernel: configuration options (`.kconfig`), and functions and variables (`.ksyms`).
//!
//! Options are read from a map that is filled before the program is loaded; the rest goes into the instructions.

use std::collections::HashMap;

use object::{Object as _, ObjectSymbol as _, SymbolIndex};

use super::elf::Elf;
use super::maps::{self, MapTable};
use super::{ObjectError, Referent};
use crate::btf::{Btf, Enumeration, Kind, Linkage, Type, TypeId, encoding};

/// Section of configuration options in BTF, and name of the map with their values.
pub(super) const OPTIONS: &str = ".kconfig";
/// Section of kernel functions and variables in BTF.
const SYMBOLS: &str = ".ksyms";

/// What an object leaves to the kernel.
#[derive(Clone, Debug, Default)]
pub struct Externs {
    /// Functions and variables of the kernel.
    pub symbols: Vec<KernelSymbol>,
    /// Configuration options.
    pub options: Vec<ConfigOption>,
    /// The map with the options' values, by its index in [`Object::maps`](super::Object::maps).
    pub options_map: Option<usize>,
}

/// A function or variable of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSymbol {
    /// Name.
    pub name: String,
    /// The object does without when the kernel has none.
    pub weak: bool,
    /// What it is.
    pub kind: KernelSymbolKind,
}

/// What the object takes a [`KernelSymbol`] for. Ids are of the object's BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSymbolKind {
    /// A function of this `FUNC_PROTO`.
    Function(TypeId),
    /// A variable of this type.
    Variable(TypeId),
    /// Something of which only the address counts.
    Address,
}

/// A configuration option of the kernel, as a variable of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOption {
    /// Name, with `CONFIG_` in front; or one of libbpf's own, with `LINUX_`.
    pub name: String,
    /// It is 0 when the kernel does not have it set.
    pub weak: bool,
    /// Octets from the start of the map's value.
    pub offset: u32,
    /// Octets.
    pub size: u32,
    /// What values it takes.
    pub kind: OptionKind,
}

/// The type of a [`ConfigOption`]'s variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// `bool`.
    Bool,
    /// `enum libbpf_tristate`: 0 no, 1 yes, 2 module.
    Tristate,
    /// `char`.
    Char,
    /// An integer of up to 8 octets.
    Int {
        /// Whether it may be negative.
        signed: bool,
    },
    /// An array of `char`.
    Text,
}

/// Where references to undefined symbols lead.
#[derive(Default)]
pub(super) struct ExternTable {
    pub(super) externs: Externs,
    places: HashMap<SymbolIndex, Referent>,
}

impl ExternTable {
    /// Reads the undefined symbols that BTF says something about, and adds the map of options to `table`.
    pub(super) fn read(
        elf: &Elf<'_>,
        btf: Option<&mut Btf>,
        table: &mut MapTable,
    ) -> Result<Self, ObjectError> {
        let mut this = Self::default();
        let Some(btf) = btf else { return Ok(this) };
        let declared = declarations(btf);
        let mut options = Vec::new();
        for symbol in elf.symbols().filter(|s| s.is_undefined() && !s.is_local()) {
            let name = symbol.name().unwrap_or_default();
            let Some((section, declaration)) = declared.get(name) else { continue };
            if *section == OPTIONS {
                let ty = match declaration {
                    Declaration::Variable(ty) => *ty,
                    Declaration::Function(_) => continue,
                };
                let kind = option_kind(btf, ty).ok_or_else(|| ObjectError::OptionType {
                    option: name.to_owned(),
                    ty: btf.type_name(ty),
                })?;
                let size = btf.size_of(ty).unwrap_or(0);
                let option =
                    ConfigOption { name: name.to_owned(), weak: symbol.is_weak(), offset: 0, size, kind };
                options.push((symbol.index(), alignment(btf, ty), option));
                continue;
            }
            let kind = match *declaration {
                Declaration::Function(proto) => KernelSymbolKind::Function(proto),
                Declaration::Variable(ty) => match btf.resolve(ty) {
                    0 => KernelSymbolKind::Address,
                    ty => KernelSymbolKind::Variable(ty),
                },
            };
            this.places.insert(symbol.index(), Referent::Extern(this.externs.symbols.len()));
            this.externs.symbols.push(KernelSymbol { name: name.to_owned(), weak: symbol.is_weak(), kind });
        }
        this.place_options(btf, options, table)?;
        Ok(this)
    }

    /// What an undefined symbol stands for; `None` when BTF has no word about it.
    pub(super) fn referent(&self, symbol: SymbolIndex) -> Option<Referent> {
        self.places.get(&symbol).copied()
    }

    /// Whether this is a function of the kernel.
    pub(super) fn is_function(&self, referent: Referent) -> bool {
        let Referent::Extern(symbol) = referent else { return false };
        matches!(self.externs.symbols[symbol].kind, KernelSymbolKind::Function(_))
    }

    /// Lays the options out one after the other in a map of their own.
    fn place_options(
        &mut self,
        btf: &mut Btf,
        mut options: Vec<(SymbolIndex, u32, ConfigOption)>,
        table: &mut MapTable,
    ) -> Result<(), ObjectError> {
        if options.is_empty() {
            return Ok(());
        }
        options.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.2.name.cmp(&b.2.name)));
        let map = table.maps.len();
        let mut end = 0u32;
        for (symbol, alignment, mut option) in options {
            option.offset = end.next_multiple_of(alignment);
            end = option.offset.checked_add(option.size).filter(|end| *end < 1 << 16).ok_or_else(|| {
                ObjectError::damaged(format!("option `{}` claims {} octets", option.name, option.size))
            })?;
            self.places.insert(symbol, Referent::Value { map, offset: option.offset });
            self.externs.options.push(option);
        }
        let offset = |name: &str| self.externs.options.iter().find(|o| o.name == name).map(|o| o.offset);
        let section = btf.fix_datasec(OPTIONS, end, offset).unwrap_or(0);
        define_variables(btf, section);
        table.maps.push(maps::constants(OPTIONS, end, vec![0; end as usize], section));
        self.externs.options_map = Some(map);
        Ok(())
    }
}

/// What BTF says of a symbol that is defined elsewhere.
enum Declaration {
    Variable(TypeId),
    Function(TypeId),
}

/// Everything that is declared in the two sections, by name.
fn declarations(btf: &Btf) -> HashMap<String, (&'static str, Declaration)> {
    let mut found = HashMap::new();
    for (_, ty) in btf.iter() {
        let Type::DataSec { name, vars, .. } = ty else { continue };
        let Some(section) = [OPTIONS, SYMBOLS].into_iter().find(|section| *section == &**name) else {
            continue;
        };
        for var in vars {
            let (name, declaration) = match btf.get(var.ty) {
                Some(Type::Var { name, ty, linkage: Linkage::Extern }) => (name, Declaration::Variable(*ty)),
                Some(Type::Func { name, proto, linkage: Linkage::Extern }) => {
                    (name, Declaration::Function(*proto))
                }
                _ => continue,
            };
            found.insert(name.to_string(), (section, declaration));
        }
    }
    found
}

/// Makes the variables of a section defined ones, which the kernel wants of a section that is a map's value.
fn define_variables(btf: &mut Btf, section: TypeId) {
    let Some(Type::DataSec { vars, .. }) = btf.get(section) else { return };
    let ids: Vec<TypeId> = vars.iter().map(|var| var.ty).collect();
    for id in ids {
        if let Some(Type::Var { linkage, .. }) = btf.get_mut(id) {
            *linkage = Linkage::Global;
        }
    }
}

fn option_kind(btf: &Btf, ty: TypeId) -> Option<OptionKind> {
    match btf.resolved(ty)? {
        Type::Int { size, encoding: e, .. } => {
            if e & encoding::BOOL != 0 {
                (*size == 1).then_some(OptionKind::Bool)
            } else if *size == 1 {
                Some(OptionKind::Char)
            } else {
                let signed = e & encoding::SIGNED != 0;
                matches!(size, 2 | 4 | 8).then_some(OptionKind::Int { signed })
            }
        }
        Type::Enum(Enumeration { name, size: 4, .. }) if &**name == "libbpf_tristate" => {
            Some(OptionKind::Tristate)
        }
        Type::Array { element, count: 1.., .. } => {
            (option_kind(btf, *element)? == OptionKind::Char).then_some(OptionKind::Text)
        }
        _ => None,
    }
}

/// Octets to whose multiple a variable of the type is placed.
fn alignment(btf: &Btf, ty: TypeId) -> u32 {
    match btf.resolved(ty) {
        Some(Type::Int { size, .. }) => (*size).clamp(1, 8).next_power_of_two(),
        Some(ty) if ty.kind() == Kind::Enum => 4,
        _ => 1,
    }
}

impl ConfigOption {
    /// The variable's octets for what the kernel's configuration says, which is a number or of the configuration's
    /// own form: `y`, `m`, `"text"`, `250`, `0x10`.
    pub(super) fn encode(&self, value: &str) -> Result<Vec<u8>, String> {
        let refuse = |what: &str| Err(format!("it is {value} there, {what}"));
        let mut out = vec![0; self.size as usize];
        match (self.kind, value) {
            (OptionKind::Bool, "y" | "1") | (OptionKind::Tristate, "y") => out[0] = 1,
            (OptionKind::Bool, "n" | "0") | (OptionKind::Tristate, "n") => {}
            (OptionKind::Tristate, "m") => out[0] = 2,
            (OptionKind::Char, "y" | "n" | "m") => out[0] = value.as_bytes()[0],
            (OptionKind::Text, _) => {
                let Some(text) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
                    return refuse("which is no text");
                };
                // The last octet stays 0.
                let len = text.len().min(out.len() - 1);
                out[..len].copy_from_slice(&text.as_bytes()[..len]);
            }
            (OptionKind::Char | OptionKind::Int { .. }, _) => {
                let Some(number) = number(value) else { return refuse("which is no number") };
                let signed = self.kind == OptionKind::Int { signed: true };
                if !fits(number, self.size, signed) {
                    return refuse("which the variable cannot hold");
                }
                out.copy_from_slice(&number.to_le_bytes()[..self.size as usize]);
            }
            _ => return refuse("which is not a value of the variable's type"),
        }
        Ok(out)
    }
}

/// A number of C: decimal, hexadecimal or octal, of 64 bits.
fn number(text: &str) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let number = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    let number = number.ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

fn fits(number: u64, octets: u32, signed: bool) -> bool {
    let bits = octets * 8;
    if bits >= 64 {
        return true;
    }
    if signed { number.wrapping_add(1 << (bits - 1)) < 1 << bits } else { number >> bits == 0 }
}
