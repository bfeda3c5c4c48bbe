//! Objects that clang made, and damage to them.

use proptest::prelude::*;

use super::*;
use crate::InitialData;

const FEATURES: &[u8] = include_bytes!("../../tests/fixtures/objects/features.o");
const SEVERAL: &[u8] = include_bytes!("../../tests/fixtures/objects/several.o");
const LEGACY: &[u8] = include_bytes!("../../tests/fixtures/objects/legacy.o");
const OTHER: &[u8] = include_bytes!("../../tests/fixtures/objects/other.o");

fn names(object: &Object, of: &[usize]) -> Vec<String> {
    of.iter().map(|&i| object.functions[i].name.clone()).collect()
}

#[test]
fn an_object_is_read_whole() {
    let object = Object::parse(FEATURES).unwrap();
    assert_eq!(object.license, "Dual MIT/GPL");
    let program = object.xdp_program(None).unwrap();
    assert_eq!((program.name.as_str(), program.section.as_str(), program.frags), ("features", "xdp", false));
    assert_eq!(program.run_config, Some(RunConfig { priority: Some(5), chain_call_actions: 0b1100 }));
    assert_eq!(
        names(&object, &object.reachable(program.function)),
        ["features", "outer", "read_first", "inner"]
    );

    let map = |name: &str| object.maps.iter().position(|m| m.name == name).unwrap();
    let flows = &object.maps[map("flows")];
    assert_eq!((flows.map_type, flows.key_size, flows.value_size, flows.max_entries), (1, 8, 8, 16));
    let btf = object.btf.as_ref().unwrap();
    assert_eq!(btf.name_of(flows.btf_key), "key");
    let rodata = &object.maps[map(".rodata")];
    assert_eq!(rodata.initial, Some(InitialData { bytes: vec![7, 0, 0, 0], frozen: true }));
    assert_eq!(
        object.maps[map(".data")].initial,
        Some(InitialData { bytes: vec![3, 0, 0, 0], frozen: false })
    );
    assert_eq!(object.maps[map(".bss")].initial, Some(InitialData { bytes: vec![], frozen: false }));
    assert_eq!(object.maps[map(".bss")].value_size, 4);
    assert_eq!(btf.size_of(rodata.btf_value), Some(4));

    let linkage = |name: &str| {
        let function = object.functions.iter().find(|f| f.name == name).unwrap();
        match btf.get(function.btf_type.unwrap()) {
            Some(crate::btf::Type::Func { linkage, .. }) => *linkage,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(linkage("outer"), crate::btf::Linkage::Global);
    assert_eq!(linkage("read_first"), crate::btf::Linkage::Static);
    let inner = object.functions.iter().find(|f| f.name == "inner").unwrap();
    let referents: Vec<_> = inner.references.iter().map(|r| r.to).collect();
    assert_eq!(referents, [Referent::Map(map("marks")), Referent::Value { map: map(".rodata"), offset: 0 }]);
    assert!(inner.btf_type.is_some());
    assert!(inner.lines.iter().any(|l| l.source.text.contains("bpf_map_lookup_elem(&marks, &zero)")));
}

#[test]
fn a_program_is_chosen_by_name_or_by_being_the_only_one() {
    let object = Object::parse(SEVERAL).unwrap();
    let error = |name| object.xdp_program(name).unwrap_err().to_string();
    assert!(error(None).starts_with("2 XDP programs: `first`, `second`"), "{}", error(None));
    assert_eq!(object.xdp_program(Some("second")).unwrap().section, "mine/own");
    assert!(error(Some("egress")).contains("no XDP program `egress`"));
    assert!(error(Some("on_cpu")).contains("cpumap or devmap"));
    let none = Object::parse(OTHER).unwrap().xdp_program(None).unwrap_err().to_string();
    assert!(none.starts_with("no XDP program; programs found: `egress` in `tc`"), "{none}");
}

#[test]
fn old_maps_are_read_without_btf() {
    let object = Object::parse(LEGACY).unwrap();
    assert!(object.btf.is_none());
    let counts = &object.maps[0];
    assert_eq!(
        (counts.name.as_str(), counts.map_type, counts.value_size, counts.max_entries),
        ("counts", 6, 8, 2)
    );
    assert_eq!(object.xdp_program(None).unwrap().name, "legacy");
}

#[test]
fn what_is_no_object_is_said_to_be_none() {
    let text = |bytes: &[u8]| Object::parse(bytes).unwrap_err().to_string();
    assert!(text(b"#!/bin/sh\n").starts_with("this is no ELF object"), "{}", text(b"#!/bin/sh\n"));
    assert!(text(b"").starts_with("this is no ELF object"));
    let mut other = FEATURES.to_vec();
    other[18] = 62;
    assert!(text(&other).contains("machine 62"), "{}", text(&other));
    other[5] = 2;
    assert!(text(&other).contains("big-endian"));
}

/// Where the header of the section called `name` is in the file.
fn header_of(bytes: &[u8], name: &str) -> usize {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let (headers, names) = (number(40), usize::from(u16::from_le_bytes([bytes[62], bytes[63]])));
    let strings = number(headers + names * 64 + 24);
    let is = |at: usize| {
        let start = strings + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        bytes[start..].starts_with(format!("{name}\0").as_bytes())
    };
    (headers..bytes.len()).step_by(64).find(|at| is(*at)).unwrap()
}

#[test]
fn zeros_take_no_memory_however_many_an_object_claims() {
    let mut bytes = FEATURES.to_vec();
    let size = header_of(&bytes, ".bss") + 32;
    bytes[size..size + 8].copy_from_slice(&0x1000_0048_u64.to_le_bytes());
    let object = Object::parse(&bytes).unwrap();
    let bss = object.maps.iter().find(|m| m.name == ".bss").unwrap();
    assert_eq!(bss.value_size, 0x1000_0048);
    assert_eq!(bss.initial, Some(InitialData { bytes: vec![], frozen: false }));
    bytes[size..size + 8].copy_from_slice(&0x1_0000_0048_u64.to_le_bytes());
    assert!(Object::parse(&bytes).unwrap_err().to_string().contains("`.bss` claims 4294967368 octets"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damage_is_an_error_or_an_object_never_a_panic(
        which in 0usize..4,
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = [FEATURES, SEVERAL, LEGACY, OTHER][which].to_vec();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(object) = Object::parse(&bytes)
            && let Ok(program) = object.xdp_program(None)
        {
            object.reachable(program.function);
        }
    }
}
