//! State files, written and read, cut short and altered; and entries made to fit another map.

use std::io::Write as _;

use proptest::prelude::*;
use xdpchain_compose::btf::{Btf, Composite, Kind, Member, Type, TypeId};
use xdpchain_state::{
    Contents, Half, LeftOut, Record, Refit, Refused, SavedMap, StateError, StateReader, StateWriter, Target,
};

const MODULE: &[u8] = include_bytes!("../../compose/tests/fixtures/module.btf");

/// A map and what it holds.
type Filled = (SavedMap, Vec<u8>, Vec<u8>, bool);

fn saved(name: &str, map_type: u32, sizes: (u32, u32), cpus: Option<u32>) -> SavedMap {
    SavedMap {
        module: "m".into(),
        map: name.into(),
        map_type,
        key_size: sizes.0,
        value_size: sizes.1,
        max_entries: 1 << 20,
        cpus,
        ..SavedMap::default()
    }
}

fn write(maps: &[Filled], types: &[Vec<u8>]) -> Vec<u8> {
    let contents = Contents {
        program: "xdpchain 0".into(),
        kernel: "6.18.0".into(),
        time: 1_700_000_000,
        maps: maps.iter().map(|map| map.0.clone()).collect(),
        left_out: vec![LeftOut { map: "m/events".into(), reason: "messages".into() }],
    };
    let mut writer = StateWriter::new(Vec::new(), &contents, types).unwrap();
    for (_, keys, values, instant) in maps {
        writer.rows(keys, values).unwrap();
        writer.end(*instant).unwrap();
    }
    writer.finish().unwrap()
}

/// The keys and values of a map, and whether they are of one instant.
type Held = (Vec<u8>, Vec<u8>, bool);

/// What each map has, put together.
fn read(file: &[u8]) -> Result<Vec<Held>, StateError> {
    let mut reader = StateReader::new(file)?;
    let mut found = Vec::new();
    let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
    while let Some(record) = reader.next()? {
        match record {
            Record::Rows { map, keys, values } => {
                assert_eq!(map, found.len());
                all_keys.extend_from_slice(keys);
                all_values.extend_from_slice(values);
            }
            Record::End { map, instant, .. } => {
                assert_eq!(map, found.len());
                found.push((std::mem::take(&mut all_keys), std::mem::take(&mut all_values), instant));
            }
        }
    }
    Ok(found)
}

