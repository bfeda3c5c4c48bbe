//! BTF of real compilers, generated BTF, and bytes that are none.

use proptest::prelude::*;
use xdpchain_compose::btf::{
    Btf, BtfError, BtfExt, Composite, EnumValue, Enumeration, Features, Kind, LineInfo, Linkage, Member,
    Name, Param, SecVar, Type,
};

const SAMPLE: &[u8] = include_bytes!("fixtures/sample.btf");
const SAMPLE_EXT: &[u8] = include_bytes!("fixtures/sample.btf.ext");
const MODULE: &[u8] = include_bytes!("fixtures/module.btf");
const MODULE_EXT: &[u8] = include_bytes!("fixtures/module.btf.ext");

fn sample() -> Btf {
    Btf::parse(SAMPLE).unwrap()
}

fn module() -> Btf {
    Btf::parse(MODULE).unwrap()
}

#[test]
fn maps_of_libbpf_macros() {
    let btf = sample();
    let defs = btf.map_defs().unwrap();
    let names: Vec<_> = defs.iter().map(|def| &*def.name).collect();
    assert_eq!(names, ["flows", "totals", "tables"]);

    let flows = &defs[0];
    assert_eq!((flows.map_type, flows.key_size, flows.value_size), (1, 12, 56));
    assert_eq!((flows.max_entries, flows.flags, flows.pinning), (1024, 1, 1));
    assert_eq!(btf.name_of(flows.key_type.unwrap()), "key");
    assert_eq!(btf.name_of(flows.value_type.unwrap()), "value");

    let totals = &defs[1];
    assert_eq!((totals.map_type, totals.key_size, totals.value_size), (6, 4, 8));
    assert_eq!((totals.key_type, totals.value_type), (None, None));

    let tables = &defs[2];
    assert_eq!((tables.map_type, tables.key_size, tables.value_size), (13, 4, 4));
    let inner = tables.inner.as_ref().unwrap();
    assert_eq!((inner.map_type, inner.key_size, inner.value_size, inner.max_entries), (2, 4, 8, 2));
}

#[test]
fn maps_of_aya() {
    let btf = module();
    let defs = btf.map_defs().unwrap();
    assert_eq!(defs.len(), 11);
    let def = |name: &str| defs.iter().find(|def| &*def.name == name).unwrap();
    let sessions = def("SESSIONS");
    assert_eq!((sessions.map_type, sessions.key_size, sessions.value_size), (1, 8, 40));
    assert_eq!((sessions.max_entries, sessions.flags), (1_048_576, 1));
    assert_eq!(btf.name_of(sessions.value_type.unwrap()), "UplinkSession");
    assert_eq!((def("COUNTERS").map_type, def("COUNTERS").key_size, def("COUNTERS").value_size), (6, 4, 32));
    assert_eq!((def("renamed").map_type, def("renamed").max_entries), (2, 1000));
}

#[test]
fn a_map_definition_that_makes_no_sense_names_map_and_member() {
    let mut btf = sample();
    let flows = btf.iter().find(|(_, ty)| ty.kind() == Kind::Var && ty.name() == "flows").unwrap().1;
    let Type::Var { ty, .. } = flows else { unreachable!() };
    let id = *ty;
    let Some(Type::Struct(c)) = btf.get_mut(id) else { panic!("flows is a struct") };
    c.members[1].name = Name::from("max_entry");
    let error = btf.map_defs().unwrap_err().to_string();
    assert!(error.starts_with("map `flows`: member `max_entry`: "), "{error}");
    assert!(error.contains("\nhelp: "), "{error}");
}

