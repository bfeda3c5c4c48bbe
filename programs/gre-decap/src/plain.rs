//! Packets as most of them are: GRE over IPv4 without key, checksum and sequence number.
//!
//! - Such a packet is alone in its frame, without tags and IPv4 options around it, and is not for the tunnel's own addresses.
//! - Whatever else it is, it takes the long way, of which this is a part that asks less: it may leave any packet to it, and what
//!   leaves its tunnel here does so as by the long way.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use xdpchain_abi::{GreIngress, GreKey, Ipv4, Reason, tunnel_flags};
use xdpchain_kit::{Addresses, Inner, Packet, is_link_local, is_same_ecn, open6};
use xdpchain_wire::{
    Octets as _,
    ethernet::{self, ethertype},
    gre, ipv4, ipv6, protocol,
};

use crate::{TUNNELS, is_inside, module, say};

/// Where the headers begin.
const IP: usize = ethernet::LEN;
const GRE: usize = IP + ipv4::LEN;
/// What is behind GRE's header.
const END: usize = GRE + gre::LEN;

/// Decapsulates a plain packet, and passes on a plain one that is no GRE. `None`, and nothing has changed, when it has to take the
/// long way.
#[inline(always)]
pub(crate) fn decapsulate(packet: &mut Packet) -> Option<u32> {
    let front: &[u8; END] = packet.front()?;
    let end = packet.len();
    let ip = ipv4::View(front[IP..].first_chunk()?);
    if [front[12], front[13]] != ethertype::IPV4.to_be_bytes() || front[IP] != 0x45 || ip.is_fragment() {
        return None;
    }
    // ICMP may be about packets of ours.
    if ip.protocol() != protocol::GRE {
        return if ip.protocol() == protocol::ICMP { None } else { Some(XDP_PASS) };
    }
    // Of the bits in front of the type each asks for something.
    if IP + ip.total_len() as usize != end || [front[GRE], front[GRE + 1]] != [0; 2] {
        return None;
    }
    let (key, outer_tos) = (GreKey { remote: ip.source(), local: ip.destination() }, ip.tos());
    let is_ipv4 = match u16::from_be_bytes([front[GRE + 2], front[GRE + 3]]) {
        ethertype::IPV4 => true,
        ethertype::IPV6 => false,
        _ => return None,
    };
    // SAFETY: nothing in this program removes an entry.
    let tunnel = unsafe { TUNNELS.get(key) }?;
    if tunnel.flags & tunnel_flags::HAS_KEY != 0 {
        return None;
    }
    if is_ipv4 {
        let front: &mut [u8; END + ipv4::LEN] = packet.front_mut()?;
        let (outer, inner) = front.split_last_chunk_mut()?;
        if !is_plain4(inner, end - END, &key, tunnel, outer_tos) {
            return None;
        }
        let addresses = Addresses::parse(outer.first_chunk()?);
        addresses.write_header(outer.last_chunk_mut()?, ethertype::IPV4);
    } else {
        let passes = |packet: &Packet, inner: &Inner| is_plain6(packet, inner, tunnel);
        open6(packet, END, end, outer_tos, passes)?;
    }
    if packet.move_start((END - ethernet::LEN) as i32).is_none() {
        // It is longer than what is taken away.
        return Some(module::refuse(Reason::Truncated));
    }
    say(tunnel, end - END, outer_tos);
    Some(XDP_PASS)
}

/// Whether an inner IPv4 packet of `len` octets has no options, and nobody here is to look at it.
#[inline(always)]
fn is_plain4(inner: &[u8; ipv4::LEN], len: usize, key: &GreKey, tunnel: &GreIngress, outer_tos: u8) -> bool {
    let ip = ipv4::View(inner);
    let is_ours = |address: Ipv4| address == key.remote || address == key.local || is_inside(tunnel, address);
    inner[0] == 0x45
        && ip.total_len() as usize == len
        && ip.ttl() > 1
        && is_same_ecn(outer_tos, ip.tos())
        && !is_ours(ip.destination())
}

/// Whether nobody here is to look at the inner IPv6 packet: it is not to the link, and the tunnel has no inside addresses.
#[inline(always)]
fn is_plain6(packet: &Packet, inner: &Inner, tunnel: &GreIngress) -> bool {
    let Some(header) = packet.at::<{ ipv6::LEN }>(inner.offset) else { return false };
    !is_link_local(header[24], header[25]) && tunnel.flags & tunnel_flags::INSIDE6 == 0
}
