//! The maximum segment size of TCP, lowered to what tunnels take.

use aya_ebpf::bindings::xdp_md;
use xdpchain_abi::EncapConfig;
use xdpchain_wire::{Octets, OctetsMut, checksum, ethernet::ethertype, ipv4, ipv6, protocol, tcp};

use crate::{Inner, NextHop, Packet};

/// Options that are looked at; a header has room for 40 of one octet.
const MAX_OPTIONS: usize = 40;
/// Over all offsets that a header may have.
const FOUND: usize = 0x100;

/// Whether the inner packet opens a TCP connection: its sender says what it takes (RFC 9293, 3.7.1). Of a fragment, and of
/// IPv6 with extension headers, that is not asked.
#[inline(always)]
pub fn is_syn<O: Octets + ?Sized>(packet: &O, inner: &Inner) -> bool {
    header(packet, inner.ethertype, inner.offset)
        .and_then(|tcp| packet.at::<1>(tcp + 13))
        .is_some_and(|flags| flags[0] & tcp::flags::SYN != 0)
}

/// Where the TCP header of the IP packet of type `ethertype` at `offset` begins.
#[inline(always)]
fn header<O: Octets + ?Sized>(packet: &O, ethertype: u16, offset: usize) -> Option<usize> {
    if ethertype == ethertype::IPV4 {
        let view = ipv4::View(packet.at(offset)?);
        (view.protocol() == protocol::TCP && !view.is_fragment()).then(|| offset + view.header_len())
    } else {
        let view = ipv6::View(packet.at(offset)?);
        (view.next_header() == protocol::TCP).then_some(offset + ipv6::LEN)
    }
}

/// Octets of the longest inner packet that a connection which is opened now may count on, with `overhead` octets in front
/// on the way to `next_hop`; 0 when its MSS is to be left alone.
#[inline(always)]
pub fn mss_mtu(config: Option<&EncapConfig>, next_hop: &NextHop<'_>, overhead: usize) -> usize {
    let most = config.map_or(0, |config| config.mss_clamp as usize);
    match next_hop.room(overhead) {
        room if room != 0 && room < most => room,
        _ => most,
    }
}

/// Lowers the maximum segment size in the SYN of type `ethertype` at `offset` so that a packet with so much fits in `mtu`
/// octets, and corrects the checksum. What is lower, or does not say, stays: without the option segments are small anyway
/// (RFC 9293, 3.7.1).
#[inline(always)]
pub fn clamp_mss(packet: &mut Packet, ethertype: u16, offset: usize, mtu: usize) {
    // SAFETY: the context is the packet's.
    unsafe { xdpchain_clamp_mss(packet.as_ptr(), ethertype as u32, offset as u32, mtu as u32) };
}

/// As [`clamp_mss`]. A global function: the verifier follows its loop once, and not anew for each way that leads here.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_clamp_mss(ctx: *mut xdp_md, ethertype: u32, offset: u32, mtu: u32) -> u32 {
    // SAFETY: as the caller promises.
    let mut packet = unsafe { Packet::of(ctx) };
    clamp(&mut packet, ethertype as u16, offset as usize, mtu as usize).is_some() as u32
}

#[inline(always)]
fn clamp(packet: &mut Packet, ethertype: u16, offset: usize, mtu: usize) -> Option<()> {
    let headers = tcp::LEN + if ethertype == ethertype::IPV4 { ipv4::LEN } else { ipv6::LEN };
    let limit = mtu.checked_sub(headers)? as u16;
    let start = packet.forget::<0xff>(header(packet, ethertype, packet.forget::<0x7f>(offset))?);
    let len = tcp::View(packet.at(start)?).header_len();
    if len < tcp::LEN {
        return None;
    }
    let end = start + len;
    let mut at = start + tcp::LEN;
    for _ in 0..MAX_OPTIONS {
        // SAFETY: the context is the packet's.
        let step = unsafe { xdpchain_tcp_option(packet.as_ptr(), at as u32, end as u32) } as usize;
        if step == 0 {
            break;
        }
        if step & FOUND != 0 {
            return lower(packet, start, packet.forget::<0xff>(step & !FOUND), limit);
        }
        at = step;
    }
    Some(())
}

/// The option at `at` of a TCP header that ends at `end`: where the next one begins, or [`FOUND`] and where the maximum segment size
/// stands, or 0 when there is none. A global function, too.
///
/// # Safety
/// As of [`xdpchain_clamp_mss`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_tcp_option(ctx: *mut xdp_md, at: u32, end: u32) -> u32 {
    // SAFETY: as the caller promises.
    let packet = unsafe { Packet::of(ctx) };
    match tcp::Step::over(&packet, at as usize & 0xff, end as usize & 0xff) {
        tcp::Step::Next(next) => next as u32,
        tcp::Step::Mss(mss) => (mss | FOUND) as u32,
        tcp::Step::End => 0,
    }
}

/// Makes the number at `at`, in the TCP header at `start`, no larger than `limit`.
#[inline(always)]
fn lower(packet: &mut Packet, start: usize, at: usize, limit: u16) -> Option<()> {
    let field: &mut [u8; 2] = packet.at_mut(at)?;
    let mut old = u16::from_be_bytes(*field);
    if old <= limit {
        return Some(());
    }
    *field = limit.to_be_bytes();
    let mut new = limit;
    // The checksum is a sum of words that begin at even octets of the segment.
    if (at - start) & 1 != 0 {
        old = old.swap_bytes();
        new = new.swap_bytes();
    }
    let field: &mut [u8; 2] = packet.at_mut(start + 16)?;
    *field = checksum::update(u16::from_be_bytes(*field), old, new).to_be_bytes();
    Some(())
}