#[test]
fn functions_and_lines_follow_their_types() {
    for (bytes, ext) in [(SAMPLE, SAMPLE_EXT), (MODULE, MODULE_EXT)] {
        let btf = Btf::parse(bytes).unwrap();
        let ext = BtfExt::parse(ext, &btf).unwrap();
        let xdp = ext.functions.iter().find(|s| &*s.section == "xdp").unwrap();
        assert_eq!(xdp.records[0].offset, 0);
        assert_eq!(btf.get(xdp.records[0].type_id).unwrap().kind(), Kind::Func);

        let mut merged = Btf::new();
        merged.push(Type::Typedef { name: Name::from("first"), to: 0 });
        let shift = merged.append(&btf);
        assert_eq!(merged.name_of(xdp.records[0].type_id + shift), btf.name_of(xdp.records[0].type_id));

        let lines: Vec<&LineInfo> = ext.lines.iter().flat_map(|s| &s.records).collect();
        assert!(lines.iter().any(|line| !line.text.is_empty() && line.line > 1));
        let records: Vec<_> = lines.iter().map(|line| line.record(7, &mut merged)).collect();
        let written = merged.to_bytes();
        let again = Btf::parse(&written).unwrap();
        assert_eq!(again, merged);
        for (line, record) in lines.iter().zip(records) {
            let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
            assert_eq!(word(0), 7);
            assert_eq!(again.source_string(word(4)).unwrap(), *line.file);
            assert_eq!(again.source_string(word(8)).unwrap(), *line.text);
            assert_eq!((word(12) >> 10, word(12) & 0x3ff), (line.line, line.column));
        }
    }
}

#[test]
fn rewriting_keeps_everything() {
    for bytes in [SAMPLE, MODULE] {
        let btf = Btf::parse(bytes).unwrap();
        assert_eq!(Btf::parse(&btf.to_bytes()).unwrap(), btf);
    }
}

#[test]
fn types_behind_typedefs() {
    let btf = sample();
    let be32 = btf.by_name("__be32", Kind::Typedef).unwrap();
    assert_eq!(btf.name_of(btf.resolve(be32)), "unsigned int");
    assert_eq!(btf.size_of(be32), Some(4));
    assert_eq!(btf.size_of(0), None);
    assert_eq!(btf.size_of(btf.by_name("value", Kind::Struct).unwrap()), Some(56));
}

#[test]
fn a_layout_in_words() {
    let btf = sample();
    let value = btf.by_name("value", Kind::Struct).unwrap();
    let expected = "\
struct value {
    __u64 packets;                       // offset 0, size 8
    __u64 bytes;                         // offset 8, size 8
    union either {
        __u32 number;                    // offset 16, size 4
        __u8 octets[4];                  // offset 16, size 4
    } either;                            // offset 16, size 4
    enum colour colour;                  // offset 20, size 4
    unsigned int low : 3;                // offset 24, bit 0, 3 bits
    unsigned int high : 13;              // offset 24, bit 3, 13 bits
    _Bool up;                            // offset 26, size 1
    char label[16];                      // offset 27, size 16
    struct {
        __s16 x;                         // offset 44, size 2
        __s16 y;                         // offset 46, size 2
    } at[2];                             // offset 44, size 8
    __u32 reserved;                      // offset 52, size 4
};                                       // offset 0, size 56";
    assert_eq!(btf.describe(value), expected);
}

#[test]
fn layouts_differ_in_the_first_field_that_does() {
    let btf = module();
    let key = btf.by_name("UplinkKey", Kind::Struct).unwrap();
    let session = btf.by_name("UplinkSession", Kind::Struct).unwrap();
    let mut other = sample();
    let shift = other.append(&btf);
    assert_eq!(btf.same_layout(key, &other, key + shift), Ok(()));
    assert_eq!(btf.same_layout(session, &other, session + shift), Ok(()));

    let diff = btf.same_layout(key, &other, session + shift).unwrap_err();
    assert_eq!((diff.path.as_str(), diff.found.as_str()), ("", "`struct UplinkSession` of 40 octets"));

    let Some(Type::Struct(c)) = other.get_mut(session + shift) else { panic!("a struct") };
    c.members[2].name = Name::from("sender");
    let diff = btf.same_layout(session, &other, session + shift).unwrap_err();
    assert_eq!(
        diff.to_string(),
        "expected `struct Ipv4 peer` at offset 8, found `struct Ipv4 sender` at offset 8"
    );

    let octet = btf.by_name("u8", Kind::Int).unwrap() + shift;
    let Some(Type::Int { encoding, .. }) = other.get_mut(octet) else { panic!("an integer") };
    *encoding = 1;
    let diff = btf.same_layout(key, &other, key + shift).unwrap_err();
    assert_eq!(diff.path, "local.octets.[]");
}

