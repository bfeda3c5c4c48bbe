//! The access list against a model, and what vectors cannot say about steering: where flows spread, and random numbers.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, Xdp},
    util::nr_cpus,
};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use xdpchain_abi::{AclRule, CONTEXT_MAP, acl_action, acl_flags, direction};
use xdpchain_acl::{
    Packet, decide,
    sample::{self, Kind},
};
use xdpchain_tests::{Netns, acl, cli::objects, veth};
use xdpchain_wire::{checksum::Sum, ipv4};

/// Verdicts, as the kernel numbers them.
const DROP: u32 = 1;
const PASS: u32 = 2;
/// The customer of every packet here.
const CUSTOMER: u32 = 7;

fn load(package: &str) -> Ebpf {
    let object = objects().join(format!("{package}.o"));
    let mut ebpf = EbpfLoader::new()
        .load_file(&object)
        .unwrap_or_else(|e| panic!("`{}`: {e}\nhelp: cargo xtask build", object.display()));
    // An uplink packet of the customer, on whichever CPU it comes.
    let mut context = [0u8; 32];
    context[..4].copy_from_slice(&CUSTOMER.to_ne_bytes());
    context[16] = direction::UPLINK;
    let mut map: PerCpuArray<_, [u8; 32]> = ebpf.map_mut(CONTEXT_MAP).unwrap().try_into().unwrap();
    map.set(0, PerCpuValues::try_from(vec![context; nr_cpus().unwrap()]).unwrap(), 0).unwrap();
    program(&mut ebpf, package).load().unwrap();
    ebpf
}

fn program<'a>(ebpf: &'a mut Ebpf, package: &str) -> &'a mut Xdp {
    ebpf.program_mut(&package.replace('-', "_")).unwrap().try_into().unwrap()
}

/// The program's verdict on `frame`, and the frame as it left it.
fn send(ebpf: &mut Ebpf, package: &str, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut output = vec![0; 4096];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut output), ..TestRunOptions::new() };
    let result = program(ebpf, package).test_run(options).unwrap();
    output.truncate(result.data_size_out as usize);
    (result.return_value, output)
}

fn hash<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &str) -> HashMap<MapData, K, V> {
    ebpf.take_map(name).unwrap().try_into().unwrap()
}

/// A generator of numbers that are the same in each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of few addresses, close to each other, so that prefixes of all lengths match now and then.
    fn address(&mut self) -> Ipv6Addr {
        let low = self.below(8);
        if self.below(2) == 0 {
            let [.., a, b] = (low as u16).to_be_bytes();
            Ipv4Addr::new(10, 45, a, b).to_ipv6_mapped()
        } else {
            Ipv6Addr::from(0x2001_0db8_u128 << 96 | (self.below(4) as u128) << 62 | low as u128)
        }
    }

    fn port(&mut self) -> u16 {
        [0, 7, 53, 443, 40_000, 65_535][self.below(6) as usize]
    }

    fn ports(&mut self) -> [u16; 2] {
        let (a, b) = (self.port(), self.port());
        [a.min(b), a.max(b)]
    }

    fn rule(&mut self) -> AclRule {
        let mut rule = AclRule {
            customer: CUSTOMER + self.below(3) as u32 / 2,
            src_port: self.ports(),
            dst_port: self.ports(),
            src_len: self.below(129) as u8,
            dst_len: [0, 96, 120, 126, 127, 128, 64, 65][self.below(8) as usize],
            protocol: [6, 17][self.below(2) as usize],
            action: self.below(2) as u8,
            flags: if self.below(8) == 0 { 0 } else { acl_flags::ENABLED | self.below(32) as u32 },
            direction: [0, 0, 0, direction::UPLINK, direction::DOWNLINK][self.below(5) as usize],
            ..AclRule::default()
        };
        rule.src.octets = self.address().octets();
        rule.dst.octets = self.address().octets();
        rule
    }
}

/// A packet as far as rules look.
#[derive(Clone, Copy, Debug)]
struct Subject {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    ports: [u16; 2],
}

