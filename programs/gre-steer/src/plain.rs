//! Packets as most of them are, which need nothing but what another one of their customer found out a short while ago.
//!
//! - Such a packet is [`Plain`]; its tunnel is one over IPv4, without fragments, whose next hop is known.
//! - Whatever else it is, it takes the long way, of which this is a part that asks less: it may leave any packet to it, and what it
//!   sends leaves as by the long way.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use xdpchain_abi::{Be32, CUSTOMER_TUNNELS, Reason, tunnel_flags};
use xdpchain_kit::{KEPT_TICKS, Packet, Plain, is_alias, send, ticks};
use xdpchain_wire::{
    ethernet::{self, ethertype},
    gre, ipv4,
};

use crate::{
    KEY, module,
    tunnels::{self, Choice, KEPT},
};

/// Octets in front of the inner packet: as many as it had, and as many as it gets without a key.
const BEFORE: usize = ethernet::LEN;
const AFTER: usize = ethernet::LEN + ipv4::LEN + gre::LEN;
/// Where the outer IPv4 header begins.
const OUTER: usize = ethernet::LEN;

/// Where what packets differ by stands in the outer headers: TOS octet, length and checksum.
const TOS: usize = OUTER + 1;
const LENGTH: usize = OUTER + 2;
const CHECKSUM: usize = OUTER + 10;
/// Where the GRE header's protocol stands, behind which a key does.
const KIND: usize = AFTER - 2;

/// What customers' packets need, by the last bits of the customer's number.
#[btf_map(name = "kept_headers")]
static READY: PerCpuArray<[Ready; CUSTOMER_TUNNELS], { KEPT as usize }> = PerCpuArray::new();

/// What packets need that take one of a customer's tunnels.
#[repr(C)]
struct Ready {
    /// The tick of the kernel's clock at which the older of both was asked for that it is made of.
    asked: u64,
    customer: u32,
    /// The tunnel's number.
    tunnel: u32,
    /// What the next hop was asked for: the interface that packets come in on, and the outer DSCP.
    ingress: u32,
    dscp: u32,
    /// Octets of the longest outer packet that is known to fit.
    fits: u32,
    /// The interface that packets go out of.
    egress: u32,
    /// Bits of the inner TOS octet that the outer one has, and its other bits.
    tos_kept: u16,
    tos_set: u16,
    /// Of the first tunnel: 1 when the customer of whom something was kept last has one tunnel, so that nobody needs to ask which it is.
    alone: u32,
    /// Octets of the tunnel's key, 0 or [`KEY`], and the key.
    key_len: u32,
    key: Be32,
    /// Sum of the outer IPv4 header without what packets differ by, in the machine's order.
    sum: u32,
    /// The outer headers of some packet, up to the GRE header's protocol.
    headers: [u8; KIND],
}

/// Sends a plain packet of `customer`. `None`, and nothing has changed, when it has to take the long way.
#[inline(always)]
pub(crate) fn forward(packet: &mut Packet, customer: u32) -> Option<u32> {
    let Plain { kind, len, tos } = Plain::parse(packet)?;
    let all = READY.get_ptr(customer & (KEPT - 1))?.cast::<Ready>();
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
    let mut ready = unsafe { &*all };
    if ready.alone == 0 {
        let Choice { at, number } = tunnels::choice(packet, u16::from_be(kind), customer)?;
        // SAFETY: as above, one of the value's.
        ready = unsafe { &*all.add(at) };
        if ready.tunnel != number {
            return None;
        }
    }
    let total_len = len + (AFTER - OUTER) as u32 + ready.key_len;
    let tos = tos & ready.tos_kept as u32 | ready.tos_set as u32;
    if ready.customer != customer
        || ready.ingress != packet.ingress_ifindex()
        || (ready.dscp ^ tos) & 0xfc != 0
        || total_len > ready.fits
        || ticks().wrapping_sub(ready.asked) >= KEPT_TICKS
    {
        return None;
    }
    let delta = BEFORE as i32 - AFTER as i32 - ready.key_len as i32;
    module::move_start(packet, delta, |context| context.tunnel = ready.tunnel)?;
    if write(packet, ready, kind, tos, total_len as u16).is_none() {
        // It was there just now, and is longer.
        return Some(module::refuse(Reason::Headroom));
    }
    Some(send(ready.ingress, ready.egress))
}

