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
    subject::{mapped, store_addresses},
};

/// Where the headers begin.
const IP: usize = ethernet::LEN;
/// Where IPv4 packets' ports do, and those of IPv6 packets.
const PORTS4: usize = IP + ipv4::LEN;
const PORTS6: usize = IP + ipv6::LEN;
/// Octets of both ports.
const PORTS: usize = 4;

/// Writes the key of a plain packet. `None`, and nothing that matters has changed, when it has to take the long way.
#[inline(always)]
pub(crate) fn parse(packet: &Packet, context: &PacketContext, scratch: &mut Scratch) -> Option<()> {
    let front: &[u8; PORTS4 + PORTS] = packet.front()?;
    let claimed = if context.direction != direction::NONE { fact::CLAIMED } else { 0 };
    let (protocol, ports, facts) = match u16::from_be_bytes([front[12], front[13]]) {
        ethertype::IPV4 => {
            let ip = ipv4::View(front[IP..].first_chunk()?);
            if front[IP] != 0x45 || ip.is_fragment() || !has_ports(ip.protocol()) {
                return None;
            }
            store(&mut scratch.key[word::SRC], 0);
            store(&mut scratch.key[word::SRC_LOW], mapped(ip.source()));
            store(&mut scratch.key[word::DST], 0);
            store(&mut scratch.key[word::DST_LOW], mapped(ip.destination()));
            (ip.protocol(), front.last_chunk()?, claimed | fact::IPV4 | fact::PORTS)
        }
        ethertype::IPV6 => {
            let front: &[u8; PORTS6 + PORTS] = packet.front()?;
            let header: &[u8; ipv6::LEN] = front[IP..].first_chunk()?;
            let ip = ipv6::View(header);
            if ip.version() != 6 || !has_ports(ip.next_header()) {
                return None;
            }
            store_addresses(header, scratch);
            (ip.next_header(), front.last_chunk()?, claimed | fact::PORTS)
        }
        _ => return None,
    };
    store(&mut scratch.key[word::PORTS], u32::from_be_bytes(*ports) as u64);
    store(&mut scratch.key[word::FIXED], fixed(context.customer, protocol, context.direction, facts));
    Some(())
}

/// Whether packets of this protocol have ports.
#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}
