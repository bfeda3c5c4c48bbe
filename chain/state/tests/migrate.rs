//! Values carried over from one layout to another.

use proptest::prelude::*;
use xdpchain_compose::btf::{Btf, Composite, EnumValue, Enumeration, Member, Type, TypeId, encoding};
use xdpchain_state::{Codec, Converter, Half, MapConverter, Merge, StateError, What};

const PERCPU_HASH: u32 = 5;
const HASH: u32 = 1;

fn int(btf: &mut Btf, size: u32, signed: bool) -> TypeId {
    let (name, encoding) = if signed { ("s", encoding::SIGNED) } else { ("u", 0) };
    btf.push(Type::Int {
        name: format!("{name}{}", size * 8).into(),
        size,
        encoding,
        offset: 0,
        bits: (size * 8) as u8,
    })
}

fn big(btf: &mut Btf, size: u32) -> TypeId {
    let to = int(btf, size, false);
    btf.push(Type::Typedef { name: format!("__be{}", size * 8).into(), to })
}

fn array(btf: &mut Btf, element: TypeId, count: u32) -> TypeId {
    let index = int(btf, 4, false);
    btf.push(Type::Array { element, index, count })
}

fn enumeration(btf: &mut Btf, size: u32, values: &[(&str, i64)]) -> TypeId {
    let values = values.iter().map(|(name, value)| EnumValue { name: (*name).into(), value: *value });
    btf.push(Type::Enum(Enumeration { name: "state".into(), size, signed: false, values: values.collect() }))
}

/// A struct whose members follow each other without gaps.
fn packed(btf: &mut Btf, name: &str, members: &[(&str, TypeId)]) -> TypeId {
    let mut at = 0;
    let members = members.iter().map(|(name, ty)| {
        let bit_offset = at * 8;
        at += btf.size_of(*ty).expect("a type with a size");
        Member { name: (*name).into(), ty: *ty, bit_offset, bit_size: 0 }
    });
    let members = members.collect();
    btf.push(Type::Struct(Composite { name: name.into(), size: at, members, bitfields: false }))
}

fn union(btf: &mut Btf, members: &[(&str, TypeId)]) -> TypeId {
    let size = members.iter().filter_map(|(_, ty)| btf.size_of(*ty)).max().unwrap_or(0);
    let member =
        |(name, ty): &(&str, TypeId)| Member { name: (*name).into(), ty: *ty, bit_offset: 0, bit_size: 0 };
    let members = members.iter().map(member).collect();
    btf.push(Type::Union(Composite { name: "".into(), size, members, bitfields: false }))
}

fn converted(converter: &Converter, old: &[u8]) -> Result<Vec<u8>, String> {
    let mut new = vec![0; converter.new_size()];
    converter.convert(old, &mut new).map(|()| new).map_err(|misfit| misfit.to_string())
}

fn what(converter: &Converter) -> Vec<String> {
    converter.changes().iter().map(ToString::to_string).collect()
}

