//! Files of entries.

use proptest::prelude::*;
use xdpchain_compose::btf::{Btf, Composite, Kind, Member, Type};
use xdpchain_state::{Format, ImportOptions, Importer, MapCodec, StateError};

const MODULE: &[u8] = include_bytes!("../../compose/tests/fixtures/module.btf");
const SAMPLE: &[u8] = include_bytes!("../../compose/tests/fixtures/sample.btf");

const STRICT: ImportOptions = ImportOptions { defaults: false };
const DEFAULTS: ImportOptions = ImportOptions { defaults: true };

fn map(bytes: &[u8], map_type: u32, key: Option<&str>, value: &str) -> MapCodec {
    let btf = Btf::parse(bytes).unwrap();
    let half = |name: &str| {
        let id = btf.by_name(name, Kind::Struct);
        (id, btf.size_of(id.unwrap()).unwrap())
    };
    MapCodec::new(Some(&btf), map_type, key.map_or((None, 4), half), half(value)).unwrap()
}

fn sessions() -> MapCodec {
    map(MODULE, 1, Some("UplinkKey"), "UplinkSession")
}

type Entry = (Vec<u8>, Vec<u8>);

fn read(
    map: &MapCodec,
    format: Format,
    options: ImportOptions,
    text: &str,
) -> Result<Vec<Entry>, StateError> {
    Importer::new(map, text.as_bytes(), format, options)?.collect()
}

fn error(map: &MapCodec, format: Format, text: &str) -> String {
    read(map, format, STRICT, text).unwrap_err().to_string()
}

const HEADER: &str = "local,teid,customer,session,peer,inner4,inner6,inner6_len,flags";

#[test]
fn a_csv_of_sessions() {
    let map = sessions();
    let text = format!(
        "\u{feff}{HEADER}\n# two sessions of customer 7\n\
         192.0.2.1,0x10,7,0,198.51.100.1,10.0.0.1,::,0,0\n\
         \"192.0.2.1\", 17 ,7,1,198.51.100.1,0.0.0.0,2001:db8:1::,64,1\n"
    );
    let rows = read(&map, Format::Csv, STRICT, &text).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].0, [192, 0, 2, 1, 0, 0, 0, 16]);
    let expected =
        "customer=7,session=1,peer=198.51.100.1,inner4=0.0.0.0,inner6=2001:db8:1::,inner6_len=64,flags=1";
    assert_eq!(map.value.print(&rows[1].1).unwrap(), expected);
}

#[test]
fn columns_in_any_order_and_by_full_name() {
    let map = sessions();
    let text = "value.flags,inner6_len,inner6,inner4,value.peer,session,customer,key.teid,key.local\n\
                1,0,::,10.0.0.1,198.51.100.1,3,7,16,192.0.2.1\n";
    let rows = read(&map, Format::Csv, STRICT, text).unwrap();
    assert_eq!(map.key.print(&rows[0].0).unwrap(), "local=192.0.2.1,teid=16");
    assert_eq!(rows[0].1[33], 1);
}

#[test]
fn an_array_has_its_index_in_key_or_index() {
    let map = map(MODULE, 6, None, "SessionCounters");
    for name in ["key", "index"] {
        let text =
            format!("{name},uplink.packets,uplink.bytes,downlink.packets,downlink.bytes\n258,1,2,3,4\n");
        let rows = read(&map, Format::Csv, STRICT, &text).unwrap();
        assert_eq!(rows[0].0, [2, 1, 0, 0]);
        assert_eq!(rows[0].1[24], 4);
    }
    let text = "{\"index\": 258, \"uplink\": {\"packets\": 1, \"bytes\": 2}, \"downlink.packets\": 3, \"downlink.bytes\": 4}";
    let rows = read(&map, Format::JsonLines, STRICT, text).unwrap();
    assert_eq!(rows[0].0, [2, 1, 0, 0]);
    assert_eq!(rows[0].1[24], 4);
}

#[test]
fn json_lines_in_both_forms() {
    let map = sessions();
    let nested = r#"{"key": {"local": "192.0.2.1", "teid": 16}, "value": {"customer": 7, "session": 0,
        "peer": "198.51.100.1", "inner4": "10.0.0.1", "inner6": "::", "inner6_len": 0, "flags": 0}}"#
        .replace('\n', "");
    let flat = r#"{"local": "192.0.2.1", "teid": 16, "customer": 7, "session": 0, "peer": "198.51.100.1",
        "inner4": "10.0.0.1", "inner6": "::", "value.inner6_len": 0, "flags": "0x0"}"#
        .replace('\n', "");
    let rows = read(&map, Format::JsonLines, STRICT, &format!("{nested}\n\n{flat}\n")).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0], rows[1]);
    assert_eq!(
        map.entry(&rows[0].0, &rows[0].1).unwrap(),
        serde_json::from_str::<serde_json::Value>(&nested).unwrap()
    );
}