#[test]
fn sections_are_filled_in() {
    let mut btf = sample();
    let id = btf.fix_datasec(".maps", 120, |name| match name {
        "flows" => Some(40),
        "tables" => Some(80),
        _ => Some(0),
    });
    let Some(Type::DataSec { size, vars, .. }) = btf.get(id.unwrap()) else { panic!("a section") };
    assert_eq!(*size, 120);
    assert_eq!(vars.iter().map(|v| v.offset).collect::<Vec<_>>(), [0, 40, 80]);
    assert_eq!(btf.fix_datasec(".nothing", 1, |_| None), None);
}

#[test]
fn names_and_order_are_made_what_the_kernel_takes() {
    let mut btf = Btf::new();
    let octet = btf.push(Type::Int { name: "u8".into(), size: 1, encoding: 0, offset: 0, bits: 8 });
    let member = |name: &str, bit_offset| Member { name: name.into(), ty: octet, bit_offset, bit_size: 0 };
    let composite = btf.push(Type::Struct(Composite {
        name: "Map<K, core::V>".into(),
        size: 2,
        members: vec![member("b", 8), member("0", 0), member("past", 16)],
        bitfields: false,
    }));
    let proto = btf.push(Type::FuncProto {
        ret: 0,
        params: vec![Param { name: "".into(), ty: octet }, Param { name: "x".into(), ty: 0 }],
    });
    let func = btf.push(Type::Func { name: "f::{closure#0}".into(), proto, linkage: Linkage::Extern });
    let empty = btf.push(Type::DataSec { name: ".bss/x".into(), size: 0, vars: vec![] });
    let long = btf.push(Type::Typedef { name: "n".repeat(300).as_str().into(), to: octet });
    btf.sanitize();

    let Some(Type::Struct(c)) = btf.get(composite) else { panic!("a struct") };
    assert_eq!(&*c.name, "Map_K__core__V_");
    assert_eq!(c.members.iter().map(|m| &*m.name).collect::<Vec<_>>(), ["_0", "b"]);
    let Some(Type::FuncProto { params, .. }) = btf.get(proto) else { panic!("a function type") };
    assert_eq!(&*params[0].name, "arg0");
    assert_eq!((&*params[1].name, params[1].ty), ("", 0));
    assert_eq!(
        btf.get(func),
        Some(&Type::Func { name: "f___closure_0_".into(), proto, linkage: Linkage::Global })
    );
    assert_eq!(btf.get(empty).unwrap().kind(), Kind::Int);
    assert_eq!(btf.name_of(long).len(), 127);
}

#[test]
fn a_section_that_is_a_map_value_stays_one() {
    let mut btf = Btf::new();
    let section = btf.push(Type::DataSec { name: ".bss".into(), size: 64, vars: vec![] });
    btf.sanitize();
    let Some(Type::DataSec { size: 64, vars, .. }) = btf.get(section) else { panic!("a section") };
    assert_eq!((vars.len(), btf.size_of(vars[0].ty)), (1, Some(1)));
}

#[test]
fn strings_keep_their_offsets_when_types_change() {
    let mut merged = sample();
    let offset = merged.intern("a line of source");
    let written = merged.to_bytes();
    let mut again = Btf::parse(&written).unwrap();
    again.keep_strings();
    again.push(Type::Typedef { name: "one_more".into(), to: 0 });
    again.lower_for(Features::default());
    let lowered = Btf::parse(&again.to_bytes()).unwrap();
    assert_eq!(lowered.source_string(offset).unwrap(), "a line of source");
    assert_eq!(lowered, again);
    assert!(again.to_bytes().len() < written.len() + 32);
}

#[test]
fn old_kernels_get_older_kinds_of_the_same_size() {
    let mut btf = Btf::new();
    let float = btf.push(Type::Float { name: "double".into(), size: 8 });
    let tag = btf.push(Type::TypeTag { name: "user".into(), to: float, attribute: false });
    let values = vec![EnumValue { name: "A".into(), value: -1 }];
    let wide = btf.push(Type::Enum64(Enumeration { name: "wide".into(), size: 8, signed: true, values }));
    let decl = btf.push(Type::DeclTag { name: "x".into(), ty: tag, component: -1, attribute: false });
    let mut kept = btf.clone();
    kept.lower_for(Features::ALL);
    assert_eq!(kept, btf);
    btf.lower_for(Features::default());
    let kinds: Vec<_> = [float, tag, wide, decl].map(|id| btf.get(id).unwrap().kind()).into();
    assert_eq!(kinds, [Kind::Struct, Kind::Const, Kind::Int, Kind::Int]);
    assert_eq!((btf.size_of(tag), btf.size_of(wide)), (Some(8), Some(8)));
}

