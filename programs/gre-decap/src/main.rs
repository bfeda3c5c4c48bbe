//! The GRE decapsulator of the downlink: GRE over IPv4 or IPv6 in, the inner packet as a plain Ethernet frame out.
//!
//! A packet that is not GRE passes untouched. Nothing is changed before every check has passed.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    btf_maps::HashMap,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xdpchain_abi::{
    GreIngress, Inside6, Ipv4, NO_SESSION, PacketContext, Reason, direction, tags, tunnel_flags,
};
use xdpchain_kit::{Inner, Packet, decapsulated_tos, is_link_local, is_within6, set_tos, sum};
use xdpchain_wire::{Octets as _, ethernet::ethertype, gre, ipv4, ipv6};

mod outer;
mod plain;
mod tunnels;

use outer::Outer;

xdpchain_kit::module!();

/// Inside IPv6 addresses of tunnels that have any.
#[btf_map(name = "inside6")]
static INSIDE6: HashMap<u32, Inside6, 4096> = HashMap::new();

/// Takes GRE off a packet.
#[xdp]
fn gre_decap(ctx: XdpContext) -> u32 {
    // What has left a tunnel already is a user's packet, whose addresses are none of this network's: GRE inside of it is
    // the user's own.
    if module::context().direction != direction::NONE {
        return XDP_PASS;
    }
    match plain::decapsulate(&ctx) {
        Some(verdict) => verdict,
        // SAFETY: the context is the kernel's, and not used further on.
        None => unsafe { xdpchain_decapsulate(ctx.ctx) },
    }
}

/// What becomes of a packet: the long way, which any packet may take. A global function.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_decapsulate(ctx: *mut xdp_md) -> u32 {
    // SAFETY: as the caller promises.
    let mut packet = unsafe { Packet::of(ctx) };
    match decapsulate(&mut packet) {
        Ok(verdict) => verdict,
        Err(reason) => module::refuse(packet.forget_reason(reason)),
    }
}

/// The packet's verdict, or why it is not forwarded.
#[inline(always)]
fn decapsulate(packet: &mut Packet) -> Result<u32, Reason> {
    let Some(outer) = Outer::parse(packet)? else { return Ok(XDP_PASS) };
    let Outer { header, end, key, .. } = outer;
    let tunnel = tunnels::find(&key).ok_or(Reason::GreUnknownTunnel)?;

    let offset = packet.forget::<0xff>(header + check_header(packet, tunnel, header, end)?);
    let inner = Inner::parse(packet, offset, end)?;
    let gre = gre::View(packet.at(header).ok_or(Reason::Truncated)?);
    if gre.protocol() != inner.ethertype {
        return Err(Reason::InnerMalformed);
    }
    if inner.ethertype == ethertype::IPV4 {
        let destination = ipv4::View(packet.at(inner.offset).ok_or(Reason::Truncated)?).destination();
        if is_inside(tunnel, destination) {
            return Err(Reason::GreControl);
        }
        if destination == key.remote || destination == key.local {
            return Err(Reason::GreLoop);
        }
    } else {
        if is_inside6(packet, inner.offset, tunnel) {
            return Err(Reason::GreControl);
        }
        if outer.is_loop6(packet, inner.offset) {
            return Err(Reason::GreLoop);
        }
    }

    // Asked while the packet is whole: the kernel is to get what came in, not an inner packet without its customer.
    if inner.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let tos = decapsulated_tos(outer.tos, inner.tos)?;
    if tos != inner.tos {
        set_tos(packet, inner.offset, tos).ok_or(Reason::Truncated)?;
    }
    let tags = packet.tags(outer.network, tags::DROP, 0).ok_or(Reason::Truncated)?;
    let before = packet.open(inner.offset, inner.len, inner.ethertype, &tags).ok_or(Reason::Truncated)?;
    module::take_off(packet, before, |context| say(context, tunnel, inner.len, outer.tos))
        .ok_or(Reason::Truncated)?;
    Ok(XDP_PASS)
}

/// Says in the context whose packet has left its tunnel.
#[inline(always)]
fn say(context: &mut PacketContext, tunnel: &GreIngress, inner_len: usize, outer_tos: u8) {
    context.customer = tunnel.customer;
    context.session = NO_SESSION;
    context.tunnel = tunnel.tunnel;
    context.inner_len = inner_len as u16;
    context.direction = direction::DOWNLINK;
    context.outer_tos = outer_tos;
}

/// Judges the GRE header at `header` of a packet that ends at `end`; returns its length.
#[inline(always)]
fn check_header(packet: &Packet, tunnel: &GreIngress, header: usize, end: usize) -> Result<usize, Reason> {
    let view = gre::View(packet.at(header).ok_or(Reason::Truncated)?);
    // The version decides what every other bit means, so it comes first.
    if view.version() != 0 {
        return Err(Reason::GreVersion);
    }
    if view.has_reserved() {
        return Err(Reason::GreFlags);
    }
    let len = view.header_len();
    if header + len > end {
        return Err(Reason::Truncated);
    }
    if view.has_checksum() {
        let verify = tunnel.flags & tunnel_flags::VERIFY_CHECKSUM != 0;
        if !verify || sum(packet, header, end) != Some(0xffff) {
            return Err(Reason::GreFlags);
        }
    }
    // Read where it is compared: a key that may not be there is left unset on the stack, and kernels before 5.16 do not see that
    // nobody looks at it then.
    if view.has_key() != (tunnel.flags & tunnel_flags::HAS_KEY != 0) {
        return Err(Reason::GreKey);
    }
    if view.has_key() {
        let at = header + gre::LEN + if view.has_checksum() { 4 } else { 0 };
        let key: &[u8; 4] = packet.at(at).ok_or(Reason::Truncated)?;
        if *key != tunnel.key.octets {
            return Err(Reason::GreKey);
        }
    }
    match view.protocol() {
        ethertype::IPV4 | ethertype::IPV6 => Ok(len),
        0 => Err(Reason::GreKeepalive),
        _ => Err(Reason::GreProtocol),
    }
}

/// Whether `address` is in the tunnel's inside prefix.
#[inline(always)]
fn is_inside(tunnel: &GreIngress, address: Ipv4) -> bool {
    let differ = u32::from_be_bytes(tunnel.inside.octets) ^ u32::from_be_bytes(address.octets);
    // In 64 bits, because a shift by 32 is due for a prefix of length 0, which the test before excludes.
    tunnel.inside_len != 0 && (differ as u64) >> (32 - tunnel.inside_len.min(32) as u64) == 0
}

/// Whether the IPv6 packet at `offset` is to an address of the tunnel's link, or in its inside prefix.
#[inline(always)]
fn is_inside6(packet: &Packet, offset: usize, tunnel: &GreIngress) -> bool {
    let Some(header) = packet.at::<{ ipv6::LEN }>(offset) else { return false };
    if is_link_local(header[24], header[25]) {
        return true;
    }
    if tunnel.flags & tunnel_flags::INSIDE6 == 0 {
        return false;
    }
    // SAFETY: nothing in this program removes an entry.
    let inside = unsafe { INSIDE6.get(tunnel.tunnel) };
    inside.is_some_and(|inside| is_within6(ipv6::View(header).destination(), inside.prefix, inside.len))
}
