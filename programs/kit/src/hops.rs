//! Next hops that the kernel told a short while ago, so that not every packet asks.
//!
//! A route or a neighbour that changes is seen within [`KEPT_TICKS`] ticks of the kernel's clock. Only next hops that packets are
//! sent to are kept, never why one is not: a packet that the kernel has to deal with asks each time. Where they are kept is the
//! module's choice: in memory of each CPU's own, so that nobody reads what another one is writing.

use crate::{Addresses, KEPT_TICKS, route::Route, ticks};

/// Where a next hop is kept: the hop, what it was asked for, and when. All zero it keeps none.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hop {
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

impl Hop {
    /// The next hop of a packet that takes `route` and came in on `ingress`, when it is the one that is kept.
    #[inline(always)]
    pub(crate) fn find(&self, route: &Route, ingress: u32) -> Option<Kept> {
        let known = self.source == u32::from_ne_bytes(route.source.octets)
            && self.destination == u32::from_ne_bytes(route.destination.octets)
            && self.ingress == ingress
            && self.tos == route.tos as u32
            && route.total_len as u32 <= self.fits
            && ticks().wrapping_sub(self.asked) < KEPT_TICKS;
        let kept = Kept { addresses: Addresses(self.addresses), mtu: self.mtu as u16, ifindex: self.ifindex };
        known.then_some(kept)
    }

    /// Keeps what the kernel told.
    #[inline(always)]
    pub(crate) fn keep(&mut self, route: &Route, ingress: u32, kept: &Kept) {
        self.source = u32::from_ne_bytes(route.source.octets);
        self.destination = u32::from_ne_bytes(route.destination.octets);
        self.ingress = ingress;
        self.tos = route.tos as u32;
        self.asked = ticks();
        self.addresses = kept.addresses.0;
        self.ifindex = kept.ifindex;
        self.mtu = kept.mtu as u32;
        self.fits = (kept.mtu as u32).max(route.total_len as u32);
    }
}
