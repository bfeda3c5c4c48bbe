//! Ethernet headers and tags.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_wire::{Octets, ethernet};

fuzz_target!(|frame: &[u8]| {
    if let Some(link) = ethernet::Link::parse(frame) {
        assert!(link.network <= frame.len());
        let header = ethernet::Repr::parse(frame.at(0).unwrap());
        let mut again = [0; ethernet::LEN];
        header.emit(&mut again);
        assert_eq!(&again[..], &frame[..ethernet::LEN]);
    }
});
