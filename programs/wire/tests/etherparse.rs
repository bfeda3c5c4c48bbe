//! What another implementation, etherparse, makes of what is written here, and the other way round.

use etherparse::{
    Icmpv4Header, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, SlicedPacket,
    TcpHeader, TransportSlice, UdpHeader,
};
use proptest::prelude::*;
use xdpchain_abi::{Ipv4, Ipv6};
use xdpchain_wire::{checksum::Sum, ethernet, flow::Flow, icmp, ipv4, ipv6, protocol, tcp, udp};

proptest! {
    #[test]
    fn ipv4_headers_are_the_same_octets(
        (dscp, ecn) in (0u8..64, 0u8..4),
        (total_len, id) in (20u16.., any::<u16>()),
        (dont_fragment, more_fragments) in any::<(bool, bool)>(),
        fragment_offset in 0u16..0x2000,
        (ttl, protocol) in any::<(u8, u8)>(),
        (source, destination) in any::<([u8; 4], [u8; 4])>(),
    ) {
        let ours = ipv4::Repr {
            tos: dscp << 2 | ecn,
            total_len, id, dont_fragment, more_fragments, fragment_offset, ttl, protocol,
            source: Ipv4 { octets: source },
            destination: Ipv4 { octets: destination },
        };
        let mut theirs = Ipv4Header {
            dscp: IpDscp::try_new(dscp).unwrap(),
            ecn: IpEcn::try_new(ecn).unwrap(),
            total_len,
            identification: id,
            dont_fragment,
            more_fragments,
            fragment_offset: IpFragOffset::try_new(fragment_offset).unwrap(),
            time_to_live: ttl,
            protocol: IpNumber(protocol),
            source,
            destination,
            ..Default::default()
        };
        theirs.header_checksum = theirs.calc_header_checksum();
        let mut octets = [0; 20];
        ours.emit(&mut octets);
        prop_assert_eq!(&octets[..], &theirs.to_bytes()[..]);
    }

    #[test]
    fn ipv6_headers_are_the_same_octets(
        (traffic_class, payload_length, next_header, hop_limit) in any::<(u8, u16, u8, u8)>(),
        flow_label in 0u32..0x10_0000,
        (source, destination) in any::<([u8; 16], [u8; 16])>(),
    ) {
        let theirs = Ipv6Header {
            traffic_class,
            flow_label: Ipv6FlowLabel::try_new(flow_label).unwrap(),
            payload_length,
            next_header: IpNumber(next_header),
            hop_limit,
            source,
            destination,
        };
        let ours = ipv6::Repr {
            traffic_class, flow_label, payload_len: payload_length, next_header, hop_limit,
            source: Ipv6 { octets: source },
            destination: Ipv6 { octets: destination },
        };
        let mut octets = [0; 40];
        ours.emit(&mut octets);
        prop_assert_eq!(&octets[..], &theirs.to_bytes()[..]);
    }

    #[test]
    fn udp_checksums_agree(
        (source_port, destination_port) in any::<(u16, u16)>(),
        (source, destination) in any::<([u8; 16], [u8; 16])>(),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let ip = Ipv6Header { source, destination, ..Default::default() };
        let theirs = UdpHeader::with_ipv6_checksum(source_port, destination_port, &ip, &payload).unwrap();
        let mut ours = udp::Repr {
            source_port, destination_port, len: (udp::LEN + payload.len()) as u16, checksum: 0,
        };
        let mut octets = [0; 8];
        ours.emit(&mut octets);
        ours.checksum = Sum::new()
            .pseudo_ipv6(Ipv6 { octets: source }, Ipv6 { octets: destination }, protocol::UDP, ours.len.into())
            .array(&octets)
            .slice(&payload)
            .checksum();
        // RFC 768: a computed 0 is sent as all ones.
        prop_assert_eq!(if ours.checksum == 0 { 0xffff } else { ours.checksum }, theirs.checksum);
    }

    #[test]
    fn tcp_headers_are_read_alike(octets: [u8; 20]) {
        let mut octets = octets;
        octets[12] = 0x50;
        let (theirs, _) = TcpHeader::from_slice(&octets).unwrap();
        let ours = tcp::Repr::parse(&octets).unwrap();
        prop_assert_eq!(ours.source_port, theirs.source_port);
        prop_assert_eq!(ours.destination_port, theirs.destination_port);
        prop_assert_eq!(ours.sequence, theirs.sequence_number);
        prop_assert_eq!(ours.acknowledgment, theirs.acknowledgment_number);
        prop_assert_eq!(ours.header_len as usize, theirs.header_len());
        prop_assert_eq!(ours.flags & tcp::flags::SYN != 0, theirs.syn);
        prop_assert_eq!(ours.flags & tcp::flags::ACK != 0, theirs.ack);
        prop_assert_eq!(ours.flags & tcp::flags::RST != 0, theirs.rst);
        prop_assert_eq!(ours.flags & tcp::flags::FIN != 0, theirs.fin);
        prop_assert_eq!(ours.window, theirs.window_size);
        prop_assert_eq!(ours.checksum, theirs.checksum);
        prop_assert_eq!(ours.urgent, theirs.urgent_pointer);
    }

    #[test]
    fn the_maximum_segment_size_is_found_where_it_is(options in prop::collection::vec(0u8..6, 0..40), mss: u16) {
        let mut header = vec![0; tcp::LEN];
        let mut place = None;
        for option in options {
            let octets: &[u8] = match option {
                0 => &[1],
                1 => &[3, 3, 7],
                2 => &[4, 2],
                3 => &[2, 4, mss.to_be_bytes()[0], mss.to_be_bytes()[1]],
                4 => &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
                _ => &[30, 2],
            };
            if header.len() + octets.len() > 60 {
                break;
            }
            if option == 3 && place.is_none() {
                place = Some(header.len() + 2);
            }
            header.extend(octets);
        }
        header.resize(header.len().next_multiple_of(4), 0);
        header[12] = (header.len() as u8 / 4) << 4;
        let read = etherparse::TcpHeaderSlice::from_slice(&header).expect("it is whole");
        let theirs = read.options_iterator().find_map(|option| match option {
            Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        });
        let mut at = tcp::LEN;
        let found = loop {
            match tcp::Step::over(&header[..], at, header.len()) {
                tcp::Step::Next(next) => at = next,
                tcp::Step::Mss(place) => break Some(place),
                tcp::Step::End => break None,
            }
        };
        prop_assert_eq!(found, place);
        // They stop at an option that they do not know.
        if let (Some(theirs), Some(place)) = (theirs, found) {
            prop_assert_eq!(theirs.to_be_bytes(), [header[place], header[place + 1]]);
        }
        prop_assert!(theirs.is_none() || found.is_some());
    }

    #[test]
    fn options_of_any_octets_end(header: [u8; 60], end in 0usize..80) {
        let mut at = tcp::LEN;
        while let tcp::Step::Next(next) = tcp::Step::over(&header[..], at, end) {
            prop_assert!(next > at && next <= end.max(at + 1));
            at = next;
        }
    }

    #[test]
    fn icmp_headers_are_the_same_octets(octets: [u8; 8]) {
        let mut octets = octets;
        // Types whose header etherparse keeps as it is.
        octets[0] = 200;
        let (theirs, _) = Icmpv4Header::from_slice(&octets).unwrap();
        let mut again = [0; 8];
        icmp::Repr::parse(&octets).emit(&mut again);
        prop_assert_eq!(&again[..], &theirs.to_bytes()[..]);
    }

    #[test]
    fn whole_frames_are_read_alike(
        (source, destination) in any::<([u8; 4], [u8; 4])>(),
        (source_port, destination_port) in any::<(u16, u16)>(),
        tags in 0usize..3,
        six: bool,
        payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut frame = Vec::new();
        let wide = |a: [u8; 4]| { let mut w = [0x20; 16]; w[12..].copy_from_slice(&a); w };
        macro_rules! finish {
            ($link:expr) => {
                if six {
                    $link.ipv6(wide(source), wide(destination), 9).udp(source_port, destination_port)
                        .write(&mut frame, &payload).unwrap()
                } else {
                    $link.ipv4(source, destination, 9).udp(source_port, destination_port)
                        .write(&mut frame, &payload).unwrap()
                }
            };
        }
        let vlan = |id: u16| etherparse::VlanId::try_new(id).unwrap();
        match tags {
            0 => finish!(builder),
            1 => finish!(builder.single_vlan(vlan(5))),
            _ => finish!(builder.double_vlan(vlan(5), vlan(6))),
        }
        let link = ethernet::Link::parse(&frame[..]).unwrap();
        prop_assert_eq!(link.network, 14 + 4 * tags);
        prop_assert_eq!(link.ethertype, if six { ethernet::ethertype::IPV6 } else { ethernet::ethertype::IPV4 });
        let flow = Flow::parse(&frame[..], link.ethertype, link.network).unwrap();
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Udp(theirs)) = sliced.transport else { panic!("etherparse sees no UDP") };
        let ports = flow.ports.unwrap();
        prop_assert_eq!((ports.source, ports.destination), (theirs.source_port(), theirs.destination_port()));
        prop_assert_eq!(flow.protocol, protocol::UDP);
        if six {
            prop_assert_eq!(flow.source.octets, wide(source));
        } else {
            prop_assert_eq!(flow.source, Ipv6::mapped(Ipv4 { octets: source }));
        }
    }
}
