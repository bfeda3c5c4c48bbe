//! The module that sends a customer's uplink packets into the customer's GRE tunnels.
//!
//! - It acts only on packets whose context says uplink; every other one passes on untouched.
//! - Tunnel and next hop are found before the first change, so a packet that has none is refused as it came in.
//! - A packet that is too big and must not be fragmented becomes the ICMP message that tells its sender, in the other
//!   direction: `gtp-encap`, in a later slot, puts it into the tunnel that the packet came from. One that may be fragmented
//!   the kernel gets as a finished outer packet, to fragment that.
//! - The outer header is IPv4 or IPv6, as the tunnel's addresses are. The GRE header is RFC 2784's with flags 0, or RFC 2890's with a key when the tunnel has one.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_PASS, XDP_REDIRECT, XDP_TX},
        xdp_md,
    },
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xdpchain_abi::{EncapConfig, Reason, direction, tunnel_flags};
use xdpchain_kit::{Ends, Inner, Packet, clamp_mss, decrement_ttl, fate, fragment_id, is_syn, mss_mtu};
use xdpchain_wire::{
    ethernet::{self, ethertype},
    gre, protocol,
};

mod plain;
mod too_big;
mod tunnels;

xdpchain_kit::module!();

/// What is done with packets that cannot be sent.
#[btf_map(name = "config")]
static CONFIG: Array<EncapConfig, 1> = Array::new();

/// Outer TTL of a tunnel that does not say.
const TTL: u8 = 64;
/// Octets of the key field.
const KEY: usize = 4;

/// Encapsulates what goes uplink, passes on the rest.
#[xdp]
fn gre_steer(ctx: XdpContext) -> u32 {
    let context = module::context();
    if context.direction != direction::UPLINK {
        return XDP_PASS;
    }
    let mut packet = module::packet(&ctx, &context);
    if let Some(verdict) = plain::forward(&mut packet, context.customer) {
        return verdict;
    }
    // With nothing in front of it from here on.
    let packet = Packet::new(&ctx);
    // Asked anew, so that the short way need not hold on to it.
    let customer = module::context().customer;
    // SAFETY: the context is the packet's, to which nobody has a reference meanwhile.
    let verdict = unsafe { xdpchain_steer(packet.as_ptr(), customer) };
    if matches!(verdict, XDP_TX | XDP_REDIRECT) {
        let context = module::context();
        plain::keep(&packet, context.customer, context.tunnel);
    }
    verdict
}

/// Encapsulates a packet of `customer`: the long way, which any packet may take. A global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_steer(ctx: *mut xdp_md, customer: u32) -> u32 {
    // SAFETY: as the caller promises.
    let mut packet = unsafe { module::whole_packet(ctx) };
    match forward(&mut packet, customer) {
        Ok(verdict) => verdict as u32,
        Err(reason) => {
            let reason = packet.forget_reason(reason);
            module::refuse_as(reason, fate(CONFIG.get(0), reason))
        }
    }
}

/// Sends the packet into one of `customer`'s tunnels, or says why not. The verdict has 64 bits, as one of 32 would be packed into one
/// word with the reason, and taken out of it again.
#[inline(always)]
fn forward(packet: &mut Packet, customer: u32) -> Result<u64, Reason> {
    let link = packet.link().ok_or(Reason::Truncated)?;
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return Ok(XDP_PASS as u64);
    }
    let inner = packet.forget_version(Inner::parse(packet, link.network, packet.len())?);
    if inner.to_group {
        return Err(Reason::InnerMulticast);
    }
    if inner.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    // Not copied: each octet of it would take eight of the stack.
    let chosen = tunnels::find(packet, &inner, customer)?;
    let (number, tunnel) = (chosen.number, chosen.tunnel);
    module::change_context(|context| context.tunnel = number);

    let has_key = tunnel.flags & tunnel_flags::HAS_KEY != 0;
    let overhead = packet.forget::<0xf>(gre::LEN + if has_key { KEY } else { 0 });
    let tos = if tunnel.flags & tunnel_flags::FIXED_DSCP == 0 {
        inner.tos
    } else {
        tunnel.dscp << 2 | inner.tos & 0b11
    };
    let ends = Ends { source: tunnel.local, destination: tunnel.remote, protocol: protocol::GRE, tos };
    let outer = chosen.outer(packet, ends, overhead + inner.len)?;
    let headers = outer.ip_len() + overhead;
    if outer.is_too_long(packet, &inner) {
        let mtu = outer.next_hop.room(headers);
        return too_big::tell(packet, &inner, mtu).map(u64::from);
    }
    let may_fragment = tunnel.flags & tunnel_flags::ALLOW_FRAGMENTS != 0 || outer.next_hop.is_too_long();
    let id = if may_fragment { fragment_id(packet, &inner, tunnels::entropy(packet, &inner)) } else { 0 };
    let mss_mtu = if is_syn(packet, &inner) { mss_mtu(CONFIG.get(0), &outer.next_hop, headers) } else { 0 };

    packet.truncate(inner.offset + inner.len).ok_or(Reason::Truncated)?;
    packet.move_start(inner.offset as i32 - (ethernet::LEN + headers) as i32).ok_or(Reason::Headroom)?;

    let ttl = if tunnel.ttl == 0 { TTL } else { tunnel.ttl };
    outer.emit(packet, ttl, id).ok_or(Reason::Headroom)?;
    let gre =
        gre::Repr { protocol: inner.ethertype, key: has_key.then_some(tunnel.key), ..gre::Repr::default() };
    let at = packet.forget::<0x3f>(ethernet::LEN + outer.ip_len());
    gre.emit(packet, at).ok_or(Reason::Headroom)?;
    let start = packet.forget::<0x3f>(ethernet::LEN + headers);
    decrement_ttl(packet, start).ok_or(Reason::Headroom)?;
    if mss_mtu != 0 {
        // A header that is cut short says nothing that could be lowered.
        clamp_mss(packet, inner.ethertype, start, mss_mtu);
    }
    outer.next_hop.send(packet).map(u64::from)
}
