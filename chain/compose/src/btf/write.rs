//! BTF written as the kernel takes it.

use super::parse::HEADER;
use super::types::{Composite, Enumeration, Type};
use super::{Btf, Interned};

impl Btf {
    /// A `.BTF` section, little-endian. Strings are shared; those of [`Btf::intern`] are at the offsets it gave.
    /// A struct, union, enumeration, parameter list or section has at most 65,535 entries: more are cut off.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut strings = self.interned.clone();
        if strings.bytes.is_empty() {
            strings.bytes.push(0);
        }
        let mut out = Vec::with_capacity(HEADER as usize + self.types.len() * 24);
        out.extend(0xeb9f_u16.to_le_bytes());
        out.extend([1, 0]);
        out.extend(HEADER.to_le_bytes());
        out.extend([0; 16]);
        for ty in &self.types {
            write_type(&mut out, &mut strings, ty);
        }
        let type_len = out.len() as u32 - HEADER;
        let str_len = strings.bytes.len() as u32;
        for (i, field) in [0, type_len, type_len, str_len].into_iter().enumerate() {
            out[8 + i * 4..12 + i * 4].copy_from_slice(&field.to_le_bytes());
        }
        out.extend(strings.bytes);
        out
    }
}

fn words(out: &mut Vec<u8>, words: &[u32]) {
    out.extend(words.iter().flat_map(|w| w.to_le_bytes()));
}

fn write_type(out: &mut Vec<u8>, strings: &mut Interned, ty: &Type) {
    let kind = ty.kind() as u32;
    let info = |vlen: usize, flag: bool| u32::from(flag) << 31 | kind << 24 | vlen.min(0xffff) as u32;
    match ty {
        Type::Int { name, size, encoding, offset, bits } => {
            let data = u32::from(*encoding & 0xf) << 24 | u32::from(*offset) << 16 | u32::from(*bits);
            words(out, &[strings.offset(name), info(0, false), *size, data]);
        }
        Type::Ptr { to } | Type::Volatile { to } | Type::Const { to } | Type::Restrict { to } => {
            words(out, &[0, info(0, false), *to]);
        }
        Type::Array { element, index, count } => {
            words(out, &[0, info(0, false), 0, *element, *index, *count]);
        }
        Type::Struct(composite) | Type::Union(composite) => write_composite(out, strings, kind, composite),
        Type::Enum(e) | Type::Enum64(e) => write_enum(out, strings, kind, e),
        Type::Fwd { name, union } => words(out, &[strings.offset(name), info(0, *union), 0]),
        Type::Typedef { name, to } => words(out, &[strings.offset(name), info(0, false), *to]),
        Type::Func { name, proto, linkage } => {
            words(out, &[strings.offset(name), info(linkage.raw() as usize, false), *proto]);
        }
        Type::FuncProto { ret, params } => {
            words(out, &[0, info(params.len(), false), *ret]);
            for param in params.iter().take(0xffff) {
                words(out, &[strings.offset(&param.name), param.ty]);
            }
        }
        Type::Var { name, ty, linkage } => {
            words(out, &[strings.offset(name), info(0, false), *ty, linkage.raw()]);
        }
        Type::DataSec { name, size, vars } => {
            words(out, &[strings.offset(name), info(vars.len(), false), *size]);
            for var in vars.iter().take(0xffff) {
                words(out, &[var.ty, var.offset, var.size]);
            }
        }
        Type::Float { name, size } => words(out, &[strings.offset(name), info(0, false), *size]),
        Type::DeclTag { name, ty, component, attribute } => {
            words(out, &[strings.offset(name), info(0, *attribute), *ty, *component as u32]);
        }
        Type::TypeTag { name, to, attribute } => {
            words(out, &[strings.offset(name), info(0, *attribute), *to])
        }
    }
}

fn write_composite(out: &mut Vec<u8>, strings: &mut Interned, kind: u32, composite: &Composite) {
    let vlen = composite.members.len().min(0xffff);
    let info = u32::from(composite.bitfields) << 31 | kind << 24 | vlen as u32;
    words(out, &[strings.offset(&composite.name), info, composite.size]);
    for member in &composite.members[..vlen] {
        let offset = if composite.bitfields {
            u32::from(member.bit_size) << 24 | member.bit_offset & 0x00ff_ffff
        } else {
            member.bit_offset
        };
        words(out, &[strings.offset(&member.name), member.ty, offset]);
    }
}

fn write_enum(out: &mut Vec<u8>, strings: &mut Interned, kind: u32, e: &Enumeration) {
    let vlen = e.values.len().min(0xffff);
    let info = u32::from(e.signed) << 31 | kind << 24 | vlen as u32;
    words(out, &[strings.offset(&e.name), info, e.size]);
    for value in &e.values[..vlen] {
        words(out, &[strings.offset(&value.name), value.value as u32]);
        if kind == super::Kind::Enum64 as u32 {
            words(out, &[(value.value as u64 >> 32) as u32]);
        }
    }
}
