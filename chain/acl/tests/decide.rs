//! The compiled rules against what rules mean, for rules and packets at random.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use xdpchain_abi::acl_tables::{CHECKS, CUTS};
use xdpchain_abi::{AclRule, Ipv4, Ipv6, acl_flags};
use xdpchain_acl::sample::{self, Kind, Numbers, packet_for};
use xdpchain_acl::{AclError, Compiled, Packet, decide, rule, rule_octets};

/// One of few addresses, close to each other, so that prefixes of all lengths match now and then.
fn address() -> impl Strategy<Value = Ipv6> {
    prop_oneof![
        (0u8..8).prop_map(|low| Ipv6::mapped(Ipv4 { octets: [10, 45, low & 1, low] })),
        (0u8..4, 0u8..8).prop_map(|(high, low)| {
            let number = 0x2001_0db8_u128 << 96 | u128::from(high) << 62 | u128::from(low);
            Ipv6 { octets: number.to_be_bytes() }
        }),
        // One of the former in its lower half, without being IPv4-mapped.
        (0u8..8, 94..97u32).prop_map(|(low, bit)| {
            let number = u128::from_be_bytes(Ipv6::mapped(Ipv4 { octets: [10, 45, low & 1, low] }).octets);
            Ipv6 { octets: (number ^ 1 << (128 - bit)).to_be_bytes() }
        }),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![0, 6, 7, 8, 53, 443, 40_000, 65_535])
}

fn ports() -> impl Strategy<Value = [u16; 2]> {
    (port(), port()).prop_map(|(a, b)| [a.min(b), a.max(b)])
}

prop_compose! {
    fn a_rule()(
        src in address(), dst in address(),
        (src_len, dst_len) in (0u8..=128, prop::sample::select(vec![0u8, 0, 64, 65, 95, 96, 97, 120, 126, 127, 128])),
        (src_port, dst_port) in (ports(), ports()),
        (customer, protocol, direction) in (7u32..9, prop::sample::select(vec![6u8, 17]), 0u8..3),
        (flags, action) in (0u32..32, 0u8..2),
    ) -> AclRule {
        AclRule {
            src, dst, customer, src_port, dst_port, src_len, dst_len, protocol, action, direction,
            flags: flags | acl_flags::ENABLED, ..AclRule::default()
        }
    }
}

