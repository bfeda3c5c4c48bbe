//! The Internet checksum over what follows a header, however long it is.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_csum_diff};
use xdpchain_wire::{Octets as _, checksum::Sum, protocol};

use crate::Packet;

/// Octets that one call of the kernel's helper sums: the most that kernels before 6.13 take.
const CHUNK: usize = 512;
/// Chunks of the longest sum.
const CHUNKS: usize = 20;
/// Octets of the longest packet that is summed: more than a jumbo frame.
pub const MAX_SUMMED: usize = CHUNK * CHUNKS;

/// The ones' complement sum over the octets from `start` to `end`; `0xffff` when they contain a right checksum. `None` when
/// they are more than [`MAX_SUMMED`], or do not lie within the packet.
#[inline(always)]
pub fn sum(packet: &Packet, start: usize, end: usize) -> Option<u16> {
    let len = end - start;
    let chunks = len / CHUNK;
    if chunks > CHUNKS {
        return None;
    }
    let mut sum = 0;
    for chunk in 0..CHUNKS {
        if chunk == chunks {
            break;
        }
        sum = add::<CHUNK>(packet, start + chunk * CHUNK, sum)?;
    }
    let mut at = packet.forget::<0x3fff>(start + chunks * CHUNK);
    macro_rules! rest {
        ($($octets:literal)+) => {
            $(if len & $octets != 0 {
                sum = add::<$octets>(packet, at, sum)?;
                at += $octets;
            }
            at = packet.forget::<0x3fff>(at);)+
        };
    }
    rest!(256 128 64 32 16 8 4);
    let mut total = sum as u64;
    if len & 2 != 0 {
        total += u16::from_ne_bytes(*packet.at(at)?) as u64;
        at += 2;
    }
    at = packet.forget::<0x3fff>(at);
    if len & 1 != 0 {
        total += u16::from_ne_bytes([packet.at::<1>(at)?[0], 0]) as u64;
    }
    for _ in 0..4 {
        total = (total & 0xffff) + (total >> 16);
    }
    // The kernel sums in the machine's order; a ones' complement sum is right in either (RFC 1071, 2 (B)).
    Some(u16::from_be(total as u16))
}

/// The sum over the 512 octets at `start`.
#[inline(always)]
pub(crate) fn sum_512(packet: &Packet, start: usize) -> Option<u16> {
    let mut total = add::<CHUNK>(packet, start, 0)? as u64;
    for _ in 0..3 {
        total = (total & 0xffff) + (total >> 16);
    }
    Some(u16::from_be(total as u16))
}

/// The sum over the UDP datagram from `transport` to `end` and its pseudo-header, made of the IP header at `network`:
/// `0xffff` when the datagram's checksum is right. `None` as for [`sum`].
#[inline(always)]
pub fn udp_sum(packet: &Packet, network: usize, transport: usize, end: usize) -> Option<u16> {
    // SAFETY: the context is the packet's, whose octets are only read.
    let sum = unsafe { xdpchain_udp_sum(packet.as_ptr(), network as u32, transport as u32, end as u32) };
    u16::try_from(sum).ok()
}

/// As [`udp_sum`], and [`u32::MAX`] for `None`. A global function: the verifier follows its loop once, and not anew for each way
/// that leads here.
///
/// # Safety
/// As for [`Packet::of`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn xdpchain_udp_sum(ctx: *mut xdp_md, network: u32, transport: u32, end: u32) -> u32 {
    // SAFETY: as the caller promises.
    let packet = unsafe { Packet::of(ctx) };
    // The end may be further away than packets that are summed go, as `sum` finds.
    let end = end as usize & 0x1ffff;
    find_udp_sum(&packet, network as usize & 0x3fff, transport as usize & 0x3fff, end)
        .map_or(u32::MAX, u32::from)
}

#[inline(always)]
fn find_udp_sum(packet: &Packet, network: usize, transport: usize, end: usize) -> Option<u16> {
    let sum = Sum::new()
        .word(sum(packet, transport, end)?)
        .word(protocol::UDP as u16)
        .word((end - transport) as u16);
    let sum = if packet.at::<1>(network)?[0] & 0x20 == 0 {
        sum.array::<8>(packet.at(network + 12)?)
    } else {
        sum.array::<32>(packet.at(network + 8)?)
    };
    Some(sum.folded())
}

/// Adds the `N` octets at `offset` to a sum; `N` is a multiple of 4.
#[inline(always)]
fn add<const N: usize>(packet: &Packet, offset: usize, sum: u32) -> Option<u32> {
    let octets: &[u8; N] = packet.at(offset)?;
    // SAFETY: nothing is taken away from the sum, and the added octets are valid for reading.
    let sum =
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, octets.as_ptr().cast_mut().cast(), N as u32, sum) };
    // Negative only for a length that is no multiple of 4.
    u32::try_from(sum).ok()
}