impl Subject {
    /// UDP from address to address, of the source's family.
    fn random(numbers: &mut Numbers) -> Self {
        let source = numbers.address();
        let destination = loop {
            let address = numbers.address();
            if address.to_ipv4_mapped().is_some() == source.to_ipv4_mapped().is_some() {
                break address;
            }
        };
        Self { source, destination, ports: [numbers.port(), numbers.port()] }
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if let (Some(source), Some(destination)) =
            (self.source.to_ipv4_mapped(), self.destination.to_ipv4_mapped())
        {
            frame.extend([0x08, 0x00]);
            frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
            let sum = Sum::new().slice(&frame[14..34]).checksum();
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        } else {
            frame.extend([0x86, 0xdd]);
            frame.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend(self.source.octets());
            frame.extend(self.destination.octets());
        }
        for port in self.ports {
            frame.extend(port.to_be_bytes());
        }
        frame.extend([0, 8, 0, 0]);
        frame
    }

    /// What rules are compared with.
    fn packet(&self) -> Packet {
        let address = |address: Ipv6Addr| xdpchain_abi::Ipv6 { octets: address.octets() };
        Packet {
            source: address(self.source),
            destination: address(self.destination),
            customer: CUSTOMER,
            direction: direction::UPLINK,
            protocol: 17,
            ipv4: self.source.to_ipv4_mapped().is_some(),
            ports: Some(self.ports),
        }
    }
}

/// Puts rules in force, compiled, with this action when none of them matches.
fn set_rules(ebpf: &mut Ebpf, rules: &[(u32, AclRule)], default_action: u8) {
    let Some(Map::ArrayOfMaps(map)) = ebpf.map("rules_compiled") else { panic!("no compiled rules") };
    acl::install(map.fd().as_fd().try_clone_to_owned().unwrap(), rules).unwrap_or_else(|e| panic!("{e}"));
    let mut map: Array<_, [u8; 8]> = ebpf.map_mut("config").unwrap().try_into().unwrap();
    map.set(0, [default_action, 0, 0, 0, 0, 0, 0, 0], 0).unwrap();
}

/// Packets that `rule` decided on.
fn hits_of(ebpf: &Ebpf, rule: u32) -> u64 {
    let map: PerCpuArray<_, u64> = ebpf.map("hits").unwrap().try_into().unwrap();
    map.get(&rule, 0).unwrap().iter().sum()
}

#[test]
fn the_access_list_decides_as_its_rules_read() {
    let mut ebpf = load("acl");
    let mut numbers = Numbers(1);
    let mut expected_hits = vec![0; 1000];
    let mut by_rule = 0;
    for round in 0..24 {
        // Short lists, where much falls through, and long ones, where the first matches hide the rest.
        let rules: Vec<_> = (0..1 << (round % 7)).map(|i| (i * 3, numbers.rule())).collect();
        let default_action = (round % 2) as u8;
        set_rules(&mut ebpf, &rules, default_action);
        for _ in 0..200 {
            let subject = Subject::random(&mut numbers);
            let decides = decide(&rules, &subject.packet());
            let action = decides.map_or(default_action, |key| rules[key as usize / 3].1.action);
            if let Some(key) = decides {
                expected_hits[key as usize] += 1;
                by_rule += 1;
            }
            let expected = if action == acl_action::ALLOW { PASS } else { DROP };
            let (verdict, _) = send(&mut ebpf, "acl", &subject.frame());
            assert_eq!(verdict, expected, "{subject:?} is decided by {decides:?} of {rules:#?}");
        }
    }
    let hits: Vec<_> = (0..1000).map(|rule| hits_of(&ebpf, rule)).collect();
    assert_eq!(hits, expected_hits);
    // A test in which nothing matches, or everything, would show little.
    assert!((800..4200).contains(&by_rule), "{by_rule} of 4800 were decided by a rule");
}

#[test]
fn a_rule_that_is_alone_decides_as_it_reads() {
    let mut ebpf = load("acl");
    let mut numbers = Numbers(4);
    let (mut decided, mut hits) = ([0; 2], 0);
    for round in 0..150 {
        let rule = AclRule { flags: acl_flags::ENABLED, action: acl_action::DENY, ..numbers.rule() };
        // Of one address, of the other, and of both, whose lengths are about where IPv4 begins and where a half does.
        let mut len = |is_open: bool| match is_open {
            true => 0,
            false => [63, 64, 65, 95, 96, 97, 125, 126, 127, 128][numbers.below(10) as usize],
        };
        let rules = [(7, AclRule { src_len: len(round % 3 == 0), dst_len: len(round % 3 == 1), ..rule })];
        set_rules(&mut ebpf, &rules, acl_action::ALLOW);
        for at in 0..40 {
            let subject = Subject::random(&mut numbers);
            let mut frame = subject.frame();
            if at % 4 == 0 {
                // Behind a tag, which takes it another way.
                frame.splice(12..12, [0x81, 0, 0, 5]);
            }
            let is_denied = decide(&rules, &subject.packet()).is_some();
            decided[usize::from(subject.source.to_ipv4_mapped().is_some())] += u32::from(is_denied);
            hits += u64::from(is_denied);
            let (verdict, _) = send(&mut ebpf, "acl", &frame);
            assert_eq!(verdict, if is_denied { DROP } else { PASS }, "{subject:?}, {rules:#?}");
        }
    }
    assert_eq!(hits_of(&ebpf, 7), hits);
    assert!(decided.iter().all(|decided| (300..2000).contains(decided)), "{decided:?} of 6000");
}

