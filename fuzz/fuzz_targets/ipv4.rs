//! IPv4 headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_wire::{Octets, ipv4};

fuzz_target!(|packet: &[u8]| {
    let Some(header) = packet.at(0) else { return };
    if let Some(repr) = ipv4::Repr::parse(header) {
        let mut again = [0; ipv4::LEN];
        repr.emit(&mut again);
        assert_eq!(ipv4::Repr::parse(&again), Some(repr));
        assert!(ipv4::View(&again).checksum_is_right());
        ipv4::decrement_ttl(&mut again);
        assert!(repr.ttl == 0 || ipv4::View(&again).checksum_is_right());
    }
});
