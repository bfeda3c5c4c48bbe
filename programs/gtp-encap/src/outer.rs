//! What GTP-U asks of the outer header: the session's addresses, and a UDP checksum over IPv6.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use xdpchain_abi::{Address6, DownlinkSession, Ipv4, Reason, peer_flags, session_flags};
use xdpchain_kit::{Ends, Inner, MAX_SUMMED, Outer, Packet, udp_sum};
use xdpchain_wire::{OctetsMut as _, ethernet, protocol};

use crate::hops;

/// IPv6 addresses, ours, the peers' and those of GRE tunnels, by the aliases that sessions and tunnels call them.
#[btf_map(name = "addresses6")]
static ADDRESSES6: HashMap<Ipv4, Address6, 4096> = HashMap::new();

/// What an alias stands for.
#[inline(always)]
pub(crate) fn address6(alias: Ipv4) -> Option<&'static Address6> {
    // SAFETY: nothing here changes the map, and what user space replaces meanwhile is an address all the same.
    unsafe { ADDRESSES6.get(alias) }
}

/// The outer header of `session` in front of `overhead` octets and `inner`.
///
/// # Errors
/// Why the packet is not sent.
#[inline(always)]
pub(crate) fn new(
    packet: &Packet,
    inner: &Inner,
    session: &DownlinkSession,
    overhead: usize,
) -> Result<Outer<'static>, Reason> {
    let tos = tos(session, inner.tos);
    let ends = Ends { source: session.local, destination: session.peer, protocol: protocol::UDP, tos };
    hops::outer(packet, ends, overhead + inner.len)
}

/// The TOS octet or traffic class around a packet with `inner`.
#[inline(always)]
pub(crate) fn tos(session: &DownlinkSession, inner: u8) -> u8 {
    if session.flags & session_flags::FIXED_DSCP == 0 { inner } else { session.dscp << 2 | inner & 0b11 }
}

/// Whether the packet neither fits the way out nor may be fragmented on it, or is too long to sum it for the checksum.
#[inline(always)]
pub(crate) fn is_too_long(outer: &Outer<'_>, packet: &Packet, inner: &Inner) -> bool {
    outer.remote6().is_some() && outer.total_len() > MAX_SUMMED || outer.is_too_long(packet, inner)
}

/// Writes the checksum of the UDP datagram at `transport`, which is finished but for it, when it is due.
///
/// # Errors
/// [`Reason::Headroom`] when the packet is not as long as it was made, which it is.
#[inline(always)]
pub(crate) fn sum(outer: &Outer<'_>, packet: &mut Packet, transport: usize) -> Result<(), Reason> {
    let Some(peer) = outer.remote6() else { return Ok(()) };
    if peer.flags & peer_flags::ZERO_CHECKSUM != 0 {
        return Ok(());
    }
    let end = ethernet::LEN + outer.total_len();
    let sum = udp_sum(packet, ethernet::LEN, transport, end).ok_or(Reason::Headroom)?;
    // A checksum that comes out as 0 is sent as its other form (RFC 768).
    let checksum = if sum == 0xffff { 0xffff } else { !sum };
    let field: &mut [u8; 2] = packet.at_mut(transport + 6).ok_or(Reason::Headroom)?;
    *field = checksum.to_be_bytes();
    Ok(())
}
