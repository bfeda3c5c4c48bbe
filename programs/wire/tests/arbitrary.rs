//! Parsers on whatever octets come: they never panic, and what they say lies within the packet.

use proptest::prelude::*;
use xdpchain_wire::{Octets, ethernet, flow::Flow, gre, gtpu, ipv4, ipv6};

fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn link(packet in packet()) {
        if let Some(link) = ethernet::Link::parse(&packet[..]) {
            prop_assert!(link.network <= packet.len());
        }
    }

    #[test]
    fn ipv4(octets: [u8; 20]) {
        // What is accepted and written again is the same but for the checksum and the bit that RFC 791 reserves.
        if let Some(repr) = ipv4::Repr::parse(&octets) {
            let mut again = [0; 20];
            repr.emit(&mut again);
            prop_assert_eq!(ipv4::Repr::parse(&again), Some(repr));
        }
    }

    #[test]
    fn ipv6_extension_headers(packet in packet(), next_header: u8, offset in 0usize..64) {
        if let Some(upper) = ipv6::UpperLayer::parse(&packet[..], next_header, offset) {
            prop_assert!(upper.offset >= offset);
            prop_assert!(upper.offset <= offset + ipv6::MAX_EXTENSIONS * 8 * 256);
        }
    }

    #[test]
    fn gre(packet in packet(), offset in 0usize..64) {
        if let Some(repr) = gre::Repr::parse(&packet[..], offset) {
            prop_assert!(offset + repr.header_len() <= packet.len());
        }
    }

    #[test]
    fn gtpu(mut packet in packet(), offset in 0usize..64, end in 0usize..256) {
        // Half of them get bits that announce extensions, else few would.
        if offset % 2 == 0 && let Some(flags) = packet.get_mut(offset) {
            *flags |= 0x34;
        }
        if let Some(octets) = packet[..].at(offset)
            && let Ok(payload) = gtpu::Payload::parse(&packet[..], gtpu::View(octets), offset, end)
        {
            prop_assert!(payload.offset <= end);
            prop_assert!(payload.offset >= offset + gtpu::LEN);
        }
    }

    #[test]
    fn flow(mut packet in packet(), four: bool) {
        if let Some(first) = packet.first_mut() {
            *first = if four { 0x40 | *first & 15 } else { 0x60 | *first & 15 };
        }
        let ethertype = if four { 0x0800 } else { 0x86dd };
        if let Some(flow) = Flow::parse(&packet[..], ethertype, 0) {
            let back = Flow {
                source: flow.destination,
                destination: flow.source,
                ports: flow.ports.map(|p| xdpchain_wire::flow::Ports { source: p.destination, destination: p.source }),
                ..flow
            };
            prop_assert_eq!(flow.symmetric_hash(), back.symmetric_hash());
        }
    }
}
