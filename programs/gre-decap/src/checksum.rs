//! The GRE checksum over a whole packet.

use aya_ebpf::helpers::bpf_csum_diff;
use xdpchain_kit::Packet;
use xdpchain_wire::Octets as _;

/// Octets that one call of the kernel's helper sums, a power of 2.
const CHUNK: usize = 64;
/// Chunks of the longest packet that is verified, 10 KiB: more than a jumbo frame.
const CHUNKS: usize = 160;

/// Whether the ones' complement sum over the GRE header at `start` and all that follows until `end` is right
/// (RFC 2784, 2.5). Packets longer than 10 KiB are not.
#[inline(always)]
pub(crate) fn is_right(packet: &Packet, start: usize, end: usize) -> bool {
    sum(packet, start, end).is_some_and(|sum| sum == 0xffff)
}

#[inline(always)]
fn sum(packet: &Packet, start: usize, end: usize) -> Option<u16> {
    let len = end - start;
    // The rest comes first: were it read after the loop, the verifier would follow it anew for each number of chunks.
    let mut at = start + len / CHUNK * CHUNK;
    let mut sum = 0;
    if len & 32 != 0 {
        sum = add::<32>(packet, at, sum)?;
        at += 32;
    }
    if len & 16 != 0 {
        sum = add::<16>(packet, at, sum)?;
        at += 16;
    }
    if len & 8 != 0 {
        sum = add::<8>(packet, at, sum)?;
        at += 8;
    }
    if len & 4 != 0 {
        sum = add::<4>(packet, at, sum)?;
        at += 4;
    }
    // The kernel sums in the machine's order; a ones' complement sum is right in either (RFC 1071, 2 (B)).
    let mut rest = 0;
    if len & 2 != 0 {
        rest += u16::from_ne_bytes(*packet.at(at)?) as u64;
        at += 2;
    }
    if len & 1 != 0 {
        rest += u16::from_ne_bytes([packet.at::<1>(at)?[0], 0]) as u64;
    }
    let chunks = len / CHUNK;
    if chunks > CHUNKS {
        return None;
    }
    for chunk in 0..CHUNKS {
        if chunk == chunks {
            break;
        }
        sum = add::<CHUNK>(packet, start + chunk * CHUNK, sum)?;
    }
    let mut total = sum as u64 + rest;
    for _ in 0..4 {
        total = (total & 0xffff) + (total >> 16);
    }
    Some(total as u16)
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
