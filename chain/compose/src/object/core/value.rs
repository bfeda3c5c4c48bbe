//! The number that a relocation asks for, in a type of the object or of the kernel.

use super::Wanted;
use super::path::{Path, composite, enumerator_value};
use crate::btf::{Btf, Type, TypeId, encoding};

/// What becomes of an instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// The kernel has nothing for it.
    pub(super) poison: bool,
    /// What the operand is by the object's own types.
    pub(super) old: u64,
    /// What it becomes.
    pub(super) new: u64,
    /// Whether the operand has to be `old` before.
    pub(super) checked: bool,
    /// Octets of the field by the object's types and by the kernel's, when the operand is an offset.
    pub(super) sizes: Option<(u32, u32)>,
    /// A load or store of another size would not mean the same.
    pub(super) fixed_size: bool,
}

/// A number and what has to be known about it.
#[derive(Default)]
struct Value {
    value: u64,
    /// Octets and type of what is read at an offset.
    field: Option<(u32, TypeId)>,
    checked: bool,
}

/// Why there is no number.
enum Stop {
    /// The kernel has no such thing.
    Missing,
    /// It cannot be told.
    Failed(String),
}

impl Decision {
    pub(super) fn unchecked(value: u64) -> Self {
        Self { old: value, new: value, ..Self::default() }
    }

    pub(super) fn make(wanted: Wanted, local: &Path<'_>, kernel: Option<&Path<'_>>) -> Result<Self, String> {
        let missing = "the object's own types do not have it".to_owned();
        let old = match value(wanted, Some(local)) {
            Ok(value) => value,
            Err(Stop::Missing) => return Err(missing),
            Err(Stop::Failed(why)) => return Err(why),
        };
        let checked = old.checked;
        let new = match value(wanted, kernel) {
            Ok(value) => value,
            Err(Stop::Missing) => return Ok(Self { poison: true, checked, ..Self::default() }),
            Err(Stop::Failed(why)) => return Err(why),
        };
        let mut decision = Self { old: old.value, new: new.value, checked, ..Self::default() };
        if let (Some((old_size, old_type)), Some((new_size, new_type)), Some(kernel)) =
            (old.field, new.field, kernel)
        {
            decision.sizes = Some((old_size, new_size));
            decision.fixed_size =
                old_size != new_size && !zero_extends((local.btf, old_type), (kernel.btf, new_type));
        }
        Ok(decision)
    }
}

/// Whether reading the one with the size of the other leaves the same number: that is so for pointers, and for
/// unsigned integers.
fn zero_extends(local: (&Btf, TypeId), kernel: (&Btf, TypeId)) -> bool {
    let unsigned =
        |ty: Option<&Type>| matches!(ty, Some(Type::Int { encoding: e, .. }) if *e != encoding::SIGNED);
    let (local, kernel) = (local.0.resolved(local.1), kernel.0.resolved(kernel.1));
    matches!((local, kernel), (Some(Type::Ptr { .. }), Some(Type::Ptr { .. })))
        || unsigned(local) && unsigned(kernel)
}

fn value(wanted: Wanted, path: Option<&Path<'_>>) -> Result<Value, Stop> {
    if wanted.of_type() {
        return type_value(wanted, path);
    }
    match (wanted, path) {
        (Wanted::FieldExists | Wanted::EnumeratorExists, path) => {
            Ok(Value { value: u64::from(path.is_some()), field: None, checked: true })
        }
        (_, None) => Err(Stop::Missing),
        (Wanted::EnumeratorValue, Some(path)) => {
            let value = path.steps.last().and_then(|step| enumerator_value(path.btf, *step));
            Ok(Value { value: value.ok_or(Stop::Missing)?, field: None, checked: true })
        }
        (_, Some(path)) => field_value(wanted, path),
    }
}

fn type_value(wanted: Wanted, path: Option<&Path<'_>>) -> Result<Value, Stop> {
    let Some(path) = path else { return Ok(Value { checked: true, ..Value::default() }) };
    Ok(match wanted {
        // Linkers move types without telling the instructions.
        Wanted::KernelTypeId => Value { value: u64::from(path.root), ..Value::default() },
        Wanted::TypeSize => {
            Value { value: u64::from(size(path.btf, path.root)?), field: None, checked: true }
        }
        _ => Value { value: 1, field: None, checked: true },
    })
}

fn size(btf: &Btf, id: TypeId) -> Result<u32, Stop> {
    btf.size_of(id).ok_or_else(|| Stop::Failed(format!("{} has no size", btf.type_name(id))))
}

/// Octets of what a load at the start of the field reads: of arrays an element.
fn read_size(btf: &Btf, mut id: TypeId) -> Result<u32, Stop> {
    for _ in 0..64 {
        match btf.resolved(id) {
            Some(Type::Array { element, .. }) => id = *element,
            _ => return size(btf, id),
        }
    }
    Err(Stop::Failed("arrays nest too deep".to_owned()))
}

fn field_value(wanted: Wanted, path: &Path<'_>) -> Result<Value, Stop> {
    let btf = path.btf;
    let last = path.steps.last().ok_or(Stop::Missing)?;
    if !last.named {
        return match wanted {
            Wanted::FieldOffset => Ok(Value {
                value: path.bit_offset / 8,
                field: Some((read_size(btf, last.ty)?, last.ty)),
                checked: true,
            }),
            Wanted::FieldSize => {
                Ok(Value { value: u64::from(size(btf, last.ty)?), field: None, checked: true })
            }
            _ => Err(Stop::Failed("it is an element of an array".to_owned())),
        };
    }
    let member = composite(btf, last.ty).and_then(|c| c.members.get(last.index as usize));
    let member = member.ok_or(Stop::Missing)?;
    let ty = btf.resolve(member.ty);
    let bitfield = member.bit_size > 0;
    let mut octets = u64::from(size(btf, ty)?);
    let (offset, bits) = if bitfield {
        let end = path.bit_offset + u64::from(member.bit_size);
        let start = |octets: u64| path.bit_offset / 8 / octets * octets;
        if octets == 0 {
            return Err(Stop::Failed("a bitfield of no size".to_owned()));
        }
        // The smallest aligned load that has all of the field's bits.
        while end - start(octets) * 8 > octets * 8 {
            if octets >= 8 {
                return Err(Stop::Failed("the bitfield cannot be read by one load".to_owned()));
            }
            octets *= 2;
        }
        (start(octets), u64::from(member.bit_size))
    } else {
        (path.bit_offset / 8, octets * 8)
    };
    // Compilers may read a bitfield by another load than the one above.
    let plain = |value| Value { value, field: None, checked: !bitfield };
    Ok(match wanted {
        Wanted::FieldOffset => {
            let field = if bitfield { None } else { Some((read_size(btf, ty)?, ty)) };
            Value { field, ..plain(offset) }
        }
        Wanted::FieldSize => plain(octets),
        Wanted::FieldSigned => {
            let signed = match btf.resolved(ty) {
                Some(Type::Enum(e) | Type::Enum64(e)) => e.signed,
                Some(Type::Int { encoding: e, .. }) => e & encoding::SIGNED != 0,
                _ => false,
            };
            Value { value: u64::from(signed), field: None, checked: true }
        }
        Wanted::FieldLeftShift => plain(64u64.wrapping_sub(path.bit_offset + bits - offset * 8)),
        _ => Value { value: 64u64.wrapping_sub(bits), field: None, checked: true },
    })
}
