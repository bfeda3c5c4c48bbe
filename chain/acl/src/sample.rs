//! Rule sets of known kinds, and packets for them, for tests and benchmarks; the same ones each time.

use xdpchain_abi::{AclRule, Ipv4, Ipv6, acl_action, acl_flags, direction};

use crate::Packet;

/// A generator of numbers that are the same in each run (splitmix64).
#[derive(Clone, Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of `choices`.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What a set of rules is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operator's: a few rules for everybody, some fifty for each customer about its sources, the services that it
    /// may use, their ports, and the customer's default at the end.
    Customers,
    /// A firewall's, of one network: prefixes of all lengths with open fields on either side, port ranges, both families.
    Firewall,
    /// A list of single addresses and small networks that are denied.
    Addresses,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Customers, Self::Firewall, Self::Addresses];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Firewall => "firewall",
            Self::Addresses => "addresses",
        }
    }

    /// `count` rules of this kind.
    pub fn rules(self, count: u32) -> Vec<(u32, AclRule)> {
        let mut numbers = Numbers(u64::from(count));
        (0..count)
            .map(|key| {
                let rule = match self {
                    Self::Customers => customers_rule(&mut numbers, key, count),
                    Self::Firewall => firewall_rule(&mut numbers, key, count),
                    Self::Addresses => address_rule(&mut numbers),
                };
                (key, rule)
            })
            .collect()
    }
}

/// A rule in force that asks for nothing.
pub fn any(action: u8) -> AclRule {
    AclRule { flags: acl_flags::ENABLED, action, ..AclRule::default() }
}

fn v4(address: u32) -> Ipv6 {
    Ipv6::mapped(Ipv4 { octets: address.to_be_bytes() })
}

fn v6(network: u64, host: u64) -> Ipv6 {
    Ipv6 { octets: (u128::from(network) << 64 | u128::from(host)).to_be_bytes() }
}

/// Gives `rule` destination ports as rules have them: mostly one, sometimes a range.
fn ports(numbers: &mut Numbers, rule: &mut AclRule) {
    rule.flags |= acl_flags::PROTOCOL | acl_flags::DST_PORT;
    rule.protocol = numbers.of(&[6, 6, 17]);
    let port = numbers.of(&[22, 53, 80, 123, 443, 993, 1883, 3306, 5060, 8080, 8443, 9100]);
    rule.dst_port = match numbers.below(4) {
        0 => [1024, 65535],
        1 => [port, port + numbers.below(100) as u16],
        _ => [port, port],
    };
}

fn customers_rule(numbers: &mut Numbers, key: u32, count: u32) -> AclRule {
    let customers = (count / 50).max(1);
    if key < (count / 10).min(8) {
        // What nobody may do.
        let mut rule = any(acl_action::DENY);
        rule.flags |= acl_flags::PROTOCOL | acl_flags::DST_PORT;
        rule.protocol = 6;
        rule.dst_port =
            [[23, 23], [25, 25], [135, 139], [445, 445], [3389, 3389], [5900, 5910], [111, 111], [69, 69]]
                [key as usize];
        return rule;
    }
    let customer = 1 + (u64::from(key) * u64::from(customers) / u64::from(count)) as u32;
    let last = 1 + (u64::from(key + 1) * u64::from(customers) / u64::from(count)) as u32 != customer;
    let mut rule = any(if last {
        acl_action::DENY
    } else {
        numbers.of(&[acl_action::ALLOW, acl_action::ALLOW, acl_action::DENY])
    });
    rule.flags |= acl_flags::CUSTOMER;
    rule.customer = customer;
    if last {
        return rule;
    }
    // Each customer has sources in 10.0.0.0/8 or its own /48, and services in a /16 or /48.
    let cloud = (customer % 200) << 16;
    if numbers.below(4) == 0 {
        if numbers.below(2) == 0 {
            rule.src = v6(0x2001_0db8_0000_0000 | u64::from(customer) << 16 | numbers.below(64), 0);
            rule.src_len = numbers.of(&[48, 64, 64]);
        }
        rule.dst =
            v6(0x2001_0db8_8000_0000 | u64::from(customer) << 16 | numbers.below(16), numbers.below(256));
        rule.dst_len = numbers.of(&[64, 128, 128]);
    } else {
        if numbers.below(2) == 0 {
            rule.src = v4(0x0a00_0000 | (numbers.below(1 << 16) as u32) << 8);
            rule.src_len = numbers.of(&[104, 112, 116, 120]);
        }
        rule.dst = v4(0x0a00_0000 | cloud | numbers.below(1 << 16) as u32);
        rule.dst_len = numbers.of(&[120, 124, 128, 128, 128]);
    }
    if numbers.below(4) > 0 {
        ports(numbers, &mut rule);
    }
    if numbers.below(8) == 0 {
        rule.direction = numbers.of(&[direction::UPLINK, direction::DOWNLINK]);
    }
    rule
}

