//! State files. The first octet says what the rest is: a file as it lies there, or the records of one, packed as a writer
//! packs them, so that what is behind zstd and the digest is reached too. Whatever it holds, it is read or refused, and
//! what is read can be decoded.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xdpchain_state::{Contents, Record, Refit, StateReader, StateWriter, Target};

/// Octets of entries that are looked at.
const MOST: usize = 1 << 20;

/// What every file begins with.
static PREAMBLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let empty = StateWriter::new(Vec::new(), &Contents::default(), &[]).and_then(StateWriter::finish);
    empty.expect("memory can be written")[..28].to_vec()
});

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    if kind & 1 == 0 {
        read(rest);
    } else {
        // The frame that says what it is, and the records; what has no digest is refused at its end, not before.
        let mut file = PREAMBLE.clone();
        file.extend(zstd::encode_all(rest, 1).expect("memory can be written"));
        read(&file);
    }
});

fn read(file: &[u8]) {
    let Ok(mut reader) = StateReader::new(file) else { return };
    let maps = reader.contents().maps.clone();
    let mut known = Vec::new();
    for map in &maps {
        let Ok(types) = reader.types(map) else { return };
        let (key, value) = map.halves(types.as_deref());
        let cpus = map.cpus.map(|_| 2);
        let target = Target { map_type: map.map_type, key, value, cpus };
        known.push((reader.codec(map).ok(), Refit::new(&reader, map, &target, &[]).ok()));
    }
    let mut octets = 0;
    while let Ok(Some(record)) = reader.next() {
        let Record::Rows { map, keys, values } = record else { continue };
        octets += keys.len() + values.len();
        if octets > MOST {
            return;
        }
        let (codec, refit) = &known[map];
        let (key_size, value_len) = (maps[map].key_size as usize, maps[map].value_len());
        if let Some(codec) = codec {
            for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(value_len)) {
                let _ = codec.entry(key, value);
            }
        }
        if let Some(refit) = refit {
            let (mut keys_out, mut values_out) = (Vec::new(), Vec::new());
            let _ = refit.entries((keys, values), &mut keys_out, &mut values_out);
        }
    }
}
