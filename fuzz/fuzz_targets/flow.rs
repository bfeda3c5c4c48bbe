//! The flow of an inner packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_wire::{
    ethernet::Link,
    flow::{Flow, symmetric_hash},
};

fuzz_target!(|frame: &[u8]| {
    if let Some(link) = Link::parse(frame)
        && let Some(flow) = Flow::parse(frame, link.ethertype, link.network)
    {
        assert!(symmetric_hash(frame, link.ethertype, link.network).is_some(), "{flow:?}");
    }
});