fn filled() -> impl Strategy<Value = Filled> {
    let kinds = prop::sample::select(vec![1u32, 2, 5, 6, 9, 10, 11]);
    (kinds, 1..9u32, 1..50u32, 1..5u32, 0..40usize, any::<u8>(), any::<bool>()).prop_map(
        |(kind, key, value, cpus, count, seed, instant)| {
            let map = saved("m", kind, (key, value), [5, 6, 10].contains(&kind).then_some(cpus));
            let octets = |len: usize| (0..len).map(|at| seed.wrapping_mul(at as u8) ^ at as u8).collect();
            let (keys, values) = (octets(count * key as usize), octets(count * map.value_len()));
            (map, keys, values, instant)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(mut maps in prop::collection::vec(filled(), 0..5), with_types in any::<bool>()) {
        let types = if with_types { vec![MODULE.to_vec()] } else { vec![] };
        for (number, (map, ..)) in maps.iter_mut().enumerate() {
            map.map = format!("map{number}");
            map.btf = with_types.then_some(0);
        }
        let types = if maps.is_empty() { vec![] } else { types };
        let file = write(&maps, &types);
        let found = read(&file).unwrap();
        prop_assert_eq!(found.len(), maps.len());
        for ((_, keys, values, instant), found) in maps.iter().zip(found) {
            prop_assert_eq!((keys, values, *instant), (&found.0, &found.1, found.2));
        }
    }

    #[test]
    fn an_altered_octet_is_noticed(at in any::<prop::sample::Index>(), by in 1..=255u8) {
        let mut file = write(&[some_rows()], &[MODULE.to_vec()]);
        let at = at.index(file.len());
        file[at] ^= by;
        prop_assert!(read(&file).is_err(), "octet {at}");
    }
}

fn some_rows() -> Filled {
    let map = SavedMap { btf: Some(0), ..saved("flows", 1, (4, 8), None) };
    let keys: Vec<u8> = (0..100u32).flat_map(u32::to_le_bytes).collect();
    let values: Vec<u8> = (0..100u64).flat_map(|n| (n * n).to_le_bytes()).collect();
    (map, keys, values, true)
}

#[test]
fn a_file_that_is_cut_short_or_longer_is_refused() {
    let mut file = write(&[some_rows()], &[MODULE.to_vec()]);
    for len in 0..file.len() {
        let error = read(&file[..len]).expect_err("it is not whole");
        assert!(matches!(error, StateError::NotState | StateError::Damaged { .. }), "{len}: {error}");
        assert!(error.to_string().contains("\nhelp: "), "{error}");
    }
    file.push(0);
    assert!(matches!(read(&file), Err(StateError::Damaged { .. })));
    assert_eq!(read(b"{\"key\": 1}\n"), Err(StateError::NotState));
}

#[test]
fn another_version_is_told() {
    let mut file = write(&[], &[]);
    file[24] = 2;
    let error = read(&file).unwrap_err();
    assert_eq!(error, StateError::Version { found: 2, known: 1 });
    assert!(
        error.to_string().starts_with("a state file of version 2, where version 1 is known\nhelp: "),
        "{error}"
    );
}

/// Frames as any tool can make them: whatever they say, no more memory is taken than octets follow.
#[test]
fn what_a_file_says_of_its_sizes_is_not_believed() {
    let good = write(&[], &[]);
    let with_records = |records: &[u8]| {
        let mut file = good[..28].to_vec();
        file.extend(zstd::encode_all(records, 1).unwrap());
        read(&file).unwrap_err().to_string()
    };
    let record = |kind: &[u8; 4], len: u32, octets: &[u8]| [&kind[..], &len.to_le_bytes(), octets].concat();
    assert!(with_records(&record(b"HEAD", u32::MAX, b"")).contains("a record of 4294967295 octets"));
    assert!(with_records(&record(b"HEAD", 1 << 22, b"{}")).contains("ends too early"));
    let contents = |map: &SavedMap| {
        let contents = Contents { maps: vec![map.clone()], ..Contents::default() };
        let text = serde_json::to_vec(&contents).unwrap();
        record(b"HEAD", text.len() as u32, &text)
    };
    let huge = saved("flows", 5, (4, u32::MAX), Some(u32::MAX));
    assert!(with_records(&contents(&huge)).contains("has entries that are too large"));
    let ring = saved("events", 27, (4, 4), None);
    assert!(with_records(&contents(&ring)).contains("is of a type that is not saved"));
    let missing = SavedMap { btf: Some(0), ..saved("flows", 1, (4, 4), None) };
    assert!(with_records(&contents(&missing)).contains("ends too early"));

    // A hundred times as many entries as the map has room for, in a few octets of zstd.
    let small = SavedMap { max_entries: 10, ..saved("flows", 1, (4, 4), None) };
    let mut rows = contents(&small);
    rows.extend(record(b"ROWS", 4 + 8000, &[0; 4 + 8000]));
    assert!(with_records(&rows).contains("has more entries than it has room for"));
    let mut short = contents(&small);
    short.extend(record(b"ROWS", 11, &[0; 11]));
    assert!(with_records(&short).contains("of a wrong length"));
    let mut early = contents(&small);
    early.extend(record(b"DONE", 0, b""));
    assert!(with_records(&early).contains("not where it belongs"));
}

#[test]
fn a_writer_that_is_not_told_everything_says_so() {
    let contents = Contents { maps: vec![some_rows().0], ..Contents::default() };
    assert!(StateWriter::new(Vec::new(), &contents, &[]).is_err(), "its types are missing");
    let mut writer = StateWriter::new(Vec::new(), &contents, &[MODULE.to_vec()]).unwrap();
    assert!(writer.rows(&[0; 8], &[0; 8]).is_err(), "two keys and one value");
    assert!(writer.finish().is_err(), "the map is missing");
    let mut refusing = StateWriter::new(Refusing, &Contents::default(), &[]).map_err(|e| e.kind());
    assert!(refusing.as_mut().is_err_and(|kind| *kind == std::io::ErrorKind::StorageFull));
}

struct Refusing;

impl std::io::Write for Refusing {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Types with a struct of these numbers: (name, octets).
fn of_numbers(fields: &[(&str, u32)]) -> (Btf, TypeId, u32) {
    let mut btf = Btf::new();
    let mut at = 0;
    let mut members = Vec::new();
    for (name, size) in fields {
        let bits = (size * 8) as u8;
        let ty = btf.push(Type::Int { name: "n".into(), size: *size, encoding: 0, offset: 0, bits });
        members.push(Member { name: (*name).into(), ty, bit_offset: at * 8, bit_size: 0 });
        at += size;
    }
    let id = btf.push(Type::Struct(Composite { name: "count".into(), size: at, members, bitfields: false }));
    (btf, id, at)
}

/// Values as they are to be, or the key of the entry that is refused.
type Fitted = Result<Vec<u8>, (Vec<u8>, Refused)>;

/// A file with one map, a reader of it, and what its entries become in a map of other fields.
fn refitted(
    old: &[(&str, u32)],
    new: &[(&str, u32)],
    cpus: Option<(u32, usize)>,
    values: &[u8],
) -> (Refit, Fitted) {
    let (btf, id, size) = of_numbers(old);
    let map_type = if cpus.is_some() { 5 } else { 1 };
    let map = SavedMap { btf: Some(0), value_type: id, ..saved("c", map_type, (4, size), cpus.map(|c| c.0)) };
    let keys = vec![7; 4 * values.len() / map.value_len()];
    let file = write(&[(map.clone(), keys.clone(), values.to_vec(), true)], &[btf.to_bytes()]);
    let reader = StateReader::new(&file[..]).unwrap();
    let (btf, id, size) = of_numbers(new);
    let target = Target {
        map_type,
        key: Half { ty: None, size: 4 },
        value: Half { ty: Some((&btf, id)), size },
        cpus: cpus.map(|c| c.1),
    };
    let renames = [("old_name".to_owned(), "new_name".to_owned())];
    let renames = if old[0].0 == "old_name" { &renames[..] } else { &[] };
    let refit = Refit::new(&reader, &map, &target, renames).unwrap();
    let (mut new_keys, mut new_values) = (Vec::new(), Vec::new());
    let done = refit.entries((&keys, values), &mut new_keys, &mut new_values);
    (refit, done.map(|()| new_values))
}

#[test]
fn fields_go_by_name_and_losses_are_told() {
    let old = [("old_name", 4), ("gone", 4)];
    let (refit, values) = refitted(&old, &[("more", 8), ("new_name", 8)], None, &[1, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(values.unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(refit.losses().collect::<Vec<_>>(), ["gone"]);
    assert!(!refit.is_same());
    let (refit, values) = refitted(&[("n", 4)], &[("n", 4)], None, &[1, 2, 3, 4]);
    assert!(refit.is_same() && values.unwrap() == [1, 2, 3, 4]);
    let (_, values) = refitted(&[("n", 4)], &[("n", 1)], None, &[1, 2, 3, 4]);
    let (key, refused) = values.unwrap_err();
    assert_eq!((key, refused.to_string()), (vec![7; 4], "`n`: 67305985 does not fit into u8".to_owned()));
}

#[test]
fn counts_of_cpus_that_are_not_here_are_added() {
    let cpus = |counts: &[u64]| counts.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let field = [("n", 8)];
    let fit =
        |saved: u32, here, counts: &[u64]| refitted(&field, &field, Some((saved, here)), &cpus(counts)).1;
    assert_eq!(fit(4, 2, &[1, 2, 3, 4]).unwrap(), cpus(&[8, 2]));
    assert_eq!(fit(2, 4, &[1, 2]).unwrap(), cpus(&[1, 2, 0, 0]));
    assert_eq!(fit(2, 2, &[1, 2, 3, 4]).unwrap(), cpus(&[1, 2, 3, 4]));

    // An address is nothing to add up.
    let btf = Btf::parse(MODULE).unwrap();
    let key = btf.by_name("UplinkKey", Kind::Struct).unwrap();
    let map = SavedMap { btf: Some(0), value_type: key, ..saved("c", 5, (4, 8), Some(2)) };
    let values = cpus(&[1, 2]);
    let file = write(&[(map.clone(), vec![0; 4], values.clone(), true)], &[MODULE.to_vec()]);
    let reader = StateReader::new(&file[..]).unwrap();
    let value = Half { ty: Some((&btf, key)), size: 8 };
    let target = Target { map_type: 5, key: Half { ty: None, size: 4 }, value, cpus: Some(1) };
    let refit = Refit::new(&reader, &map, &target, &[]).unwrap();
    let mut out = (Vec::new(), Vec::new());
    let (_, refused) = refit.entries((&[0; 4], &values), &mut out.0, &mut out.1).unwrap_err();
    assert!(refused.to_string().starts_with("it has values for 2 CPUs, this host has 1"), "{refused}");
    assert!(out.1.is_empty(), "nothing of a refused entry is left");
}

#[test]
fn other_tools_can_read_the_records() {
    let file = write(&[some_rows()], &[MODULE.to_vec()]);
    let mut records = Vec::new();
    records.write_all(&zstd::decode_all(&file[..]).unwrap()).unwrap();
    assert_eq!(&records[..4], b"HEAD");
    let len = u32::from_le_bytes(records[4..8].try_into().unwrap()) as usize;
    let contents: serde_json::Value = serde_json::from_slice(&records[8..8 + len]).unwrap();
    assert_eq!(contents["maps"][0]["map"], "flows");
    assert_eq!(&records[8 + len..12 + len], b"BTF ");
}
