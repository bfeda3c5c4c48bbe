//! One type found in raw BTF without reading the rest: the kernel's has more than a hundred thousand.

use super::TypeId;

/// Octets behind a type of each kind: those that it always has, and those of each of its parts.
const BEHIND: [(usize, usize); 20] = [
    (0, 0),
    (4, 0),  // INT
    (0, 0),  // PTR
    (12, 0), // ARRAY
    (0, 12), // STRUCT
    (0, 12), // UNION
    (0, 8),  // ENUM
    (0, 0),  // FWD
    (0, 0),  // TYPEDEF
    (0, 0),  // VOLATILE
    (0, 0),  // CONST
    (0, 0),  // RESTRICT
    (0, 0),  // FUNC
    (0, 8),  // FUNC_PROTO
    (4, 0),  // VAR
    (0, 12), // DATASEC
    (0, 0),  // FLOAT
    (4, 0),  // DECL_TAG
    (0, 0),  // TYPE_TAG
    (0, 12), // ENUM64
];
const FUNC: usize = 12;

/// Number of the function `name` in BTF that stands for itself; none when it is not there, or the octets are no BTF.
pub fn find_function(btf: &[u8], name: &str) -> Option<TypeId> {
    let word =
        |at: usize| btf.get(at..at.checked_add(4)?)?.first_chunk().map(|o| u32::from_le_bytes(*o) as usize);
    let header = word(4)?;
    let part = |at: usize| {
        let start = header.checked_add(word(at)?)?;
        btf.get(start..start.checked_add(word(at + 4)?)?)
    };
    let (types, names) = (part(8)?, part(16)?);
    let is_named = |at: usize| {
        let rest = names.get(at..).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    };
    let (mut at, mut id) = (0, 1);
    loop {
        let [name, info] = [0, 4].map(|offset| {
            let octets = types.get(at + offset..at + offset + 4)?;
            octets.first_chunk().map(|octets| u32::from_le_bytes(*octets) as usize)
        });
        let (name, info) = (name?, info?);
        let kind = info >> 24 & 0x1f;
        if kind == FUNC && is_named(name) {
            return Some(id);
        }
        let (always, each) = BEHIND.get(kind)?;
        at += 12 + always + each * (info & 0xffff);
        id += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Btf, Kind};
    use super::*;

    #[test]
    fn what_is_found_is_what_reading_all_of_it_finds() {
        let bytes: &[u8] = include_bytes!("../../tests/fixtures/module.btf");
        let btf = Btf::parse(bytes).expect("a fixture");
        let functions: Vec<TypeId> =
            (1..=btf.len()).filter(|id| btf.get(*id).is_some_and(|ty| ty.kind() == Kind::Func)).collect();
        assert!(!functions.is_empty());
        for id in functions {
            let name = btf.name_of(id);
            assert_eq!(find_function(bytes, name), btf.by_name(name, Kind::Func), "{name}");
        }
        assert_eq!(find_function(bytes, "no_such_function"), None);
        for len in 0..bytes.len() {
            assert_eq!(find_function(&bytes[..len], "no_such_function"), None);
        }
    }
}
