//! IPv6 headers and the walk over extension headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_wire::{Octets, ipv6};

fuzz_target!(|packet: &[u8]| {
    let Some(header) = packet.at(0) else { return };
    if let Some(repr) = ipv6::Repr::parse(header) {
        let mut again = [0; ipv6::LEN];
        repr.emit(&mut again);
        assert_eq!(&again, header);
        if let Some(upper) = ipv6::UpperLayer::parse(packet, repr.next_header, ipv6::LEN) {
            assert!(upper.offset >= ipv6::LEN);
        }
    }
});