#[test]
fn large_sets_of_rules_are_decided_by_the_first_that_matches() {
    let mut ebpf = load("acl");
    let context: [u8; 32] = {
        let map: PerCpuArray<_, [u8; 32]> = ebpf.map(CONTEXT_MAP).unwrap().try_into().unwrap();
        map.get(&0, 0).unwrap()[0]
    };
    for (kind, count) in [(Kind::Customers, 10_000), (Kind::Firewall, 3_000), (Kind::Addresses, 20_000)] {
        let rules = kind.rules(count);
        set_rules(&mut ebpf, &rules, acl_action::DENY);
        let mut numbers = sample::Numbers(7);
        for _ in 0..300 {
            let rule = &rules[numbers.below(u64::from(count)) as usize].1;
            let packet = sample::packet_for(&mut numbers, rule);
            let mut context = context;
            context[..4].copy_from_slice(&packet.customer.to_ne_bytes());
            context[16] = packet.direction;
            let mut map: PerCpuArray<_, [u8; 32]> = ebpf.map_mut(CONTEXT_MAP).unwrap().try_into().unwrap();
            map.set(0, PerCpuValues::try_from(vec![context; nr_cpus().unwrap()]).unwrap(), 0).unwrap();
            let decides = decide(&rules, &packet);
            let before = decides.map(|rule| hits_of(&ebpf, rule) + 1);
            let (verdict, _) = send(&mut ebpf, "acl", &sample::frame(&packet));
            assert_eq!(decides.map(|rule| hits_of(&ebpf, rule)), before, "{packet:?} by {decides:?}");
            let action = decides.map_or(acl_action::DENY, |key| rules[key as usize].1.action);
            assert_eq!(verdict, if action == acl_action::ALLOW { PASS } else { DROP }, "{packet:?}");
        }
    }
}

#[test]
fn a_packet_is_judged_by_one_set_of_rules() {
    // Sets that each drop the packet by a rule of their own; the first half of one and the second of the other would let it pass.
    let mut ebpf = load("acl");
    let mut numbers = Numbers(2);
    let subject = Subject::random(&mut numbers);
    let mut all = AclRule { flags: acl_flags::ENABLED, action: acl_action::DENY, ..AclRule::default() };
    let mut miss = all;
    (miss.dst_len, miss.dst.octets) = (128, [0xff; 16]);
    all.dst_len = 128;
    all.dst.octets = subject.destination.octets();
    let many = |own| (0..2000).map(|key| (key, if key == own { all } else { miss })).collect();
    // One rule alone is found another way.
    let sets: [Vec<(u32, AclRule)>; 3] = [many(0), many(1999), vec![(7, all)]];
    set_rules(&mut ebpf, &sets[0], acl_action::ALLOW);
    let Some(Map::ArrayOfMaps(map)) = ebpf.map("rules_compiled") else { panic!("no compiled rules") };
    let compiled = map.fd().as_fd().try_clone_to_owned().unwrap();
    let swapping = std::sync::atomic::AtomicBool::new(true);
    let (mut runs, frame) = (0u64, subject.frame());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..60 {
                acl::install(compiled.try_clone().unwrap(), &sets[round % 3]).unwrap();
            }
            swapping.store(false, std::sync::atomic::Ordering::Relaxed);
        });
        while swapping.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(send(&mut ebpf, "acl", &frame).0, DROP);
            runs += 1;
        }
    });
    let hits = [0, 1999, 7].map(|rule| hits_of(&ebpf, rule));
    assert_eq!(hits.iter().sum::<u64>(), runs);
    assert!(hits.iter().all(|hits| *hits > 0), "{hits:?}");
}