fn renames(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn addresses_are_carried_over_into_those_that_users_are_reached_by() {
    let mut btf = Btf::new();
    let octet = int(&mut btf, 1, false);
    let mut address = |name, len| {
        let octets = array(&mut btf, octet, len);
        packed(&mut btf, name, &[("octets", octets)])
    };
    let (whole, user) = (address("Ipv6", 16), address("UserAddress", 8));
    let (old, new) = (Codec::new(&btf, whole).unwrap(), Codec::new(&btf, user).unwrap());
    let there = Converter::new((&btf, whole), (&btf, user), &[]).unwrap();
    let back = Converter::new((&btf, user), (&btf, whole), &[]).unwrap();
    for text in ["10.45.0.9", "2001:db8:45:9::"] {
        let (wide, narrow) = (old.parse(text).unwrap(), new.parse(text).unwrap());
        assert_eq!(converted(&there, &wide), Ok(narrow.clone()), "{text}");
        assert_eq!(converted(&back, &narrow), Ok(wide), "{text}");
    }
    let host = converted(&there, &old.parse("2001:db8:45:9::1").unwrap());
    assert!(host.as_ref().is_err_and(|error| error.contains("2001:db8:45:9::1")), "{host:?}");
}

#[test]
fn fields_are_found_by_name_and_keep_their_values() {
    let mut btf = Btf::new();
    let (u8, u16, u32, u64) =
        (int(&mut btf, 1, false), int(&mut btf, 2, false), int(&mut btf, 4, false), int(&mut btf, 8, false));
    let (s16, s64) = (int(&mut btf, 2, true), int(&mut btf, 8, true));
    let (be16, be32) = (big(&mut btf, 2), big(&mut btf, 4));
    let ip = packed(&mut btf, "inner", &[("octets", u32)]);
    let old = packed(
        &mut btf,
        "old",
        &[("packets", u32), ("balance", s16), ("port", be16), ("peer", ip), ("spare", u8), ("teid", be32)],
    );
    let new = packed(
        &mut btf,
        "new",
        &[("age", u16), ("teid", u64), ("pkts", u64), ("peer", ip), ("port", be32), ("balance", s64)],
    );
    let converter =
        Converter::new((&btf, old), (&btf, new), &renames(&[("packets", "pkts")])).expect("alike enough");
    assert_eq!(
        what(&converter),
        [
            "`age` is new, and zero",
            "`teid` becomes u64, from be32",
            "`pkts` was `packets`",
            "`pkts` becomes u64, from u32",
            "`port` becomes be32, from be16",
            "`balance` becomes i64, from i16",
            "`spare` is gone, and its values are dropped",
        ]
    );
    let mut value = Vec::new();
    value.extend(7u32.to_le_bytes());
    value.extend((-5i16).to_le_bytes());
    value.extend(443u16.to_be_bytes());
    value.extend([1, 2, 3, 4, 99]);
    value.extend(0x0102_0304u32.to_be_bytes());
    let mut expected = vec![0, 0];
    expected.extend(0x0102_0304u64.to_le_bytes());
    expected.extend(7u64.to_le_bytes());
    expected.extend([1, 2, 3, 4]);
    expected.extend(443u32.to_be_bytes());
    expected.extend((-5i64).to_le_bytes());
    assert_eq!(converted(&converter, &value), Ok(expected.clone()));
    // The same renaming leads back when the older build comes back, and is nothing between two newer ones.
    let back = Converter::new((&btf, new), (&btf, old), &renames(&[("packets", "pkts")])).expect("alike");
    value[12] = 0;
    assert_eq!(converted(&back, &expected), Ok(value));
    let same = Converter::new((&btf, new), (&btf, new), &renames(&[("packets", "pkts")])).expect("the same");
    assert!(same.is_same() && same.changes().is_empty());
}

#[test]
fn a_value_that_does_not_fit_is_named() {
    let mut btf = Btf::new();
    let (u8, u16, s8, u64) =
        (int(&mut btf, 1, false), int(&mut btf, 2, false), int(&mut btf, 1, true), int(&mut btf, 8, false));
    let long = array(&mut btf, u16, 3);
    let short = array(&mut btf, u16, 2);
    let old = packed(&mut btf, "old", &[("count", u64), ("level", s8), ("list", long)]);
    let new = packed(&mut btf, "new", &[("count", u8), ("level", u8), ("list", short)]);
    let converter = Converter::new((&btf, old), (&btf, new), &[]).expect("numbers");
    let narrowed = |c: &&xdpchain_state::FieldChange| matches!(c.what, What::Narrowed { .. });
    assert_eq!(converter.changes().iter().filter(narrowed).count(), 3);
    let value = |count: u64, level: i8, last: u16| {
        let mut octets = count.to_le_bytes().to_vec();
        octets.extend(level.to_le_bytes());
        octets.extend([1, 0, 2, 0]);
        octets.extend(last.to_le_bytes());
        octets
    };
    assert_eq!(converted(&converter, &value(255, 127, 0)), Ok(vec![255, 127, 1, 0, 2, 0]));
    for (octets, said) in [
        (value(256, 1, 0), "`count`: 256 does not fit into u8"),
        (value(1, -1, 0), "`level`: -1 does not fit into u8"),
        (value(1, 1, 9), "`list`: 0x0900 does not fit into 2 elements"),
    ] {
        assert_eq!(converted(&converter, &octets), Err(said.to_owned()));
    }
}

#[test]
fn enumerators_go_by_their_names() {
    let mut btf = Btf::new();
    let old = enumeration(&mut btf, 4, &[("idle", 0), ("busy", 1), ("gone", 2)]);
    let new = enumeration(&mut btf, 1, &[("busy", 0), ("idle", 7)]);
    let converter = Converter::new((&btf, old), (&btf, new), &[]).expect("enumerations");
    let one = |value: u32| converted(&converter, &value.to_le_bytes());
    assert_eq!((one(0), one(1), one(9)), (Ok(vec![7]), Ok(vec![0]), Ok(vec![9])));
    assert_eq!(one(2), Err("gone does not fit into an enumeration of 8 bits".to_owned()));
    assert!(one(7).is_err(), "a number without a name must not get one");
}

#[test]
fn a_union_stays_as_it_is_or_is_refused() {
    let mut btf = Btf::new();
    let (u32, u16, u64) = (int(&mut btf, 4, false), int(&mut btf, 2, false), int(&mut btf, 8, false));
    let either = union(&mut btf, &[("v4", u32), ("port", u16)]);
    let other = union(&mut btf, &[("v4", u32), ("port", u32)]);
    let old = packed(&mut btf, "old", &[("hits", u32), ("", either)]);
    let same = packed(&mut btf, "new", &[("", either), ("hits", u64)]);
    let converter = Converter::new((&btf, old), (&btf, same), &[]).expect("the union is the same");
    assert_eq!(
        converted(&converter, &[1, 0, 0, 0, 5, 6, 7, 8]),
        Ok(vec![5, 6, 7, 8, 1, 0, 0, 0, 0, 0, 0, 0])
    );
    let changed = packed(&mut btf, "new", &[("", other), ("hits", u64)]);
    let plain = packed(&mut btf, "new", &[("v4", u32), ("hits", u64)]);
    for new in [changed, plain] {
        let error = Converter::new((&btf, old), (&btf, new), &[]).expect_err("another union");
        assert!(error.to_string().contains("union"), "{error}");
        assert!(error.to_string().contains("\nhelp: "), "{error}");
    }
}

#[test]
fn other_kinds_and_unknown_renamings_are_refused() {
    let mut btf = Btf::new();
    let (u32, u64) = (int(&mut btf, 4, false), int(&mut btf, 8, false));
    let float = btf.push(Type::Float { name: "double".into(), size: 8 });
    let pair = packed(&mut btf, "pair", &[("a", u32), ("b", u32)]);
    let old = packed(&mut btf, "old", &[("x", u64)]);
    for ty in [float, pair] {
        let new = packed(&mut btf, "new", &[("x", ty)]);
        let error = Converter::new((&btf, old), (&btf, new), &[]).expect_err("no number");
        assert!(matches!(&error, StateError::Migrate { path, .. } if path == "x"), "{error}");
    }
    let new = packed(&mut btf, "new", &[("y", u64)]);
    for wrong in [("x", "z"), ("z", "y")] {
        let error = Converter::new((&btf, old), (&btf, new), &renames(&[wrong])).expect_err("a slip");
        assert!(error.to_string().contains("not both layouts have such a field"), "{error}");
    }
    let half = |ty| Half { ty: Some((&btf, ty)), size: 8 };
    let error =
        MapConverter::new(HASH, (half(u64), half(old)), (half(u64), half(new)), &renames(&[("p", "q")]), &[]);
    let error = error.expect_err("nobody knows these").to_string();
    assert!(error.starts_with("`p`: is named under `migrate:`"), "{error}");
    let untyped = Half { ty: None, size: 4 };
    let error = MapConverter::new(HASH, (untyped, untyped), (untyped, half(u64)), &[], &[]);
    let error = error.expect_err("nobody knows what the octets are").to_string();
    assert!(error.contains("the value of 4 octets is to have 8"), "{error}");
}

#[test]
fn nested_fields_are_renamed_by_their_paths_also_in_arrays() {
    let mut btf = Btf::new();
    let (u16, u32) = (int(&mut btf, 2, false), int(&mut btf, 4, false));
    let before = packed(&mut btf, "lane", &[("rx", u16), ("tx", u16)]);
    let after = packed(&mut btf, "lane", &[("sent", u32), ("rx", u32)]);
    let (befores, afters) = (array(&mut btf, before, 2), array(&mut btf, after, 3));
    let old = packed(&mut btf, "old", &[("lanes", befores)]);
    let new = packed(&mut btf, "new", &[("lanes", afters)]);
    let converter = Converter::new((&btf, old), (&btf, new), &renames(&[("lanes.tx", "lanes.sent")]));
    let converter = converter.expect("alike");
    let text = |octets: &[u8], ty| Codec::new(&btf, ty).expect("a type").print(octets).expect("octets");
    let new_octets = converted(&converter, &[1, 0, 2, 0, 3, 0, 4, 0]).expect("it fits");
    assert_eq!(
        text(&new_octets, new),
        "lanes.0.sent=2,lanes.0.rx=1,lanes.1.sent=4,lanes.1.rx=3,lanes.2.sent=0,lanes.2.rx=0"
    );
}

#[test]
fn every_cpus_value_is_carried_over_and_what_changed_since_is_told_field_by_field() {
    let mut btf = Btf::new();
    let (u8, u32, u64) = (int(&mut btf, 1, false), int(&mut btf, 4, false), int(&mut btf, 8, false));
    let address = array(&mut btf, u8, 4);
    let old = packed(&mut btf, "old", &[("packets", u32), ("last", u32), ("peer", address)]);
    let new = packed(&mut btf, "new", &[("packets", u64), ("last", u64), ("peer", address)]);
    let half = |ty| Half { ty: Some((&btf, ty)), size: btf.size_of(ty).expect("a size") };
    let newest = ["last".to_owned()];
    let map = MapConverter::new(PERCPU_HASH, (half(u32), half(old)), (half(u32), half(new)), &[], &newest)
        .expect("alike");
    assert!(!map.is_same() && !map.merges_keys());
    assert_eq!(map.changes().count(), 2);
    let mut octets = vec![0; 32];
    (octets[0], octets[16], octets[24]) = (5, 9, 8);
    let all = map.value(&octets).expect("it fits");
    assert_eq!(all.len(), 48, "24 octets for each of two CPUs");
    let cpus: Vec<&[u8]> = map.values(&all).collect();
    assert_eq!((cpus.len(), cpus[0].len(), cpus[0][0], cpus[1][0], cpus[1][16]), (2, 20, 5, 9, 8));
    let mut after = cpus[0].to_vec();
    (after[0], after[8], after[17]) = (4, 3, 7);
    assert_eq!(
        map.merges(cpus[0], &after),
        [
            Merge::Add { offset: 0, width: 8, delta: u64::MAX },
            Merge::Set { offset: 8, before: vec![0; 8], after: vec![3, 0, 0, 0, 0, 0, 0, 0] },
            Merge::Set { offset: 16, before: vec![0; 4], after: vec![0, 7, 0, 0] },
        ]
    );
}

/// A field of a random struct: its kind, a width, and what its wider form is.
#[derive(Clone, Debug)]
enum Kind {
    Number { size: u32, signed: bool },
    Big { size: u32 },
    Octets { count: u32 },
    List { size: u32, count: u32 },
    Nested(Vec<(String, Kind)>),
}

fn kind() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![
        (0..4u32, any::<bool>()).prop_map(|(log, signed)| Kind::Number { size: 1 << log, signed }),
        (1..4u32).prop_map(|log| Kind::Big { size: 1 << log }),
        (1..9u32).prop_map(|count| Kind::Octets { count }),
        (1..3u32, 1..4u32).prop_map(|(log, count)| Kind::List { size: 1 << log, count }),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop::collection::vec(inner, 1..4).prop_map(|kinds| Kind::Nested(named(kinds)))
    })
}

