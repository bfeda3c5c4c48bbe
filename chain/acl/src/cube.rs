//! A rule, and a set of packets, as bounds on each word of the key.

use xdpchain_abi::acl_tables::{Entry, Sieved, fact, fixed, is_ipv4, prefix_mask, sieved, word};
use xdpchain_abi::{ACL_RULES, AclRule, acl_action, acl_flags, direction};

use crate::error::AclError;
use crate::packet::{IPV4_LEN, halves};

/// Words that are compared bit by bit; the ports are compared by range.
pub(crate) const BITS: usize = word::PORTS;

/// Packets whose key has certain bits, and ports in certain ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cube {
    /// The bits, those that are not asked for zero.
    pub(crate) value: [u64; BITS],
    /// Which bits are asked for.
    pub(crate) mask: [u64; BITS],
    /// Lowest and highest source port, and destination port.
    pub(crate) ports: [[u16; 2]; 2],
}

impl Cube {
    /// Every packet.
    pub(crate) const ALL: Self =
        Self { value: [0; BITS], mask: [0; BITS], ports: [[0, u16::MAX], [0, u16::MAX]] };

    /// The key of a packet in it that is zero where it can be.
    pub(crate) fn lowest(&self) -> [u64; word::ROOM] {
        let mut key = [0; word::ROOM];
        key[..BITS].copy_from_slice(&self.value);
        key[word::PORTS] = u64::from(self.ports[0][0]) << 16 | u64::from(self.ports[1][0]);
        key
    }

    /// Whether the packet of this key is in it.
    pub(crate) fn has(&self, key: &[u64; word::ROOM]) -> bool {
        let ports = [key[word::PORTS] >> 16, key[word::PORTS] & 0xffff];
        (0..BITS).all(|w| (self.value[w] ^ key[w]) & self.mask[w] == 0)
            && self
                .ports
                .iter()
                .zip(ports)
                .all(|([low, high], port)| (u64::from(*low)..=u64::from(*high)).contains(&port))
    }

    /// Whether some packet may be in both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let apart = (0..BITS).any(|w| (self.value[w] ^ other.value[w]) & self.mask[w] & other.mask[w] != 0)
            || (0..2).any(|p| self.ports[p][0] > other.ports[p][1] || other.ports[p][0] > self.ports[p][1]);
        !apart
    }

    /// What is in both, which meet.
    pub(crate) fn within(&self, region: &Self) -> Self {
        let mut both = *self;
        for w in 0..BITS {
            both.value[w] |= region.value[w];
            both.mask[w] |= region.mask[w];
        }
        for (own, other) in both.ports.iter_mut().zip(region.ports) {
            *own = [own[0].max(other[0]), own[1].min(other[1])];
        }
        both
    }

    /// Whether all packets of `region` that are in `other` are in this one.
    pub(crate) fn covers(&self, other: &Self, region: &Self) -> bool {
        let both = other.within(region);
        (0..BITS)
            .all(|w| self.mask[w] & !both.mask[w] == 0 && (self.value[w] ^ both.value[w]) & self.mask[w] == 0)
            && (0..2).all(|p| self.ports[p][0] <= both.ports[p][0] && both.ports[p][1] <= self.ports[p][1])
    }
}

/// A rule in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) number: u16,
    pub(crate) cube: Cube,
    pub(crate) action: u8,
    src_len: u8,
    dst_len: u8,
}