/// A GRE tunnel has a field called `key`, and its map a key that is a number.
#[test]
fn a_field_called_key_is_not_the_key() {
    let mut btf = Btf::parse(MODULE).unwrap();
    let be32 = btf.by_name("Be32", Kind::Struct).unwrap();
    let ipv4 = btf.by_name("Ipv4", Kind::Struct).unwrap();
    let member = |name: &str, ty, bit_offset| Member { name: name.into(), ty, bit_offset, bit_size: 0 };
    let members = vec![member("local", ipv4, 0), member("key", be32, 32)];
    let tunnel =
        btf.push(Type::Struct(Composite { name: "Tunnel".into(), size: 8, members, bitfields: false }));
    let u32_id = btf.by_name("u32", Kind::Int).unwrap();
    let map = MapCodec::new(Some(&btf), 1, (Some(u32_id), 4), (Some(tunnel), 8)).unwrap();
    assert_eq!(map.table().unwrap().header(), ["key", "local", "value.key"]);
    let expected = vec![(vec![5, 0, 0, 0], vec![192, 0, 2, 1, 0, 0, 0, 9])];
    let csv = "key,local,value.key\n5,192.0.2.1,9\n";
    assert_eq!(read(&map, Format::Csv, STRICT, csv).unwrap(), expected);
    let json = r#"{"key": 5, "local": "192.0.2.1", "value.key": 9}"#;
    assert_eq!(read(&map, Format::JsonLines, STRICT, json).unwrap(), expected);

    let pair = btf.by_name("UplinkKey", Kind::Struct);
    let map = MapCodec::new(Some(&btf), 1, (pair, 8), (Some(tunnel), 8)).unwrap();
    assert_eq!(map.table().unwrap().header(), ["key.local", "teid", "value.local", "key"]);
    let csv = "key.local,teid,value.local,key\n192.0.2.1,1,192.0.2.2,9\n";
    let expected = vec![(vec![192, 0, 2, 1, 0, 0, 0, 1], vec![192, 0, 2, 2, 0, 0, 0, 9])];
    assert_eq!(read(&map, Format::Csv, STRICT, csv).unwrap(), expected);
    let json = r#"{"key": {"local": "192.0.2.1", "teid": 1}, "value.local": "192.0.2.2", "value.key": 9}"#;
    assert_eq!(read(&map, Format::JsonLines, STRICT, json).unwrap(), expected);
    let error = error(&map, Format::Csv, "local,teid,value.local,key\n");
    assert_eq!(
        error,
        "line 1: `local` is a field of both key and value\nhelp: write `key.local` or `value.local`"
    );
}

#[test]
fn a_header_that_does_not_fit() {
    let map = sessions();
    let unknown = error(&map, Format::Csv, &format!("{HEADER},colour\n"));
    assert!(
        unknown.starts_with("line 1: unknown field `colour`\nhelp: the fields are `local`, `teid`,"),
        "{unknown}"
    );
    let typo = error(&map, Format::Csv, &HEADER.replace("teid", "tied"));
    assert!(typo.contains("help: did you mean `teid`? "), "{typo}");
    let missing = error(&map, Format::Csv, "local,teid,customer,session,peer,inner4\n");
    assert!(
        missing.starts_with("line 1: missing `inner6`, `inner6_len`, `flags`\nhelp: add the columns"),
        "{missing}"
    );
    let twice = error(&map, Format::Csv, &format!("{HEADER},key.teid\n"));
    assert!(twice.starts_with("line 1: `teid` is given more than once"), "{twice}");
}

#[test]
fn a_row_that_does_not_fit() {
    let map = sessions();
    let row = "192.0.2.1,16,7,0,198.51.100.1,10.0.0.1,::,0,0";
    let with = |from: &str, to: &str| {
        error(&map, Format::Csv, &format!("{HEADER}\n{row}\n{}\n", row.replacen(from, to, 1)))
    };
    assert!(
        with(",16,", ",4294967296,")
            .starts_with("line 3: `teid`: expected an integer from 0 to 4294967295, found `4294967296`")
    );
    assert!(with(",16,", ",,").starts_with(
        "line 3: `teid`: expected an integer from 0 to 4294967295, found an empty cell\nhelp: fill in"
    ));
    assert!(with(",16,", ",").starts_with("line 3: not CSV: 8 cells in the row, 9 in the header"));
    assert!(with("198.51.100.1", "gnb").starts_with("line 3: `peer`: expected an IPv4 address, found `gnb`"));

    let json = "{\"key\": {\"local\": \"192.0.2.1\"}, \"value\": {}}";
    let error = |text: &str| error(&map, Format::JsonLines, text);
    assert!(error(json).starts_with("line 1: missing `key.teid`\nhelp: "));
    assert!(error("\n{\"key\": {\n").starts_with("line 2: not JSON: "));
    assert!(error("{\"key\": 1}").starts_with("line 1: missing `value`"));
    assert!(error("{\"colour\": 1}").starts_with("line 1: unknown field `colour`"));
    assert!(error("{\"key\": {}, \"teid\": 1, \"key.teid\": 2}").contains("is given more than once"));
}

