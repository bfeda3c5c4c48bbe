//! GTP-U headers and the walk over extension headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_wire::{Octets, gtpu};

fuzz_target!(|message: &[u8]| {
    let Some(header) = message.at(0) else { return };
    let end = gtpu::LEN + gtpu::View(header).len() as usize;
    if let Ok(payload) = gtpu::Payload::parse(message, gtpu::View(header), 0, end) {
        assert!((gtpu::LEN..=end).contains(&payload.offset));
    }
    if let Some(repr) = gtpu::Repr::parse(header) {
        let mut again = [0; gtpu::LEN];
        repr.emit(&mut again);
        assert_eq!(gtpu::Repr::parse(&again), Some(repr));
    }
});