fn firewall_rule(numbers: &mut Numbers, key: u32, count: u32) -> AclRule {
    let mut rule = any(numbers.of(&[acl_action::ALLOW, acl_action::DENY]));
    // As many networks as there are rules to speak of them.
    let networks = u64::from(count).max(16);
    let prefix = |numbers: &mut Numbers, six: bool| {
        let network = Numbers(numbers.below(networks)).next();
        if six {
            let len = numbers.of(&[32, 48, 56, 64, 64, 128]);
            (v6(0x2001_0000_0000_0000 | network & 0x0fff_ffff_ffff, numbers.below(16)), len)
        } else {
            let len = if numbers.below(50) == 0 {
                104
            } else {
                numbers.of(&[112, 116, 120, 120, 120, 124, 128, 128, 128])
            };
            (v4(network as u32), len)
        }
    };
    let six = numbers.below(5) == 0;
    let open = if key + 4 >= count { 3 } else { numbers.below(10) };
    if open != 1 && open != 3 {
        (rule.src, rule.src_len) = prefix(numbers, six);
    }
    if open != 2 && open != 3 {
        (rule.dst, rule.dst_len) = prefix(numbers, six);
    }
    if open == 3 || numbers.below(3) > 0 {
        ports(numbers, &mut rule);
    }
    if numbers.below(10) == 0 {
        rule.flags |= acl_flags::PROTOCOL | acl_flags::SRC_PORT;
        rule.protocol = 17;
        rule.src_port = [numbers.of(&[53, 123, 500]), 1023];
    }
    rule
}

fn address_rule(numbers: &mut Numbers) -> AclRule {
    let mut rule = any(acl_action::DENY);
    if numbers.below(4) == 0 {
        rule.dst = v6(0x2600_0000_0000_0000 | numbers.next() >> 16, numbers.next());
        rule.dst_len = numbers.of(&[64, 128]);
    } else {
        rule.dst = v4(numbers.next() as u32);
        rule.dst_len = numbers.of(&[120, 128, 128, 128]);
    }
    rule
}

/// A packet to which `rule` applies, if any can be: where the rule is open, something.
pub fn packet_for(numbers: &mut Numbers, rule: &AclRule) -> Packet {
    let six = |address: Ipv6, len: u8| {
        len > 96 && !address.octets.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
            || (1..=96).contains(&len)
    };
    let four = !six(rule.src, rule.src_len)
        && !six(rule.dst, rule.dst_len)
        && (rule.src_len > 0 || rule.dst_len > 0 || numbers.below(4) > 0);
    let mut address = |prefix: Ipv6, len: u8| {
        let random = if four {
            u128::from_be_bytes(v4(0x0a00_0000 | numbers.next() as u32 & 0x00ff_ffff).octets)
        } else {
            0x2001_0db8 << 96 | u128::from(numbers.next())
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        Ipv6 { octets: (u128::from_be_bytes(prefix.octets) & mask | random & !mask).to_be_bytes() }
    };
    let (source, destination) = (address(rule.src, rule.src_len), address(rule.dst, rule.dst_len));
    let asks = |flag| rule.flags & flag != 0;
    let protocol = if asks(acl_flags::PROTOCOL) { rule.protocol } else { numbers.of(&[6, 17]) };
    let mut port = |flag, range: [u16; 2]| match asks(flag) {
        true => range[0] + numbers.below(u64::from(range[1] - range[0]) + 1) as u16,
        false => {
            let high = 1024 + numbers.below(60_000) as u16;
            numbers.of(&[80, 443, high])
        }
    };
    let ports = [port(acl_flags::SRC_PORT, rule.src_port), port(acl_flags::DST_PORT, rule.dst_port)];
    Packet {
        source,
        destination,
        customer: if asks(acl_flags::CUSTOMER) { rule.customer } else { 1 + numbers.below(1000) as u32 },
        direction: if rule.direction != 0 {
            rule.direction
        } else {
            numbers.of(&[direction::UPLINK, direction::DOWNLINK])
        },
        protocol,
        ipv4: four,
        ports: matches!(protocol, 6 | 17 | 132).then_some(ports),
    }
}

/// A frame of which rules see `packet`: with the ports, if there are any, and nothing behind. Addresses must be of its family.
pub fn frame(packet: &Packet) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let payload: u8 = if packet.ports.is_some() { 8 } else { 0 };
    if packet.ipv4 {
        frame.extend([0x08, 0x00, 0x45, 0, 0, 20 + payload, 0, 0, 0, 0, 64, packet.protocol, 0, 0]);
        frame.extend(&packet.source.octets[12..]);
        frame.extend(&packet.destination.octets[12..]);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, payload, packet.protocol, 64]);
        frame.extend(packet.source.octets);
        frame.extend(packet.destination.octets);
    }
    if let Some(ports) = packet.ports {
        frame.extend(ports.into_iter().flat_map(u16::to_be_bytes));
        frame.extend([0; 4]);
    }
    frame
}
