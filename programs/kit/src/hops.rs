//! Next hops that the kernel told a short while ago, so that not every packet asks.
//!
//! A route or a neighbour that changes is seen within [`KEPT_TICKS`] ticks of the kernel's clock. Only next hops that packets are
//! sent to are kept, never why one is not: a packet that the kernel has to deal with asks each time.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};

use crate::{Addresses, KEPT_TICKS, route::Route, ticks};

/// Next hops for each CPU; a power of 2.
const HOPS: u32 = 1024;

/// Next hops by the last bits of the destination. Each CPU has its own, so nobody reads what another one is writing.
#[btf_map(name = "next_hops")]
static NEXT_HOPS: PerCpuArray<Hop, { HOPS as usize }> = PerCpuArray::new();

/// A next hop, what it was asked for, and when.
#[repr(C)]
#[derive(Clone, Copy)]
struct Hop {
    source: u32,
    destination: u32,
    ingress: u32,
    tos: u32,
    asked: u64,
    addresses: [u32; 3],
    ifindex: u32,
    /// As in [`NextHop`](crate::NextHop).
    mtu: u32,
    /// Octets of the longest packet that is known to fit.
    fits: u32,
}

/// A next hop as it is kept.
pub(crate) struct Kept {
    pub(crate) addresses: Addresses,
    pub(crate) mtu: u16,
    pub(crate) ifindex: u32,
}

/// The next hop of a packet that takes `route` and came in on `ingress`, when it is known.
#[inline(always)]
pub(crate) fn find(route: &Route, ingress: u32) -> Option<Kept> {
    let hop = NEXT_HOPS.get_ptr(index(route))?;
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other.
    let hop = unsafe { &*hop };
    let known = hop.source == u32::from_ne_bytes(route.source.octets)
        && hop.destination == u32::from_ne_bytes(route.destination.octets)
        && hop.ingress == ingress
        && hop.tos == route.tos as u32
        && route.total_len as u32 <= hop.fits
        && ticks().wrapping_sub(hop.asked) < KEPT_TICKS;
    let kept = Kept { addresses: Addresses(hop.addresses), mtu: hop.mtu as u16, ifindex: hop.ifindex };
    known.then_some(kept)
}

/// Keeps what the kernel told.
#[inline(always)]
pub(crate) fn keep(route: &Route, ingress: u32, kept: &Kept) {
    let Some(hop) = NEXT_HOPS.get_ptr_mut(index(route)) else { return };
    // SAFETY: as in `find`.
    let hop = unsafe { &mut *hop };
    hop.source = u32::from_ne_bytes(route.source.octets);
    hop.destination = u32::from_ne_bytes(route.destination.octets);
    hop.ingress = ingress;
    hop.tos = route.tos as u32;
    hop.asked = ticks();
    hop.addresses = kept.addresses.0;
    hop.ifindex = kept.ifindex;
    hop.mtu = kept.mtu as u32;
    hop.fits = (kept.mtu as u32).max(route.total_len as u32);
}

#[inline(always)]
fn index(route: &Route) -> u32 {
    u32::from_be_bytes(route.destination.octets) & (HOPS - 1)
}
