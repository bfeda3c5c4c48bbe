//! Next hops that the kernel told a short while ago, so that not every packet asks.
//!
//! A route or a neighbour that changes is seen within [`KEPT_TICKS`] ticks of the kernel's clock. Only next hops that packets are
//! sent to are kept, never why one is not: a packet that the kernel has to deal with asks each time. Where they are kept is the
//! module's choice: in memory of each CPU's own, so that nobody reads what another one is writing.

use crate::{KEPT_TICKS, NextHop, Route, ticks};

/// Where a next hop is kept: the hop, what it was asked for, and when. All zero it keeps none.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hop {
    source: u32,
    destination: u32,
    ingress: u32,
    /// IP protocol and TOS octet.
    what: u32,
    asked: u64,
    pub(crate) addresses: [u32; 3],
    pub(crate) ifindex: u32,
    /// As in [`NextHop`].
    pub(crate) mtu: u32,
    /// Octets of the longest packet that is known to fit.
    fits: u32,
}

impl Hop {
    /// Whether this is the next hop of a packet that takes `route` and came in on `ingress`, told a short while ago.
    #[inline(always)]
    pub(crate) fn is_of(&self, route: &Route, ingress: u32) -> bool {
        self.source == u32::from_ne_bytes(route.source.octets)
            && self.destination == u32::from_ne_bytes(route.destination.octets)
            && self.ingress == ingress
            && self.what == what(route)
            && route.total_len as u32 <= self.fits
            && ticks().wrapping_sub(self.asked) < KEPT_TICKS
    }

    /// Keeps what the kernel told.
    #[inline(always)]
    pub(crate) fn keep(&mut self, route: &Route, ingress: u32, told: &NextHop) {
        self.source = u32::from_ne_bytes(route.source.octets);
        self.destination = u32::from_ne_bytes(route.destination.octets);
        self.ingress = ingress;
        self.what = what(route);
        self.asked = ticks();
        self.addresses = told.addresses.0;
        self.ifindex = told.ifindex;
        self.mtu = told.mtu as u32;
        self.fits = (told.mtu as u32).max(route.total_len as u32);
    }
}

/// What else than addresses rules of routing may ask for.
#[inline(always)]
fn what(route: &Route) -> u32 {
    (route.protocol as u32) << 8 | route.tos as u32
}