fn named(kinds: Vec<Kind>) -> Vec<(String, Kind)> {
    kinds.into_iter().enumerate().map(|(i, kind)| (format!("f{i}"), kind)).collect()
}

/// The type of a field, in its own form or a wider one.
fn make(btf: &mut Btf, kind: &Kind, wider: bool) -> TypeId {
    let double = |size: u32| if wider { (size * 2).min(8) } else { size };
    match kind {
        Kind::Number { size, signed } => int(btf, double(*size), *signed),
        Kind::Big { size } => big(btf, double(*size)),
        Kind::Octets { count } => {
            let octet = int(btf, 1, false);
            array(btf, octet, count + u32::from(wider))
        }
        Kind::List { size, count } => {
            let element = int(btf, double(*size), false);
            array(btf, element, count + u32::from(wider))
        }
        Kind::Nested(fields) => {
            let mut members: Vec<(String, TypeId)> =
                fields.iter().map(|(name, kind)| (name.clone(), make(btf, kind, wider))).collect();
            if wider {
                members.reverse();
                members.insert(0, ("added".to_owned(), int(btf, 4, false)));
            }
            let members: Vec<(&str, TypeId)> = members.iter().map(|(n, t)| (n.as_str(), *t)).collect();
            packed(btf, "nested", &members)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_to_a_wider_layout_comes_back_as_it_was(
        kinds in prop::collection::vec(kind(), 1..8),
        renamed in prop::collection::vec(any::<bool>(), 8),
        seed in prop::collection::vec(any::<u8>(), 512),
    ) {
        let fields = named(kinds);
        let mut btf = Btf::new();
        let old: Vec<(String, TypeId)> =
            fields.iter().map(|(name, kind)| (name.clone(), make(&mut btf, kind, false))).collect();
        let mut pairs = Vec::new();
        let mut new: Vec<(String, TypeId)> = Vec::new();
        for (i, (name, kind)) in fields.iter().enumerate() {
            let other = if renamed[i] { format!("g{i}") } else { name.clone() };
            if renamed[i] {
                pairs.push((name.clone(), other.clone()));
            }
            new.push((other, make(&mut btf, kind, true)));
        }
        new.rotate_left(fields.len() / 2);
        new.push(("more".to_owned(), int(&mut btf, 8, true)));
        let members = |list: &[(String, TypeId)]| -> Vec<(String, TypeId)> { list.to_vec() };
        let mut pack = |name: &str, list: Vec<(String, TypeId)>| {
            let list: Vec<(&str, TypeId)> = list.iter().map(|(n, t)| (n.as_str(), *t)).collect();
            packed(&mut btf, name, &list)
        };
        let (a, b) = (pack("a", members(&old)), pack("b", members(&new)));
        let forth = Converter::new((&btf, a), (&btf, b), &pairs).expect("wider fields of the same kinds");
        let back = Converter::new((&btf, b), (&btf, a), &pairs).expect("and back");
        let loses = forth.changes().iter().any(|c| matches!(c.what, What::Removed | What::Narrowed { .. }));
        prop_assert!(!loses);
        let value: Vec<u8> = seed.iter().cycle().copied().take(forth.old_size()).collect();
        let wide = converted(&forth, &value).expect("everything fits");
        prop_assert_eq!(converted(&back, &wide), Ok(value));
        // The narrower layout refuses, or what it takes comes back exactly but for what is not there.
        let any: Vec<u8> = seed.iter().rev().cycle().copied().take(back.old_size()).collect();
        if let Ok(narrow) = converted(&back, &any) {
            let again = converted(&forth, &narrow).expect("everything fits");
            prop_assert_eq!(converted(&back, &again), Ok(narrow));
        }
    }
}
