//! Tables that fill maps: CSV and JSON lines of a map with fields of many kinds. A row is read or refused with its line, and
//! what was read is printed and read the same.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xdpchain_compose::btf::{Btf, Kind};
use xdpchain_state::{Format, ImportOptions, Importer, MapCodec, StateError};

static MAPS: LazyLock<Vec<MapCodec>> = LazyLock::new(|| {
    let sample =
        Btf::parse(include_bytes!("../../chain/compose/tests/fixtures/sample.btf")).expect("a fixture");
    let module =
        Btf::parse(include_bytes!("../../chain/compose/tests/fixtures/module.btf")).expect("a fixture");
    let map = |btf: &Btf, key: &str, value: &str| {
        let half = |name| {
            let id = btf.by_name(name, Kind::Struct).expect("the fixture has it");
            (Some(id), btf.size_of(id).expect("it has a size"))
        };
        MapCodec::new(Some(btf), 1, half(key), half(value)).expect("a map's types")
    };
    vec![
        map(&sample, "key", "value"),
        map(&module, "UplinkKey", "UplinkSession"),
        map(&module, "DownlinkKey", "DownlinkSession"),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = bytes.split_first() else { return };
    let map = &MAPS[usize::from(choice >> 2) % MAPS.len()];
    let format = if choice & 1 == 0 { Format::Csv } else { Format::JsonLines };
    let options = ImportOptions { defaults: choice & 2 != 0 };
    let rows = match Importer::new(map, text, format, options) {
        Ok(rows) => rows,
        Err(error) => return assert!(error.to_string().contains("help: "), "{error}"),
    };
    for row in rows {
        match row {
            Ok((key, value)) => {
                let entry = map.entry(&key, &value).expect("octets of the right number");
                // Padding that the row names is not printed, so octets may differ where meanings do not.
                let key = map.key.encode_json(&entry["key"]).expect("what is printed is read");
                let value = map.value.encode_json(&entry["value"]).expect("what is printed is read");
                assert_eq!(map.entry(&key, &value).as_ref(), Ok(&entry));
            }
            Err(error) => {
                assert!(matches!(error, StateError::Row { .. } | StateError::Read { .. }), "{error}");
                return;
            }
        }
    }
});
