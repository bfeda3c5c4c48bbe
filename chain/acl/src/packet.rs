//! A packet as rules see it, and what rules mean.

use xdpchain_abi::acl_tables::{fact, fixed, is_ipv4, word};
use xdpchain_abi::{AclRule, Ipv6, acl_flags, direction};

/// Length from which on a prefix of IPv4-mapped addresses is an IPv4 prefix.
pub(crate) const IPV4_LEN: u8 = 96;

/// A packet as far as rules look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source address; IPv4 is IPv4-mapped.
    pub source: Ipv6,
    /// Destination address; IPv4 is IPv4-mapped.
    pub destination: Ipv6,
    /// Customer; meaningful unless `direction` is 0.
    pub customer: u32,
    /// [`direction`] of the packet.
    pub direction: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Whether it is IPv4.
    pub ipv4: bool,
    /// Source and destination port, where there are any.
    pub ports: Option<[u16; 2]>,
}

/// The number of the first of `rules` (ascending by number) that is in force and matches.
pub fn decide(rules: &[(u32, AclRule)], packet: &Packet) -> Option<u32> {
    rules.iter().find(|(_, rule)| packet.matches(rule)).map(|(key, _)| *key)
}

impl Packet {
    /// Whether `rule` is in force and matches.
    pub fn matches(&self, rule: &AclRule) -> bool {
        let asks = |flag| rule.flags & flag != 0;
        let within = |port: usize, range: [u16; 2]| {
            self.ports.is_some_and(|ports| (range[0]..=range[1]).contains(&ports[port]))
        };
        asks(acl_flags::ENABLED)
            && self.in_prefix(self.source, rule.src, rule.src_len)
            && self.in_prefix(self.destination, rule.dst, rule.dst_len)
            && (!asks(acl_flags::CUSTOMER)
                || (self.direction != direction::NONE && self.customer == rule.customer))
            && (!asks(acl_flags::PROTOCOL) || self.protocol == rule.protocol)
            && (!asks(acl_flags::SRC_PORT) || within(0, rule.src_port))
            && (!asks(acl_flags::DST_PORT) || within(1, rule.dst_port))
            && (rule.direction == direction::NONE || self.direction == rule.direction)
    }

    /// An IPv4 prefix is for IPv4 packets, also when one of IPv6 has IPv4-mapped addresses.
    fn in_prefix(&self, address: Ipv6, prefix: Ipv6, len: u8) -> bool {
        let differ = u128::from_be_bytes(address.octets) ^ u128::from_be_bytes(prefix.octets);
        len == 0
            || (differ >> (128 - u32::from(len.min(128))) == 0
                && (self.ipv4 || !(len >= IPV4_LEN && is_ipv4(halves(prefix)))))
    }

    /// The key that the decision tree is walked by.
    pub fn key(&self) -> [u64; word::ROOM] {
        let mut key = [0; word::ROOM];
        [key[word::SRC], key[word::SRC_LOW]] = halves(self.source);
        [key[word::DST], key[word::DST_LOW]] = halves(self.destination);
        let mut facts = 0;
        if let Some([source, destination]) = self.ports {
            facts |= fact::PORTS;
            key[word::PORTS] = u64::from(source) << 16 | u64::from(destination);
        }
        if self.ipv4 {
            facts |= fact::IPV4;
        }
        if self.direction != direction::NONE {
            facts |= fact::CLAIMED;
        }
        key[word::FIXED] = fixed(self.customer, self.protocol, self.direction, facts);
        key
    }
}

/// An address as two numbers.
pub(crate) fn halves(address: Ipv6) -> [u64; 2] {
    let number = u128::from_be_bytes(address.octets);
    [(number >> 64) as u64, number as u64]
}

/// Octets of a rule.
pub const RULE: usize = size_of::<AclRule>();

/// A rule out of the octets of a map's value; none when there are not as many.
pub fn rule(octets: &[u8]) -> Option<AclRule> {
    let octets: &[u8; RULE] = octets.try_into().ok()?;
    let address = |at: usize| Ipv6 { octets: octets[at..at + 16].try_into().expect("sixteen octets") };
    let number = |at: usize| u32::from_ne_bytes(octets[at..at + 4].try_into().expect("four octets"));
    let port = |at: usize| u16::from_ne_bytes([octets[at], octets[at + 1]]);
    Some(AclRule {
        src: address(0),
        dst: address(16),
        customer: number(32),
        src_port: [port(36), port(38)],
        dst_port: [port(40), port(42)],
        src_len: octets[44],
        dst_len: octets[45],
        protocol: octets[46],
        action: octets[47],
        flags: number(48),
        direction: octets[52],
        reserved: [octets[53], octets[54], octets[55]],
    })
}

/// The octets of a rule, as a map's value.
pub fn rule_octets(rule: &AclRule) -> [u8; RULE] {
    let mut octets = [0; RULE];
    octets[..16].copy_from_slice(&rule.src.octets);
    octets[16..32].copy_from_slice(&rule.dst.octets);
    octets[32..36].copy_from_slice(&rule.customer.to_ne_bytes());
    for (at, port) in [rule.src_port, rule.dst_port].into_iter().flatten().enumerate() {
        octets[36 + at * 2..][..2].copy_from_slice(&port.to_ne_bytes());
    }
    octets[44..48].copy_from_slice(&[rule.src_len, rule.dst_len, rule.protocol, rule.action]);
    octets[48..52].copy_from_slice(&rule.flags.to_ne_bytes());
    octets[52] = rule.direction;
    octets
}
