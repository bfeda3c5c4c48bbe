//! Packets as most of them are: GRE over IPv4 without checksum and sequence number.
//!
//! - Such a packet is alone in its frame, with one tag at most and no IPv4 options around it, and is not for the tunnel's own
//!   addresses.
//! - Whatever else it is, it takes the long way, of which this is a part that asks less: it may leave any packet to it, and what
//!   leaves its tunnel here does so as by the long way.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, programs::XdpContext};
use xdpchain_abi::{GreIngress, GreKey, Ipv4, PacketContext, Reason, tunnel_flags};
use xdpchain_kit::{Inner, Packet, is_link_local, is_same_ecn, is_tagged, open4, open4_front, open6};
use xdpchain_wire::{
    Octets as _,
    ethernet::{self, ethertype},
    gre, ipv4, ipv6, protocol,
};

use crate::{is_inside, module, say, tunnels};

/// Where the headers begin.
const IP: usize = ethernet::LEN;
const GRE: usize = IP + ipv4::LEN;
/// What is behind GRE's header, without and with a key.
const END: usize = GRE + gre::LEN;
const KEYED_END: usize = END + KEY;

/// Octets of a key, and the first two of a header with nothing else.
const KEY: usize = 4;
const KEYED: [u8; 2] = [0x20, 0];

/// Decapsulates a plain packet, and passes on a plain one that is no GRE. `None`, and nothing has changed, when it has to take the
/// long way.
#[inline(always)]
pub(crate) fn decapsulate(ctx: &XdpContext) -> Option<u32> {
    if is_tagged::<END>(ctx)? {
        return decapsulate_seen(&mut Packet::behind_tag(ctx));
    }
    decapsulate_seen(&mut Packet::new(ctx))
}

/// The same of one as it is seen without a tag.
#[inline(always)]
fn decapsulate_seen(packet: &mut Packet) -> Option<u32> {
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
    let asked = [front[GRE], front[GRE + 1]];
    let has_key = asked == KEYED;
    if IP + ip.total_len() as usize != end || !has_key && asked != [0; 2] {
        return None;
    }
    let (key, outer_tos) = (GreKey { remote: ip.source(), local: ip.destination() }, ip.tos());
    let is_ipv4 = match u16::from_be_bytes([front[GRE + 2], front[GRE + 3]]) {
        ethertype::IPV4 => true,
        ethertype::IPV6 => false,
        _ => return None,
    };
    let tunnel = tunnels::recall(&key)?;
    if has_key != (tunnel.flags & tunnel_flags::HAS_KEY != 0) {
        return None;
    }
    if has_key {
        if *packet.at::<KEY>(END)? != tunnel.key.octets {
            return None;
        }
        open_keyed(packet, end, is_ipv4, &key, tunnel, outer_tos)?;
    } else if is_ipv4 {
        open4_front::<{ END + ipv4::LEN }>(packet, |inner| {
            is_plain4(inner, end - END, &key, tunnel, outer_tos).then_some(true)
        })?;
    } else {
        let passes = |packet: &Packet, inner: &Inner| is_plain6(packet, inner, tunnel);
        open6(packet, END, end, outer_tos, passes)?;
    }
    let begin = packet.forget::<0x3f>(if has_key { KEYED_END } else { END });
    let say = |context: &mut PacketContext| say(context, tunnel, end - begin, outer_tos);
    if module::take_off(packet, begin - ethernet::LEN, say).is_none() {
        // It is longer than what is taken away.
        return Some(module::refuse(Reason::Truncated));
    }
    Some(XDP_PASS)
}

/// Makes the packet behind a key, up to `end`, a frame, but for the move of its start. `None`, and nothing has changed, when it is
/// for the long way.
#[inline(always)]
fn open_keyed(
    packet: &mut Packet,
    end: usize,
    is_ipv4: bool,
    key: &GreKey,
    tunnel: &GreIngress,
    outer_tos: u8,
) -> Option<()> {
    if !is_ipv4 {
        let passes = |packet: &Packet, inner: &Inner| is_plain6(packet, inner, tunnel);
        return open6(packet, KEYED_END, end, outer_tos, passes);
    }
    open4(packet, KEYED_END, |inner| {
        is_plain4(inner, end - KEYED_END, key, tunnel, outer_tos).then_some(true)
    })
    .map(|_| ())
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
