//! Write-then-read gives the same, for every header.

use proptest::{option, prelude::*};
use xdpchain_abi::{Be32, Ipv4, Ipv6};
use xdpchain_wire::{Octets, OctetsMut, ethernet, gre, gtpu, icmp, ipv4, ipv6, tcp, udp};

fn v4() -> impl Strategy<Value = Ipv4> {
    any::<[u8; 4]>().prop_map(|octets| Ipv4 { octets })
}

fn v6() -> impl Strategy<Value = Ipv6> {
    any::<[u8; 16]>().prop_map(|octets| Ipv6 { octets })
}

fn be32() -> impl Strategy<Value = Be32> {
    any::<u32>().prop_map(Be32::new)
}

prop_compose! {
    fn ipv4_header()(
        (tos, total_len, id) in any::<(u8, u16, u16)>(),
        (dont_fragment, more_fragments) in any::<(bool, bool)>(),
        fragment_offset in 0u16..0x2000,
        (ttl, protocol) in any::<(u8, u8)>(),
        source in v4(),
        destination in v4(),
    ) -> ipv4::Repr {
        ipv4::Repr {
            tos, total_len, id, dont_fragment, more_fragments, fragment_offset, ttl, protocol, source, destination,
        }
    }
}

proptest! {
    #[test]
    fn ethernet(destination: [u8; 6], source: [u8; 6], ethertype: u16, noise: [u8; 14]) {
        let repr = ethernet::Repr {
            destination: ethernet::Address(destination),
            source: ethernet::Address(source),
            ethertype,
        };
        let mut octets = noise;
        repr.emit(&mut octets);
        prop_assert_eq!(ethernet::Repr::parse(&octets), repr);
    }

    #[test]
    fn tag(priority in 0u8..8, drop_eligible: bool, vlan in 0u16..0x1000, ethertype: u16, noise: [u8; 4]) {
        let tag = ethernet::Tag { priority, drop_eligible, vlan, ethertype };
        let mut octets = noise;
        tag.emit(&mut octets);
        prop_assert_eq!(ethernet::Tag::parse(&octets), tag);
    }

    #[test]
    fn the_network_layer_is_found_under_up_to_two_tags(
        tags in prop::collection::vec((any::<bool>(), 0u16..0x1000), 0..4),
        payload: u16,
    ) {
        let mut frame = vec![0; 12];
        for (service, vlan) in &tags {
            let kind: u16 = if *service { 0x88a8 } else { 0x8100 };
            frame.extend(kind.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        // An address of the payload's own type would be one more tag.
        let payload = if matches!(payload, 0x8100 | 0x88a8) { 0x0800 } else { payload };
        frame.extend(payload.to_be_bytes());
        let link = ethernet::Link::parse(&frame[..]).unwrap();
        let seen = tags.len().min(2);
        prop_assert_eq!(link.network, 14 + 4 * seen);
        if tags.len() <= 2 {
            prop_assert_eq!(link.ethertype, payload);
        } else {
            prop_assert!(matches!(link.ethertype, 0x8100 | 0x88a8));
        }
    }

    #[test]
    fn ipv4(repr in ipv4_header(), noise: [u8; 20]) {
        let mut octets = noise;
        repr.emit(&mut octets);
        prop_assert_eq!(ipv4::Repr::parse(&octets), Some(repr));
        prop_assert!(ipv4::View(&octets).checksum_is_right());
    }

    #[test]
    fn one_hop_less_keeps_the_ipv4_checksum_right(repr in ipv4_header()) {
        prop_assume!(repr.ttl > 0);
        let mut octets = [0; 20];
        repr.emit(&mut octets);
        ipv4::decrement_ttl(&mut octets);
        prop_assert!(ipv4::View(&octets).checksum_is_right());
        prop_assert_eq!(ipv4::Repr::parse(&octets), Some(ipv4::Repr { ttl: repr.ttl - 1, ..repr }));
    }

    #[test]
    fn ipv6(
        (traffic_class, payload_len, next_header, hop_limit) in any::<(u8, u16, u8, u8)>(),
        flow_label in 0u32..0x10_0000,
        source in v6(),
        destination in v6(),
    ) {
        let repr = ipv6::Repr {
            traffic_class, flow_label, payload_len, next_header, hop_limit, source, destination,
        };
        let mut octets = [0xff; 40];
        repr.emit(&mut octets);
        prop_assert_eq!(ipv6::Repr::parse(&octets), Some(repr));
        if hop_limit > 0 {
            ipv6::decrement_hop_limit(&mut octets);
            prop_assert_eq!(ipv6::View(&octets).hop_limit(), hop_limit - 1);
        }
    }

    #[test]
    fn udp(source_port: u16, destination_port: u16, len: u16, checksum: u16) {
        let repr = udp::Repr { source_port, destination_port, len, checksum };
        let mut octets = [0xff; 8];
        repr.emit(&mut octets);
        prop_assert_eq!(udp::Repr::parse(&octets), repr);
    }

    #[test]
    fn tcp(
        (source_port, destination_port, sequence, acknowledgment) in any::<(u16, u16, u32, u32)>(),
        words in 5u8..16,
        (flags, window, checksum, urgent) in any::<(u8, u16, u16, u16)>(),
    ) {
        let repr = tcp::Repr {
            source_port, destination_port, sequence, acknowledgment, header_len: words * 4, flags, window, checksum,
            urgent,
        };
        let mut octets = [0xff; 20];
        repr.emit(&mut octets);
        prop_assert_eq!(tcp::Repr::parse(&octets), Some(repr));
    }

    #[test]
    fn icmp(message_type: u8, code: u8, checksum: u16, rest: [u8; 4]) {
        let repr = icmp::Repr { message_type, code, checksum, rest };
        let mut octets = [0xff; 8];
        repr.emit(&mut octets);
        prop_assert_eq!(icmp::Repr::parse(&octets), repr);
    }

    #[test]
    fn gre(
        protocol: u16,
        checksum in option::of(any::<u16>()),
        key in option::of(be32()),
        sequence in option::of(be32()),
        offset in 0usize..64,
    ) {
        let repr = gre::Repr { protocol, checksum, key, sequence };
        let mut octets = vec![0xff; offset + repr.header_len()];
        repr.emit(&mut octets[..], offset).unwrap();
        prop_assert_eq!(gre::Repr::parse(&octets[..], offset), Some(repr));
        let view = gre::View(octets[..].at(offset).unwrap());
        prop_assert_eq!(view.header_len(), repr.header_len());
        prop_assert!(!view.has_reserved());
        prop_assert_eq!(view.version(), 0);
        // One octet less and it is refused, both ways.
        octets.pop();
        prop_assert_eq!(gre::Repr::parse(&octets[..], offset), None);
        prop_assert_eq!(repr.emit(&mut octets[..], offset), None);
    }

    #[test]
    fn gtpu_mandatory_part(
        (extensions, sequence, npdu) in any::<(bool, bool, bool)>(),
        (message_type, len) in any::<(u8, u16)>(),
        teid in be32(),
    ) {
        let repr = gtpu::Repr { extensions, sequence, npdu, message_type, len, teid };
        let mut octets = [0xff; 8];
        repr.emit(&mut octets);
        prop_assert_eq!(gtpu::Repr::parse(&octets), Some(repr));
    }

    #[test]
    fn gtpu_optional_part(sequence: u16, npdu: u8, next_extension: u8) {
        let optional = gtpu::Optional { sequence, npdu, next_extension };
        let mut octets = [0xff; 4];
        optional.emit(&mut octets);
        prop_assert_eq!(gtpu::Optional::parse(&octets), optional);
    }

    #[test]
    fn gtpu_pdu_session(pdu_type in 0u8..16, qfi in 0u8..64, next_extension: u8) {
        let container = gtpu::PduSession { pdu_type, qfi, next_extension };
        let mut octets = [0xff; 4];
        container.emit(&mut octets);
        prop_assert_eq!(gtpu::PduSession::parse(&octets), Some(container));
    }

    #[test]
    fn gtpu_extensions_are_walked_to_the_payload(
        lens in prop::collection::vec(1u8..6, 0..11),
        kinds in prop::collection::vec(
            prop::sample::select(vec![0x20u8, 0x40, 0x85, 0xc0, 0x82, 0x01]), 11..12),
        container in 0usize..11,
        qfi in 0u8..64,
        offset in 0usize..80,
    ) {
        let mut message = vec![0xaa; offset + gtpu::LEN + gtpu::OPTIONAL_LEN];
        let kind = |i: usize| if i == lens.len() { 0 } else { kinds[i] };
        let mut expected_qfi = gtpu::Payload::NO_QFI;
        for (i, len) in lens.iter().enumerate() {
            let start = message.len();
            message.resize(start + *len as usize * 4, 0);
            message[start] = *len;
            let last = message.len() - 1;
            // The content of a four-octet header ends before the next type, so octet 2 is always the QFI's.
            message[start + 2] = if i == container { qfi | 0xc0 } else { 0 };
            message[last] = kind(i + 1);
            if kind(i) == 0x85 {
                expected_qfi = if i == container { qfi } else { 0 };
            }
        }
        let end = message.len();
        let header = gtpu::Repr {
            extensions: true, len: (end - offset - gtpu::LEN) as u16, message_type: 255, ..Default::default()
        };
        header.emit(message[..].at_mut(offset).unwrap());
        let optional = gtpu::Optional { next_extension: kind(0), ..Default::default() };
        optional.emit(message[..].at_mut(offset + gtpu::LEN).unwrap());

        let view = gtpu::View(message[..].at(offset).unwrap());
        let walk = |end| gtpu::Payload::parse(&message[..], view, offset, end);
        if lens.len() > gtpu::MAX_EXTENSIONS {
            prop_assert_eq!(walk(end), Err(gtpu::Error::BadExtension));
        } else {
            prop_assert_eq!(walk(end), Ok(gtpu::Payload { offset: end, qfi: expected_qfi }));
            let short = if lens.is_empty() { gtpu::Error::Length } else { gtpu::Error::BadExtension };
            prop_assert_eq!(walk(end - 1), Err(short));
        }
    }
}

#[test]
fn an_extension_that_must_be_understood_is_told_from_one_that_need_not_be() {
    let message = |kind: u8| [0x34, 255, 0, 8, 0, 0, 0, 1, 0, 0, 0, kind, 1, 0, 0, 0];
    let walk = |kind| {
        let message = message(kind);
        gtpu::Payload::parse(&message[..], gtpu::View(message[..].at(0).unwrap()), 0, 16)
    };
    assert_eq!(walk(0x7f), Ok(gtpu::Payload { offset: 16, qfi: gtpu::Payload::NO_QFI }));
    assert_eq!(walk(0xff), Err(gtpu::Error::NotSupported));
    assert_eq!(walk(0x81), Err(gtpu::Error::NotSupported));
}

proptest! {
    #[test]
    fn another_tos_changes_nothing_else(header in ipv4_header(), tos: u8) {
        let mut octets = [0; ipv4::LEN];
        header.emit(&mut octets);
        ipv4::set_tos(&mut octets, tos);
        prop_assert_eq!(ipv4::Repr::parse(&octets), Some(ipv4::Repr { tos, ..header }));
        // All octets zero have two checksums; a header with an address never is.
        prop_assert!(ipv4::View(&octets).checksum_is_right());
    }

    #[test]
    fn another_traffic_class_changes_nothing_else(noise: [u8; ipv6::LEN], class: u8) {
        let mut octets = noise;
        octets[0] = 0x60 | octets[0] & 0x0f;
        let before = ipv6::Repr::parse(&octets).expect("its version is 6");
        ipv6::set_traffic_class(&mut octets, class);
        prop_assert_eq!(ipv6::Repr::parse(&octets), Some(ipv6::Repr { traffic_class: class, ..before }));
    }
}
