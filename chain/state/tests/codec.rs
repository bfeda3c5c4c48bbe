//! Values of real types and of generated ones, there and back.

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use xdpchain_compose::btf::{Btf, Composite, EnumValue, Enumeration, Kind, Member, Type, TypeId};
use xdpchain_state::{Codec, MapCodec, StateError, Value};

const SAMPLE: &[u8] = include_bytes!("../../compose/tests/fixtures/sample.btf");
const MODULE: &[u8] = include_bytes!("../../compose/tests/fixtures/module.btf");

fn codec(bytes: &[u8], name: &str) -> Codec {
    let btf = Btf::parse(bytes).unwrap();
    Codec::new(&btf, btf.by_name(name, Kind::Struct).unwrap()).unwrap()
}

fn json(codec: &Codec, octets: &[u8]) -> Json {
    codec.decode(octets).unwrap().into()
}

#[test]
fn addresses_and_numbers_of_our_own_types() {
    let key = codec(MODULE, "UplinkKey");
    let octets = [192, 0, 2, 1, 0, 0, 0x12, 0x34];
    assert_eq!(json(&key, &octets), json!({"local": "192.0.2.1", "teid": 0x1234}));
    assert_eq!(key.print(&octets).unwrap(), "local=192.0.2.1,teid=4660");
    assert_eq!(key.parse("teid=0x1234, local=192.0.2.1").unwrap(), octets);
    assert_eq!(key.parse(r#"{"local":"192.0.2.1","teid":4660}"#).unwrap(), octets);

    let session = codec(MODULE, "UplinkSession");
    let value = json!({"customer": 7, "session": 9, "peer": "198.51.100.2", "inner4": "10.0.0.1",
        "inner6": "2001:db8::", "inner6_len": 64, "flags": 1});
    let octets = session.encode_json(&value).unwrap();
    assert_eq!(octets.len(), 40);
    assert_eq!(&octets[..12], [7, 0, 0, 0, 9, 0, 0, 0, 198, 51, 100, 2]);
    assert_eq!(&octets[32..], [64, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(json(&session, &octets), value);
}

#[test]
fn every_type_of_the_abi_on_one_line() {
    let lines = [
        ("GreKey", "remote=192.0.2.1,local=192.0.2.2"),
        ("GreIngress", "customer=7,tunnel=1,key=4294967295,inside=169.254.1.0,inside_len=29,flags=3"),
        ("Customer", "tunnels=1 2 0 0,count=2"),
        ("GreTunnel", "local=192.0.2.2,remote=192.0.2.1,key=0,ttl=64,flags=0"),
        ("UplinkKey", "local=192.0.2.1,teid=1"),
        (
            "UplinkSession",
            "customer=7,session=0,peer=198.51.100.1,inner4=10.0.0.1,inner6=2001:db8::,inner6_len=64,flags=1",
        ),
        ("DownlinkKey", "customer=7,address=10.0.0.1"),
        ("DownlinkKey", "customer=7,address=2001:db8:0:1::"),
        ("DownlinkSession", "session=0,teid=2,peer=198.51.100.1,local=192.0.2.1,qfi=9,flags=2"),
        ("Endpoint", "flags=1"),
        (
            "AclRule",
            "src=10.0.0.0,dst=::,customer=0,src_port=0 0,dst_port=80 443,src_len=104,dst_len=0,protocol=6,action=1,\
             flags=21",
        ),
        ("AclConfig", "count=1,default_action=1,all_packets=0"),
        ("CustomerKey", "customer=7,direction=2"),
        ("Counter", "packets=1,bytes=18446744073709551615"),
        ("SessionCounters", "uplink.packets=1,uplink.bytes=2,downlink.packets=3,downlink.bytes=4"),
        (
            "PacketContext",
            "customer=7,session=1,tunnel=1,inner_len=1400,reason=0,direction=1,qfi=9,has_qfi=1,verdict=3,outer_tos=0",
        ),
    ];
    for (name, line) in lines {
        let codec = codec(MODULE, name);
        let octets = codec.parse(line).unwrap();
        assert_eq!(codec.print(&octets).unwrap(), line);
        assert_eq!(codec.encode_json(&json(&codec, &octets)).unwrap(), octets);
    }
}

#[test]
fn a_wrapper_is_what_it_wraps() {
    let mut btf = Btf::new();
    let number = int(&mut btf, "u64", 8, 0);
    let wrap = |btf: &mut Btf, name: &str, field: &str, ty| {
        let members = vec![Member { name: field.into(), ty, bit_offset: 0, bit_size: 0 }];
        btf.push(Type::Struct(Composite { name: name.into(), size: 8, members, bitfields: false }))
    };
    let cell = wrap(&mut btf, "UnsafeCell_3C_u64_3E_", "value", number);
    let atomic = wrap(&mut btf, "AtomicU64", "v", cell);
    let newtype = wrap(&mut btf, "Packets", "__0", atomic);
    assert_eq!(Codec::new(&btf, newtype).unwrap().decode(&[1, 0, 0, 0, 0, 0, 0, 0]), Ok(Value::Unsigned(1)));
    let named = wrap(&mut btf, "Counter", "value", number);
    assert_eq!(Codec::new(&btf, named).unwrap().print(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "value=1");
}

/// As the kernel has it in many places: `union { struct { u32 a; }; struct { u16 b; u16 c; }; }` inside a struct.
#[test]
fn anonymous_structs_in_a_union_are_told_apart() {
    let mut btf = Btf::new();
    let (half, whole) = (int(&mut btf, "u16", 2, 0), int(&mut btf, "u32", 4, 0));
    let member = |name: &str, ty, bit_offset| Member { name: name.into(), ty, bit_offset, bit_size: 0 };
    let composite = |members| Composite { name: "".into(), size: 4, members, bitfields: false };
    let one = btf.push(Type::Struct(composite(vec![member("a", whole, 0)])));
    let two = btf.push(Type::Struct(composite(vec![member("b", half, 0), member("c", half, 16)])));
    let union = btf.push(Type::Union(composite(vec![member("", one, 0), member("", two, 0)])));
    let outer = btf.push(Type::Struct(composite(vec![member("", union, 0)])));
    let codec = Codec::new(&btf, outer).unwrap();
    assert_eq!(json(&codec, &[1, 0, 2, 0]), json!({"_0": {"a": 0x20001}}));
    assert_eq!(codec.parse("_1.b=1,_1.c=2").unwrap(), [1, 0, 2, 0]);
}

#[test]
fn an_ipv4_mapped_address_is_an_ipv4_address() {
    let rule = codec(MODULE, "AclRule");
    let text = "src=10.1.0.0,dst=2001:db8::1,customer=0,src_port=0 0,dst_port=80 443,src_len=112,dst_len=128,\
                protocol=6,action=1,flags=0x11";
    let octets = rule.parse(text).unwrap();
    assert_eq!(&octets[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 0]);
    assert_eq!(&octets[36..44], [0, 0, 0, 0, 80, 0, 187, 1]);
    assert_eq!(rule.print(&octets).unwrap(), text.replace("0x11", "17"));
    assert_eq!(rule.parse(&text.replace("10.1.0.0", "::ffff:10.1.0.0")).unwrap(), octets);
    assert_eq!(json(&rule, &octets)["dst_port"], json!([80, 443]));
    let elements = text.replace("dst_port=80 443", "dst_port.1=443,dst_port.0=80");
    assert_eq!(rule.parse(&elements).unwrap(), octets);
}

#[test]
fn every_kind_of_field_in_c() {
    let value = codec(SAMPLE, "value");
    let expected = json!({"packets": 18446744073709551615u64, "bytes": 2, "either": {"number": 258},
        "colour": "GREEN", "low": 5, "high": 8191, "up": true, "label": "edge, \"7\"",
        "at": [{"x": -1, "y": 2}, {"x": -32768, "y": 32767}]});
    let octets = value.encode_json(&expected).unwrap();
    assert_eq!(&octets[16..28], [2, 1, 0, 0, 7, 0, 0, 0, 0xfd, 0xff, 1, b'e']);
    assert_eq!(json(&value, &octets), expected);
    let line = value.print(&octets).unwrap();
    assert!(line.contains(r#"label="edge, \"7\"",at.0.x=-1"#), "{line}");
    assert_eq!(value.parse(&line).unwrap(), octets);

    let mut other = expected.clone();
    other["either"] = json!({"octets": "0x02010000"});
    other["colour"] = json!(7);
    assert_eq!(value.encode_json(&other).unwrap(), octets);
    other["either"] = json!({"octets": [2, 1, 0, 0]});
    assert_eq!(value.encode_json(&other).unwrap(), octets);

    let key = codec(SAMPLE, "key");
    let octets = key.parse("remote=192.0.2.1,port=443,mac=02:00:00:00:00:0a").unwrap();
    assert_eq!(octets, [192, 0, 2, 1, 1, 187, 2, 0, 0, 0, 0, 10]);
    assert_eq!(key.print(&octets).unwrap(), "remote=3221225985,port=443,mac=02:00:00:00:00:0a");
}

#[test]
fn errors_name_field_range_and_what_was_found() {
    let session = codec(MODULE, "UplinkSession");
    let good = json!({"customer": 7, "session": 9, "peer": "198.51.100.2", "inner4": "10.0.0.1",
        "inner6": "2001:db8::", "inner6_len": 64, "flags": 1});
    let with = |name: &str, value: Json| {
        let mut json = good.clone();
        json[name] = value;
        session.encode_json(&json).unwrap_err().to_string()
    };
    assert_eq!(
        with("inner6_len", json!(300)),
        "`inner6_len`: expected an integer from 0 to 255, found `300`\n\
         help: numbers are decimal, or hexadecimal with `0x`"
    );
    assert!(
        with("customer", json!(-1))
            .starts_with("`customer`: expected an integer from 0 to 4294967295, found `-1`")
    );
    assert!(with("customer", json!(1.5)).contains("found `1.5`"));
    assert!(
        with("peer", json!("300.0.0.1")).starts_with("`peer`: expected an IPv4 address, found `300.0.0.1`")
    );
    assert!(with("peer", json!({})).contains("found an object"));
    assert!(with("inner_4", json!(0)).starts_with("unknown field `inner_4`\nhelp: did you mean `inner4`? "));

    let mut short = good.clone();
    short.as_object_mut().unwrap().remove("flags");
    assert!(session.encode_json(&short).unwrap_err().to_string().starts_with("missing `flags`\nhelp: "));

    let value = codec(SAMPLE, "value");
    let colour = value.parse("colour=PINK").unwrap_err().to_string();
    assert!(colour.starts_with("`colour`: expected one of `RED`, `GREEN`, `BLUE` or an integer"), "{colour}");
    let label = value.parse("label=a text that is longer than it").unwrap_err().to_string();
    assert!(label.starts_with("`label`: expected a text of at most 16 octets"), "{label}");
    let twice = value.parse("packets=1,packets=2").unwrap_err();
    assert_eq!(twice, StateError::Twice { field: "packets".to_owned() });
    let union = value.parse("either.number=1,either.octets=0x00000000").unwrap_err();
    assert!(matches!(union, StateError::Union { .. }));
    assert!(value.decode(&[0; 3]).is_err());
}

#[test]
fn maps_without_types_are_hexadecimal_but_for_an_index() {
    let array = MapCodec::new(None, 2, (None, 4), (None, 3)).unwrap();
    assert_eq!(array.key.parse("258").unwrap(), [2, 1, 0, 0]);
    assert_eq!(array.value.print(&[1, 2, 0xff]).unwrap(), "0x0102ff");
    let hash = MapCodec::new(None, 1, (None, 4), (None, 3)).unwrap();
    assert_eq!(hash.key.parse("0x02010000").unwrap(), [2, 1, 0, 0]);
    assert!(hash.key.parse("0x0201").unwrap_err().to_string().contains("expected 4 octets in hexadecimal"));
    assert_eq!(hash.entry(&[0; 4], &[9; 3]).unwrap(), json!({"key": "0x00000000", "value": "0x090909"}));

    let btf = Btf::parse(MODULE).unwrap();
    let session = btf.by_name("UplinkSession", Kind::Struct);
    let error = MapCodec::new(Some(&btf), 1, (None, 4), (session, 48)).unwrap_err().to_string();
    assert!(
        error.starts_with("value has 48 octets, but its type `struct UplinkSession` has 40\nhelp: "),
        "{error}"
    );
}

#[test]
fn counters_of_all_cpus_add_up() {
    let btf = Btf::parse(MODULE).unwrap();
    let counters = btf.by_name("SessionCounters", Kind::Struct);
    let map = MapCodec::new(Some(&btf), 6, (None, 4), (counters, 32)).unwrap();
    assert!(map.per_cpu);
    let cpu = |n: u64| [n, 10 * n, 0, u64::MAX].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let (one, two) = (cpu(1), cpu(2));
    let octets = map.join([&one[..], &two[..]]);
    let sum =
        json!({"uplink": {"packets": 3, "bytes": 30}, "downlink": {"packets": 0, "bytes": u64::MAX - 1}});
    assert_eq!(Json::from(map.decode_value(&octets).unwrap()), sum);
    let Value::List(each) = map.decode_cpus(&octets).unwrap() else { panic!("a list") };
    assert_eq!(each.len(), 2);
    assert!(map.decode_value(&octets[1..]).is_err());

    // An address cannot be added up; three octets are padded to eight.
    let key = btf.by_name("UplinkKey", Kind::Struct);
    let map = MapCodec::new(Some(&btf), 5, (None, 4), (key, 8)).unwrap();
    assert_eq!(map.decode_value(&[0; 16]).unwrap(), map.decode_cpus(&[0; 16]).unwrap());
    let odd = MapCodec::new(None, 5, (None, 4), (None, 3)).unwrap();
    assert_eq!(odd.join([&[1, 2, 3][..], &[4, 5, 6]]), [1, 2, 3, 0, 0, 0, 0, 0, 4, 5, 6, 0, 0, 0, 0, 0]);
    assert_eq!(odd.cpus(&[7; 16]).unwrap().collect::<Vec<_>>(), [[7; 3], [7; 3]]);
}

#[test]
fn types_that_no_map_can_hold_are_refused() {
    let mut btf = Btf::new();
    let looped = btf.push(Type::Struct(Composite {
        name: "looped".into(),
        size: 4,
        members: vec![Member { name: "self".into(), ty: 1, bit_offset: 0, bit_size: 0 }],
        bitfields: false,
    }));
    let fwd = btf.push(Type::Fwd { name: "fwd".into(), union: false });
    for id in [0, looped, fwd, 99] {
        assert!(matches!(Codec::new(&btf, id), Err(StateError::Type { .. })), "{id}");
    }
}

/// A type to be put into BTF, and how many octets it takes.
#[derive(Clone, Debug)]
enum Shape {
    Int { size: u32, signed: bool, boolean: bool },
    Char(u32),
    Enum { size: u32, signed: bool, values: Vec<i32> },
    Enum64(Vec<i64>),
    Float(u32),
    Known(&'static str, u32),
    Be(&'static str, u32),
    Array(Box<Shape>, u32),
    Struct(Vec<Shape>),
    Union(Vec<Shape>),
    Anonymous(Vec<Shape>),
    Bits(Vec<u8>),
}

fn scalar() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (prop::sample::select(vec![1u32, 2, 3, 4, 8, 16]), any::<bool>())
            .prop_map(|(size, signed)| Shape::Int { size, signed, boolean: false }),
        Just(Shape::Int { size: 1, signed: false, boolean: true }),
        (1..20u32).prop_map(Shape::Char),
        (prop::sample::select(vec![1u32, 2, 4]), any::<bool>(), prop::collection::vec(-100..100i32, 1..4))
            .prop_map(|(size, signed, values)| Shape::Enum { size, signed, values }),
        prop::collection::vec(any::<i64>(), 1..4).prop_map(Shape::Enum64),
        prop::sample::select(vec![4u32, 8]).prop_map(Shape::Float),
        prop::sample::select(vec![("Ipv4", 4u32), ("Ipv6", 16), ("UserAddress", 8), ("Mac", 6)])
            .prop_map(|(n, s)| Shape::Known(n, s)),
        prop::sample::select(vec![("__be16", 2u32), ("__be32", 4), ("__be64", 8)])
            .prop_map(|(n, s)| Shape::Be(n, s)),
        prop::collection::vec(1..=13u8, 1..5).prop_map(Shape::Bits),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            (inner, 1..4u32).prop_map(|(shape, count)| Shape::Array(Box::new(shape), count)),
            several.clone().prop_map(Shape::Struct),
            several.clone().prop_map(Shape::Union),
            several.prop_map(Shape::Anonymous),
        ]
    })
}

fn int(btf: &mut Btf, name: &str, size: u32, encoding: u8) -> TypeId {
    btf.push(Type::Int { name: name.into(), size, encoding, offset: 0, bits: (size * 8) as u8 })
}

/// Puts the shape into `btf`, and returns its id and size. `count` numbers the fields.
fn build(btf: &mut Btf, shape: &Shape, count: &mut u32) -> (TypeId, u32) {
    match shape {
        Shape::Int { size, signed, boolean } => {
            (int(btf, "n", *size, u8::from(*signed) | u8::from(*boolean) << 2), *size)
        }
        Shape::Char(len) => {
            let element = int(btf, "char", 1, 1);
            (btf.push(Type::Array { element, index: element, count: *len }), *len)
        }
        Shape::Enum { size, signed, values } => {
            let values = values.iter().enumerate();
            let values =
                values.map(|(i, v)| EnumValue { name: format!("E{i}").into(), value: i64::from(*v) });
            let e = Enumeration { name: "e".into(), size: *size, signed: *signed, values: values.collect() };
            (btf.push(Type::Enum(e)), *size)
        }
        Shape::Enum64(values) => {
            let values = values.iter().enumerate();
            let values = values.map(|(i, v)| EnumValue { name: format!("W{i}").into(), value: *v }).collect();
            (btf.push(Type::Enum64(Enumeration { name: "w".into(), size: 8, signed: true, values })), 8)
        }
        Shape::Float(size) => (btf.push(Type::Float { name: "f".into(), size: *size }), *size),
        Shape::Known(name, size) => {
            let element = int(btf, "u8", 1, 0);
            let octets = btf.push(Type::Array { element, index: element, count: *size });
            let members = vec![Member { name: "octets".into(), ty: octets, bit_offset: 0, bit_size: 0 }];
            let name = (*name).into();
            (btf.push(Type::Struct(Composite { name, size: *size, members, bitfields: false })), *size)
        }
        Shape::Be(name, size) => {
            let to = int(btf, "u", *size, 0);
            (btf.push(Type::Typedef { name: (*name).into(), to }), *size)
        }
        Shape::Array(inner, elements) => {
            let (element, size) = build(btf, inner, count);
            (btf.push(Type::Array { element, index: element, count: *elements }), size * elements)
        }
        Shape::Struct(fields) => composite(btf, fields, false, false, count),
        Shape::Union(fields) => composite(btf, fields, true, false, count),
        // An anonymous union within a struct.
        Shape::Anonymous(fields) => {
            let (ty, size) = composite(btf, fields, true, true, count);
            let members = vec![Member { name: "".into(), ty, bit_offset: 0, bit_size: 0 }];
            (
                btf.push(Type::Struct(Composite { name: "outer".into(), size, members, bitfields: false })),
                size,
            )
        }
        Shape::Bits(widths) => {
            let ty = int(btf, "unsigned int", 4, 0);
            let mut at = 0;
            let mut members = Vec::new();
            for bits in widths {
                *count += 1;
                members.push(Member {
                    name: format!("b{count}").into(),
                    ty,
                    bit_offset: at,
                    bit_size: *bits,
                });
                at += u32::from(*bits);
            }
            // The bits left over are a field too, so that every bit of the octets is somebody's.
            let size = at.div_ceil(8);
            if at % 8 != 0 {
                members.push(Member {
                    name: "rest".into(),
                    ty,
                    bit_offset: at,
                    bit_size: (8 - at % 8) as u8,
                });
            }
            (btf.push(Type::Struct(Composite { name: "bits".into(), size, members, bitfields: true })), size)
        }
    }
}

fn composite(
    btf: &mut Btf,
    fields: &[Shape],
    union: bool,
    anonymous: bool,
    count: &mut u32,
) -> (TypeId, u32) {
    let mut members = Vec::new();
    let mut size = 0;
    for field in fields {
        let (ty, len) = build(btf, field, count);
        *count += 1;
        let bit_offset = if union { 0 } else { size * 8 };
        size = if union { size.max(len) } else { size + len };
        members.push(Member { name: format!("f{count}").into(), ty, bit_offset, bit_size: 0 });
    }
    let name = if anonymous { "".into() } else { "s".into() };
    let composite = Composite { name, size, members, bitfields: false };
    (btf.push(if union { Type::Union(composite) } else { Type::Struct(composite) }), size)
}

fn octets(len: usize, seed: &[u8], small: bool) -> Vec<u8> {
    let octet = |i: usize| {
        if small && !i.is_multiple_of(3) {
            0
        } else {
            seed[i % seed.len()].wrapping_add((i / seed.len()) as u8)
        }
    };
    (0..len).map(octet).collect()
}

#[test]
fn blanks_of_a_text_are_its_own() {
    let mut btf = Btf::new();
    let (id, _) = build(&mut btf, &Shape::Char(4), &mut 0);
    let codec = Codec::new(&btf, id).unwrap();
    for octets in [*b"\t\0\0\0", *b" a b", *b" \n  "] {
        assert_eq!(codec.parse(&codec.print(&octets).unwrap()).unwrap(), octets);
    }
}

#[test]
fn a_users_address_is_one_of_ipv4_or_the_first_of_a_64() {
    let mut btf = Btf::new();
    let (id, _) = build(&mut btf, &Shape::Known("UserAddress", 8), &mut 0);
    let codec = Codec::new(&btf, id).unwrap();
    for (text, octets) in [
        ("10.45.0.9", [0xff, 0xff, 0xff, 0xff, 10, 45, 0, 9]),
        ("2001:db8:45:9::", [0x20, 1, 0xd, 0xb8, 0, 0x45, 0, 9]),
        ("::", [0; 8]),
        // No user's, but a map may have it.
        ("0xff02000000000001", [0xff, 2, 0, 0, 0, 0, 0, 1]),
    ] {
        assert_eq!(codec.parse(text).unwrap(), octets, "{text}");
        assert_eq!(codec.print(&octets).unwrap(), text);
    }
    assert_eq!(codec.parse("::ffff:10.45.0.9").unwrap(), codec.parse("10.45.0.9").unwrap());
    for text in ["2001:db8:45:9::1", "ffff:ffff:a2d:9::", "ff02:0:0:1::", "10.45.0", "nobody", ""] {
        let error = codec.parse(text).unwrap_err().to_string();
        assert!(error.contains("an IPv4 address or an IPv6 prefix of 64 bits"), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn every_value_is_what_it_was(
        shape in shape(),
        seed in prop::collection::vec(any::<u8>(), 1..64),
        small in any::<bool>(),
    ) {
        let mut btf = Btf::new();
        let (id, size) = build(&mut btf, &shape, &mut 0);
        let codec = Codec::new(&btf, id).unwrap();
        prop_assert_eq!(codec.size(), size as usize);
        let octets = octets(codec.size(), &seed, small);
        let value = codec.decode(&octets).unwrap();
        prop_assert_eq!(&codec.encode(&value).unwrap(), &octets, "{:?}", value);
        let text = serde_json::to_string(&Json::from(value)).unwrap();
        prop_assert_eq!(&codec.encode_json(&serde_json::from_str(&text).unwrap()).unwrap(), &octets, "{}", text);
        let line = codec.print(&octets).unwrap();
        prop_assert_eq!(&codec.parse(&line).unwrap(), &octets, "{}", line);
    }

    #[test]
    fn the_values_of_every_cpu_are_what_they_were(
        shape in shape(),
        seed in prop::collection::vec(any::<u8>(), 1..64),
        cpus in 1..5usize,
    ) {
        let mut btf = Btf::new();
        let (id, size) = build(&mut btf, &shape, &mut 0);
        let map = MapCodec::new(Some(&btf), 5, (None, 4), (Some(id), size)).unwrap();
        let each: Vec<Vec<u8>> =
            (0..cpus).map(|cpu| octets(map.value.size(), &seed, cpu % 2 == 0)).collect();
        let all = map.join(each.iter().map(Vec::as_slice));
        let json = Json::from(map.decode_cpus(&all).unwrap());
        prop_assert_eq!(&map.encode_value(&json, cpus).unwrap(), &all, "{}", json);
        // One value is the sum of all.
        let one = Json::from(map.value.decode(&each[0]).unwrap());
        let alone = map.encode_value(&one, cpus).unwrap();
        prop_assert_eq!(alone.len(), all.len());
        prop_assert!(alone[map.stride()..].iter().all(|octet| *octet == 0));
    }

    #[test]
    fn any_text_is_a_value_or_an_error(shape in shape(), text in "[ -~]{0,40}") {
        let mut btf = Btf::new();
        let (id, _) = build(&mut btf, &shape, &mut 0);
        let codec = Codec::new(&btf, id).unwrap();
        if let Ok(octets) = codec.parse(&text) {
            prop_assert_eq!(octets.len(), codec.size());
        }
    }

    #[test]
    fn damaged_types_never_panic(at in 24..2700usize, to in any::<u8>()) {
        let mut bytes = SAMPLE.to_vec();
        bytes[at] = to;
        let Ok(btf) = Btf::parse(&bytes) else { return Ok(()) };
        for id in 1..=btf.len() {
            let Ok(codec) = Codec::new(&btf, id) else { continue };
            if codec.size() <= 4096 {
                let octets = vec![1; codec.size()];
                let value = codec.decode(&octets).unwrap();
                let _ = codec.encode(&value);
                let _ = codec.print(&octets);
            }
        }
    }
}