#[test]
fn damaged_bytes_say_what_is_wrong() {
    let mut big = SAMPLE.to_vec();
    big[..2].reverse();
    assert_eq!(Btf::parse(&big), Err(BtfError::BigEndian { section: ".BTF" }));
    assert_eq!(Btf::parse(b"\x7fELF1234"), Err(BtfError::Magic { section: ".BTF", found: 0x457f }));
    assert!(matches!(Btf::parse(&SAMPLE[..SAMPLE.len() - 1]), Err(BtfError::Truncated { .. })));
    assert!(matches!(Btf::parse(b""), Err(BtfError::Truncated { .. })));
    let mut kind = SAMPLE.to_vec();
    kind[24 + 7] = 0x1f;
    assert_eq!(Btf::parse(&kind), Err(BtfError::Kind { id: 1, kind: 31 }));
    let mut id = SAMPLE.to_vec();
    id[24 + 8..24 + 12].copy_from_slice(&9999u32.to_le_bytes());
    assert!(matches!(Btf::parse(&id), Err(BtfError::BadId { id: 1, found: 9999, .. })));
}

#[test]
fn endless_types_end() {
    let mut btf = Btf::new();
    btf.push(Type::Typedef { name: "a".into(), to: 2 });
    btf.push(Type::Const { to: 1 });
    assert_eq!(btf.resolve(1), 0);
    let array = btf.push(Type::Array { element: 3, index: 0, count: 1 });
    assert_eq!(btf.size_of(array), None);
    let member = |name: &str, ty| Member { name: name.into(), ty, ..Member::default() };
    for i in 0..60 {
        let next = btf.len() + 2;
        let members = vec![member(&format!("x{i}"), next), member("y", next)];
        btf.push(Type::Struct(Composite { members, ..Composite::default() }));
    }
    assert!(btf.same_layout(4, &btf, 4).is_err());
    assert!(btf.describe(4).lines().count() < 5000);
    btf.sanitize();
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![Just(Name::from("")), "[a-z_<>:0-9é]{1,12}".prop_map(Name::from)]
}

fn id() -> impl Strategy<Value = u32> {
    // Twelve types are generated, so that these exist.
    0..=12u32
}

fn composite() -> impl Strategy<Value = Composite> {
    let member = (name(), id(), 0..1u32 << 24, 0..64u8);
    (name(), any::<u32>(), prop::collection::vec(member, 0..5), any::<bool>()).prop_map(
        |(name, size, members, bitfields)| Composite {
            name,
            size,
            bitfields,
            members: members
                .into_iter()
                .map(|(name, ty, bit_offset, bits)| Member {
                    name,
                    ty,
                    bit_offset,
                    bit_size: if bitfields { bits } else { 0 },
                })
                .collect(),
        },
    )
}

fn enumeration(wide: bool) -> impl Strategy<Value = Enumeration> {
    (
        name(),
        prop::sample::select(vec![1u32, 2, 4, 8]),
        any::<bool>(),
        prop::collection::vec((name(), any::<i64>()), 0..5),
    )
        .prop_map(move |(name, size, signed, values)| Enumeration {
            name,
            size,
            signed,
            values: values
                .into_iter()
                .map(|(name, value)| {
                    let value = match (wide, signed) {
                        (true, _) => value,
                        (false, true) => i64::from(value as i32),
                        (false, false) => i64::from(value as u32),
                    };
                    EnumValue { name, value }
                })
                .collect(),
        })
}

fn linkage() -> impl Strategy<Value = Linkage> {
    prop_oneof![Just(Linkage::Static), Just(Linkage::Global), Just(Linkage::Extern), Just(Linkage::Other(9))]
}