prop_compose! {
    fn a_packet()(
        source in address(), destination in address(), customer in 6u32..9, direction in 0u8..3,
        protocol in prop::sample::select(vec![1u8, 6, 17]), ipv4 in prop::bool::ANY,
        ports in prop::option::of((port(), port())),
    ) -> Packet {
        // IPv6 packets may have IPv4-mapped addresses, IPv4 ones have no others.
        let mapped = |address: Ipv6| address.octets.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        let ipv4 = ipv4 && mapped(source) && mapped(destination);
        Packet { source, destination, customer, direction, protocol, ipv4, ports: ports.map(|(a, b)| [a, b]) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn the_first_rule_that_matches_decides(
        rules in prop::collection::vec(a_rule(), 0..130),
        packets in prop::collection::vec(a_packet(), 100),
    ) {
        let rules: Vec<_> = (0..).step_by(5).zip(rules).collect();
        // Dozens of rules that all overlap may be refused, but only for that.
        let compiled = match Compiled::new(&rules) {
            Ok(compiled) => compiled,
            Err(AclError::Complex { .. } | AclError::Large { .. }) if rules.len() > 50 => return Ok(()),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        for packet in packets {
            let walk = compiled.walk(&packet.key());
            prop_assert_eq!(walk.rule, decide(&rules, &packet), "{:?} {:?}", packet, walk);
            prop_assert!(walk.visits <= compiled.visits());
        }
    }

    #[test]
    fn a_rule_that_is_alone_decides_as_it_reads(
        rule in a_rule(), packets in prop::collection::vec(a_packet(), 100),
        // Mostly open, so that addresses decide.
        flags in prop::sample::select(vec![acl_flags::ENABLED, acl_flags::ENABLED | acl_flags::PROTOCOL]),
    ) {
        let rules = [(9, AclRule { flags, ..rule })];
        let compiled = Compiled::new(&rules).unwrap();
        for packet in packets {
            prop_assert_eq!(compiled.walk(&packet.key()).rule, decide(&rules, &packet), "{:?}", packet);
        }
    }

    #[test]
    fn a_rule_is_the_same_as_octets(given in a_rule()) {
        prop_assert_eq!(rule(&rule_octets(&given)), Some(given));
    }
}

#[test]
fn large_sets_are_decided_as_they_read() {
    for (kind, count) in Kind::ALL.into_iter().flat_map(|kind| [(kind, 10), (kind, 300), (kind, 3000)]) {
        let rules = kind.rules(count);
        let compiled = Compiled::new(&rules).unwrap_or_else(|e| panic!("{} {count}: {e}", kind.name()));
        let mut numbers = Numbers(5);
        let mut decided = 0;
        for _ in 0..500 {
            let at = numbers.below(u64::from(count)) as usize;
            let packet = packet_for(&mut numbers, &rules[at].1);
            let expected = decide(&rules, &packet);
            decided += u32::from(expected.is_some());
            assert_eq!(compiled.walk(&packet.key()).rule, expected, "{} {count}: {packet:?}", kind.name());
        }
        assert!(decided > 250, "{} {count}: {decided} packets met a rule", kind.name());
    }
}

#[test]
fn a_rule_that_is_alone_is_checked_for_packets_with_its_addresses_only() {
    let ipv4 = |octets| Ipv6::mapped(Ipv4 { octets });
    let packet = |source, destination| Packet {
        source: ipv4(source),
        destination: ipv4(destination),
        customer: 0,
        direction: 0,
        protocol: 17,
        ipv4: true,
        ports: Some([7, 53]),
    };
    let rule = |src: Option<([u8; 4], u8)>, dst: Option<([u8; 4], u8)>| {
        let prefix = |prefix: Option<([u8; 4], u8)>| {
            prefix.map_or((Ipv6::default(), 0), |(octets, len)| (ipv4(octets), 96 + len))
        };
        let ((src, src_len), (dst, dst_len)) = (prefix(src), prefix(dst));
        AclRule { src, src_len, dst, dst_len, flags: acl_flags::ENABLED, ..AclRule::default() }
    };
    let (near, far) = (packet([10, 1, 2, 3], [192, 0, 2, 7]), packet([10, 9, 2, 3], [198, 51, 100, 7]));
    let (there, back) = (Some(([192, 0, 2, 0], 24)), Some(([10, 1, 0, 0], 16)));
    for (rule, checks) in [
        (rule(None, there), [1, 0]),
        (rule(back, None), [1, 0]),
        (rule(back, there), [1, 0]),
        (rule(back, Some(([198, 51, 100, 7], 32))), [0, 0]),
        (rule(None, None), [1, 1]),
    ] {
        let compiled = Compiled::new(&[(9, rule)]).unwrap();
        for (packet, checks) in [&near, &far].into_iter().zip(checks) {
            let walk = compiled.walk(&packet.key());
            assert_eq!((walk.rule, walk.checks), ((checks == 1).then_some(9), checks), "{rule:?} {packet:?}");
        }
    }
    // Two are told apart otherwise, neither guards the other.
    let two = Compiled::new(&[(9, rule(None, there)), (10, rule(back, None))]).unwrap();
    let (only_there, only_back) =
        (packet([10, 9, 2, 3], [192, 0, 2, 7]), packet([10, 1, 2, 3], [198, 51, 100, 7]));
    for (packet, by) in [(&near, Some(9)), (&only_there, Some(9)), (&only_back, Some(10)), (&far, None)] {
        assert_eq!(two.walk(&packet.key()).rule, by, "{packet:?}");
    }
}

#[test]
fn neighbouring_ports_are_told_apart() {
    // So many that a cut leaves two ports of each region, and one bit to tell them apart by.
    let source = |host: u32| Ipv6::mapped(Ipv4 { octets: [10, 0, 0, host as u8] });
    let rules: Vec<(u32, AclRule)> = (0..2047u16)
        .flat_map(|port| (0..8u32).map(move |host| (port, host)))
        .map(|(port, host)| {
            let flags = acl_flags::ENABLED | acl_flags::DST_PORT;
            let rule =
                AclRule { src: source(host), src_len: 128, dst_port: [port; 2], flags, ..AclRule::default() };
            (u32::from(port) * 8 + host, rule)
        })
        .collect();
    let compiled = Compiled::new(&rules).unwrap();
    let mut numbers = Numbers(5);
    for (key, rule) in &rules {
        let walk = compiled.walk(&packet_for(&mut numbers, rule).key());
        assert_eq!(walk.rule, Some(*key), "{rule:?}");
        assert!(walk.checks <= CHECKS);
    }
}

#[test]
fn of_each_customers_rules_a_sieve_leaves_few_to_be_checked() {
    for count in [10, 300, 3000] {
        let rules = Kind::Customers.rules(count);
        let compiled = Compiled::new(&rules).unwrap();
        let mut numbers = Numbers(7);
        let walks: Vec<_> = (0..2000)
            .map(|_| {
                let at = numbers.below(u64::from(count)) as usize;
                compiled.walk(&packet_for(&mut numbers, &rules[at].1).key())
            })
            .collect();
        assert!(walks.iter().all(|walk| walk.sieves == 1 && walk.cuts <= CUTS), "{count}");
        assert!(walks.iter().all(|walk| walk.checks <= CHECKS), "{count}");
        let checks: usize = walks.iter().map(|walk| walk.checks).sum();
        assert!(checks < 3000, "{count}: {checks} checks of 2000 packets");
    }
}

#[test]
fn what_cannot_be_told_apart_is_refused_and_never_decided_wrongly() {
    // Stripes of source ports across stripes of destination ports, each with a network of its own in between.
    let rules: Vec<_> = (0..4000u32)
        .map(|key| {
            let mut rule = sample::any(0);
            let (at, ports) = ((key / 4) as u16 * 64, [(key / 4) as u16 * 64, (key / 4) as u16 * 64 + 70]);
            rule.flags |= [acl_flags::SRC_PORT, acl_flags::DST_PORT, 0, 0][key as usize % 4];
            (rule.src_port, rule.dst_port) = (ports, ports);
            match key % 4 {
                2 => (rule.src.octets[..2].copy_from_slice(&at.to_be_bytes()), rule.src_len = 12).0,
                3 => (rule.dst.octets[..2].copy_from_slice(&at.to_be_bytes()), rule.dst_len = 12).0,
                _ => {}
            }
            (key, rule)
        })
        .collect();
    match Compiled::new(&rules) {
        Err(AclError::Complex { .. } | AclError::Large { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(compiled) => {
            let mut numbers = Numbers(9);
            for _ in 0..2000 {
                let at = numbers.below(4000) as usize;
                let packet = packet_for(&mut numbers, &rules[at].1);
                assert_eq!(compiled.walk(&packet.key()).rule, decide(&rules, &packet));
            }
        }
    }
}

#[test]
fn rules_that_mean_nothing_are_refused() {
    let refused = |change: fn(&mut AclRule)| {
        let mut rule = sample::any(0);
        change(&mut rule);
        Compiled::new(&[(3, rule)]).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(|rule| rule.src_len = 129).starts_with("rule `3`: `src_len` is 129\nhelp: "));
    assert!(refused(|rule| rule.action = 2).contains("`action` is 2"));
    assert!(refused(|rule| rule.flags = 0x81).contains("unknown bits 0x80"));
    assert!(refused(|rule| rule.direction = 3).contains("`direction` is 3"));
    let range = refused(|rule| (rule.flags, rule.dst_port) = (17, [443, 80]));
    assert!(range.contains("`dst_port` begins at 443 and ends before, at 80"), "{range}");
    let beyond = Compiled::new(&[(65_536, sample::any(0))]).map(|_| ()).unwrap_err();
    assert_eq!(beyond, AclError::Key { key: 65_536 });
    // One that is not in force may be anything.
    assert_eq!(Compiled::new(&[(0, AclRule { src_len: 200, ..AclRule::default() })]).unwrap().rules(), 0);
}