#[test]
fn what_is_missing_is_zero_when_asked_for() {
    let map = sessions();
    let text = "local,teid,customer,inner6_len\n192.0.2.1,16,7,\n";
    let rows = read(&map, Format::Csv, DEFAULTS, text).unwrap();
    assert_eq!(rows[0].1[..4], [7, 0, 0, 0]);
    assert_eq!(rows[0].1[4..], [0; 36]);
    let json = r#"{"local": "192.0.2.1", "teid": 16, "customer": 7}"#;
    assert_eq!(read(&map, Format::JsonLines, DEFAULTS, json).unwrap(), rows);
    // A file without any key would be one entry.
    assert!(read(&map, Format::Csv, DEFAULTS, "customer\n7\n").is_err());
    assert!(read(&map, Format::JsonLines, DEFAULTS, r#"{"customer": 7}"#).is_err());
}

#[test]
fn one_member_of_a_union_is_a_column() {
    let map = map(SAMPLE, 1, Some("key"), "value");
    let header = map.table().unwrap().header();
    assert!(
        header.contains(&"either.number".to_owned()) && header.contains(&"at.1.y".to_owned()),
        "{header:?}"
    );
    let cells = map.table().unwrap().cells(&[1; 12], &[0; 56]).unwrap();
    let text = |header: &[String], cells: &[String]| {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(header).unwrap();
        writer.write_record(cells).unwrap();
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    };
    let rows = read(&map, Format::Csv, STRICT, &text(&header, &cells)).unwrap();
    assert_eq!(rows, [(vec![1; 12], vec![0; 56])]);
    let (mut other, mut both) = (header.clone(), header.clone());
    let at = header.iter().position(|name| name == "either.number").unwrap();
    other[at] = "either.octets".to_owned();
    let mut octets = cells.clone();
    octets[at] = "0x01020304".to_owned();
    let rows = read(&map, Format::Csv, STRICT, &text(&other, &octets)).unwrap();
    assert_eq!(rows[0].1[16..20], [1, 2, 3, 4]);
    both.push("either.octets".to_owned());
    octets.push(String::new());
    assert!(matches!(
        read(&map, Format::Csv, STRICT, &text(&both, &octets)),
        Err(StateError::Row { line: 1, .. })
    ));
}

#[test]
fn many_rows_are_filled_in_batches() {
    use std::fmt::Write as _;
    let map = sessions();
    let mut text = format!("{HEADER}\n");
    for i in 0..20_000u32 {
        let _ = writeln!(text, "192.0.2.1,{i},{},{i},198.51.100.1,10.0.{}.{},::,0,0", i % 3, i >> 8, i & 255);
    }
    text.push_str("192.0.2.1,bad,0,0,198.51.100.1,10.0.0.0,::,0,0\n");
    let mut rows = Importer::new(&map, text.as_bytes(), Format::Csv, STRICT).unwrap();
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        assert_eq!(rows.fill(&mut keys, &mut values, 4096), Ok(4096));
    }
    let error = rows.fill(&mut keys, &mut values, 4096).unwrap_err();
    assert!(matches!(error, StateError::Row { line: 20_002, .. }), "{error:?}");
    assert_eq!((keys.len(), values.len()), (20_000 * 8, 20_000 * 40));
    for (i, (key, value)) in (0u32..).zip(keys.chunks(8).zip(values.chunks(40))) {
        assert_eq!(key[4..], i.to_be_bytes());
        assert_eq!(value[4..8], i.to_le_bytes());
    }
    assert_eq!(rows.fill(&mut keys, &mut values, 4096), Ok(0));
}

proptest! {
    #[test]
    fn what_is_exported_is_imported(keys in prop::collection::vec(any::<[u8; 12]>(), 1..8), seed in any::<[u8; 56]>()) {
        let map = map(SAMPLE, 1, Some("key"), "value");
        let table = map.table().unwrap();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(table.header()).unwrap();
        let mut lines = String::new();
        let mut entries = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let mut value: Vec<u8> = seed.iter().map(|b| b.wrapping_mul(i as u8 + 1)).collect();
            // Padding of the type: octet 43, and `reserved`.
            value[43] = 0;
            value[52..].fill(0);
            writer.write_record(table.cells(key, &value).unwrap()).unwrap();
            lines.push_str(&format!("{}\n", map.entry(key, &value).unwrap()));
            entries.push((key.to_vec(), value));
        }
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        prop_assert_eq!(&read(&map, Format::Csv, STRICT, &text).unwrap(), &entries, "{}", text);
        prop_assert_eq!(&read(&map, Format::JsonLines, STRICT, &lines).unwrap(), &entries, "{}", lines);
    }

    #[test]
    fn any_file_is_rows_or_an_error(text in "[ -~\n]{0,200}", json in any::<bool>(), options in any::<bool>()) {
        let map = sessions();
        let format = if json { Format::JsonLines } else { Format::Csv };
        let _ = read(&map, format, ImportOptions { defaults: options }, &text);
    }
}