fn any_type() -> impl Strategy<Value = Type> {
    let var = (id(), any::<u32>(), any::<u32>()).prop_map(|(ty, offset, size)| SecVar { ty, offset, size });
    prop_oneof![
        (name(), any::<u32>(), 0..16u8, any::<u8>(), any::<u8>()).prop_map(
            |(name, size, encoding, offset, bits)| Type::Int { name, size, encoding, offset, bits }
        ),
        id().prop_map(|to| Type::Ptr { to }),
        (id(), id(), any::<u32>()).prop_map(|(element, index, count)| Type::Array { element, index, count }),
        composite().prop_map(Type::Struct),
        composite().prop_map(Type::Union),
        enumeration(false).prop_map(Type::Enum),
        enumeration(true).prop_map(Type::Enum64),
        (name(), any::<bool>()).prop_map(|(name, union)| Type::Fwd { name, union }),
        (name(), id()).prop_map(|(name, to)| Type::Typedef { name, to }),
        id().prop_map(|to| Type::Volatile { to }),
        id().prop_map(|to| Type::Const { to }),
        id().prop_map(|to| Type::Restrict { to }),
        (name(), id(), linkage()).prop_map(|(name, proto, linkage)| Type::Func { name, proto, linkage }),
        (id(), prop::collection::vec((name(), id()).prop_map(|(name, ty)| Param { name, ty }), 0..4))
            .prop_map(|(ret, params)| Type::FuncProto { ret, params }),
        (name(), id(), linkage()).prop_map(|(name, ty, linkage)| Type::Var { name, ty, linkage }),
        (name(), any::<u32>(), prop::collection::vec(var, 0..4))
            .prop_map(|(name, size, vars)| Type::DataSec { name, size, vars }),
        (name(), any::<u32>()).prop_map(|(name, size)| Type::Float { name, size }),
        (name(), id(), any::<i32>(), any::<bool>())
            .prop_map(|(name, ty, component, attribute)| Type::DeclTag { name, ty, component, attribute }),
        (name(), id(), any::<bool>()).prop_map(|(name, to, attribute)| Type::TypeTag { name, to, attribute }),
    ]
}

fn any_btf() -> impl Strategy<Value = Btf> {
    prop::collection::vec(any_type(), 12).prop_map(|types| {
        let mut btf = Btf::new();
        types.into_iter().for_each(|ty| {
            btf.push(ty);
        });
        btf
    })
}

/// Everything that follows ids, to see that none of it panics or hangs.
fn exercise(btf: &Btf) {
    for id in 0..=btf.len() {
        btf.size_of(id);
        btf.describe(id);
        let _ = btf.same_layout(id, btf, btf.len() - id);
    }
    let _ = btf.map_defs();
    let mut changed = btf.clone();
    changed.fix_datasec("a", 64, |_| Some(3));
    changed.sanitize();
    changed.lower_for(Features::default());
    assert_eq!(Btf::parse(&changed.to_bytes()).unwrap(), changed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(btf in any_btf(), text in "[^\0]{0,20}") {
        let mut btf = btf;
        let offset = btf.intern(&text);
        let bytes = btf.to_bytes();
        let again = Btf::parse(&bytes).unwrap();
        prop_assert_eq!(again.source_string(offset).unwrap(), text);
        prop_assert_eq!(&again, &btf);
    }

    #[test]
    fn generated_types_are_followed_to_an_end(btf in any_btf()) {
        exercise(&btf);
    }

    #[test]
    fn appending_shifts_every_id(a in any_btf(), b in any_btf()) {
        let mut both = a.clone();
        let shift = both.append(&b);
        prop_assert_eq!(shift, a.len());
        prop_assert_eq!(both.len(), a.len() + b.len());
        for id in 1..=b.len() {
            prop_assert_eq!(both.type_name(id + shift), b.type_name(id));
            prop_assert_eq!(both.size_of(id + shift), b.size_of(id));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Btf::parse(&bytes);
        let _ = BtfExt::parse(&bytes, &sample());
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0..4096usize, to in any::<u8>(), ext in any::<bool>()) {
        if ext {
            let mut bytes = SAMPLE_EXT.to_vec();
            let len = bytes.len();
            bytes[at % len] = to;
            let _ = BtfExt::parse(&bytes, &sample());
        } else {
            let mut bytes = SAMPLE.to_vec();
            let len = bytes.len();
            bytes[at % len] = to;
            if let Ok(btf) = Btf::parse(&bytes) {
                exercise(&btf);
            }
        }
    }
}
