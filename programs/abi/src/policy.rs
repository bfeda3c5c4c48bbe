//! Rules of `acl` and counters of `stats`.

use crate::{Ipv6, sized};

/// Rules that `acl` holds at most; their keys are smaller.
pub const ACL_RULES: u32 = 1 << 16;

/// Value of `acl`'s `rules`, by a number below [`ACL_RULES`]: of the rules that match, the one with the smallest decides.
/// The program follows what they are compiled to ([`acl_tables`](crate::acl_tables)), not this map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AclRule {
    /// Inner source prefix; IPv4 is IPv4-mapped.
    pub src: Ipv6,
    /// Inner destination prefix; IPv4 is IPv4-mapped.
    pub dst: Ipv6,
    /// Customer, when `flags` has [`acl_flags::CUSTOMER`].
    pub customer: u32,
    /// Lowest and highest source port, both inclusive; checked when `flags` has [`acl_flags::SRC_PORT`].
    pub src_port: [u16; 2],
    /// Lowest and highest destination port, both inclusive; checked when `flags` has [`acl_flags::DST_PORT`].
    pub dst_port: [u16; 2],
    /// Length of `src` in bits of the IPv6 address (an IPv4 /24 is 120); 0 matches every address of both families.
    pub src_len: u8,
    /// Length of `dst` in bits, as `src_len`.
    pub dst_len: u8,
    /// IP protocol number, when `flags` has [`acl_flags::PROTOCOL`].
    pub protocol: u8,
    /// [`acl_action`] on a match.
    pub action: u8,
    /// Any of [`acl_flags`]; a rule without [`acl_flags::ENABLED`] is skipped.
    pub flags: u32,
    /// [`direction`](crate::direction) of the packet; 0 is any, of packets that nobody claimed too.
    pub direction: u8,
    /// Octets of padding, zero.
    pub reserved: [u8; 3],
}

/// Bits of [`AclRule::flags`].
pub mod acl_flags {
    /// The rule is in force.
    pub const ENABLED: u32 = 1;
    /// `customer` is compared.
    pub const CUSTOMER: u32 = 2;
    /// `protocol` is compared.
    pub const PROTOCOL: u32 = 4;
    /// `src_port` is compared; a packet without ports does not match.
    pub const SRC_PORT: u32 = 8;
    /// `dst_port` is compared; a packet without ports does not match.
    pub const DST_PORT: u32 = 16;
}

/// Values of [`AclRule::action`] and [`AclConfig::default_action`].
pub mod acl_action {
    /// The packet goes on to the next slot.
    pub const ALLOW: u8 = 0;
    /// The packet is dropped and counted.
    pub const DENY: u8 = 1;
}

/// The one value of `acl`'s `config`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AclConfig {
    /// [`acl_action`] for a packet that no rule matches.
    pub default_action: u8,
    /// 1: judge every IP packet; 0: only those that a decapsulator claimed.
    pub all_packets: u8,
    /// Octets of padding, zero.
    pub reserved: [u8; 6],
}

/// Key of `stats`' `customers`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CustomerKey {
    /// The customer's number.
    pub customer: u32,
    /// [`direction`](crate::direction) of the packets.
    pub direction: u32,
}

/// Value of `stats`' `customers_dense`, an array by the customer's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CustomerCounters {
    /// Forwarded toward the cloud.
    pub uplink: Counter,
    /// Forwarded toward the radio network.
    pub downlink: Counter,
}

/// Packets and octets. Octets count inner IP packets as they were when decapsulated.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

/// Value of `stats`' `sessions` and `sessions_percpu`, arrays by the session's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Forwarded toward the cloud.
    pub uplink: Counter,
    /// Forwarded toward the radio network.
    pub downlink: Counter,
}

/// The one value of `stats`' `config`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsConfig {
    /// 1: CPUs hold packets back and add several to `sessions` at a time; 0: they add each at once.
    pub hold_back: u8,
    /// Octets of padding, zero.
    pub reserved: [u8; 7],
}

/// Packets that a CPU holds back, a power of two.
pub const PENDING: usize = 16;

/// CPUs that can hold packets back, those with smaller numbers.
pub const PENDING_CPUS: usize = 256;

/// Value of `stats`' `sessions_pending`, indexed by the CPU's number: packets that it has yet to add to `sessions`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingSessions {
    /// When it added any last, in ticks of the kernel's clock.
    pub since: u64,
    /// How many there are, from the first on.
    pub count: u32,
    /// How many it was adding last. They are in `sessions`, but for the moment that this takes.
    pub adding: u32,
    /// The packets; what is behind the first `count` has been added.
    pub packets: [PendingPacket; PENDING],
    /// Octets of padding, zero: more than a cache line, so that no two CPUs write to the same one, wherever the array begins.
    pub reserved: [u8; 112],
}

/// A packet that is yet to be added to its session's counter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingPacket {
    /// The session's number.
    pub session: u32,
    /// Octets of the packet.
    pub bytes: u16,
    /// [`direction`](crate::direction) of the packet.
    pub direction: u8,
    /// Padding, zero.
    pub reserved: [u8; 1],
}

sized!(
    PendingPacket = 8,
    PendingSessions = 256,
    StatsConfig = 8,
    AclRule = 56,
    AclConfig = 8,
    CustomerKey = 8,
    Counter = 16,
    CustomerCounters = 32,
    SessionCounters = 32
);
