//! Choices that keep the packets of one flow together.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use xdpchain_abi::CUSTOMER_TUNNELS;
use xdpchain_wire::{Octets, ethernet::ethertype, flow::symmetric_hash, ipv4};

use crate::{Inner, sign};

/// Bits of a tunnel's place among a customer's.
const PLACE_BITS: u32 = CUSTOMER_TUNNELS.ilog2();
const _: () = assert!(CUSTOMER_TUNNELS.is_power_of_two());

/// A number that both directions of the inner packet's flow share; 0 for a packet whose flow cannot be told.
#[inline(always)]
pub fn entropy<O: Octets + ?Sized>(packet: &O, inner: &Inner) -> u32 {
    symmetric_hash(packet, inner.ethertype, inner.offset).unwrap_or(0)
}

/// An identification, not 0, for an outer packet that may be fragmented around `inner`, whose flow has this `entropy`.
///
/// An IPv4 flow numbers its packets already, so that none of it meets another one again soon (RFC 6864, 5.3); flows that
/// number alike are told apart by the entropy.
#[inline(always)]
pub fn fragment_id<O: Octets + ?Sized>(packet: &O, inner: &Inner, entropy: u32) -> u16 {
    let id = match packet.at(inner.offset) {
        Some(header) if inner.ethertype == ethertype::IPV4 => {
            ipv4::View(header).id().wrapping_add(entropy as u16)
        }
        // SAFETY: takes nothing.
        _ => unsafe { bpf_get_prandom_u32() as u16 },
    };
    id.max(1)
}

/// Which of the first `count` tunnels with these numbers, which are not none, a flow of this `hash` takes: the one that scores
/// highest with it (rendezvous hashing), so that only a tunnel's own flows move when it goes away. Different numbers never score alike;
/// of equal ones it is the last.
#[inline(always)]
pub fn choose(numbers: &[u32; CUSTOMER_TUNNELS], count: u32, hash: u32) -> usize {
    // Each score with the tunnel's place below it.
    let ranked = |i: usize| (score(hash, numbers[i]) as u64) << PLACE_BITS | i as u64;
    let mut best = ranked(0);
    for i in 1..CUSTOMER_TUNNELS {
        if i as u32 >= count {
            break;
        }
        let other = ranked(i);
        best ^= (best ^ other) & sign(best.wrapping_sub(other) as i64);
    }
    best as usize & (CUSTOMER_TUNNELS - 1)
}

/// Spreads (hash, tunnel) evenly; the finalizer of MurmurHash3 over their combination.
#[inline(always)]
fn score(hash: u32, tunnel: u32) -> u32 {
    let mut x = hash ^ tunnel.wrapping_mul(0x9e37_79b1);
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_evenly() {
        let mut shares = [0; CUSTOMER_TUNNELS];
        for flow in 0..40_000u32 {
            shares[choose(&[1, 2, 3, 4], 4, flow.wrapping_mul(0x0100_0193))] += 1;
        }
        for share in shares {
            assert!((9_000..11_000).contains(&share), "{share}");
        }
    }

    #[test]
    fn when_a_tunnel_goes_away_only_its_flows_move() {
        let (before, after) = ([1, 2, 3, 4], [1, 2, 4, 0]);
        for flow in 0..10_000u32 {
            let hash = flow.wrapping_mul(0x9e37_79b1);
            let tunnel = before[choose(&before, 4, hash)];
            if tunnel != 3 {
                assert_eq!(after[choose(&after, 3, hash)], tunnel);
            }
        }
    }

    #[test]
    fn of_equal_numbers_the_last_is_chosen() {
        for hash in 0..1000 {
            assert_eq!(choose(&[5, 5, 5, 5], 3, hash), 2);
        }
    }

    #[test]
    fn only_tunnels_in_use_are_chosen() {
        for hash in 0..1000 {
            assert_eq!(choose(&[9, 8, 7, 6], 1, hash), 0);
            assert!(choose(&[9, 8, 7, 6], u32::MAX, hash) < CUSTOMER_TUNNELS);
        }
    }
}
