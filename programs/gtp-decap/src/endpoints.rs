//! Whose addresses are whose: ours, the endpoints, and those of peers that send over IPv6.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use xdpchain_abi::{Endpoint, Endpoint6, Ipv4, Ipv6, Peer6};
use xdpchain_kit::{Packet, Remembered};

use crate::outer::Outer;

/// Addresses of ours that GTP-U packets come to.
#[btf_map(name = "endpoints")]
static ENDPOINTS: HashMap<Ipv4, Endpoint, 64> = HashMap::new();

/// IPv6 addresses of ours that GTP-U packets come to.
#[btf_map(name = "endpoints6")]
static ENDPOINTS6: HashMap<Ipv6, Endpoint6, 64> = HashMap::new();

/// IPv6 addresses of peers.
#[btf_map(name = "peers6")]
static PEERS6: HashMap<Ipv6, Peer6, 4096> = HashMap::new();

/// Endpoints that packets came to.
static FOUND: Remembered<16> = Remembered::new();

/// What a peer is called that has no alias: an address that no peer of a session has.
pub(crate) const UNKNOWN: Ipv4 = Ipv4 { octets: [0xff; 4] };

/// Whether GTP-U packets to `address` are for us.
///
/// Asked of each packet, so the endpoints that were found before are remembered, by the last bits of their addresses. One
/// that is taken out of the map while it is remembered is ours until another takes its place.
#[inline(always)]
pub(crate) fn is_ours(address: Ipv4) -> bool {
    let number = u32::from_ne_bytes(address.octets);
    if FOUND.has(number) {
        return true;
    }
    if ENDPOINTS.get_ptr(address).is_none() {
        return false;
    }
    FOUND.put(number);
    true
}

/// The endpoint that the IPv6 packet at `network` is to, if it is ours.
#[inline(always)]
pub(crate) fn endpoint6(packet: &Packet, network: usize) -> Option<Endpoint6> {
    // SAFETY: the value is copied at once; one that user space replaces meanwhile is read field by field at worst from both.
    unsafe { ENDPOINTS6.get(packet.address6(network + 24)?) }.copied()
}

/// The peer that the IPv6 packet at `network` is from, if it is known.
#[inline(always)]
pub(crate) fn peer6(packet: &Packet, network: usize) -> Option<Peer6> {
    // SAFETY: as in `endpoint6`.
    unsafe { PEERS6.get(packet.address6(network + 8)?) }.copied()
}

/// The flags of the endpoint that a packet is to, of [`endpoint_flags`](xdpchain_abi::endpoint_flags).
#[inline(always)]
pub(crate) fn flags(packet: &Packet, outer: &Outer) -> u32 {
    if outer.is_ipv6(packet) {
        endpoint6(packet, outer.network).map_or(0, |endpoint| endpoint.flags)
    } else {
        // SAFETY: as in `endpoint6`.
        unsafe { ENDPOINTS.get(outer.destination) }.map_or(0, |endpoint| endpoint.flags)
    }
}
