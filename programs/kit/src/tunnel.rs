//! Choices that keep the packets of one flow together.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use xdpchain_abi::{CUSTOMER_TUNNELS, Customer};
use xdpchain_wire::{Octets, ethernet::ethertype, flow::symmetric_hash, ipv4};

use crate::Inner;

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

/// The tunnel that `customer`'s flow of this `hash` takes: the one that scores highest with it (rendezvous hashing), so
/// that only a tunnel's own flows move when it goes away. `None` when the customer has no tunnel.
#[inline(always)]
pub fn choose(customer: &Customer, hash: u32) -> Option<u32> {
    if customer.count == 0 {
        return None;
    }
    let mut best = customer.tunnels[0];
    let mut best_score = score(hash, best);
    for i in 1..CUSTOMER_TUNNELS {
        let tunnel = customer.tunnels[i];
        let score = score(hash, tunnel);
        if (i as u32) < customer.count && score > best_score {
            best = tunnel;
            best_score = score;
        }
    }
    Some(best)
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

    fn shares(customer: &Customer) -> [u32; CUSTOMER_TUNNELS] {
        let mut shares = [0; CUSTOMER_TUNNELS];
        for flow in 0..40_000u32 {
            let tunnel = choose(customer, flow.wrapping_mul(0x0100_0193)).unwrap();
            shares[customer.tunnels.iter().position(|t| *t == tunnel).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn flows_spread_evenly() {
        for share in shares(&Customer { tunnels: [1, 2, 3, 4], count: 4 }) {
            assert!((9_000..11_000).contains(&share), "{share}");
        }
    }

    #[test]
    fn when_a_tunnel_goes_away_only_its_flows_move() {
        let before = Customer { tunnels: [1, 2, 3, 4], count: 4 };
        let after = Customer { tunnels: [1, 2, 4, 0], count: 3 };
        for flow in 0..10_000u32 {
            let hash = flow.wrapping_mul(0x9e37_79b1);
            let tunnel = choose(&before, hash).unwrap();
            if tunnel != 3 {
                assert_eq!(choose(&after, hash), Some(tunnel));
            }
        }
    }

    #[test]
    fn a_customer_without_tunnels_has_no_way_out() {
        assert_eq!(choose(&Customer::default(), 7), None);
        assert!(choose(&Customer { tunnels: [9, 0, 0, 0], count: u32::MAX }, 7).is_some());
    }
}
