//! Users' packets as most of them are, on their way into a tunnel and out of one.

use aya_ebpf::programs::XdpContext;
use xdpchain_wire::{
    OctetsMut as _,
    ethernet::{self, ethertype},
    ipv4, ipv6, protocol, tcp,
};

use crate::{Addresses, Inner, Packet, is_same_ecn};

/// Where the packet begins in its frame.
const IP: usize = ethernet::LEN;
/// Octets of a TCP header up to that with its flags, which is the last one that is looked at.
const FLAGS: usize = 14;

/// A packet that is alone in its frame, without tags, IPv4 options and SYN, to a single address, with a hop left to take off.
///
/// Not every such packet is found to be one: the shortest are not, nor those to 240.0.0.0/4. Of any packet that is none the long way
/// knows what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// EtherType, in network byte order.
    pub kind: u16,
    /// Octets.
    pub len: u32,
    /// TOS octet or traffic class.
    pub tos: u32,
}

impl Plain {
    /// The packet in this frame, if it is one.
    #[inline(always)]
    pub fn parse(packet: &Packet) -> Option<Self> {
        let front: &[u8; IP + ipv4::LEN + FLAGS] = packet.front()?;
        let kind = u16::from_ne_bytes([front[12], front[13]]);
        if kind == ethertype::IPV4.to_be() {
            Self::parse_ipv4(packet, front)
        } else if kind == ethertype::IPV6.to_be() {
            Self::parse_ipv6(packet)
        } else {
            None
        }
    }

    /// The packet that begins with `front`, if it is one and IPv4.
    #[inline(always)]
    fn parse_ipv4(packet: &Packet, front: &[u8; IP + ipv4::LEN + FLAGS]) -> Option<Self> {
        let view = ipv4::View(front[IP..].first_chunk()?);
        let len = view.total_len() as u32;
        if front[IP] != 0x45 || IP + len as usize != packet.len() {
            return None;
        }
        // Where groups and the broadcast address are; what else is there is rare.
        if view.ttl() <= 1 || view.destination().octets[0] >= 0xe0 {
            return None;
        }
        let is_tcp = view.protocol() == protocol::TCP;
        let plain = !is_tcp || front[front.len() - 1] & tcp::flags::SYN == 0;
        plain.then_some(Self { kind: ethertype::IPV4.to_be(), len, tos: view.tos() as u32 })
    }

    /// The packet, if it is one and IPv6.
    #[inline(always)]
    fn parse_ipv6(packet: &Packet) -> Option<Self> {
        let front: &[u8; IP + ipv6::LEN + FLAGS] = packet.front()?;
        let view = ipv6::View(front[IP..].first_chunk()?);
        let len = ipv6::LEN as u32 + view.payload_len() as u32;
        if view.version() != 6 || IP + len as usize != packet.len() {
            return None;
        }
        if view.hop_limit() <= 1 || view.destination().octets[0] == 0xff {
            return None;
        }
        let is_tcp = view.next_header() == protocol::TCP;
        let plain = !is_tcp || front[front.len() - 1] & tcp::flags::SYN == 0;
        plain.then_some(Self { kind: ethertype::IPV6.to_be(), len, tos: view.traffic_class() as u32 })
    }
}

/// Whether the packet has a tag in front, to be seen from behind it. `None` when it is shorter than `FRONT` octets.
///
/// What follows is written twice, once for each answer: an offset that the compiler knows costs nothing.
#[inline(always)]
pub fn is_tagged<const FRONT: usize>(ctx: &XdpContext) -> Option<bool> {
    let packet = Packet::new(ctx);
    let front: &[u8; FRONT] = packet.front()?;
    Some([front[12], front[13]] == ethertype::VLAN.to_be_bytes())
}

/// Makes the packet in a tunnel a frame, when it is the IPv4 packet without options behind the first `FRONT` octets less its header's
/// and `passes`: writes an Ethernet header in front of it, where the frame's start is to be moved. Returns what `passes` says, or `None`
/// when there is no packet; unless that is true, nothing has changed.
#[inline(always)]
pub fn open4_front<const FRONT: usize>(
    packet: &mut Packet,
    passes: impl FnOnce(&[u8; ipv4::LEN]) -> Option<bool>,
) -> Option<bool> {
    // Without a tag they are in the window of the rest.
    let before_tag = if packet.skipped() == 0 { None } else { Some(packet.frame_addresses()?) };
    let front: &mut [u8; FRONT] = packet.front_mut()?;
    let (outer, inner) = front.split_last_chunk_mut()?;
    let is_open = passes(inner)?;
    if is_open {
        let addresses = match before_tag {
            Some(addresses) => addresses,
            None => Addresses::parse(outer.first_chunk()?),
        };
        addresses.write_header(outer.last_chunk_mut()?, ethertype::IPV4);
    }
    Some(is_open)
}

/// As [`open4_front`], of a packet at `offset`.
#[inline(always)]
pub fn open4(
    packet: &mut Packet,
    offset: usize,
    passes: impl FnOnce(&[u8; ipv4::LEN]) -> Option<bool>,
) -> Option<bool> {
    let addresses = packet.frame_addresses()?;
    let room: &mut [u8; ethernet::LEN + ipv4::LEN] = packet.at_mut(offset - ethernet::LEN)?;
    let (header, inner) = room.split_first_chunk_mut()?;
    let is_open = passes(inner.first_chunk()?)?;
    if is_open {
        addresses.write_header(header, ethertype::IPV4);
    }
    Some(is_open)
}

/// Makes the packet in a tunnel, from `offset` to `end`, a frame, when it is IPv6 and `passes`: writes an Ethernet header in front of it,
/// where the frame's start is to be moved. `None`, and nothing has changed, when it is for the long way.
#[inline(always)]
pub fn open6(
    packet: &mut Packet,
    offset: usize,
    end: usize,
    outer_tos: u8,
    passes: impl FnOnce(&Packet, &Inner) -> bool,
) -> Option<()> {
    let inner = Inner::parse(packet, offset, end).ok()?;
    if inner.ethertype != ethertype::IPV6 || inner.ttl <= 1 || offset + inner.len != end {
        return None;
    }
    if !passes(packet, &inner) || !is_same_ecn(outer_tos, inner.tos) {
        return None;
    }
    let addresses = packet.frame_addresses()?;
    addresses.write_header(packet.at_mut(offset - ethernet::LEN)?, ethertype::IPV6);
    Some(())
}
