//! One packet against one rule.
//!
//! Every test is arithmetic on whole words and only the sum of all is branched on: the verifier follows a rule's
//! instructions once instead of once for each combination of tests, and the processor has one branch to predict.

use xdpchain_abi::{AclRule, Ipv6, acl_flags};
use xdpchain_wire::flow::Flow;

/// What rules are compared with.
pub(crate) struct Subject {
    source: [u64; 2],
    destination: [u64; 2],
    /// -1, which is in no range, when the packet has no ports.
    source_port: i64,
    destination_port: i64,
    customer: u32,
    /// All ones when nobody claimed the packet, so that it has no customer.
    unclaimed: u32,
    protocol: u8,
}

impl Subject {
    /// A packet of `customer` (meaningful unless `direction` is 0) and `flow`.
    #[inline(always)]
    pub(crate) fn new(customer: u32, direction: u8, flow: &Flow) -> Self {
        let (source_port, destination_port) = match flow.ports {
            Some(ports) => (ports.source as i64, ports.destination as i64),
            None => (-1, -1),
        };
        Self {
            source: words(&flow.source),
            destination: words(&flow.destination),
            source_port,
            destination_port,
            customer,
            unclaimed: if direction == xdpchain_abi::direction::NONE { u32::MAX } else { 0 },
            protocol: flow.protocol,
        }
    }

    /// Whether `rule` is in force and matches.
    #[inline(always)]
    pub(crate) fn matches(&self, rule: &AclRule) -> bool {
        let flags = rule.flags;
        let mut differ = when(flags, acl_flags::ENABLED) ^ u64::MAX;
        let [src, dst] = prefixes(rule);
        differ |= beyond_prefix(src, rule.src_len, self.source);
        differ |= beyond_prefix(dst, rule.dst_len, self.destination);
        let customer = (rule.customer ^ self.customer) | self.unclaimed;
        differ |= customer as u64 & when(flags, acl_flags::CUSTOMER);
        differ |= (rule.protocol ^ self.protocol) as u64 & when(flags, acl_flags::PROTOCOL);
        differ |= out_of_range(rule.src_port, self.source_port) & when(flags, acl_flags::SRC_PORT);
        differ |= out_of_range(rule.dst_port, self.destination_port) & when(flags, acl_flags::DST_PORT);
        differ == 0
    }
}

/// An address in two words, octets in the order of the packet.
#[inline(always)]
fn words(address: &Ipv6) -> [u64; 2] {
    let o = &address.octets;
    [
        u64::from_ne_bytes([o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]]),
        u64::from_ne_bytes([o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]]),
    ]
}

/// The two prefixes of `rule` in words, as [`words`] gives them, in four loads.
#[inline(always)]
fn prefixes(rule: &AclRule) -> [[u64; 2]; 2] {
    const {
        assert!(core::mem::offset_of!(AclRule, src) == 0);
        assert!(core::mem::offset_of!(AclRule, dst) == 16);
        assert!(size_of::<AclRule>().is_multiple_of(8));
    }
    // SAFETY: the prefixes are the rule's first 32 octets, and any octets are words. The kernel lays an array's
    // values out 8 octets aligned, each taking a multiple of 8, which this size is.
    unsafe { *core::ptr::from_ref(rule).cast() }
}

/// All ones when `flags` has the one bit of `flag`, else 0.
#[inline(always)]
fn when(flags: u32, flag: u32) -> u64 {
    ((flags as u64 >> flag.trailing_zeros()) & 1).wrapping_neg()
}

/// 0 when the first `len` bits of both addresses are the same.
#[inline(always)]
fn beyond_prefix(prefix: [u64; 2], len: u8, address: [u64; 2]) -> u64 {
    let [high, low] = mask(len);
    ((prefix[0] ^ address[0]) & high.to_be()) | ((prefix[1] ^ address[1]) & low.to_be())
}

/// The mask of the first `len` bits of 128, as two numbers.
#[inline(always)]
fn mask(len: u8) -> [u64; 2] {
    let len = len as i64;
    // All ones when the prefix ends before the second word, and before the end of all.
    let short = when_negative(len - 64);
    let partial = when_negative(len - 128);
    // In two steps, as a shift by 64 is none.
    let high = (u64::MAX << 1) << ((63 - len) & 63);
    let low = (u64::MAX << 1) << ((127 - len) & 63);
    [high | !short, (low | !partial) & !short]
}

/// All ones when `port` is below or above the range, both ends of which belong to it.
#[inline(always)]
fn out_of_range(range: [u16; 2], port: i64) -> u64 {
    when_negative((port - range[0] as i64) | (range[1] as i64 - port))
}

/// All ones when `x` is negative, else 0.
#[inline(always)]
fn when_negative(x: i64) -> u64 {
    let mut x = x;
    // In assembly, as the compiler makes a branch of `x >> 63`.
    // SAFETY: shifts a register and touches nothing else.
    unsafe { core::arch::asm!("{0} s>>= 63", inout(reg) x, options(pure, nomem, nostack)) };
    x as u64
}
