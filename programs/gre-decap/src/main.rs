//! The GRE decapsulator of the downlink: GRE over IPv4 in, the inner packet as a plain Ethernet frame out.
//!
//! A packet that is not GRE passes untouched. Nothing is changed before every check has passed.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    btf_maps::HashMap,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use xdpchain_abi::{GreIngress, GreKey, Ipv4, NO_SESSION, Reason, direction, tags, tunnel_flags};
use xdpchain_kit::{Inner, Packet, decapsulated_tos, set_tos, sum};
use xdpchain_wire::{Octets as _, ethernet::ethertype, gre, icmp, ipv4, protocol};

xdpchain_kit::module!();
use module::{change_context, context, refuse_as};

#[btf_map(name = "tunnels")]
static TUNNELS: HashMap<GreKey, GreIngress, 4096> = HashMap::new();

/// Takes GRE off a packet.
#[xdp]
fn gre_decap(ctx: XdpContext) -> u32 {
    // What has left a tunnel already is a user's packet, whose addresses are none of this network's: GRE inside of it is
    // the user's own.
    if context().direction != direction::NONE {
        return XDP_PASS;
    }
    match decapsulate(&mut Packet::new(&ctx)) {
        Ok(verdict) => verdict,
        Err(reason) => refuse_as(reason, reason.fate()),
    }
}

#[inline(always)]
fn decapsulate(packet: &mut Packet) -> Result<u32, Reason> {
    let link = packet.link().ok_or(Reason::Truncated)?;
    if link.ethertype != ethertype::IPV4 {
        return Ok(XDP_PASS);
    }
    let outer = ipv4::View(packet.at(link.network).ok_or(Reason::Truncated)?);
    // A header that contradicts itself is for the kernel to count.
    if outer.version() != 4 || outer.header_len() < ipv4::LEN {
        return Ok(XDP_PASS);
    }
    if outer.protocol() != protocol::GRE {
        return if is_about_ours(packet, outer, link.network) {
            Err(Reason::OuterPmtu)
        } else {
            Ok(XDP_PASS)
        };
    }
    if outer.is_fragment() {
        return Err(Reason::Fragment);
    }
    let end = link.network + outer.total_len() as usize;
    let header = packet.forget::<0x7f>(link.network + outer.header_len());
    if end > packet.len() || header + gre::LEN > end {
        return Err(Reason::Truncated);
    }
    let outer_tos = outer.tos();
    let key = GreKey { remote: outer.source(), local: outer.destination() };
    // SAFETY: nothing in this program removes an entry.
    let tunnel = unsafe { TUNNELS.get(key) }.ok_or(Reason::GreUnknownTunnel)?;

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
    }

    // Asked while the packet is whole: the kernel is to get what came in, not an inner packet without its customer.
    if inner.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let tos = decapsulated_tos(outer_tos, inner.tos)?;
    if tos != inner.tos {
        set_tos(packet, inner.offset, tos).ok_or(Reason::Truncated)?;
    }
    let tags = packet.tags(link.network, tags::DROP, 0).ok_or(Reason::Truncated)?;
    packet.strip(inner.offset, inner.len, inner.ethertype, &tags).ok_or(Reason::Truncated)?;
    change_context(|context| {
        context.customer = tunnel.customer;
        context.session = NO_SESSION;
        context.tunnel = tunnel.tunnel;
        context.inner_len = inner.len as u16;
        context.direction = direction::DOWNLINK;
        context.outer_tos = outer_tos;
    });
    Ok(XDP_PASS)
}

/// Whether the packet, whose header at `network` is `outer`, says that a packet of one of our tunnels was too big (RFC 1191).
#[inline(always)]
fn is_about_ours(packet: &Packet, outer: ipv4::View<'_>, network: usize) -> bool {
    if outer.protocol() != protocol::ICMP || outer.is_fragment() {
        return false;
    }
    let local = outer.destination();
    let header = packet.forget::<0x7f>(network + outer.header_len());
    let Some(message) = packet.at(header) else { return false };
    if !icmp::View(message).is_fragmentation_needed() {
        return false;
    }
    let Some(about) = packet.at(header + icmp::LEN) else { return false };
    let about = ipv4::View(about);
    let key = GreKey { remote: about.destination(), local: about.source() };
    about.version() == 4
        && about.protocol() == protocol::GRE
        && key.local == local
        && TUNNELS.get_ptr(key).is_some()
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
    let repr = gre::Repr::parse(packet, header).ok_or(Reason::Truncated)?;
    if repr.checksum.is_some() {
        let verify = tunnel.flags & tunnel_flags::VERIFY_CHECKSUM != 0;
        if !verify || sum(packet, header, end) != Some(0xffff) {
            return Err(Reason::GreFlags);
        }
    }
    let expected = (tunnel.flags & tunnel_flags::HAS_KEY != 0).then_some(tunnel.key);
    if repr.key != expected {
        return Err(Reason::GreKey);
    }
    match repr.protocol {
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
