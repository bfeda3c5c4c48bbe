//! Packets as most of them are: into a session over IPv4, toward a next hop that was asked for a short while ago.
//!
//! - Such a packet is [`Plain`], and fits the way out.
//! - Whatever else it is, it takes the long way, of which this is a part that asks less: it may leave any packet to it, and what it
//!   sends leaves as by the long way.

use core::mem::MaybeUninit;

use xdpchain_abi::{DownlinkSession, PacketContext, Reason, session_flags};
use xdpchain_kit::{Hop, Packet, Plain, Route, is_alias, send};
use xdpchain_wire::{
    ethernet::{self, ethertype},
    flow::symmetric_hash,
    ipv4, ipv6, protocol,
};

use crate::{
    CONTAINER, OVERHEAD, SESSIONS, TTL, address, hops, module, outer, write_container, write_headers,
    write_key,
};

/// Where the inner packet begins, and then the outer one.
const IP: usize = ethernet::LEN;
/// Octets of both ports of a packet that has some; no plain packet ends before them.
const PORTS: usize = 4;
/// Where the headers behind the outer IP header begin.
const UDP: usize = IP + ipv4::LEN;
/// What is behind them: the inner packet, or the container in front of it.
const END: usize = UDP + OVERHEAD;

/// Sends a plain packet into the session of its customer. `None`, and nothing in it has changed, when it has to take the long way.
#[inline(always)]
pub(crate) fn forward(packet: &mut Packet, context: &PacketContext) -> Option<u32> {
    let Plain { kind, len, tos } = Plain::parse(packet)?;
    let (address, hash) = if kind == ethertype::IPV4.to_be() {
        let front: &[u8; IP + ipv4::LEN + PORTS] = packet.front()?;
        (
            address(packet, &front[..], ethertype::IPV4, IP).ok()?,
            symmetric_hash(&front[..], ethertype::IPV4, IP)?,
        )
    } else {
        let front: &[u8; IP + ipv6::LEN + PORTS] = packet.front()?;
        (
            address(packet, &front[..], ethertype::IPV6, IP).ok()?,
            symmetric_hash(&front[..], ethertype::IPV6, IP)?,
        )
    };
    let mut key = MaybeUninit::uninit();
    let key = write_key(&mut key, context.customer, address);
    // SAFETY: nothing here changes the map, and a session that user space replaces meanwhile is read field by field at
    // worst from both, as in every look-up that takes no lock.
    let session = unsafe { SESSIONS.get(key) }?;
    if is_alias(session.peer) {
        return None;
    }
    // Asked once: user space may replace the session meanwhile, and what is written has to fit the room that is made for it.
    let has_qfi = session.flags & session_flags::HAS_QFI != 0;
    let container = if has_qfi { CONTAINER } else { 0 };
    let route = Route {
        source: session.local,
        destination: session.peer,
        protocol: protocol::UDP,
        tos: outer::tos(session, tos as u8),
        total_len: u16::try_from(END - IP + container + len as usize).ok()?,
    };
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
    let hop = unsafe { &*hops::toward(session.peer)? };
    if !hop.is_of(&route, packet.ingress_ifindex()) {
        return None;
    }
    let delta = -((END - IP + container) as i32);
    module::move_start(packet, delta, |context| context.session = session.session)?;
    if write(packet, session, has_qfi, hop, &route, hash, kind).is_none() {
        // It was there just now, and is longer.
        return Some(module::refuse(Reason::Headroom));
    }
    Some(send(packet.ingress_ifindex(), hop.egress()))
}

/// Writes the headers around the inner packet, whose EtherType is `kind`, into the room that is there for them, and takes a hop off it.
#[inline(always)]
fn write(
    packet: &mut Packet,
    session: &DownlinkSession,
    has_qfi: bool,
    hop: &Hop,
    route: &Route,
    hash: u32,
    kind: u16,
) -> Option<()> {
    // There with and without a container: no plain packet is shorter than that.
    let front: &mut [u8; END + CONTAINER + ipv4::LEN] = packet.front_mut()?;
    hop.addresses().write_header(front.first_chunk_mut()?, ethertype::IPV4);
    let &Route { source, destination, protocol, tos, total_len } = route;
    let ip = ipv4::Repr {
        tos,
        total_len,
        dont_fragment: true,
        ttl: TTL,
        protocol,
        source,
        destination,
        ..ipv4::Repr::default()
    };
    ip.emit(front[IP..].first_chunk_mut()?);
    write_headers(front[UDP..].first_chunk_mut()?, session, has_qfi, total_len as usize - ipv4::LEN, hash);
    let mut inner: &mut [u8] = &mut front[END..];
    if has_qfi {
        let (container, rest) = inner.split_first_chunk_mut()?;
        write_container(container, session);
        inner = rest;
    }
    let inner: &mut [u8; ipv4::LEN] = inner.first_chunk_mut()?;
    if kind == ethertype::IPV4.to_be() {
        ipv4::decrement_ttl(inner);
    } else {
        inner[7] = inner[7].wrapping_sub(1);
    }
    Some(())
}
