//! The GRE checksum over a whole packet.

use aya_ebpf::helpers::bpf_csum_diff;
use xdpchain_kit::Packet;
use xdpchain_wire::Octets as _;

/// Octets that one call of the kernel's helper sums: the most that kernels before 6.13 take.
const CHUNK: usize = 512;
/// Chunks of the longest packet that is verified, 10 KiB: more than a jumbo frame.
const CHUNKS: usize = 20;

/// Whether the ones' complement sum over the GRE header at `start` and all that follows until `end` is right
/// (RFC 2784, 2.5). Packets longer than 10 KiB are not.
#[inline(always)]
pub(crate) fn is_right(packet: &Packet, start: usize, end: usize) -> bool {
    sum(packet, start, end).is_some_and(|sum| sum == 0xffff)
}

#[inline(always)]
fn sum(packet: &Packet, start: usize, end: usize) -> Option<u16> {
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
    // The kernel sums in the machine's order; a ones' complement sum is right in either (RFC 1071, 2 (B)).
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