#[test]
fn rules_that_were_compiled_before_are_read_alike() {
    let mut ebpf = load("acl");
    let mut numbers = Numbers(3);
    for _ in 0..12 {
        let rules: Vec<_> = (0..60).map(|key| (key, numbers.rule())).collect();
        set_rules(&mut ebpf, &rules, acl_action::ALLOW);
        let Some(Map::ArrayOfMaps(map)) = ebpf.map("rules_compiled") else { panic!("no compiled rules") };
        let compiled = map.fd().as_fd().try_clone_to_owned().unwrap();
        assert!(acl::install_layout_2(compiled, &rules).unwrap() > 0, "a way to a sieve");
        for _ in 0..200 {
            let subject = Subject::random(&mut numbers);
            let decides = decide(&rules, &subject.packet());
            let allowed = decides.is_none_or(|key| rules[key as usize].1.action == acl_action::ALLOW);
            let (verdict, _) = send(&mut ebpf, "acl", &subject.frame());
            assert_eq!(verdict, if allowed { PASS } else { DROP }, "{subject:?}: {decides:?} of {rules:#?}");
        }
    }
}

/// A packet out of the GRE tunnel from `remote`.
fn tunnelled(remote: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 20 + 4 + 20 + 8, 0, 0, 0, 0, 64, 47, 0, 0]);
    frame.extend(remote);
    frame.extend([10, 20, 0, 1]);
    frame.extend([0, 0, 0x08, 0x00]);
    frame.extend([0x45, 0, 0, 20 + 8, 0, 0, 0, 0, 64, 17, 0, 0, 10, 200, 1, 2, 10, 45, 0, 9]);
    frame.extend([0, 7, 0x9c, 0x40, 0, 8, 0, 0]);
    frame
}

/// The customer whose packet `gre-decap` takes `frame` for; none when it does not touch it.
fn arrives(ebpf: &mut Ebpf, frame: &[u8]) -> Option<u32> {
    let mut map: PerCpuArray<_, [u8; 32]> = ebpf.map_mut(CONTEXT_MAP).unwrap().try_into().unwrap();
    map.set(0, PerCpuValues::try_from(vec![[0; 32]; nr_cpus().unwrap()]).unwrap(), 0).unwrap();
    let (verdict, output) = send(ebpf, "gre-decap", frame);
    let map: PerCpuArray<_, [u8; 32]> = ebpf.map(CONTEXT_MAP).unwrap().try_into().unwrap();
    let values = map.get(&0, 0).unwrap();
    let customer = values.iter().find(|context| context[16] == direction::DOWNLINK);
    let customer = customer.map(|context| u32::from_ne_bytes(context[..4].try_into().unwrap()));
    assert_eq!(output == frame, customer.is_none(), "{customer:?}, verdict {verdict}");
    customer
}

#[test]
fn packets_are_of_the_tunnel_that_the_map_has_or_had_just_before() {
    // More than are kept, so that some are where others were.
    const TUNNELS: u32 = 3000;
    // Longer than tunnels are kept.
    const WHILE: std::time::Duration = std::time::Duration::from_millis(120);
    let mut ebpf = load("gre-decap");
    let mut tunnels: HashMap<_, [u8; 8], [u8; 20]> = hash(&mut ebpf, "tunnels");
    let remote = |number: u32| [198, 18, (number >> 8) as u8, number as u8];
    let ends = |number: u32| {
        let [a, b, c, d] = remote(number);
        [a, b, c, d, 10, 20, 0, 1]
    };
    let tunnel = |customer: u32| {
        let mut tunnel = [0; 20];
        tunnel[..4].copy_from_slice(&customer.to_ne_bytes());
        tunnel
    };
    for number in 0..TUNNELS {
        tunnels.insert(ends(number), tunnel(1 + number), 0).unwrap();
    }
    for number in (0..TUNNELS).flat_map(|number| [number, number, number / 2]) {
        assert_eq!(arrives(&mut ebpf, &tunnelled(remote(number))), Some(1 + number), "{number}");
    }
    // On the CPU that keeps both.
    let mut here = CpuSet::new();
    here.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &here).expect("a thread may choose its CPU");
    for number in [5, 6] {
        assert_eq!(arrives(&mut ebpf, &tunnelled(remote(number))), Some(1 + number));
    }
    tunnels.insert(ends(5), tunnel(9000), 0).unwrap();
    tunnels.remove(&ends(6)).unwrap();
    std::thread::sleep(WHILE);
    for _ in 0..3 {
        assert_eq!(arrives(&mut ebpf, &tunnelled(remote(5))), Some(9000));
        assert_eq!(arrives(&mut ebpf, &tunnelled(remote(6))), None);
    }
}

