//! The flow that an IP packet belongs to: addresses, protocol and, where they can be known, ports.

use xdpchain_abi::Ipv6;

use crate::{
    Octets,
    bytes::{u16_at, u32_at},
    ethernet::ethertype,
    ipv4, ipv6, protocol,
};

/// A flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address; IPv4 is IPv4-mapped.
    pub source: Ipv6,
    /// Destination address; IPv4 is IPv4-mapped.
    pub destination: Ipv6,
    /// The upper layer's protocol.
    pub protocol: u8,
    /// Ports of TCP, UDP and SCTP; `None` for other protocols and for every part of a fragmented packet, as only the
    /// first part has them.
    pub ports: Option<Ports>,
}

/// The two ports of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

impl Flow {
    /// The flow of the IP packet that begins at `offset` and is of type `ethertype`. `None` when that is neither IPv4
    /// nor IPv6, when the packet ends within its headers, when it has more extension headers than are walked, and for a
    /// later IPv6 fragment whose upper layer only the first one tells.
    #[inline(always)]
    pub fn parse<O: Octets + ?Sized>(packet: &O, ethertype: u16, offset: usize) -> Option<Self> {
        match ethertype {
            ethertype::IPV4 => Self::parse_ipv4(packet, offset),
            ethertype::IPV6 => Self::parse_ipv6(packet, offset),
            _ => None,
        }
    }

    #[inline(always)]
    fn parse_ipv4<O: Octets + ?Sized>(packet: &O, offset: usize) -> Option<Self> {
        let view = ipv4::View(packet.at(offset)?);
        if view.version() != 4 || view.header_len() < ipv4::LEN {
            return None;
        }
        let mut flow = Self {
            source: Ipv6::mapped(view.source()),
            destination: Ipv6::mapped(view.destination()),
            protocol: view.protocol(),
            ports: None,
        };
        if !view.is_fragment() {
            flow.ports = Ports::parse(packet, flow.protocol, offset + view.header_len())?;
        }
        Some(flow)
    }

    #[inline(always)]
    fn parse_ipv6<O: Octets + ?Sized>(packet: &O, offset: usize) -> Option<Self> {
        let view = ipv6::View(packet.at(offset)?);
        if view.version() != 6 {
            return None;
        }
        let mut flow = Self {
            source: view.source(),
            destination: view.destination(),
            protocol: view.next_header(),
            ports: None,
        };
        let upper = ipv6::UpperLayer::parse(packet, flow.protocol, offset + ipv6::LEN)?;
        flow.protocol = upper.protocol;
        if !upper.fragment {
            flow.ports = Ports::parse(packet, flow.protocol, upper.offset)?;
        }
        Some(flow)
    }
}

impl Ports {
    /// The ports at `offset` when `protocol` has any. The outer `None` says that the packet ends before them.
    #[inline(always)]
    fn parse<O: Octets + ?Sized>(packet: &O, protocol: u8, offset: usize) -> Option<Option<Self>> {
        if !matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
            return Some(None);
        }
        let octets: &[u8; 4] = packet.at(offset)?;
        Some(Some(Self { source: u16_at(octets, 0), destination: u16_at(octets, 2) }))
    }
}

/// A number, evenly spread, that both directions of a flow share: of the IP packet that begins at `offset` and is of type
/// `ethertype`. `None` when that is neither IPv4 nor IPv6, or when the packet ends within its headers.
///
/// Straight from the octets, because a program has no registers to hold a [`Flow`]. Ports count when they follow the IP
/// header at once; all parts of a fragmented packet have the same number.
#[inline(always)]
pub fn symmetric_hash<O: Octets + ?Sized>(packet: &O, ethertype: u16, offset: usize) -> Option<u32> {
    // Sums and exclusive ors do not care for order; both, so that neighbouring pairs with the same
    // sum differ in the other.
    let (source, destination, protocol, upper) = match ethertype {
        ethertype::IPV4 => {
            let header: &[u8; ipv4::LEN] = packet.at(offset)?;
            let view = ipv4::View(header);
            if view.version() != 4 || view.header_len() < ipv4::LEN {
                return None;
            }
            let upper = if view.is_fragment() { None } else { Some(offset + view.header_len()) };
            (u32_at(header, 12), u32_at(header, 16), view.protocol(), upper)
        }
        ethertype::IPV6 => {
            let header: &[u8; ipv6::LEN] = packet.at(offset)?;
            let view = ipv6::View(header);
            if view.version() != 6 {
                return None;
            }
            (fold(header, 8), fold(header, 24), view.next_header(), Some(offset + ipv6::LEN))
        }
        _ => return None,
    };
    let mut hash = mix(source ^ destination) ^ source.wrapping_add(destination) ^ protocol as u32;
    if let Some(upper) = upper
        && matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
    {
        let octets: &[u8; 4] = packet.at(upper)?;
        let (a, b) = (u16_at(octets, 0) as u32, u16_at(octets, 2) as u32);
        hash = mix(hash ^ (a ^ b) << 16 ^ a.wrapping_add(b));
    }
    Some(mix(hash))
}

/// The IPv6 address at `i` in 32 bits, all of its bits in use.
#[inline(always)]
const fn fold(header: &[u8; ipv6::LEN], i: usize) -> u32 {
    let upper = mix(u32_at(header, i) ^ mix(u32_at(header, i + 4)));
    mix(upper ^ u32_at(header, i + 8)) ^ u32_at(header, i + 12)
}

/// A one-to-one map of 32-bit numbers in which each bit of the result depends on each bit of `x`.
#[inline(always)]
const fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x9e37_79b1);
    x ^= x >> 15;
    x = x.wrapping_mul(0x85eb_ca77);
    x ^ x >> 13
}
