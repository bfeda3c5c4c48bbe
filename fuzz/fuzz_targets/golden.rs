//! Captures and fixtures.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_golden::{Fixture, packets};

fuzz_target!(|bytes: &[u8]| {
    let _ = packets(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(fixture) = Fixture::parse(text)
    {
        fixture.input().expect("what was read has a packet");
        fixture.output().expect("what was read has an output");
    }
});
