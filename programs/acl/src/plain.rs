//! Packets as most of them are, whose key needs no walk: whole packets with ports, without options and extension headers, in frames
//! without tags.
//!
//! Any other takes the long way, by [`subject`](crate::subject), which would find the same.

use xdpchain_abi::{
    PacketContext,
    acl_tables::{fact, fixed, word},
    direction,
};
use xdpchain_kit::Packet;
use xdpchain_wire::{
    ethernet::{self, ethertype},
    ipv4, ipv6, protocol,
};

use crate::{
    scratch::{Scratch, store},
    subject::{half, mapped, store_addresses4, store_addresses6},
    walk::LowHalves,
};

/// Where the headers begin.
const IP: usize = ethernet::LEN;
/// Where IPv4 packets' ports do, and those of IPv6 packets.
const PORTS4: usize = IP + ipv4::LEN;
const PORTS6: usize = IP + ipv6::LEN;
/// Octets of both ports.
const PORTS: usize = 4;

/// A plain packet's headers.
pub(crate) struct Plain<'a> {
    ip: Ip<'a>,
    ports: &'a [u8; PORTS],
}

enum Ip<'a> {
    V4(ipv4::View<'a>),
    V6(ipv6::View<'a>),
}

impl<'a> Plain<'a> {
    /// The packet, or `None` when it has to take the long way.
    #[inline(always)]
    pub(crate) fn parse(packet: &'a Packet) -> Option<Self> {
        let front: &[u8; PORTS4 + PORTS] = packet.front()?;
        let kind = u16::from_ne_bytes([front[12], front[13]]);
        if kind == ethertype::IPV4.to_be() {
            let ip = ipv4::View(front[IP..].first_chunk()?);
            let plain = front[IP] == 0x45 && !ip.is_fragment() && has_ports(ip.protocol());
            plain.then_some(Self { ip: Ip::V4(ip), ports: front.last_chunk()? })
        } else if kind == ethertype::IPV6.to_be() {
            let front: &[u8; PORTS6 + PORTS] = packet.front()?;
            let ip = ipv6::View(front[IP..].first_chunk()?);
            let plain = ip.version() == 6 && has_ports(ip.next_header());
            plain.then_some(Self { ip: Ip::V6(ip), ports: front.last_chunk()? })
        } else {
            None
        }
    }

    /// The lower halves of its addresses, as its key will have them.
    #[inline(always)]
    pub(crate) fn low_halves(&self) -> LowHalves {
        match self.ip {
            Ip::V4(ip) => LowHalves { src: mapped(ip.source()), dst: mapped(ip.destination()) },
            Ip::V6(ip) => LowHalves { src: half(ip, 16), dst: half(ip, 32) },
        }
    }

    /// Writes its key.
    #[inline(always)]
    pub(crate) fn write(&self, context: &PacketContext, scratch: &mut Scratch) {
        let (protocol, family) = match self.ip {
            Ip::V4(ip) => {
                store_addresses4(ip, scratch);
                (ip.protocol(), fact::IPV4)
            }
            Ip::V6(ip) => {
                store_addresses6(ip, scratch);
                (ip.next_header(), 0)
            }
        };
        let claimed = if context.direction != direction::NONE { fact::CLAIMED } else { 0 };
        let facts = claimed | family | fact::PORTS;
        store(&mut scratch.key[word::PORTS], u32::from_be_bytes(*self.ports) as u64);
        store(&mut scratch.key[word::FIXED], fixed(context.customer, protocol, context.direction, facts));
    }
}

/// Whether packets of this protocol have ports.
#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}