impl Rule {
    /// Reads a rule; none when it is not in force.
    pub(crate) fn read(key: u32, rule: &AclRule) -> Result<Option<Self>, AclError> {
        let number = u16::try_from(key).map_err(|_| AclError::Key { key })?;
        const { assert!(ACL_RULES == 1 << 16) };
        let asks = |flag| rule.flags & flag != 0;
        if !asks(acl_flags::ENABLED) {
            return Ok(None);
        }
        let wrong = |problem: String, help| Err(AclError::Rule { key, problem, help });
        let known = acl_flags::ENABLED
            | acl_flags::CUSTOMER
            | acl_flags::PROTOCOL
            | acl_flags::SRC_PORT
            | acl_flags::DST_PORT;
        if rule.flags & !known != 0 {
            return wrong(
                format!("`flags` has unknown bits {:#x}", rule.flags & !known),
                "1 in force, and compare: 2 customer, 4 protocol, 8 source ports, 16 destination ports",
            );
        }
        for (name, len) in [("src_len", rule.src_len), ("dst_len", rule.dst_len)] {
            if len > 128 {
                return wrong(
                    format!("`{name}` is {len}"),
                    "lengths are bits of the IPv6 address, at most 128; an IPv4 /24 is 120",
                );
            }
        }
        if rule.action > acl_action::DENY {
            return wrong(format!("`action` is {}", rule.action), "0 allows, 1 denies");
        }
        if rule.direction > direction::DOWNLINK {
            return wrong(
                format!("`direction` is {}", rule.direction),
                "0 is both, 1 from the radio network to the cloud, 2 back",
            );
        }
        let mut cube = Cube::ALL;
        for (at, prefix, len) in [(word::SRC, rule.src, rule.src_len), (word::DST, rule.dst, rule.dst_len)] {
            for (half, (bits, mask)) in halves(prefix).into_iter().zip(prefix_mask(len)).enumerate() {
                cube.mask[at + half] = mask;
                cube.value[at + half] = bits & mask;
            }
        }
        let mut ask = |value: u64, mask: u64| {
            cube.mask[word::FIXED] |= mask;
            cube.value[word::FIXED] |= value & mask;
        };
        if asks(acl_flags::CUSTOMER) {
            ask(fixed(rule.customer, 0, 0, fact::CLAIMED), fixed(u32::MAX, 0, 0, fact::CLAIMED));
        }
        if asks(acl_flags::PROTOCOL) {
            ask(fixed(0, rule.protocol, 0, 0), fixed(0, u8::MAX, 0, 0));
        }
        for (prefix, len) in [(rule.src, rule.src_len), (rule.dst, rule.dst_len)] {
            let (prefix, mask) = (halves(prefix), prefix_mask(len));
            let mapped =
                (prefix[0] & mask[0]) == 0 && (prefix[1] ^ 0xffff << 32) & mask[1] & u64::MAX << 32 == 0;
            if !mapped {
                ask(0, fact::IPV4);
            } else if len >= IPV4_LEN {
                ask(fact::IPV4, fact::IPV4);
            }
        }
        if rule.direction != direction::NONE {
            ask(fixed(0, 0, rule.direction, 0), fixed(0, 0, u8::MAX, 0));
        }
        for (at, flag, name, range) in [
            (0, acl_flags::SRC_PORT, "src_port", rule.src_port),
            (1, acl_flags::DST_PORT, "dst_port", rule.dst_port),
        ] {
            if !asks(flag) {
                continue;
            }
            if range[0] > range[1] {
                return wrong(
                    format!("`{name}` begins at {} and ends before, at {}", range[0], range[1]),
                    "the lowest port comes first, then the highest",
                );
            }
            cube.ports[at] = range;
            cube.mask[word::FIXED] |= fact::PORTS;
            cube.value[word::FIXED] |= fact::PORTS;
        }
        let &AclRule { src_len, dst_len, action, .. } = rule;
        Ok(Some(Self { number, cube, action, src_len, dst_len }))
    }

    /// The rule as a sieve has it.
    pub(crate) fn sieved(&self) -> Sieved {
        let Cube { value, mask, ports } = self.cube;
        // That a packet is IPv4 says what the upper bits of an IPv4 prefix would.
        let is_low = |at: usize, len: u8| len == 0 || len >= IPV4_LEN && is_ipv4([value[at], value[at + 1]]);
        let more = !is_low(word::SRC, self.src_len) || !is_low(word::DST, self.dst_len);
        let open = |len: u8| 32 - len.saturating_sub(IPV4_LEN);
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        Sieved {
            src: value[word::SRC_LOW] as u32,
            dst: value[word::DST_LOW] as u32,
            customer: (value[word::FIXED] >> 32) as u32,
            fixed: value[word::FIXED] as u32,
            fixed_mask: mask[word::FIXED] as u32,
            src_port: ports[0],
            dst_port: ports[1],
            rule: self.number,
            src_open: open(self.src_len)
                | flag(more, sieved::MORE)
                | flag(self.action == acl_action::DENY, sieved::DENY),
            dst_open: open(self.dst_len) | flag(mask[word::FIXED] >> 32 != 0, sieved::CUSTOMER),
        }
    }

    /// The rule as the program checks it.
    pub(crate) fn entry(&self) -> Entry {
        let Cube { value, mask, ports } = self.cube;
        Entry {
            src: [value[word::SRC], value[word::SRC_LOW]],
            dst: [value[word::DST], value[word::DST_LOW]],
            fixed: value[word::FIXED],
            fixed_mask: mask[word::FIXED],
            src_port: ports[0],
            dst_port: ports[1],
            src_len: self.src_len,
            dst_len: self.dst_len,
            action: self.action,
            reserved: [0; 5],
        }
    }
}