/// Gives the customer the tunnels 1 to `remotes.len()`.
fn set_tunnels(ebpf: &mut Ebpf, local: [u8; 4], remotes: &[[u8; 4]], flags: u8) {
    let mut customer = [0; 20];
    let mut tunnels: HashMap<_, u32, [u8; 16]> = hash(ebpf, "tunnels");
    for (i, remote) in remotes.iter().enumerate() {
        let number = i as u32 + 1;
        customer[i * 4..][..4].copy_from_slice(&number.to_ne_bytes());
        let mut tunnel = [0; 16];
        tunnel[..4].copy_from_slice(&local);
        tunnel[4..8].copy_from_slice(remote);
        tunnel[13] = flags;
        tunnels.insert(number, tunnel, 0).unwrap();
    }
    customer[16..].copy_from_slice(&(remotes.len() as u32).to_ne_bytes());
    hash::<u32, [u8; 20]>(ebpf, "customers").insert(CUSTOMER, customer, 0).unwrap();
}

/// A namespace with one interface, a router on it, and forwarding on.
fn router() -> Netns {
    let ns = Netns::new("steer");
    veth((&ns, "out0"), (&ns, "out1"));
    ns.ip("addr add 203.0.113.1/24 dev out0");
    ns.ip("neigh replace 203.0.113.2 lladdr 02:00:00:00:02:02 dev out0 nud permanent");
    ns.ip("route add default via 203.0.113.2");
    ns.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    ns
}

#[test]
fn flows_spread_over_a_customers_tunnels_and_each_keeps_to_its_own() {
    let ns = router();
    let mut ebpf = load("gre-steer");
    let remotes = [[198, 51, 100, 1], [198, 51, 100, 2], [198, 51, 100, 3], [198, 51, 100, 4]];
    set_tunnels(&mut ebpf, [203, 0, 113, 1], &remotes, 0);
    let mut packets = BTreeMap::<[u8; 4], u32>::new();
    for flow in 0..400u16 {
        let source = Ipv4Addr::new(10, 45, 0, flow as u8).to_ipv6_mapped();
        let destination = Ipv4Addr::new(10, 200, 1, 2).to_ipv6_mapped();
        let there = Subject { source, destination, ports: [40_000 + flow, 443] };
        let back = Subject { source: destination, destination: source, ports: [443, 40_000 + flow] };
        // The reply would come in by the tunnel that it hashes to, so both directions must agree.
        let outer: Vec<[u8; 4]> = [there, there, back]
            .iter()
            .map(|subject| {
                let (_, frame) = ns.run(|| send(&mut ebpf, "gre-steer", &subject.frame()));
                frame[30..34].try_into().unwrap()
            })
            .collect();
        assert!(outer.iter().all(|remote| *remote == outer[0]), "{outer:?}");
        *packets.entry(outer[0]).or_default() += 1;
    }
    assert_eq!(packets.len(), remotes.len());
    assert!(packets.values().all(|count| (60..140).contains(count)), "{packets:?}");
}

#[test]
fn an_outer_packet_that_may_be_fragmented_has_an_identification() {
    let ns = router();
    let mut ebpf = load("gre-steer");
    const ALLOW_FRAGMENTS: u8 = xdpchain_abi::tunnel_flags::ALLOW_FRAGMENTS;
    set_tunnels(&mut ebpf, [203, 0, 113, 1], &[[198, 51, 100, 1]], ALLOW_FRAGMENTS);
    let subject = Subject {
        source: Ipv4Addr::new(10, 45, 0, 9).to_ipv6_mapped(),
        destination: Ipv4Addr::new(10, 200, 1, 2).to_ipv6_mapped(),
        ports: [1, 2],
    };
    let mut ids = BTreeSet::new();
    // The flow numbers its packets, and so are the outer ones told apart.
    for id in 0..64u16 {
        let mut frame = subject.frame();
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        let (_, frame) = ns.run(|| send(&mut ebpf, "gre-steer", &frame));
        let outer = ipv4::View(frame[14..34].try_into().unwrap());
        assert!(!outer.dont_fragment());
        assert_ne!(outer.id(), 0);
        assert!(outer.checksum_is_right());
        ids.insert(outer.id());
    }
    // All of them, but that there is no 0.
    assert!(ids.len() >= 63, "{} different ones of 64", ids.len());
}
