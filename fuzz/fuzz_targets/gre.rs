//! GRE headers with their optional fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_wire::gre;

fuzz_target!(|packet: &[u8]| {
    if let Some(repr) = gre::Repr::parse(packet, 0) {
        let mut again = [0; gre::MAX_LEN];
        repr.emit(&mut again[..], 0).unwrap();
        assert_eq!(gre::Repr::parse(&again[..], 0), Some(repr));
    }
});
