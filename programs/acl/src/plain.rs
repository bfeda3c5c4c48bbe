//! Packets as most of them are, whose key needs no walk: whole IPv4 packets with ports, without options, in frames without tags.
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
    ipv4, protocol,
};

use crate::{
    scratch::{Scratch, store},
    subject::mapped,
};

/// Where the headers begin.
const IP: usize = ethernet::LEN;
const PORTS: usize = IP + ipv4::LEN;
/// Where ports end.
const END: usize = PORTS + 4;

/// Writes the key of a plain packet. `None`, and nothing that matters has changed, when it has to take the long way.
#[inline(always)]
pub(crate) fn parse(packet: &Packet, context: &PacketContext, scratch: &mut Scratch) -> Option<()> {
    let front: &[u8; END] = packet.front()?;
    let ip = ipv4::View(front[IP..].first_chunk()?);
    if [front[12], front[13]] != ethertype::IPV4.to_be_bytes() || front[IP] != 0x45 || ip.is_fragment() {
        return None;
    }
    if !matches!(ip.protocol(), protocol::TCP | protocol::UDP | protocol::SCTP) {
        return None;
    }
    store(&mut scratch.key[word::SRC], 0);
    store(&mut scratch.key[word::SRC_LOW], mapped(ip.source()));
    store(&mut scratch.key[word::DST], 0);
    store(&mut scratch.key[word::DST_LOW], mapped(ip.destination()));
    store(&mut scratch.key[word::PORTS], u32::from_be_bytes(*front.last_chunk()?) as u64);
    let claimed = if context.direction != direction::NONE { fact::CLAIMED } else { 0 };
    let facts = claimed | fact::IPV4 | fact::PORTS;
    store(&mut scratch.key[word::FIXED], fixed(context.customer, ip.protocol(), context.direction, facts));
    Some(())
}