/// Writes the headers around the inner packet, whose EtherType is `kind`, into the room that is there for them, and takes a hop off it.
#[inline(always)]
fn write(packet: &mut Packet, ready: &Ready, kind: u16, tos: u32, total_len: u16) -> Option<()> {
    let (front, inner) = if ready.key_len == 0 {
        let front: &mut [u8; AFTER + ipv4::LEN] = packet.front_mut()?;
        front.split_last_chunk_mut()?
    } else {
        let front: &mut [u8; AFTER + KEY + ipv4::LEN] = packet.front_mut()?;
        let (front, inner) = front.split_last_chunk_mut()?;
        front[AFTER..].copy_from_slice(&ready.key.octets);
        (front, inner)
    };
    let front: &mut [u8; AFTER] = front.first_chunk_mut()?;
    let len = total_len.to_be() as u32;
    let sum = ready.sum + (tos << 8) + len;
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !(sum + (sum >> 16));
    copy(&ready.headers, front.first_chunk_mut()?);
    front[TOS] = tos as u8;
    front[LENGTH..LENGTH + 2].copy_from_slice(&total_len.to_be_bytes());
    front[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(checksum as u16).to_ne_bytes());
    front[KIND..AFTER].copy_from_slice(&kind.to_ne_bytes());
    if kind == ethertype::IPV4.to_be() {
        ipv4::decrement_ttl(inner);
    } else {
        inner[7] = inner[7].wrapping_sub(1);
    }
    Some(())
}

/// Copies headers by words: for a copy of octets the compiler calls a function.
#[inline(always)]
fn copy(from: &[u8; KIND], to: &mut [u8; KIND]) {
    const { assert!(KIND % 8 == 4) };
    let ((words, last), (to_words, to_last)) = (from.as_chunks(), to.as_chunks_mut());
    for (to, word) in to_words.iter_mut().zip(words) {
        *to = u64::from_ne_bytes(*word).to_ne_bytes();
    }
    to_last.copy_from_slice(last);
}

/// Keeps how a packet of `customer` was sent, which took the long way just now, into the tunnel with this number.
#[inline(always)]
pub(crate) fn keep(packet: &Packet, customer: u32, number: u32) {
    let (Some(taken), Some(front)) = (tunnels::taken(packet, customer, number), packet.front::<KIND>())
    else {
        return;
    };
    let Some(all) = READY.get_ptr_mut(customer & (KEPT - 1)) else { return };
    let flags = taken.tunnel.flags;
    if is_alias(taken.tunnel.remote) || flags & tunnel_flags::ALLOW_FRAGMENTS != 0 {
        return;
    }
    // SAFETY: as in `forward`, which has no reference to it meanwhile.
    let all = unsafe { &mut *all };
    all[0].alone = taken.alone as u32;
    let ready = &mut all[taken.at];
    // In the machine's order, as the sum is the same in any: version to TOS, from identification to protocol, addresses.
    let half = |at: usize| u16::from_ne_bytes([front[at], front[at + 1]]) as u32;
    let first = u16::from_ne_bytes([front[OUTER], 0]) as u32;
    ready.sum = first + half(18) + half(20) + half(22) + half(26) + half(28) + half(30) + half(32);
    copy(front, &mut ready.headers);
    ready.key_len = if flags & tunnel_flags::HAS_KEY != 0 { KEY as u32 } else { 0 };
    ready.key = taken.tunnel.key;
    let fixed = flags & tunnel_flags::FIXED_DSCP != 0;
    (ready.tos_kept, ready.tos_set) = if fixed { (0b11, (taken.tunnel.dscp << 2) as u16) } else { (0xff, 0) };
    ready.dscp = front[TOS] as u32;
    ready.ingress = packet.ingress_ifindex();
    ready.egress = taken.hop.egress();
    ready.fits = taken.hop.fits();
    ready.tunnel = number;
    ready.customer = customer;
    ready.asked = taken.asked;
}
