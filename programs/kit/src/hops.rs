//! Next hops that the kernel told a short while ago, so that not every packet asks.
//!
//! A route or a neighbour that changes is seen within [`KEPT_TICKS`] ticks of the kernel's clock. Only next hops that packets are
//! sent to are kept, never why one is not: a packet that the kernel has to deal with asks each time. Where they are kept is the
//! module's choice: in memory of each CPU's own, so that nobody reads what another one is writing.

use aya_ebpf::bindings::bpf_fib_lookup;

use crate::{Addresses, KEPT_TICKS, Route, is_alias, ticks};

/// Where a next hop is kept: the hop, what it was asked for, and when. All zero it keeps none.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hop {
    source: u32,
    destination: u32,
    ingress: u32,
    /// IP protocol, and what of the TOS octet routing may ask for.
    what: u32,
    asked: u64,
    /// Of packets that the program sends; and of one that the kernel is to send, which is not kept.
    ways: [Way; 2],
    /// Octets of the longest packet that is known to fit.
    fits: u32,
}

/// How a packet leaves.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// As in [`Addresses`].
    pub(crate) addresses: [u32; 3],
    /// The interface that it goes out of; 0 when the kernel is to send it.
    pub(crate) egress: u32,
    /// Octets of the longest packet that fits the way out; 0 when the kernel does not say, as before 5.12 none does.
    pub(crate) mtu: u32,
}

impl Hop {
    /// Whether this is the next hop of a packet that takes `route` and came in on `ingress`, told a short while ago.
    #[inline(always)]
    pub fn is_of(&self, route: &Route, ingress: u32) -> bool {
        self.source == u32::from_ne_bytes(route.source.octets)
            && self.destination == u32::from_ne_bytes(route.destination.octets)
            && self.ingress == ingress
            && self.what == what(route)
            && route.total_len as u32 <= self.fits
            && ticks().wrapping_sub(self.asked) < KEPT_TICKS
    }

    /// The tick of the kernel's clock at which it was told.
    #[inline(always)]
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// The link-layer addresses of packets that the program sends.
    #[inline(always)]
    pub fn addresses(&self) -> Addresses {
        Addresses(self.ways[0].addresses)
    }

    /// The interface that packets go out of.
    #[inline(always)]
    pub fn egress(&self) -> u32 {
        self.ways[0].egress
    }

    /// How a packet leaves, by the lowest bit of a number: 0 when the program sends it.
    #[inline(always)]
    pub(crate) fn way(&self, by_the_kernel: usize) -> &Way {
        &self.ways[by_the_kernel & 1]
    }

    /// Octets of the longest packet that is known to fit.
    #[inline(always)]
    pub fn fits(&self) -> u32 {
        self.fits
    }

    /// Keeps what the kernel told in `fib` of packets that take `route`, with the MTU that it told or the length of the packet.
    #[inline(always)]
    pub(crate) fn keep(&mut self, route: &Route, ingress: u32, fib: &bpf_fib_lookup, mtu: u16) {
        // Volatile, in the halves that both are aligned for: the verifier allows no others on the stack.
        let half = |octets: &[u8; 6], i: usize| {
            // SAFETY: within the octets, which the struct has at an even offset.
            unsafe { octets.as_ptr().cast::<u16>().add(i).read_volatile() as u32 }
        };
        let (d, s) = (&fib.dmac, &fib.smac);
        // Joined in the machine's order, which is little-endian for this target.
        let word = |low: u32, high: u32| high << 16 | low;
        let addresses =
            [word(half(d, 0), half(d, 1)), word(half(d, 2), half(s, 0)), word(half(s, 1), half(s, 2))];
        // A kernel that does not say leaves the length; a packet that just fits is taken for such a one.
        let mtu = if mtu == route.total_len { 0 } else { mtu as u32 };
        self.ways[0] = Way { addresses, egress: fib.ifindex, mtu };
        self.fits = mtu.max(route.total_len as u32);
        self.source = u32::from_ne_bytes(route.source.octets);
        self.destination = u32::from_ne_bytes(route.destination.octets);
        self.ingress = ingress;
        self.what = what(route);
        self.asked = ticks();
    }

    /// Has the addresses of a packet that the kernel is to send, and an MTU, for this packet alone; what is kept stays.
    #[inline(always)]
    pub(crate) fn lend(&mut self, addresses: Addresses, mtu: u16) {
        self.ways[1] = Way { addresses: addresses.0, egress: 0, mtu: mtu as u32 };
    }
}

/// What else than addresses rules of routing may ask for.
#[inline(always)]
fn what(route: &Route) -> u32 {
    // Of IPv4 the DSCP; of IPv6 kernels before 5.18 ask for the whole traffic class.
    let asked = if is_alias(route.destination) { 0xff } else { 0xfc };
    (route.protocol as u32) << 8 | (route.tos & asked) as u32
}
