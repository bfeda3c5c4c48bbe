//! Inner packets: what is asked of one, and what changes when it is passed on.

use xdpchain_abi::{Ipv4, Ipv6};
use xdpchain_wire::ethernet::ethertype;
use xdpchain_wire::{ipv4, ipv6};

/// An inner packet that is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    /// Whether it is IPv4.
    pub(super) is_ipv4: bool,
    /// Its octets, header included.
    pub(super) len: usize,
    /// Source; IPv4 is IPv4-mapped.
    pub(super) source: Ipv6,
    /// Destination; IPv4 is IPv4-mapped.
    pub(super) destination: Ipv6,
    /// TTL or hop limit.
    pub(super) hops: u8,
    /// TOS octet or traffic class.
    pub(super) tos: u8,
    /// Whether a router may fragment it: IPv4 without DF.
    pub(super) may_be_fragmented: bool,
}

impl Inner {
    /// The packet that `octets` begin with. What is wrong with it, when it is none: row G21.
    pub(super) fn parse(octets: &[u8]) -> Result<Self, &'static str> {
        match octets.first().map(|first| first >> 4) {
            Some(4) => Self::parse_ipv4(octets),
            Some(6) => Self::parse_ipv6(octets),
            Some(_) => Err("its version is neither 4 nor 6"),
            None => Err("there is nothing inside"),
        }
    }

    fn parse_ipv4(octets: &[u8]) -> Result<Self, &'static str> {
        let Some(header) = octets.first_chunk() else { return Err("its IPv4 header is cut short") };
        let ip = ipv4::View(header);
        let len = usize::from(ip.total_len());
        if ip.header_len() < ipv4::LEN {
            return Err("its IPv4 header says that it is shorter than one can be");
        }
        if len < ip.header_len() {
            return Err("its total length is smaller than its header");
        }
        if len > octets.len() {
            return Err("it is longer than what carries it");
        }
        Ok(Self {
            is_ipv4: true,
            len,
            source: Ipv6::mapped(ip.source()),
            destination: Ipv6::mapped(ip.destination()),
            hops: ip.ttl(),
            tos: ip.tos(),
            may_be_fragmented: !ip.dont_fragment(),
        })
    }

    fn parse_ipv6(octets: &[u8]) -> Result<Self, &'static str> {
        let Some(header) = octets.first_chunk() else { return Err("its IPv6 header is cut short") };
        let ip = ipv6::View(header);
        let len = ipv6::LEN + usize::from(ip.payload_len());
        if len > octets.len() {
            return Err("it is longer than what carries it");
        }
        Ok(Self {
            is_ipv4: false,
            len,
            source: ip.source(),
            destination: ip.destination(),
            hops: ip.hop_limit(),
            tos: ip.traffic_class(),
            may_be_fragmented: false,
        })
    }

    /// The EtherType of a frame with it.
    pub(super) fn ethertype(&self) -> u16 {
        if self.is_ipv4 { ethertype::IPV4 } else { ethertype::IPV6 }
    }

    /// The destination of an IPv4 packet.
    pub(super) fn destination4(&self) -> Option<Ipv4> {
        let [.., a, b, c, d] = self.destination.octets;
        self.is_ipv4.then_some(Ipv4 { octets: [a, b, c, d] })
    }

    /// Whether it is for a group: row B10.
    pub(super) fn is_for_group(&self) -> bool {
        match self.destination4() {
            Some(address) => address.octets[0] >> 4 == 14 || address.octets == [0xff; 4],
            None => self.destination.octets[0] == 0xff,
        }
    }

    /// Whether it is for its link alone: row G23.
    pub(super) fn is_for_link(&self) -> bool {
        let link_local = |address: Ipv6| address.octets[0] == 0xfe && address.octets[1] & 0xc0 == 0x80;
        let link_group = self.destination.octets[..2] == [0xff, 0x02];
        !self.is_ipv4 && (link_local(self.source) || link_local(self.destination) || link_group)
    }
}

/// What the inner ECN bits become under an outer header with others: none when the packet has to be dropped (RFC 6040, figure
/// 4): row B06.
pub(super) fn ecn_inside(outer: u8, inner: u8) -> Option<u8> {
    const NOT_CAPABLE: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    match (inner & 3, outer & 3) {
        (NOT_CAPABLE, CE) => None,
        (NOT_CAPABLE, _) => Some(NOT_CAPABLE),
        (_, CE) => Some(CE),
        (ECT0, ECT1) => Some(ECT1),
        (inner, _) => Some(inner),
    }
}

/// Gives the inner packet at the beginning of `octets` other ECN bits, and corrects its checksum.
pub(super) fn set_ecn(octets: &mut [u8], ecn: u8) {
    if octets[0] >> 4 == 6 {
        octets[1] = octets[1] & 0xcf | ecn << 4;
        return;
    }
    let old = word(octets, 0);
    octets[1] = octets[1] & 0xfc | ecn;
    correct(octets, 10, old, word(octets, 0));
}

/// The number of two octets at `at`.
pub(super) fn word(octets: &[u8], at: usize) -> u32 {
    u32::from(octets[at]) << 8 | u32::from(octets[at + 1])
}

/// Corrects the checksum at `at` for a pair of octets that was `old` and is `new` (RFC 1624, equation 3).
pub(super) fn correct(octets: &mut [u8], at: usize, old: u32, new: u32) {
    let mut sum = (!word(octets, at) & 0xffff) + (!old & 0xffff) + new;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    octets[at..at + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
}

/// Takes a hop off the inner packet at the beginning of `octets`, which has more than one, and corrects its checksum: row B01.
pub(super) fn take_hop(octets: &mut [u8]) {
    if octets[0] >> 4 == 6 {
        octets[7] -= 1;
        return;
    }
    let old = word(octets, 8);
    octets[8] -= 1;
    correct(octets, 10, old, word(octets, 8));
}

/// The IPv4 header that ICMP's fragmentation needed quotes, in the IPv4 packet at the beginning of `octets`; none when it is
/// another message, or quotes less. What follows a header without options is 28 octets from the ICMP header on.
pub(super) fn quoted4(octets: &[u8]) -> Option<[u8; ipv4::LEN]> {
    let at = usize::from(octets[0] & 0xf) * 4;
    let is_needed = *octets.get(at)? == 3 && *octets.get(at + 1)? == 4;
    let quoted: [u8; ipv4::LEN] = *octets.get(at + 8..)?.first_chunk()?;
    (is_needed && quoted[0] >> 4 == 4).then_some(quoted)
}
