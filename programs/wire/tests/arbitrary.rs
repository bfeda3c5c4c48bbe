//! Parsers on whatever octets come: they never panic, and what they say lies within the packet.

use proptest::prelude::*;
use xdpchain_wire::{
    Octets, ethernet,
    flow::{Flow, symmetric_hash},
    gre, gtpu, ipv4, ipv6,
};

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
    fn more_ipv6_extension_headers_than_are_walked_have_no_upper_layer(count in 0usize..12) {
        let mut packet = Vec::new();
        for left in (0..count).rev() {
            packet.extend([if left == 0 { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        let first = if count == 0 { 17 } else { 60 };
        let upper = ipv6::UpperLayer::parse(&packet[..], first, 0);
        prop_assert_eq!(upper.map(|upper| upper.protocol), (count <= ipv6::MAX_EXTENSIONS).then_some(17));
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
        let flow = Flow::parse(&packet[..], ethertype, 0);
        let hash = symmetric_hash(&packet[..], ethertype, 0);
        if flow.is_some() {
            prop_assert!(hash.is_some());
        }
    }

    #[test]
    fn both_directions_of_a_flow_have_the_same_hash(
        (a, b) in any::<([u8; 16], [u8; 16])>(),
        (p, q) in any::<([u8; 2], [u8; 2])>(),
        protocol in prop::sample::select(vec![1u8, 6, 17, 132]),
        four: bool,
    ) {
        let packet = |source: &[u8; 16], destination: &[u8; 16], ports: [[u8; 2]; 2]| {
            let mut packet = Vec::new();
            if four {
                packet.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
                packet.extend(&source[..4]);
                packet.extend(&destination[..4]);
            } else {
                packet.extend([0x60, 0, 0, 0, 0, 20, protocol, 64]);
                packet.extend(source);
                packet.extend(destination);
            }
            packet.extend(ports.concat());
            packet.resize(60, 0);
            packet
        };
        let ethertype = if four { 0x0800 } else { 0x86dd };
        let there = symmetric_hash(&packet(&a, &b, [p, q])[..], ethertype, 0);
        let back = symmetric_hash(&packet(&b, &a, [q, p])[..], ethertype, 0);
        prop_assert!(there.is_some());
        prop_assert_eq!(there, back);
    }
}

#[test]
fn flows_of_neighbouring_addresses_spread_evenly() {
    let mut shares = [0u32; 16];
    for host in 0..=255 {
        for port in 0..64 {
            let mut packet = [0u8; 40];
            packet[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0]);
            packet[12..20].copy_from_slice(&[10, 0, 0, host, 192, 0, 2, 1]);
            packet[20..24].copy_from_slice(&[0xc0, port, 0, 53]);
            shares[symmetric_hash(&packet[..], 0x0800, 0).unwrap() as usize % 16] += 1;
        }
    }
    // 1024 on average; a fair spread stays within five standard deviations.
    assert!(shares.iter().all(|share| (864..1184).contains(share)), "{shares:?}");
}
