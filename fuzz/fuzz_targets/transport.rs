//! UDP, TCP and ICMP headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_wire::{Octets, icmp, tcp, udp};

fuzz_target!(|packet: &[u8]| {
    if let Some(header) = packet.at(0) {
        let mut again = [0; udp::LEN];
        udp::Repr::parse(header).emit(&mut again);
        assert_eq!(&again, header);
        icmp::Repr::parse(header).emit(&mut again);
        assert_eq!(&again, header);
    }
    if let Some(repr) = packet.at(0).and_then(tcp::Repr::parse) {
        let mut again = [0; tcp::LEN];
        repr.emit(&mut again);
        assert_eq!(tcp::Repr::parse(&again), Some(repr));
    }
});
